//go:build (!amd64 && !arm64) || race || msan || asan

package main

// handed has no variables: the runtime's own entry point is the only one.
// Instrumented code needs the runtime, so that a linker that is told of another one
// fails.
func handed() *question { return new(question) }
