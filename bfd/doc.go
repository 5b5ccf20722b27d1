// Package bfd is Bidirectional Forwarding Detection in asynchronous mode
// (RFC 5880) for single hops (RFC 5881, UDP port 3784, TTL 255 both ways) and
// multihop paths (RFC 5883, UDP port 4784), over IPv4 and IPv6, link-local
// addresses included. Echo and authentication are not offered: packets with
// authentication are discarded. Demand mode is never asked for, and obeyed
// when a peer asks for it.
//
// Session is the protocol alone: it is told the time and the packets and has
// no clock and no socket. Server runs sessions over sockets, steered by whole
// desired states: Set says which peers there should be, State what is, and
// Changes when to look again. It listens only while a peer of that kind is
// desired.
//
// # What BGP does with it
//
// A BGP session is reset when the BFD session to its peer failed, which is
// when PeerState.Failures has grown since it was last read, and not merely
// when State is Down. The reset is a Cease notification with subcode 10, "BFD
// Down" (RFC 9384). Failures counts what RFC 5882 section 3.2 calls a loss of
// the path: an Up session whose Detection Time ran out, or whose peer says
// Down. It does not count these, after which BGP must go on as without BFD:
//
//   - the peer says AdminDown: somebody took BFD away there, the path is as it
//     was (RFC 5882 section 4.2);
//   - a session that never came up: the peer may have no BFD, so BGP does not
//     wait for BFD;
//   - a peer that leaves the desired state: the Server says AdminDown itself.
//
// A program that stops but leaves its routes with its peers (graceful restart)
// cuts its BGP sessions first and calls Close after that, and one that starts
// calls Set before it dials BGP: routers take AdminDown, and the Down of a new
// session, for a failure if BGP is up (docs/bfd.md says which).
//
// A change of a peer's Timers keeps the session up. A change of its addresses
// or interface makes another session, which begins Down with Failures at 0.
package bfd
