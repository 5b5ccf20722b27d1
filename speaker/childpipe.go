package speaker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// The file descriptors on which a child finds its parent.
const (
	inFD  = 3 + iota // to read from
	outFD            // to write to
)

// duplex is one end of two pipes. A socket pair would do as well, but who reads from that
// wakes who has written, to say that there is room: between the request and the router.
type duplex struct{ in, out *os.File }

// newDuplex gives this process's end, and has cmd, which is not started yet, get the other one.
// started closes what this process has of that, and is to be called in any case.
func newDuplex(cmd *exec.Cmd) (ours *duplex, started func(), err error) {
	theirIn, out, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	in, theirOut, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, theirIn.Close(), out.Close())
	}
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	return &duplex{in: in, out: out}, func() {
		_ = theirIn.Close()
		_ = theirOut.Close()
	}, nil
}

// parentsDuplex is the end of a child.
func parentsDuplex() (*duplex, error) {
	for _, fd := range []int{inFD, outFD} {
		var is syscall.Stat_t
		if err := syscall.Fstat(fd, &is); err != nil || is.Mode&syscall.S_IFMT != syscall.S_IFIFO {
			return nil, fmt.Errorf("file descriptor %d is no pipe (%v): this command is started by the agent of the same release, not by hand", fd, err)
		}
		if err := syscall.SetNonblock(fd, true); err != nil { // so that Close ends a Read
			return nil, fmt.Errorf("file descriptor %d: %w", fd, err)
		}
	}
	return &duplex{in: os.NewFile(inFD, "parent"), out: os.NewFile(outFD, "parent")}, nil
}

func (d *duplex) Read(b []byte) (int, error)         { return d.in.Read(b) }
func (d *duplex) Write(b []byte) (int, error)        { return d.out.Write(b) }
func (d *duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }

// SyscallConn is for writing.
func (d *duplex) SyscallConn() (syscall.RawConn, error) { return d.out.SyscallConn() }

// Close ends what waits in Read and Write.
func (d *duplex) Close() error { return errors.Join(d.in.Close(), d.out.Close()) }
