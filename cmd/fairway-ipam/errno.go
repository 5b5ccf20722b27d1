package main

// errno is what the kernel says went wrong (errno(3)); 0 is nothing.
type errno int

// Those that this program decides on.
const (
	enoent       errno = 2
	eintr        errno = 4
	eagain       errno = 11
	epipe        errno = 32
	emsgsize     errno = 90
	econnreset   errno = 104
	econnrefused errno = 111
)

// String is the error in strerror(3)'s words, for those that a socket or a file
// may give, and the number of another.
func (e errno) String() string {
	switch e {
	case 1:
		return "operation not permitted"
	case enoent:
		return "no such file or directory"
	case 5:
		return "input/output error"
	case 9:
		return "bad file descriptor"
	case 12:
		return "cannot allocate memory"
	case 13:
		return "permission denied"
	case 20:
		return "not a directory"
	case 21:
		return "is a directory"
	case 23:
		return "too many open files in system"
	case 24:
		return "too many open files"
	case 40:
		return "too many levels of symbolic links"
	case 88:
		return "socket operation on non-socket"
	case 91:
		return "protocol wrong type for socket"
	case econnreset:
		return "connection reset by peer"
	case econnrefused:
		return "connection refused"
	}
	return "errno " + decimal(int(e))
}

func decimal(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return decimal(n/10) + string(rune('0'+n%10))
}
