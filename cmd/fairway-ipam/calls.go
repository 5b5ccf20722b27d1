package main

import (
	"syscall"
	"unsafe"

	"github.com/fairway-network/fairway/agent/wire"
)

// readAll reads to the end of fd, at most wire.MaxRequest bytes.
func readAll(fd int) ([]byte, *wire.Fault) {
	b, err := read(fd, wire.MaxRequest, 0)
	switch err {
	case 0:
		return b, nil
	case syscall.EMSGSIZE:
		return nil, tooLarge()
	}
	return nil, &wire.Fault{
		Code:    wire.IOFailure,
		Msg:     "cannot read the network configuration from standard input: " + err.Error(),
		Details: "a container runtime gives it to a CNI plugin on its standard input",
	}
}

// receive reads the answer, for twice timeout (in milliseconds) at most.
func receive(fd int, timeout int64) ([]byte, syscall.Errno) {
	return read(fd, wire.MaxAnswer, now()+timeout)
}

// read reads until the end of fd. EMSGSIZE stands for more than limit bytes,
// EAGAIN for data that still trickles in after deadline, on the clock of now;
// 0 is none.
func read(fd, limit int, deadline int64) ([]byte, syscall.Errno) {
	b := make([]byte, 0, 8<<10)
	for {
		n, err := syscall.Read(fd, b[len(b):cap(b)])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return nil, err.(syscall.Errno)
		case n == 0:
			return b, 0
		}
		if b = b[:len(b)+n]; len(b) > limit {
			return nil, syscall.EMSGSIZE
		}
		if deadline != 0 && now() > deadline {
			return nil, syscall.EAGAIN
		}
		if len(b) == cap(b) {
			b = append(make([]byte, 0, 4*cap(b)), b...)
		}
	}
}

// writeAll says whether all of b was written.
func writeAll(fd int, b []byte) bool {
	for len(b) > 0 {
		n, err := syscall.Write(fd, b)
		if err != nil && err != syscall.EINTR {
			return false
		}
		if n > 0 {
			b = b[n:]
		}
	}
	return true
}

// dial connects to the unix socket at path. No call on it takes longer than
// timeout, in milliseconds.
func dial(path string, timeout int64) (int, syscall.Errno) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err.(syscall.Errno)
	}
	tv := syscall.NsecToTimeval(timeout * 1e6)
	for _, option := range [...]int{syscall.SO_SNDTIMEO, syscall.SO_RCVTIMEO} {
		if err == nil {
			err = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, option, &tv)
		}
	}
	if err == nil {
		err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
	}
	if err == nil {
		return fd, 0
	}
	closeFile(fd)
	if err == syscall.EINTR {
		// A signal ended the wait for a place in the agent's queue.
		return -1, syscall.ECONNREFUSED
	}
	return -1, err.(syscall.Errno)
}

// send writes all of b and says that this was all.
func send(fd int, b []byte) syscall.Errno {
	for len(b) > 0 {
		n, err := syscall.Write(fd, b)
		if err != nil && err != syscall.EINTR {
			return err.(syscall.Errno)
		}
		if n > 0 {
			b = b[n:]
		}
	}
	if err := syscall.Shutdown(fd, syscall.SHUT_WR); err != nil {
		return err.(syscall.Errno)
	}
	return 0
}

// closeFile has nothing to report: what matters was read before.
func closeFile(fd int) { _ = syscall.Close(fd) }

// now is a clock in milliseconds that nobody sets, never 0.
func now() int64 {
	const monotonic = 1
	var ts syscall.Timespec
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, monotonic, uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Nano()/1e6 + 1
}

// sleep waits ms milliseconds, or less if a signal comes.
func sleep(ms int64) {
	ts := syscall.NsecToTimespec(ms * 1e6)
	_ = syscall.Nanosleep(&ts, nil)
}
