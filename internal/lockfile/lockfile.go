// Package lockfile makes a process the only one of its kind.
package lockfile

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrHeld: another process holds the lock.
var ErrHeld = errors.New("already in use")

// Lock is held until Close or the end of the process, however it ends.
type Lock struct{ file *os.File }

// Acquire takes the lock on the file at path, made if it is missing, and
// writes this process's ID into it. It does not wait: if another process holds
// the lock, the error wraps ErrHeld and names that process's ID.
func Acquire(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, fmt.Errorf("%s: %w by the process with ID %s: stop it first", path, ErrHeld, holder(path))
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, errors.Join(err, f.Close()))
	}
	return &Lock{f}, nil
}

func writePID(f *os.File) error {
	_, err := f.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	return err
}

func holder(path string) string {
	pid, err := os.ReadFile(path)
	if err != nil || len(pid) == 0 {
		return "(unknown)"
	}
	return strings.TrimSpace(string(pid))
}

// Close gives the lock up. The file stays: removing it would let two
// processes lock two files of one name.
func (l *Lock) Close() error { return l.file.Close() }
