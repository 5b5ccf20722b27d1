package main

import "github.com/fairway-network/fairway/agent/wire"

// limits bound how long the plugin runs.
type limits struct {
	// Patience is how long an agent that is away may take to come back, in
	// milliseconds: its restart must not be seen by a pod.
	patience int64
	// Thought is how long the agent may think, in milliseconds. ADD waits for
	// the announcement to leave, so it is longer than the agent's own bound.
	thought int64
	// Retry is the pause between two tries to connect, in milliseconds.
	retry int64
}

func defaultLimits() limits { return limits{patience: 2_000, thought: 60_000, retry: 4} }

// maxHangUps bounds how often a request is repeated that the agent did not
// answer, so that one which ends the agent does not end it for ever.
const maxHangUps = 3

// usual is enough for what a runtime hands over, and for an answer. What is
// larger gets more.
const usual = 16 << 10

// question is what the agent is asked, and its answer. It is on the heap, and its
// room is made at once, to keep the stack so shallow that the runtime has not to
// have it grown: see call. What is rare is kept out of the way by noinline.
type question struct {
	limits
	request []byte
	command []byte // of the request, CNI_COMMAND
	conf    []byte // of the request, the standard input
	path    string // of the agent's socket
	answer  []byte // in the end
}

//go:noinline
func newQuestion(l limits) *question {
	room := make([]byte, 0, 2*usual)
	return &question{limits: l, request: room[:0:usual], answer: room[usual:usual]}
}

// readVariables reads the environment, as far as it is the agent's business.
func (q *question) readVariables() errno {
	block, err := environment(q.answer)
	if err != 0 {
		return err
	}
	q.request = wire.AppendVariables(q.request, block)
	q.command = wire.Variable(q.request, "CNI_COMMAND")
	return 0
}

// readConfiguration reads the standard input, which makes the request whole.
func (q *question) readConfiguration() errno {
	request, err := read(stdin, q.request, wire.MaxRequest, 0, nil)
	if err == 0 {
		q.conf = request[len(q.request):]
		q.request = request
	}
	return err
}

// ask has the agent answer, which takes patience and thought at most.
// While nobody listens it tries again. All commands are idempotent, so it
// also tries again when an agent goes away without an answer.
func (q *question) ask() *wire.Fault {
	if q.path[0] != '/' || len(q.path) > maxPath || hasNUL(q.path) {
		return badPath(q.path)
	}
	var start int64 // read only if something goes wrong
	for hangUps := 0; ; {
		err := q.exchange()
		switch err {
		case 0:
			return nil
		case econnrefused, enoent, eintr:
			// nobody listens (yet), or no place in the queue so far
		case epipe, econnreset:
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

func (q *question) isStatus() bool { return string(q.command) == "STATUS" }

// exchange has the request answered over one connection. EPIPE and ECONNRESET
// stand for an agent that hung up, EAGAIN for a time-out, EMSGSIZE for an
// answer that is too large.
func (q *question) exchange() errno {
	fd, err := dial(q.path, q.thought)
	if err != 0 {
		return err
	}
	if err = send(fd, q.request, q.thought); err == 0 {
		err = q.receive(fd)
	}
	if err != 0 {
		closeFile(fd) // an exit follows success, and closes sooner
	}
	return err
}

func (q *question) receive(fd int) errno {
	answer, err := receive(fd, q.answer[:0], q.thought)
	switch {
	case err != 0:
		return err
	case len(answer) == 0:
		return econnreset
	}
	q.answer = answer
	return 0
}

func hasNUL(s string) bool {
	for i := range len(s) {
		if s[i] == 0 {
			return true
		}
	}
	return false
}

//go:noinline
func badPath(path string) *wire.Fault {
	return &wire.Fault{
		Code:    wire.InvalidNetworkConfig,
		Msg:     "ipam.socket: " + path + " is not an absolute path of at most 107 bytes without NUL",
		Details: "write the path of the agent's ipam.socket, or leave it out for " + wire.DefaultSocket,
	}
}

//go:noinline
func tooLarge() *wire.Fault {
	return &wire.Fault{
		Code:    wire.InvalidNetworkConfig,
		Msg:     "standard input and the CNI_* variables are larger than 1 MiB",
		Details: "is this a network configuration? Make it smaller",
	}
}

// away says why the agent gave no answer. STATUS has a code of its own for it
// (CNI specification 1.1, section 2).
//
//go:noinline
func (q *question) away(err errno) *wire.Fault {
	f := &wire.Fault{
		Code:    wire.TryAgainLater,
		Msg:     "the Fairway agent does not answer on " + q.path + ": " + err.String(),
		Details: "is the agent running on this node? Start it, or set ipam.socket in the network configuration to where it listens, and try again",
	}
	switch err {
	case econnrefused, enoent, eintr:
	case epipe, econnreset:
		f.Msg = "the Fairway agent on " + q.path + " hung up without an answer"
		f.Details = "see the agent's log, and try again"
	case eagain:
		f.Msg = "the Fairway agent on " + q.path + " took too long to answer"
		f.Details = "see the agent's log, and try again"
	case emsgsize:
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

//go:noinline
func noVariables(err errno) *wire.Fault {
	if err == emsgsize {
		return tooLarge()
	}
	return &wire.Fault{
		Code:    wire.IOFailure,
		Msg:     "cannot read the CNI_* variables from /proc/self/environ: " + err.String(),
		Details: "is /proc mounted where the container runtime runs?",
	}
}

//go:noinline
func noConfiguration(err errno) *wire.Fault {
	if err == emsgsize {
		return tooLarge()
	}
	return &wire.Fault{
		Code:    wire.IOFailure,
		Msg:     "cannot read the network configuration from standard input: " + err.String(),
		Details: "a container runtime gives it to a CNI plugin on its standard input",
	}
}

//go:noinline
func badAnswer(path string) *wire.Fault {
	return &wire.Fault{
		Code:    wire.IOFailure,
		Msg:     "the answer from the Fairway agent on " + path + " is cut short or not an answer",
		Details: "is the plugin of the same release as the agent? Copy it from the agent's image and try again",
	}
}
