// Command fairway-ipam is Fairway's CNI IPAM plugin. It is started for every
// pod, so it holds almost nothing: it hands its standard input and its CNI_*
// variables to the agent over a unix socket and prints the agent's answer.
//
// What a Go binary links runs at its start, so this program imports nothing
// but system calls and the socket's wire format, and it calls the kernel
// without telling the scheduler where it can: it has one thread to feed.
package main

import (
	"syscall"

	"github.com/fairway-network/fairway/agent/wire"
)

const (
	stdin  = 0
	stdout = 1
	stderr = 2
)

const about = "CNI plugin fairway-ipam: started by a container runtime, it asks the Fairway agent for addresses\n" +
	"CNI protocol versions supported: "

func main() {
	syscall.Exit(run(syscall.Environ(), defaultLimits()))
}

// run does what the environment asks for and returns the exit status.
func run(environ []string, l limits) int {
	command := lookupEnv(environ, "CNI_COMMAND")
	if command == "" {
		_ = writeAll(stderr, []byte(about+join(wire.Versions(), ", ")+"\n"), 0)
		return 1
	}
	conf, fault := readAll(stdin)
	if fault != nil {
		return fail(conf, fault)
	}
	if command == "VERSION" {
		return emit(wire.AppendVersions(nil, stringAt(conf, "cniVersion")), false)
	}
	answer, fault := ask(environ, conf, command, l)
	if fault != nil {
		return fail(conf, fault)
	}
	text, failed, ok := wire.SplitAnswer(answer)
	if !ok {
		return fail(conf, &wire.Fault{
			Code:    wire.IOFailure,
			Msg:     "the answer from the Fairway agent on " + socketPath(conf) + " is cut short or not an answer",
			Details: "is the plugin of the same release as the agent? Copy it from the agent's image and try again",
		})
	}
	return emit(text, failed)
}

// emit writes a whole answer and returns the exit status.
func emit(text []byte, failed bool) int {
	if writeAll(stdout, text, 0) != 0 || failed {
		return 1
	}
	return 0
}

// fail prints f in the version that conf asks for.
func fail(conf []byte, f *wire.Fault) int {
	return emit(f.AppendJSON(nil, stringAt(conf, "cniVersion")), true)
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

func lookupEnv(environ []string, name string) string {
	for _, e := range environ {
		if len(e) > len(name) && e[len(name)] == '=' && e[:len(name)] == name {
			return e[len(name)+1:]
		}
	}
	return ""
}

func join(s []string, sep string) string {
	joined := s[0]
	for _, next := range s[1:] {
		joined += sep + next
	}
	return joined
}
