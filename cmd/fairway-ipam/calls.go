package main

import (
	"syscall"
	"unsafe"

	"github.com/fairway-network/fairway/agent/wire"
)

// These are raw system calls: the scheduler is not told that the thread may
// wait. If it were, it would start threads to have something else run in the
// meantime, and there is nothing else; that is most of what this program would
// cost above an empty one. The price is that the scheduler interrupts long
// waits now and then, so that each of them has to look at the clock.

// readAll reads to the end of fd, at most wire.MaxRequest bytes.
func readAll(fd int) ([]byte, *wire.Fault) {
	b, err := read(fd, wire.MaxRequest, 0, nil)
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

// receive reads the answer, for timeout milliseconds or little longer. A whole
// answer shows that it is one: there is no wait for the agent to close.
func receive(fd int, timeout int64) ([]byte, syscall.Errno) {
	return read(fd, wire.MaxAnswer, now()+timeout, func(b []byte) bool {
		_, _, whole := wire.SplitAnswer(b)
		return whole
	})
}

// read reads until the end of fd, or until whole says so of what was read.
// EMSGSIZE stands for more than limit bytes, EAGAIN for a deadline that is
// over, on the clock of now; 0 is none.
func read(fd, limit int, deadline int64, whole func([]byte) bool) ([]byte, syscall.Errno) {
	b := make([]byte, 0, 8<<10)
	for {
		free := b[len(b):cap(b)]
		n, _, err := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&free[0])), uintptr(len(free)))
		switch {
		case err != 0 && err != syscall.EINTR:
			return nil, err
		case err == 0 && n == 0:
			return b, 0
		case err == 0:
			b = b[:len(b)+int(n)]
		}
		switch {
		case len(b) > limit:
			return nil, syscall.EMSGSIZE
		case whole != nil && whole(b):
			return b, 0
		case deadline != 0 && now() > deadline:
			return nil, syscall.EAGAIN
		case len(b) == cap(b):
			b = append(make([]byte, 0, 4*cap(b)), b...)
		}
	}
}

// writeAll writes b, for timeout milliseconds or little longer; 0 is no bound.
func writeAll(fd int, b []byte, timeout int64) syscall.Errno {
	deadline := now() + timeout
	for len(b) > 0 {
		n, _, err := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch {
		case err == 0:
			b = b[n:]
		case err != syscall.EINTR:
			return err
		}
		if timeout != 0 && now() > deadline {
			return syscall.EAGAIN
		}
	}
	return 0
}

// dial connects to the unix socket at path. No call on it takes longer than
// timeout, in milliseconds. The path must fit.
func dial(path string, timeout int64) (int, syscall.Errno) {
	r, _, err := syscall.RawSyscall(syscall.SYS_SOCKET, syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != 0 {
		return -1, err
	}
	fd := int(r)
	tv := syscall.NsecToTimeval(timeout * 1e6)
	for _, option := range [...]uintptr{syscall.SO_SNDTIMEO, syscall.SO_RCVTIMEO} {
		if err == 0 {
			_, _, err = syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, r, syscall.SOL_SOCKET, option, uintptr(unsafe.Pointer(&tv)), unsafe.Sizeof(tv), 0)
		}
	}
	if err == 0 {
		addr := syscall.RawSockaddrUnix{Family: syscall.AF_UNIX}
		for i := range len(path) {
			addr.Path[i] = int8(path[i])
		}
		_, _, err = syscall.RawSyscall(syscall.SYS_CONNECT, r, uintptr(unsafe.Pointer(&addr)), unsafe.Sizeof(addr))
	}
	if err == 0 {
		return fd, 0
	}
	closeFile(fd)
	return -1, err
}

// send writes all of b and says that this was all.
func send(fd int, b []byte, timeout int64) syscall.Errno {
	if err := writeAll(fd, b, timeout); err != 0 {
		return err
	}
	_, _, err := syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), syscall.SHUT_WR, 0)
	return err
}

// closeFile has nothing to report: what matters was read before.
func closeFile(fd int) { _, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

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
	_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}
