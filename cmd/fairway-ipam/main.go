// Command fairway-ipam is Fairway's CNI IPAM plugin. It is started for every
// pod, so it holds almost nothing: it hands its standard input and its CNI_*
// variables to the agent over a unix socket and prints the agent's answer.
//
// It is shipped with an entry point of its own, which answers what is usual before
// Go's runtime starts: see early. It works without that too, and takes longer.
package main

import (
	"syscall"
	"unsafe"

	"github.com/fairway-network/fairway/agent/wire"
)

const about = "CNI plugin fairway-ipam: started by a container runtime, it asks the Fairway agent for addresses\n" +
	"CNI protocol versions supported: "

func main() {
	exit(run(begin(defaultLimits())))
}

// run does what the environment asks for and returns the exit status.
func run(q *question) int {
	if len(q.command()) == 0 {
		return introduce()
	}
	if err := q.readConfiguration(); err != 0 {
		return q.fail(unreadable(err))
	}
	if string(q.command()) == "VERSION" {
		return emit(wire.AppendVersions(nil, stringAt(q.conf(), "cniVersion")), false)
	}
	q.path = socketPath(q.conf())
	if fault := q.ask(); fault != nil {
		return q.fail(fault)
	}
	text, failed, ok := wire.SplitAnswer(q.answer)
	if !ok {
		return q.fail(badAnswer(q.path))
	}
	return emit(text, failed)
}

// introduce tells a person what this program is.
func introduce() int {
	_ = write(syscall.Stderr, []byte(about+join(wire.Versions(), ", ")+"\n"))
	return 1
}

// fail prints f in the version that the configuration asks for.
func (q *question) fail(f *wire.Fault) int {
	return emit(f.AppendJSON(nil, stringAt(q.conf(), "cniVersion")), true)
}

// emit writes a whole answer and returns the exit status.
func emit(text []byte, failed bool) int {
	if write(syscall.Stdout, text) != 0 || failed {
		return 1
	}
	return 0
}

// socketPath is what conf says in ipam.socket, or the default. It may alias conf.
func socketPath(conf []byte) string {
	if path := stringAt(conf, "ipam", "socket"); path != "" {
		return path
	}
	return wire.DefaultSocket
}

// stringAt is the string at path in conf, which it may alias; whatever else is
// there, or wrong with conf, counts as empty. The agent says what is wrong with it.
func stringAt(conf []byte, path ...string) string {
	literal, _ := wire.Lookup(conf, path...)
	s, _ := wire.Unquote(literal)
	return unsafe.String(unsafe.SliceData(s), len(s))
}

func join(s []string, sep string) string {
	joined := s[0]
	for _, next := range s[1:] {
		joined += sep + next
	}
	return joined
}
