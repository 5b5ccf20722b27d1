// Package fleet runs the agents of many nodes in one process against a real API
// server, for tests and benchmarks of what they do with addresses. Each agent is
// the whole one: CNI socket, leases, journal, exchange of blocks, its own
// service-account token, so that roles and admission policies hold it. What is
// not real is a kernel that has every route at once, and a speaker without
// peers. There is no kubelet, no container runtime, no veth.
package fleet
