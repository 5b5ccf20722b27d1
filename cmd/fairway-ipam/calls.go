package main

import (
	"syscall"
	"unsafe"

	"github.com/fairway-network/fairway/agent/wire"
)

// The functions here also run before the runtime does, see early: none of them
// allocates unless a limit allows for more than the room that it is given.
//
// Where there is a runtime its scheduler is not told that the thread may wait. If
// it were, it would start threads to have something else run in the meantime, and
// there is nothing else. The price is that it interrupts long waits now and then,
// so that each of them has to look at the clock.

// errno is what the kernel says went wrong (errno(3)); 0 is nothing.
type errno = syscall.Errno

// maxPath leaves room for the NUL at the end (unix(7)).
const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// exit ends the process.
func exit(status int) {
	for {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(status), 0, 0)
	}
}

// read appends to b until the end of fd, or until whole says so of all that is
// there then. EMSGSIZE stands for more than limit bytes of it, EAGAIN for a
// deadline that is over, on the clock of now; 0 is none, and waits for a pipe that
// does not block. What was read is there
// with an error as well. Only a b with room for limit bytes and no more is given
// other room.
func read(fd int, b []byte, limit int, deadline int64, whole func([]byte) bool) ([]byte, errno) {
	for len(b) <= limit {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, 4*cap(b)), b...)
		}
		free := b[len(b):cap(b)]
		n, _, err := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&free[0])), uintptr(len(free)))
		switch {
		case err == syscall.EAGAIN && deadline == 0:
			if err = poll(fd, pollIn); err != 0 {
				return b, err
			}
		case err != 0 && err != syscall.EINTR:
			return b, err
		case err == 0 && n == 0:
			return b, 0
		case err == 0:
			b = b[:len(b)+int(n)]
		}
		switch {
		case whole != nil && len(b) <= limit && whole(b):
			return b, 0
		case deadline != 0 && now() > deadline:
			return b, syscall.EAGAIN
		}
	}
	return b, syscall.EMSGSIZE
}

// receive reads an answer. A whole one shows that it is: there is no wait for the
// agent to close.
func receive(fd int, room []byte, limit int, deadline int64) ([]byte, errno) {
	return read(fd, room, limit, deadline, func(b []byte) bool {
		_, _, whole := wire.SplitAnswer(b)
		return whole
	})
}

// write writes all of b. It waits for a pipe that does not block.
func write(fd int, b []byte) errno {
	for len(b) > 0 {
		n, _, err := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch err {
		case 0:
			b = b[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			if err = poll(fd, pollOut); err != 0 {
				return err
			}
		default:
			return err
		}
	}
	return 0
}

// What poll waits for (poll(2)).
const (
	pollIn  = 1
	pollOut = 4
)

// poll waits until event, or an error, is there on fd, or a signal comes. It has no
// deadline: what runtimes give to a plugin, and take from it, comes or ends.
func poll(fd int, event int16) errno {
	p := struct {
		fd               int32
		events, returned int16
	}{int32(fd), event, 0}
	_, _, err := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, 0, 0, 0, 0)
	if err == syscall.EINTR {
		return 0
	}
	return err
}

// isOpen says whether fd is a descriptor.
func isOpen(fd int) bool {
	_, _, err := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
	return err == 0
}

// send writes all of b to a socket and says that this was all. EAGAIN stands for a
// deadline that is over, on the clock of now.
func send(fd int, b []byte, deadline int64) errno {
	for {
		// A write would end the process if the agent hung up.
		n, _, err := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), syscall.MSG_NOSIGNAL, 0, 0)
		switch err {
		case 0:
			b = b[n:]
		case syscall.EINTR:
		default:
			return err
		}
		if len(b) == 0 {
			_, _, err = syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), syscall.SHUT_WR, 0)
			return err
		}
		if now() > deadline {
			return syscall.EAGAIN
		}
	}
}

// dial connects to the unix socket at path. No call on it takes longer than
// timeout, in milliseconds. The path must fit.
func dial(path string, timeout int64) (int, errno) {
	fd, _, err := syscall.RawSyscall(syscall.SYS_SOCKET, syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != 0 {
		return -1, err
	}
	if err = bound(int(fd), timeout); err == 0 {
		err = connect(int(fd), path)
	}
	if err != 0 {
		closeFile(int(fd))
		return -1, err
	}
	return int(fd), 0
}

// bound has no call on fd take longer than timeout, in milliseconds.
func bound(fd int, timeout int64) (err errno) {
	tv := syscall.Timeval{Sec: timeout / 1e3, Usec: timeout % 1e3 * 1e3}
	for _, option := range [...]uintptr{syscall.SO_SNDTIMEO, syscall.SO_RCVTIMEO} {
		if err == 0 {
			_, _, err = syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), syscall.SOL_SOCKET, option, uintptr(unsafe.Pointer(&tv)), unsafe.Sizeof(tv), 0)
		}
	}
	return err
}

func connect(fd int, path string) errno {
	addr := syscall.RawSockaddrUnix{Family: syscall.AF_UNIX}
	for i := range len(path) {
		addr.Path[i] = int8(path[i])
	}
	_, _, err := syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&addr)), unsafe.Sizeof(addr))
	return err
}

// closeFile has nothing to report: what matters was read before.
func closeFile(fd int) { _, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

// now is a clock in milliseconds that nobody sets, never 0.
func now() int64 {
	const clockMonotonic = 1
	var ts syscall.Timespec
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Sec*1e3 + ts.Nsec/1e6 + 1
}

// sleep waits ms milliseconds, or less if a signal comes.
func sleep(ms int64) {
	ts := syscall.NsecToTimespec(ms * 1e6)
	_ = syscall.Nanosleep(&ts, nil)
}
