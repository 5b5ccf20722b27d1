package main

import (
	"unsafe"

	"github.com/fairway-network/fairway/agent/wire"
)

// Constants of Linux (its include/uapi), the same for all processors that this
// program is built for.
const (
	atFDCWD  = -100
	oCloexec = 0x80000

	afUnix      = 1
	sockStream  = 1
	sockCloexec = oCloexec
	solSocket   = 1
	soRcvtimeo  = 20
	soSndtimeo  = 21
	shutWr      = 1

	clockMonotonic = 1
)

// sockaddr is sockaddr_un (unix(7)).
type sockaddr struct {
	family uint16
	path   [108]byte
}

// maxPath leaves room for the NUL at the end.
const maxPath = len(sockaddr{}.path) - 1

// timespec is also a timeval, whose second field counts microseconds.
type timespec struct{ seconds, fraction int64 }

// exit ends the process.
func exit(status int) {
	for {
		call(sysExitGroup, uintptr(status), 0, 0, 0, 0)
	}
}

// environment reads the variables of this process, each ended by a NUL, into room
// if they fit.
func environment(room []byte) ([]byte, errno) {
	path, here := [...]byte{'/', 'p', 'r', 'o', 'c', '/', 's', 'e', 'l', 'f', '/', 'e', 'n', 'v', 'i', 'r', 'o', 'n', 0}, atFDCWD
	fd := call(sysOpenat, uintptr(here), uintptr(unsafe.Pointer(&path)), oCloexec, 0, 0)
	if err := failure(fd); err != 0 {
		return nil, err
	}
	block, err := read(fd, room, wire.MaxRequest, 0, nil)
	closeFile(fd)
	return block, err
}

// receive reads the answer, into room if it fits, for timeout milliseconds or
// little longer. A whole answer shows that it is one: there is no wait for the
// agent to close.
func receive(fd int, room []byte, timeout int64) ([]byte, errno) {
	return read(fd, room, wire.MaxAnswer, now()+timeout, func(b []byte) bool {
		_, _, whole := wire.SplitAnswer(b)
		return whole
	})
}

// read appends to b until the end of fd, or until whole says so of all that is
// there then. EMSGSIZE stands for more than limit bytes of it, EAGAIN for a
// deadline that is over, on the clock of now; 0 is none.
func read(fd int, b []byte, limit int, deadline int64, whole func([]byte) bool) ([]byte, errno) {
	for {
		if len(b) == cap(b) {
			b = more(b)
		}
		free := b[len(b):cap(b)]
		n := call(sysRead, uintptr(fd), uintptr(unsafe.Pointer(&free[0])), uintptr(len(free)), 0, 0)
		err := failure(n)
		switch {
		case err != 0 && err != eintr:
			return nil, err
		case err == 0 && n == 0:
			return b, 0
		case err == 0:
			b = b[:len(b)+n]
		}
		switch {
		case len(b) > limit:
			return nil, emsgsize
		case whole != nil && whole(b):
			return b, 0
		case deadline != 0 && now() > deadline:
			return nil, eagain
		}
	}
}

// more is b with room for four times as much.
//
//go:noinline
func more(b []byte) []byte { return append(make([]byte, 0, 4*cap(b)), b...) }

// writeAll writes b, for timeout milliseconds or little longer; 0 is no bound.
func writeAll(fd int, b []byte, timeout int64) errno {
	deadline := now() + timeout
	for len(b) > 0 {
		n := call(sysWrite, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0)
		err := failure(n)
		switch {
		case err == 0:
			b = b[n:]
		case err != eintr:
			return err
		}
		if timeout != 0 && now() > deadline {
			return eagain
		}
	}
	return 0
}

// dial connects to the unix socket at path. No call on it takes longer than
// timeout, in milliseconds. The path must fit.
func dial(path string, timeout int64) (int, errno) {
	fd := call(sysSocket, afUnix, sockStream|sockCloexec, 0, 0, 0)
	if err := failure(fd); err != 0 {
		return -1, err
	}
	err := bound(fd, timeout)
	if err == 0 {
		err = connect(fd, path)
	}
	if err != 0 {
		closeFile(fd)
		return -1, err
	}
	return fd, 0
}

// bound has no call on fd take longer than timeout, in milliseconds.
func bound(fd int, timeout int64) (err errno) {
	tv := timespec{timeout / 1e3, timeout % 1e3 * 1e3}
	for _, option := range [...]uintptr{soSndtimeo, soRcvtimeo} {
		if err == 0 {
			err = failure(call(sysSetsockopt, uintptr(fd), solSocket, option, uintptr(unsafe.Pointer(&tv)), unsafe.Sizeof(tv)))
		}
	}
	return err
}

func connect(fd int, path string) errno {
	addr := sockaddr{family: afUnix}
	copy(addr.path[:], path)
	return failure(call(sysConnect, uintptr(fd), uintptr(unsafe.Pointer(&addr)), unsafe.Sizeof(addr), 0, 0))
}

// send writes all of b and says that this was all.
func send(fd int, b []byte, timeout int64) errno {
	if err := writeAll(fd, b, timeout); err != 0 {
		return err
	}
	return failure(call(sysShutdown, uintptr(fd), shutWr, 0, 0, 0))
}

// closeFile has nothing to report: what matters was read before.
func closeFile(fd int) { call(sysClose, uintptr(fd), 0, 0, 0, 0) }

// now is a clock in milliseconds that nobody sets, never 0.
func now() int64 {
	var ts timespec
	call(sysClockGettime, clockMonotonic, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	return ts.seconds*1e3 + ts.fraction/1e6 + 1
}

// sleep waits ms milliseconds, or less if a signal comes.
func sleep(ms int64) {
	ts := timespec{ms / 1e3, ms % 1e3 * 1e6}
	call(sysNanosleep, uintptr(unsafe.Pointer(&ts)), 0, 0, 0, 0)
}
