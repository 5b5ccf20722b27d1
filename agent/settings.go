package agent

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"github.com/fairway-network/fairway/speaker"
)

// Settings are what may change while an agent runs. They are whole: what is
// not in them is not wanted.
type Settings struct {
	Pools []Pool
	// Local may leave out the RouterID: the agent then chooses one, which stays
	// until the next boot.
	Local speaker.Local
	// Host are the host's addresses, of which one may become the RouterID, and one of
	// each family the next hop of a Rule. Facing are those of them by which the host
	// speaks with the peers, as far as is known. They come first: of the others one may be
	// that of a bridge for containers, which every node has.
	Host, Facing []netip.Addr
	own          []netip.Addr // those by which this node is known, see ownAddresses
	Peers        []speaker.Peer
	Ranges       []speaker.Range
	// BFD says which of Peers and Ranges, by name, have the path to them watched.
	BFD map[string]BFD
	// Rules say how peers are told of pools. For each pool and peer the first that
	// names both counts; without one the peer is told of as few prefixes as
	// possible, with no attributes of their own.
	Rules []Rule
	// Maintenance asks peers to prefer other ways than this node.
	Maintenance Maintenance
	// Unmet is what of the configuration can't be in force on this node, for people
	// to read; nil if all is.
	Unmet error
	// Awaited are the peers and ranges of this node that Unmet keeps out of force. Of
	// each its Name and Families alone count. A family that none in force carries and
	// one of these does is waited for as if that one were there.
	Awaited []speaker.Peer
	// Healthy are the peers that need a session for the agent to be ready.
	Healthy HealthyPeers
	// Mesh makes peers of the other nodes besides; nil for no mesh, as without a
	// Cluster.
	Mesh *Mesh
	// apart is what of the above came without them; nil before the first weave.
	apart *apart
	// OnStop is how the speaker ends when Run's context does.
	OnStop speaker.Stop
	// AnnounceTimeout is how long the first lease of a block waits for its
	// announcement to leave for a peer; 0 is not at all.
	AnnounceTimeout time.Duration
}

// Pool is a pool and what this node does with it.
type Pool struct {
	*pools.Pool
	// Quiet pools are neither announced nor routed by this node: their
	// addresses are of a network that the pods are attached to themselves.
	Quiet bool
	// IdleAfter is how long an empty block is kept.
	IdleAfter time.Duration
	// Draining pools lease nothing new.
	Draining bool
}

func (s *Settings) cores() []*pools.Pool {
	out := make([]*pools.Pool, len(s.Pools))
	for i, p := range s.Pools {
		out[i] = p.Pool
	}
	return out
}

func (s *Settings) quiet() map[string]bool {
	out := map[string]bool{}
	for _, p := range s.Pools {
		out[p.Name()] = p.Quiet
	}
	return out
}

// rules of the pools for the exchange of blocks. A pool that is not in the
// settings, and may be about to come, keeps its blocks.
func (s *Settings) rules() map[string]exchange.Rule {
	out := map[string]exchange.Rule{}
	for _, p := range s.Pools {
		out[p.Name()] = exchange.Rule{IdleAfter: p.IdleAfter, Draining: p.Draining}
	}
	return out
}

// carries says whether a peer is configured that carries family f.
func (s *Settings) carries(f pools.Family) bool {
	return slices.ContainsFunc(s.Peers, func(p speaker.Peer) bool { return carriesFamily(p.Session, f) }) ||
		slices.ContainsFunc(s.Ranges, func(r speaker.Range) bool { return carriesFamily(r.Session, f) })
}

// awaits says whether peers for family f are configured and none is in force.
func (s *Settings) awaits(f pools.Family) bool {
	return !s.carries(f) && slices.ContainsFunc(s.Awaited, func(p speaker.Peer) bool { return carriesFamily(p.Session, f) })
}

// unserved is Unmet where it keeps the node from being ready: where a family has no
// peer because of it or, if all are wanted, one is missing.
func (s *Settings) unserved() error {
	switch {
	case s.Healthy == NoPeers:
		return nil
	case s.Healthy == AllPeers && len(s.Awaited) > 0, s.needs(pools.IPv4), s.needs(pools.IPv6):
		return s.Unmet
	}
	return nil
}

// needs says whether family f is awaited and there are pods that could have addresses
// of it: an awaited peer whose address is not known may be of either family. Before
// there is any pool, there could be.
func (s *Settings) needs(f pools.Family) bool {
	of := func(p Pool) bool { return !p.Quiet && slices.Contains(p.Families(), f) }
	return s.awaits(f) && (len(s.Pools) == 0 || slices.ContainsFunc(s.Pools, of))
}

func carriesFamily(s speaker.Session, f pools.Family) bool {
	family := map[pools.Family]speaker.Family{pools.IPv4: speaker.IPv4, pools.IPv6: speaker.IPv6}[f]
	return slices.Contains(s.Families, family)
}

// memory is how long a peer whose session is lost may forward to this node: until
// it notices (RFC 4271, section 6.5), and for the restart time after that (RFC
// 4724, section 4.2), with the long-lived one (RFC 9494).
func (s *Settings) memory() time.Duration {
	hold := time.Duration(0)
	for _, p := range s.Peers {
		hold = max(hold, cmp.Or(p.HoldTime, speaker.DefaultHoldTime))
	}
	for _, r := range s.Ranges {
		hold = max(hold, cmp.Or(r.HoldTime, speaker.DefaultHoldTime))
	}
	return hold + s.Local.Kept()
}

// waits says whether leases of a new block of family f wait for its
// announcement: not where there is nobody to tell.
func (s *Settings) waits(f pools.Family) bool {
	return s.AnnounceTimeout > 0 && (s.carries(f) || s.awaits(f))
}

// patience bounds a lease's wait for its block. The kernel is waited for in
// any case.
func (s *Settings) patience() time.Duration {
	const kernel = 5 * time.Second
	if s.AnnounceTimeout > 0 {
		return s.AnnounceTimeout
	}
	return kernel
}
