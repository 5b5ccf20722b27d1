package main

import (
	"syscall"
	"unsafe"

	"github.com/fairway-network/fairway/agent/wire"
)

// early is the plugin in nearly all of its runs. The entry point (entry_amd64.s)
// calls it before there is a runtime. If all is as usual it prints the agent's
// answer and ends the process. What is not usual it leaves alone and returns: the
// runtime starts then, and main goes on with q, see handed.
//
// Q is zero. Stack is where the kernel put the number of arguments, the arguments
// and the environment; all runs on the stack below it. Nothing may be allocated
// here, be it by an append, and a panic is a segmentation fault.
//
//lint:ignore U1000 called by assembly
func early(q *question, room *[2 * usual]byte, stack unsafe.Pointer) {
	*q = question{limits: defaultLimits(), request: room[:0:usual], answer: room[usual:usual]}
	q.maxRequest, q.maxAnswer = usual-1, usual-1 // so that neither is given more room
	if !isOpen(syscall.Stdout) {
		return // the socket would take its place; the runtime has something there
	}
	if !q.takeVariables(stack) {
		return
	}
	if command := q.command(); len(command) == 0 || string(command) == "VERSION" || q.readConfiguration() != 0 {
		return
	}
	conf := q.conf()
	if contains(conf, '\\') || !shallow(conf) {
		return // what that stands for may have to be written somewhere
	}
	if q.path = socketPath(conf); !validPath(q.path) {
		return
	}
	q.tried = q.exchange()
	if text, failed, ok := wire.SplitAnswer(q.answer); ok && q.tried == 0 {
		exit(emit(text, failed))
	}
	if q.tried == syscall.EMSGSIZE {
		q.tried = 0 // main has the room
	}
}

// shallow says whether conf nests so little that reading it takes a few kilobytes
// of stack. The one that early runs on does not grow beyond the process's limit.
func shallow(conf []byte) bool {
	const most = 128 // several times what a previous result has
	opened := 0
	for _, c := range conf {
		if c == '{' || c == '[' {
			opened++
		}
	}
	return opened <= most
}

// takeVariables begins the request with the variables of a process whose stack
// began as stack. It returns false if that has not the room, or if a variable is
// there twice: main takes the first one alone.
func (q *question) takeVariables(stack unsafe.Pointer) bool {
	const word = unsafe.Sizeof(uintptr(0))
	arguments := *(*uintptr)(stack)
	for at := unsafe.Add(stack, (1+arguments+1)*word); ; at = unsafe.Add(at, word) {
		variable := *(**byte)(at)
		if variable == nil {
			break
		}
		e := unsafe.String(variable, length(variable))
		if len(e)+2 > cap(q.request)-len(q.request) {
			return false
		}
		earlier := q.request
		q.request = wire.AppendVariable(q.request, e)
		if len(q.request) > len(earlier) && wire.Variable(earlier, nameOf(e)) != nil {
			return false
		}
	}
	q.request = append(q.request, 0)
	q.variables = len(q.request)
	return true
}

// nameOf variable, NAME=value.
func nameOf(variable string) string {
	for i := range len(variable) {
		if variable[i] == '=' {
			return variable[:i]
		}
	}
	return variable
}

// length of what ends with a NUL at s or behind it.
func length(s *byte) (n int) {
	for *(*byte)(unsafe.Add(unsafe.Pointer(s), n)) != 0 {
		n++
	}
	return n
}
