package agent

import (
	"slices"

	"github.com/fairway-network/fairway/speaker"
)

// Rule says how peers are told of pools.
type Rule struct {
	Pools []string // by name; none are all
	Peers []string // by the name of the peer or range, or MeshPeers; none are all
	// Withhold does not tell the peers of the pools at all. The rest then says
	// nothing.
	Withhold   bool
	Attributes speaker.Attributes
	// OwnNextHop has the peers send to this node's own address of the prefix's
	// family, if it has one, rather than to its end of the session.
	// What Attributes.NextHops has of the family goes before it.
	OwnNextHop bool
	Aggregate  Aggregate
}

// Aggregate says which blocks become one prefix. Only blocks that this node holds
// do, and only where they are all of the prefix. The zero value makes of them as
// few prefixes as possible.
type Aggregate struct {
	// IPv4 and IPv6 are the shortest lengths to which blocks are joined: at 24,
	// four adjacent /26 become a /24, and two such /24 stay two.
	IPv4, IPv6 int
	// Specifics tells of the blocks as well as of what they are joined to.
	Specifics bool
}

// Maintenance is what is about to be out of service. What it is about is told
// with the community GRACEFUL_SHUTDOWN and, to iBGP peers, with local preference 0
// (RFC 8326), so that traffic moves while this node still delivers it.
type Maintenance struct {
	Node  bool     `json:"node,omitempty"`  // all of it
	Peers []string `json:"peers,omitempty"` // the sessions with these, by the name of the peer or range
}

func (r Rule) about(pool, peer string) bool {
	return (len(r.Pools) == 0 || slices.Contains(r.Pools, pool)) && (len(r.Peers) == 0 || slices.Contains(r.Peers, peer) || ofMesh(peer) && slices.Contains(r.Peers, MeshPeers))
}
