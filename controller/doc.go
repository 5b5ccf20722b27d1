// Package controller looks after pools and blocks for the whole cluster. No pod
// waits for it: nodes take blocks and lend to each other on their own. It
//
//   - accepts pools, and refuses one that shares addresses with another;
//   - frees the blocks of nodes that are gone;
//   - writes into each pool's status how full it is.
//
// Of several controllers one leads, by a Lease; the others wait for its end.
//
// # What it keeps
//
// It reads pools, blocks, nodes, pods and requests once, then follows their
// changes, and keeps of each object only what it needs: some hundred bytes of a
// block, less of a pod. All that it decides it works out anew from that: it
// keeps no state of its own that could be lost or wrong.
//
// # One at a time
//
// Two controllers never accept pools side by side: a leader that could not
// renew its Lease begins no write so late that it could arrive when another one
// leads, and a new leader reads all pools from the source. It accepts one pool,
// sees the outcome of that write for certain, and only then goes on to the next.
//
// # Positive evidence
//
// A node is gone when its Node object is, when another machine has had its name
// for a while, or when its operator says that it is out of service: never for
// silence. Before its first block is touched the Node is read once more from
// the source, so a node that is younger than what the controller has seen counts
// as alive, and a list of nodes that is empty says nothing about any of them.
package controller
