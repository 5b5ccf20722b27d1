package main

import (
	"syscall"

	"github.com/fairway-network/fairway/agent/wire"
)

// limits bound how long the plugin runs, and what it reads.
type limits struct {
	// Patience is how long an agent that is away may take to come back, in
	// milliseconds: its restart must not be seen by a pod.
	patience int64
	// Thought is how long the agent may think, in milliseconds. ADD waits for
	// the announcement to leave, so it is longer than the agent's own bound.
	thought int64
	// Retry is the pause between two tries to connect, in milliseconds.
	retry int64
	// Of a request and an answer, in bytes.
	maxRequest, maxAnswer int
}

func defaultLimits() limits {
	return limits{patience: 2_000, thought: 60_000, retry: 4, maxRequest: wire.MaxRequest, maxAnswer: wire.MaxAnswer}
}

// maxHangUps bounds how often a request is repeated that the agent did not
// answer, so that one which ends the agent does not end it for ever.
const maxHangUps = 3

// usual is enough for what a runtime hands over, and for an answer, in bytes. What
// is larger gets more.
const usual = 32 << 10

// question is what the agent is asked, and its answer.
type question struct {
	limits
	request   []byte // the variables, then the standard input as far as it is read
	variables int    // how many bytes of the request they are
	path      string // of the agent's socket; may alias request
	tried     errno  // why a first try to ask failed; 0 is none
	answer    []byte // in the end
}

func newQuestion(l limits) *question {
	return &question{limits: l, request: make([]byte, 0, usual), answer: make([]byte, 0, usual)}
}

// begin is a question with the variables of the environment, or what is there of
// one that early began.
func begin(l limits) *question {
	if begun := handed(); begun.variables > 0 {
		q := *begun
		q.limits = l
		return &q
	}
	q := newQuestion(l)
	q.request = wire.AppendRequest(q.request, syscall.Environ(), nil)
	q.variables = len(q.request)
	return q
}

// command is CNI_COMMAND; empty is none.
func (q *question) command() []byte { return wire.Variable(q.request, "CNI_COMMAND") }

// conf is the standard input.
func (q *question) conf() []byte { return q.request[q.variables:] }

// readConfiguration reads the standard input, or what is left of it, which makes
// the request whole.
func (q *question) readConfiguration() (err errno) {
	q.request, err = read(syscall.Stdin, q.request, q.maxRequest, 0, nil)
	return err
}

// ask has the agent answer, which takes patience and thought at most.
// While nobody listens it tries again. All commands are idempotent, so it
// also tries again when an agent goes away without an answer.
func (q *question) ask() *wire.Fault {
	if !validPath(q.path) {
		return badPath(q.path)
	}
	err := q.tried
	if err == 0 {
		err = q.exchange()
	}
	var start int64 // read only if something goes wrong
	for hangUps := 0; ; err = q.exchange() {
		switch err {
		case 0:
			return nil
		case syscall.ECONNREFUSED, syscall.ENOENT, syscall.EINTR:
			// nobody listens (yet), or no place in the queue so far
		case syscall.EPIPE, syscall.ECONNRESET:
			if hangUps++; hangUps == maxHangUps {
				return q.away(err)
			}
		default:
			return q.away(err)
		}
		if start == 0 {
			start = now()
		}
		if q.isStatus() || now()-start >= q.patience {
			return q.away(err)
		}
		sleep(q.retry)
	}
}

func (q *question) isStatus() bool { return string(q.command()) == "STATUS" }

// exchange has the request answered over one connection. EPIPE and ECONNRESET
// stand for an agent that hung up, EAGAIN for a time-out, EMSGSIZE for an
// answer that is too large.
func (q *question) exchange() errno {
	fd, err := dial(q.path, q.thought)
	if err != 0 {
		return err
	}
	deadline := now() + q.thought
	if err = send(fd, q.request, deadline); err == 0 {
		q.answer, err = receive(fd, q.answer[:0], q.maxAnswer, deadline)
	}
	if err == 0 && len(q.answer) == 0 {
		err = syscall.ECONNRESET
	}
	if err != 0 {
		closeFile(fd) // an exit follows success, and closes sooner
	}
	return err
}

// validPath says whether path can be that of the agent's socket.
func validPath(path string) bool {
	return path[0] == '/' && len(path) <= maxPath && !contains(path, 0)
}

func contains[S string | []byte](s S, c byte) bool {
	for i := range len(s) {
		if s[i] == c {
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
func (q *question) away(err errno) *wire.Fault {
	f := &wire.Fault{
		Code:    wire.TryAgainLater,
		Msg:     "the Fairway agent does not answer on " + q.path + ": " + err.Error(),
		Details: "is the agent running on this node? Start it, or set ipam.socket in the network configuration to where it listens, and try again",
	}
	switch err {
	case syscall.ECONNREFUSED, syscall.ENOENT, syscall.EINTR:
	case syscall.EPIPE, syscall.ECONNRESET:
		f.Msg = "the Fairway agent on " + q.path + " hung up without an answer"
		f.Details = "see the agent's log, and try again"
	case syscall.EAGAIN:
		f.Msg = "the Fairway agent on " + q.path + " took too long to answer"
		f.Details = "see the agent's log, and try again"
	case syscall.EMSGSIZE:
		f.Code = wire.IOFailure
		f.Msg = "the answer from the Fairway agent on " + q.path + " is larger than 1 MiB"
		f.Details = "is it the agent that listens there? Correct ipam.socket in the network configuration"
	default:
		f.Code = wire.IOFailure
		f.Details = "does the plugin run as root, and is it the agent's socket? Correct ipam.socket in the network configuration"
	}
	if q.isStatus() {
		f.Code = wire.NotAvailable
	}
	return f
}

func unreadable(err errno) *wire.Fault {
	if err == syscall.EMSGSIZE {
		return tooLarge()
	}
	return &wire.Fault{
		Code:    wire.IOFailure,
		Msg:     "cannot read the network configuration from standard input: " + err.Error(),
		Details: "a container runtime gives it to a CNI plugin on its standard input",
	}
}

func badAnswer(path string) *wire.Fault {
	return &wire.Fault{
		Code:    wire.IOFailure,
		Msg:     "the answer from the Fairway agent on " + path + " is cut short or not an answer",
		Details: "is the plugin of the same release as the agent? Copy it from the agent's image and try again",
	}
}
