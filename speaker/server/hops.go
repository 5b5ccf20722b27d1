package server

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// A session between IPv6 addresses has IPv6 next hops for IPv4 prefixes, which a router
// is to be sent only if its OPEN offers to take them (RFC 8950, section 4): some end the
// session over one. GoBGP sends them to any router. So the guard of a router that takes
// none withdraws what GoBGP announces in that way, and the ledger knows that it does:
// nothing is lost that could have been told, since it may have been told before with an
// IPv4 next hop that was given.

// offers says whether a router's OPEN has a capability of a kind.
func offers(open []byte, is func(bgp.ParameterCapabilityInterface) bool) bool {
	m, err := bgp.ParseBGPMessage(open)
	if err != nil {
		return false // GoBGP will say what is wrong with it
	}
	body, isOpen := m.Body.(*bgp.BGPOpen)
	return isOpen && slices.ContainsFunc(capabilities(body), is)
}

func capabilities(open *bgp.BGPOpen) (all []bgp.ParameterCapabilityInterface) {
	for _, p := range open.OptParams {
		if p, is := p.(*bgp.OptionParameterCapability); is {
			all = append(all, p.Capability...)
		}
	}
	return all
}

// takesIPv4ByIPv6 says whether a router offers to take IPv4 prefixes with IPv6 next hops.
func takesIPv4ByIPv6(c bgp.ParameterCapabilityInterface) bool {
	hops, is := c.(*bgp.CapExtendedNexthop)
	return is && slices.ContainsFunc(hops.Tuples, func(t *bgp.CapExtendedNexthopTuple) bool {
		return t.NLRIAFI == bgp.AFI_IP && t.NLRISAFI == bgp.SAFI_UNICAST && t.NexthopAFI == bgp.AFI_IP6
	})
}

// sayable is an UPDATE of GoBGP as the router may be sent it.
func (g *guard) sayable(update []byte) []byte {
	if g.takesHops.Load() {
		return update
	}
	u, ok := dissect(update)
	if !ok || !u.ipv4ByIPv6() {
		return update
	}
	var out parcel
	for p := range u.announced.all() {
		out.withdraw(p)
	}
	return out.end()
}

// ipv4ByIPv6 says whether IPv4 prefixes are announced with an IPv6 next hop.
func (u update) ipv4ByIPv6() bool {
	return len(u.announced.inside) > 0 && !u.announced.inside6 && int(u.words.hop[3]) >= net6
}

// takesHops says whether the router of a session takes IPv4 prefixes with IPv6 next hops.
func (gs *guards) takesHops(address string) bool {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.on[address]
	return g == nil || g.takesHops.Load()
}

// hopless records, before a session comes up, whether its router takes no IPv4 prefixes
// with IPv6 next hops, and says whether the session has others for some.
func (l *ledger) hopless(address string, takes bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil {
		return false
	}
	s.hopless = !takes && s.peer.Address.Is6() && slices.Contains(s.peer.Families, speaker.IPv4)
	return s.hopless
}

// lets says whether the router can be told of an IPv4 prefix in these words.
func (s *session) lets(f speaker.Family, v variant) bool {
	return !s.hopless || f != speaker.IPv4 || v.hop.IsValid()
}

// withoutHop names a peer that could be told of a prefix if it took IPv6 next hops; "" if
// there is none. The lock is held.
func (l *ledger) withoutHop(p netip.Prefix) string {
	for _, s := range l.sessions {
		if s.up && s.hopless && p.Addr().Is4() {
			return fmt.Sprintf(" (peer %s (%s) takes no IPv4 prefixes with IPv6 next hops: turn RFC 8950 on there, or give an IPv4 one)", s.peer.Name, placeOf(s.peer))
		}
	}
	return ""
}

// withheld says whether the prefixes of an UPDATE that GoBGP has written were withdrawn
// in place of being announced.
func (s *session) withheld(announced []netip.Prefix, attributes []bgp.PathAttributeInterface) bool {
	return s.hopless && len(announced) > 0 && announced[0].Addr().Is4() &&
		slices.ContainsFunc(attributes, func(a bgp.PathAttributeInterface) bool {
			reach, is := a.(*bgp.PathAttributeMpReachNLRI)
			return is && len(reach.Value) > 0 && reach.Nexthop.To4() == nil
		})
}
