package config

import "net/netip"

// Announcement says how peers are told of pools. For each pool and peer the
// first that is about both counts.
type Announcement struct {
	// Names of the pools that this is about.
	Pools []string `key:"pools" otherwise:"all pools"`
	// Names of the peers that this is about.
	Peers []string `key:"peers" otherwise:"all peers"`
	// Tell the peers. With `false` they are not told of the pools, and the other
	// keys have no place.
	Announce bool `key:"announce" default:"true"`
	// Communities (RFC 1997): `64512:100`, `no-export`, `no-advertise`,
	// `no-export-subconfed`, `no-peer`, `graceful-shutdown`, `blackhole`.
	Communities []Community `key:"communities" otherwise:"none"`
	// Large communities (RFC 8092), such as `64512:1:2`.
	LargeCommunities []LargeCommunity `key:"largeCommunities" otherwise:"none"`
	// Local preference, which iBGP peers alone are told.
	LocalPreference *uint32 `key:"localPreference" limits:"0..4294967295" otherwise:"100 (RFC 4271 leaves it to the peer)"`
	// Multi-exit discriminator.
	MED *uint32 `key:"med" limits:"0..4294967295" otherwise:"none"`
	// How many times more this node's ASN stands in the AS path.
	Prepend uint8 `key:"prepend" limits:"1..20" otherwise:"none"`
	// Where the peer sends packets to: `self` is this node's end of the session,
	// `unchanged` the address by which this node is known whatever the session: the
	// router ID if the host has it, else the Node object's internal address of the
	// prefix's family, else the host's lowest global one that faces a peer, else its
	// lowest, none of a pool or a pool's gateway. Without one it is `self`. An address
	// counts for prefixes of its family. A list has an address of each family, such as
	// `[192.0.2.9, "2001:db8::9"]`.
	NextHop []NextHop `key:"nextHop" default:"self" lone:"true"`
	// Which of this node's blocks are told as one prefix.
	Aggregate Aggregate `key:"aggregate"`
}

// Aggregate says which blocks become one prefix. Only blocks that this node has
// do, and only where they are all of the prefix.
type Aggregate struct {
	// Shortest length to which IPv4 blocks are joined.
	IPv4 int `key:"ipv4" limits:"0..32" otherwise:"as short as the blocks make"`
	// Shortest length to which IPv6 blocks are joined.
	IPv6 int `key:"ipv6" limits:"0..128" otherwise:"as short as the blocks make"`
	// Tell of the blocks as well.
	Specifics bool `key:"specifics" default:"false"`
}

// Community is one of RFC 1997.
type Community uint32

// LargeCommunity is one of RFC 8092.
type LargeCommunity struct{ Global, Local1, Local2 uint32 }

// NextHop is a word or an address.
type NextHop string

// The words, each of which stands alone.
const (
	NextHopSelf      NextHop = "self"
	NextHopUnchanged NextHop = "unchanged"
)

// Address is the one that n names; the zero Addr for a word.
func (n NextHop) Address() netip.Addr {
	a, _ := netip.ParseAddr(string(n))
	return a
}

// NextHops are the addresses that a peer sends packets to, at most one of each family.
func (a Announcement) NextHops() []netip.Addr {
	var out []netip.Addr
	for _, n := range a.NextHop {
		if hop := n.Address(); hop.IsValid() {
			out = append(out, hop)
		}
	}
	return out
}
