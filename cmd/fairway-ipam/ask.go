package main

import (
	"syscall"

	"github.com/fairway-network/fairway/agent/wire"
)

// limits bound how long the plugin runs.
type limits struct {
	// Patience is how long an agent that is away may take to come back, in
	// milliseconds: its restart must not be seen by a pod.
	patience int64
	// Answer is how long the agent may think, in milliseconds. ADD waits for
	// the announcement to leave, so it is longer than the agent's own bound.
	answer int64
	// Retry is the pause between two tries to connect, in milliseconds.
	retry int64
}

func defaultLimits() limits { return limits{patience: 2_000, answer: 60_000, retry: 4} }

// maxHangUps bounds how often a request is repeated that the agent did not
// answer, so that one which ends the agent does not end it for ever.
const maxHangUps = 3

// ask has the agent answer, which takes it l.patience and l.answer at most.
// While nobody listens it tries again. All commands are idempotent, so it
// also tries again when an agent goes away without an answer.
func ask(environ []string, conf []byte, command string, l limits) ([]byte, *wire.Fault) {
	path := socketPath(conf)
	if path[0] != '/' || len(path) > len(syscall.RawSockaddrUnix{}.Path)-1 || hasNUL(path) {
		return nil, badPath(path)
	}
	request := wire.AppendRequest(make([]byte, 0, len(conf)+1024), environ, conf)
	if len(request) > wire.MaxRequest {
		return nil, tooLarge()
	}
	var start int64 // read only if something goes wrong
	for hangUps := 0; ; {
		answer, err := exchange(path, request, l.answer)
		if err == 0 {
			return answer, nil
		}
		switch err {
		case syscall.ECONNREFUSED, syscall.ENOENT, syscall.EINTR:
			// nobody listens (yet), or no place in the queue so far
		case syscall.EPIPE, syscall.ECONNRESET:
			if hangUps++; hangUps == maxHangUps {
				return nil, away(path, command, err)
			}
		default:
			return nil, away(path, command, err)
		}
		if start == 0 {
			start = now()
		}
		if command == "STATUS" || now()-start >= l.patience {
			return nil, away(path, command, err)
		}
		sleep(l.retry)
	}
}

// exchange has one request answered over one connection. EPIPE and ECONNRESET
// stand for an agent that hung up, EAGAIN for a time-out, EMSGSIZE for an
// answer that is too large.
func exchange(path string, request []byte, timeout int64) ([]byte, syscall.Errno) {
	fd, err := dial(path, timeout)
	if err != 0 {
		return nil, err
	}
	var answer []byte
	if err = send(fd, request, timeout); err == 0 {
		answer, err = receive(fd, timeout)
	}
	if err == 0 && len(answer) == 0 {
		err = syscall.ECONNRESET
	}
	if err != 0 {
		closeFile(fd) // an exit follows success, and closes sooner
	}
	return answer, err
}

func hasNUL(s string) bool {
	for i := range len(s) {
		if s[i] == 0 {
			return true
		}
	}
	return false
}

func badPath(path string) *wire.Fault {
	return &wire.Fault{
		Code:    wire.InvalidNetworkConfig,
		Msg:     "ipam.socket: " + path + " is not an absolute path of at most 107 bytes without NUL",
		Details: "write the path of the agent's ipam.socket, or leave it out for " + wire.DefaultSocket,
	}
}

func tooLarge() *wire.Fault {
	return &wire.Fault{
		Code:    wire.InvalidNetworkConfig,
		Msg:     "standard input and the CNI_* variables are larger than 1 MiB",
		Details: "is this a network configuration? Make it smaller",
	}
}

// away says why the agent gave no answer. STATUS has a code of its own for it
// (CNI specification 1.1, section 2).
func away(path, command string, err syscall.Errno) *wire.Fault {
	f := &wire.Fault{
		Code:    wire.TryAgainLater,
		Msg:     "the Fairway agent does not answer on " + path + ": " + err.Error(),
		Details: "is the agent running on this node? Start it, or set ipam.socket in the network configuration to where it listens, and try again",
	}
	switch err {
	case syscall.ECONNREFUSED, syscall.ENOENT, syscall.EINTR:
	case syscall.EPIPE, syscall.ECONNRESET:
		f.Msg = "the Fairway agent on " + path + " hung up without an answer"
		f.Details = "see the agent's log, and try again"
	case syscall.EAGAIN:
		f.Msg = "the Fairway agent on " + path + " took too long to answer"
		f.Details = "see the agent's log, and try again"
	case syscall.EMSGSIZE:
		f.Code = wire.IOFailure
		f.Msg = "the answer from the Fairway agent on " + path + " is larger than 1 MiB"
		f.Details = "is it the agent that listens there? Correct ipam.socket in the network configuration"
	default:
		f.Code = wire.IOFailure
		f.Details = "does the plugin run as root, and is it the agent's socket? Correct ipam.socket in the network configuration"
	}
	if command == "STATUS" {
		f.Code = wire.NotAvailable
	}
	return f
}
