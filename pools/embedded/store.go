// Package embedded keeps blocks in a local file: the store of a single host,
// where no cluster is.
package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairway-network/fairway/internal/lockfile"
	"github.com/fairway-network/fairway/pools"
	"go.etcd.io/bbolt"
)

// bucket maps a block's prefix, as text, to "POOL NODE CREATED", CREATED being
// a Unix time in nanoseconds: short to read, because an agent reads all of its
// blocks before it serves. " -MACHINE -LENDER" follows where there is one of
// them.
const bucket = "blocks"

// Store is the blocks of one node in one file. It is safe for concurrent use;
// of two claims of one cell one wins.
type Store struct {
	node  string
	db    *bbolt.DB
	lock  *lockfile.Lock
	now   func() time.Time
	taken []pools.Block

	changing sync.Mutex // one change at a time; it guards broken
	// broken is the damage that a change met. bbolt may have left its locks
	// taken then, so that a further change, or closing it, would never end.
	broken error
}

// Open opens the file at path, made if it is missing, for node. The file is its
// host's: blocks in it that carry another name are the host's from before it
// was renamed, whose leases may stand, and become node's: see TakenOver.
//
// The error wraps lockfile.ErrHeld when another process holds the file. A
// damaged file is refused and left as it is.
func Open(path, node string) (_ *Store, err error) {
	lock, err := lockfile.Acquire(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("block store: %w", err)
	}
	s := &Store{node: node, lock: lock, now: time.Now}
	if s.db, err = open(path); err == nil {
		if err = guard(s.takeOver); err != nil && !errors.Is(err, errDamaged) {
			err = errors.Join(err, s.db.Close())
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("block store %s: %w", path, advised(err)), lock.Close())
	}
	return s, nil
}

func open(path string) (db *bbolt.DB, err error) {
	if err := verify(path); err != nil {
		return nil, err
	}
	var file *os.File
	options := &bbolt.Options{Timeout: time.Second, OpenFile: func(name string, flag int, perm os.FileMode) (_ *os.File, err error) {
		file, err = os.OpenFile(name, flag, perm)
		return file, err
	}}
	err = guard(func() error {
		db, err = bbolt.Open(path, 0o600, options)
		return err
	})
	if errors.Is(err, errDamaged) {
		_ = file.Close() // bbolt panicked and did not
	}
	return db, err
}

// advised says what to do about a damaged file.
func advised(err error) error {
	if errors.Is(err, errDamaged) {
		return fmt.Errorf("%w: remove it; blocks with leases are claimed anew from the lease journal", err)
	}
	return err
}

// guard makes errors of the panics and memory faults that bbolt answers a
// damaged file or a failing disk with. They wrap errDamaged.
func guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damaged("%v", p)
		}
	}()
	return do()
}

// guarded tells the file's name with a failure that the file is to blame for.
func (s *Store) guarded(do func() error) error {
	err := guard(do)
	if errors.Is(err, errDamaged) {
		return fmt.Errorf("block store %s: %w", s.db.Path(), advised(err))
	}
	return err
}

// takeOver gives all blocks this node's name, and makes the bucket if it is
// missing. It writes only if it must: each commit waits for the disk twice.
func (s *Store) takeOver() error {
	missing := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		if missing = tx.Bucket([]byte(bucket)) == nil; missing {
			return nil
		}
		return tx.Bucket([]byte(bucket)).ForEach(s.noteOther)
	})
	if err != nil || !missing && len(s.taken) == 0 {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists([]byte(bucket)); err != nil {
			return err
		}
		for _, b := range s.taken {
			b.Node = s.node
			if err := put(tx, b); err != nil {
				return err
			}
		}
		return nil
	})
}

// noteOther notes a block of another name.
func (s *Store) noteOther(k, v []byte) error {
	_, rest, _ := bytes.Cut(v, []byte{' '})
	if name, _, _ := bytes.Cut(rest, []byte{' '}); string(name) == s.node {
		return nil
	}
	b, err := decode(k, v)
	s.taken = append(s.taken, b)
	return err
}

// TakenOver are the blocks, as they were, that Open found under another name
// of this host and made this node's.
func (s *Store) TakenOver() []pools.Block { return s.taken }

// Close closes the file.
func (s *Store) Close() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.broken != nil {
		return s.lock.Close()
	}
	return errors.Join(s.db.Close(), s.lock.Close())
}

func (s *Store) update(change func(*bbolt.Tx) error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.broken != nil {
		return s.broken
	}
	err := s.guarded(func() error { return s.db.Update(change) })
	if errors.Is(err, errDamaged) {
		s.broken = err
	}
	return err
}

func blocks(tx *bbolt.Tx) ([]pools.Block, error) {
	all := tx.Bucket([]byte(bucket))
	out := make([]pools.Block, 0, all.Stats().KeyN)
	err := all.ForEach(func(k, v []byte) error {
		b, err := decode(k, v)
		out = append(out, b)
		return err
	})
	return out, err
}

func decode(k, v []byte) (pools.Block, error) {
	prefix, err := pools.ParsePrefix(string(k))
	if err != nil {
		return pools.Block{}, damaged("block %q: %v", k, err)
	}
	fields := strings.Fields(string(v))
	if len(fields) != 3 && len(fields) != 5 {
		return pools.Block{}, damaged("block %s: %q", prefix, v)
	}
	created, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return pools.Block{}, damaged("block %s: %v", prefix, err)
	}
	b := pools.Block{Prefix: prefix, Pool: fields[0], Node: fields[1], Created: time.Unix(0, created).UTC()}
	if len(fields) == 5 {
		b.Machine, b.Lender = unword(fields[3]), unword(fields[4])
	}
	return b, nil
}

// word keeps a string that may be empty, and unword takes it out again.
func word(s string) string   { return "-" + s }
func unword(s string) string { return strings.TrimPrefix(s, "-") }

func put(tx *bbolt.Tx, b pools.Block) error {
	v := fmt.Appendf(nil, "%s %s %d", b.Pool, b.Node, b.Created.UnixNano())
	if b.Machine != "" || b.Lender != "" {
		v = fmt.Appendf(v, " %s %s", word(b.Machine), word(b.Lender))
	}
	return tx.Bucket([]byte(bucket)).Put([]byte(b.Prefix.String()), v)
}
