// Package nonblocking writes what need not be waited for.
package nonblocking

import (
	"io"
	"syscall"
)

// Write writes what the kernel takes without waiting, and says how much that is: nothing over
// an error, which the next write to conn has again. A conn without a file descriptor is
// written to as usual.
func Write(conn io.Writer, b []byte) int {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		n, err := conn.Write(b)
		if err != nil {
			return 0
		}
		return n
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0
	}
	written := 0
	err = raw.Write(func(fd uintptr) bool {
		n, err := syscall.Write(int(fd), b)
		if err == nil {
			written = n
		}
		return true
	})
	if err != nil {
		return 0
	}
	return written
}
