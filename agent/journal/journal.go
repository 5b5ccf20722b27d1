// Package journal keeps the records of a node's leases and blocks on a file
// that outlives the agent and not the node's boot, which is how long sandboxes live. It
// belongs on a tmpfs such as /run; the boot ID in its first line makes it
// good on any file system.
//
// Each line is a CRC-32C in eight hex digits, a space, and one JSON object;
// the first line is a header, every other one a record. A line that was
// written whole ends with a newline: what follows the last newline was never
// acknowledged and is dropped, and any other damage is an error. Nothing is
// synced to a disk, because a journal is not read after a reboot.
package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/fairway-network/fairway/pools"
)

// maxSize bounds what Open reads: a million leases take about a quarter.
const maxSize = 1 << 30

// ErrBroken: a failed append could not be undone. Rewrite mends it.
var ErrBroken = errors.New("an earlier record could not be taken back")

// ErrCorrupt: the file is damaged in a way that a crash can't have caused.
var ErrCorrupt = errors.New("corrupt lease journal")

// Journal is an open journal. It is not safe for concurrent use.
type Journal struct {
	path string
	boot string
	file *os.File
	// version of the file, and where its records begin.
	version int
	body    int64
	size    int64
	// broken is set when a failed append could not be undone: the file may
	// then end in half a record, and nothing may be written behind it.
	broken error
	line   []byte // the last one written: room for the next
}

// Opened is what Open found.
type Opened struct {
	Records []pools.Record
	Torn    int  // bytes of a last record that was not written whole, dropped
	Stale   bool // there was a journal of an earlier boot, discarded
}

// Open reads the journal at path and makes it ready for appending. boot is
// the kernel's boot ID; a journal of another boot counts as empty, for its
// sandboxes are gone. The error wraps ErrCorrupt for a damaged file, which is
// left as it is.
func Open(path, boot string) (*Journal, Opened, error) {
	data, err := read(path)
	if err != nil {
		return nil, Opened{}, fmt.Errorf("lease journal %s: %w", path, err)
	}
	found, err := decode(data, boot)
	if err != nil {
		return nil, Opened{}, fmt.Errorf("%w %s: %w: it can't be known which addresses are leased; drain the node (or reboot it), remove the file and start again", ErrCorrupt, path, err)
	}
	j := &Journal{path: path, boot: boot}
	if found.whole == 0 {
		return j, found.Opened, j.Rewrite(nil)
	}
	if j.file, err = os.OpenFile(path, os.O_RDWR, 0o600); err != nil {
		return nil, Opened{}, fmt.Errorf("lease journal: %w", err)
	}
	j.version, j.body, j.size = found.version, found.body, found.whole
	if err := j.undo(); err != nil {
		return nil, Opened{}, fmt.Errorf("lease journal %s: cut off a torn record: %w", path, errors.Join(err, j.file.Close()))
	}
	return j, found.Opened, nil
}

func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Size() > maxSize:
		return nil, fmt.Errorf("%w: %d bytes, more than the %d that a journal can have", ErrCorrupt, info.Size(), maxSize)
	}
	return os.ReadFile(path)
}

// Append keeps one record. With an error nothing was kept; one that could not
// be read again is refused.
func (j *Journal) Append(rec pools.Record) error {
	if err := check(&rec); err != nil {
		return fmt.Errorf("lease journal %s: this can't be a record: %w", j.path, err)
	}
	if j.broken != nil {
		return fmt.Errorf("lease journal %s: %w: %w", j.path, ErrBroken, j.broken)
	}
	if version := roomFor(&rec); j.version < version {
		if err := j.raise(version); err != nil {
			return fmt.Errorf("lease journal %s: make it one of version %d: %w", j.path, version, err)
		}
	}
	j.line = appendRecord(j.line[:0], rec)
	return j.append(j.line)
}

// raise gives the file, as it is, the header of a higher version, which an
// agent that does not know it refuses. The file must not be broken.
func (j *Journal) raise(version int) error {
	data := appendHeader(nil, version, j.boot)
	body := len(data)
	data = append(data, make([]byte, j.size-j.body)...)
	if _, err := j.file.ReadAt(data[body:], j.body); err != nil {
		return err
	}
	return j.become(data, version, body)
}

func (j *Journal) append(line []byte) error {
	n, err := j.file.WriteAt(line, j.size)
	if err == nil {
		j.size += int64(n)
		return nil
	}
	// Not the file's own name: a rewritten one still has that of its making.
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	err = fmt.Errorf("lease journal %s: %w: see to the file system", j.path, err)
	if undo := j.undo(); undo != nil {
		j.broken = undo
		return errors.Join(err, undo)
	}
	return err
}

// undo cuts the file back to its last whole record.
func (j *Journal) undo() error { return j.file.Truncate(j.size) }

// Rewrite replaces the whole journal by records, in one step. With an error
// the old one stands.
func (j *Journal) Rewrite(records []pools.Record) error {
	data, body, err := encode(records, j.boot)
	if err != nil {
		return fmt.Errorf("lease journal %s: rewrite: %w", j.path, err)
	}
	if err := j.become(data, versionOf(records), body); err != nil {
		return fmt.Errorf("lease journal: rewrite: %w", err)
	}
	return nil
}

// become makes data, of which body bytes are the header, the journal.
func (j *Journal) become(data []byte, version, body int) error {
	file, err := replace(j.path, data)
	if err != nil {
		return err
	}
	if j.file != nil {
		// Nothing is lost with it: the file has no name any more.
		_ = j.file.Close()
	}
	j.file, j.version, j.body, j.size, j.broken = file, version, int64(body), int64(len(data)), nil
	return nil
}

// replace puts data at path by a rename and returns the open file.
func replace(path string, data []byte) (_ *os.File, err error) {
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if _, err = f.Write(data); err != nil {
		return nil, err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return nil, err
	}
	return f, nil
}

// Size is the length of the file in bytes.
func (j *Journal) Size() int64 { return j.size }

// Close closes the file.
func (j *Journal) Close() error { return j.file.Close() }
