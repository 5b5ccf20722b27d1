package main

// call makes a system call, and returns what the kernel does: a result, or a
// negative errno. It is here because package syscall, before main begins, copies
// the environment deep enough down for the runtime to have the stack grown, which
// is a third of what this program costs above an empty one. A pointer among the
// arguments must be converted in the call itself (package unsafe, rule 4).
//
// The scheduler is not told that the thread may wait. If it were, it would start
// threads to have something else run in the meantime, and there is nothing else.
// The price is that the scheduler interrupts long waits now and then, so that each
// of them has to look at the clock.
//
//go:noescape
func call(number, a1, a2, a3, a4, a5 uintptr) int

// failure is the errno in what call returns, 0 if that is a result.
func failure(result int) errno {
	const last = 4095
	if result < 0 && result >= -last {
		return errno(-result)
	}
	return 0
}
