// Command empty does nothing. It is what any Go program costs to run, against
// which the benchmarks hold fairway-ipam.
package main

func main() {}
