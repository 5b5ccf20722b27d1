// Command fairway-ipam is Fairway's CNI IPAM plugin. It is started for every
// pod, so it holds almost nothing: it hands its standard input and its CNI_*
// variables to the agent over a unix socket and prints the agent's answer.
//
// What a Go binary links runs at its start, so this program imports nothing
// but the socket's wire format, and makes its system calls itself: see call.
package main

import "github.com/fairway-network/fairway/agent/wire"

const (
	stdin  = 0
	stdout = 1
	stderr = 2
)

const about = "CNI plugin fairway-ipam: started by a container runtime, it asks the Fairway agent for addresses\n" +
	"CNI protocol versions supported: "

func main() {
	exit(run(defaultLimits()))
}

// run does what the environment asks for and returns the exit status.
func run(l limits) int {
	q := newQuestion(l)
	if err := q.readVariables(); err != 0 {
		return q.fail(noVariables(err))
	}
	if len(q.command) == 0 {
		return introduce()
	}
	if err := q.readConfiguration(); err != 0 {
		return q.fail(noConfiguration(err))
	}
	if string(q.command) == "VERSION" {
		return q.printVersions()
	}
	q.path = socketPath(q.conf)
	if fault := q.ask(); fault != nil {
		return q.fail(fault)
	}
	return q.printAnswer()
}

// introduce tells a person what this program is.
//
//go:noinline
func introduce() int {
	_ = writeAll(stderr, []byte(about+join(wire.Versions(), ", ")+"\n"), 0)
	return 1
}

//go:noinline
func (q *question) printVersions() int {
	return emit(wire.AppendVersions(nil, stringAt(q.conf, "cniVersion")), false)
}

func (q *question) printAnswer() int {
	text, failed, ok := wire.SplitAnswer(q.answer)
	if !ok {
		return q.fail(badAnswer(q.path))
	}
	return emit(text, failed)
}

// fail prints f in the version that the configuration asks for.
//
//go:noinline
func (q *question) fail(f *wire.Fault) int {
	return emit(f.AppendJSON(nil, stringAt(q.conf, "cniVersion")), true)
}

// emit writes a whole answer and returns the exit status.
func emit(text []byte, failed bool) int {
	if writeAll(stdout, text, 0) != 0 || failed {
		return 1
	}
	return 0
}

// socketPath is what conf says in ipam.socket, or the default.
func socketPath(conf []byte) string {
	if path := stringAt(conf, "ipam", "socket"); path != "" {
		return path
	}
	return wire.DefaultSocket
}

// stringAt is the string at path in conf; whatever else is there, or wrong
// with conf, counts as empty. The agent says what is wrong with it.
func stringAt(conf []byte, path ...string) string {
	literal, _ := wire.Lookup(conf, path...)
	s, _ := wire.Unquote(literal)
	return string(s)
}

func join(s []string, sep string) string {
	joined := s[0]
	for _, next := range s[1:] {
		joined += sep + next
	}
	return joined
}
