//go:build (amd64 || arm64) && !race && !msan && !asan

package main

// handed is the question that early began and did not bring to an end; without
// variables if the program was started at the runtime's own entry point. It may be
// read once, and its memory is not the runtime's: a pointer into the heap that is
// put there keeps nothing alive.
func handed() *question
