// Package lockfile makes a process the only one of its kind.
package lockfile

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld: another process holds the lock.
var ErrHeld = errors.New("already in use")

// Lock is held until Close or the end of the process, however it ends.
type Lock struct{ file *os.File }

// handover is how long a lock may be held on behalf of a process that is gone:
// one that was killed while it started another leaves its lock to that one
// until its exec.
const handover = time.Second

// Acquire takes the lock on the file at path, made if it is missing, and
// writes this process's ID into it. It does not wait for a living process: if
// one holds the lock, the error wraps ErrHeld and names that process's ID.
func Acquire(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := take(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, errors.Join(err, f.Close()))
	}
	return &Lock{f}, nil
}

func take(f *os.File) error {
	for patience := handover; ; patience -= handover / 100 {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		pid := holder(f)
		if patience <= 0 || pid == 0 || unix.Kill(pid, 0) == nil {
			return fmt.Errorf("%w by the process with ID %d: stop it first", ErrHeld, pid)
		}
		time.Sleep(handover / 100)
	}
}

func writePID(f *os.File) error {
	_, err := f.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	return err
}

// holder is the ID that the lock's holder wrote, 0 if it has not yet.
func holder(f *os.File) int {
	b := make([]byte, 32)
	n, _ := f.ReadAt(b, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return 0
	}
	return pid
}

// Close gives the lock up. The file stays: removing it would let two
// processes lock two files of one name.
func (l *Lock) Close() error { return l.file.Close() }
