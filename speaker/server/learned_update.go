package server

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/log"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// What follows reads the lines that GoBGP writes, in the order of what they tell
// of, about UPDATEs that it has checked (RFC 7606) and about sessions. Its own
// watchers would make each route anew in another form, which takes longer than
// all else together.

// received is the line about an UPDATE. It gives those who have told too much by
// now.
func (l *learned) received(f log.Fields) []flood {
	u := lesson{}
	u.nlri, _ = f["nlri"].([]*bgp.IPAddrPrefix)
	u.withdrawn, _ = f["withdrawals"].([]*bgp.IPAddrPrefix)
	u.attributes, _ = f["attributes"].([]bgp.PathAttributeInterface)
	return l.do(func(t *lessons, now time.Time) { t.update(keyOf(f), u, now) })
}

// session is the line about a state.
func (l *learned) session(f log.Fields) {
	was, is, reason := f["old"], f["new"], fmt.Sprint(f["reason"])
	lost := was == bgp.BGP_FSM_ESTABLISHED.String() && was != is
	switch {
	case is == bgp.BGP_FSM_ESTABLISHED.String():
		l.do(func(t *lessons, now time.Time) {
			if r := t.teacher(keyOf(f)); r != nil {
				t.up(r, now)
			}
		})
	case lost, reason == "restart-timer-expired":
		l.do(func(t *lessons, now time.Time) {
			if r := t.teachers[keyOf(f)]; r != nil && lost {
				t.down(r, reason == "graceful-restart", now)
			} else if r != nil && !r.up {
				t.sweep(r, speaker.IPv4, speaker.IPv6)
			}
		})
	}
}

// left is the line about a peer that is none any more.
func (l *learned) left(f log.Fields) {
	l.do(func(t *lessons, now time.Time) { t.leave(keyOf(f), now) })
}

// lesson is an UPDATE.
type lesson struct {
	nlri, withdrawn []*bgp.IPAddrPrefix
	attributes      []bgp.PathAttributeInterface
}

// update takes what a router says.
func (t *lessons) update(address string, u lesson, now time.Time) {
	r := t.teachers[address]
	if r == nil || !r.up || r.flooded {
		return // of a session that has ended, or is about to
	}
	defer t.checkFlood(address, r)
	for _, n := range u.withdrawn {
		t.withdraw(r, n)
	}
	var reach *bgp.PathAttributeMpReachNLRI
	for _, a := range u.attributes {
		switch a := a.(type) {
		case *bgp.PathAttributeMpUnreachNLRI:
			for _, n := range a.Value {
				t.withdraw(r, n)
			}
		case *bgp.PathAttributeMpReachNLRI:
			reach = a
		}
	}
	if len(u.nlri) > 0 {
		w := t.way(r, u.attributes, nil)
		for _, n := range u.nlri {
			t.announce(r, n, w)
		}
	}
	if reach != nil {
		w := t.way(r, u.attributes, reach)
		for _, n := range reach.Value {
			t.announce(r, n, w)
		}
	}
	end := bgp.BGPUpdate{NLRI: u.nlri, WithdrawnRoutes: u.withdrawn, PathAttributes: u.attributes}
	switch is, family := end.IsEndOfRib(); {
	case !is:
	case family == bgp.RF_IPv4_UC:
		t.endOfRIB(r, speaker.IPv4, now)
	case family == bgp.RF_IPv6_UC:
		t.endOfRIB(r, speaker.IPv6, now)
	}
}

func (t *lessons) withdraw(r *teacher, n bgp.AddrPrefixInterface) {
	if p := prefixOf(n).Masked(); p.IsValid() {
		t.unlearn(r, p, n.PathIdentifier())
	}
}

// announce enters a route.
func (t *lessons) announce(r *teacher, n bgp.AddrPrefixInterface, w *way) {
	p := prefixOf(n).Masked()
	if !p.IsValid() {
		return
	}
	if !routable(p) {
		w = &way{echo: w.echo}
	}
	t.learn(r, p, n.PathIdentifier(), w)
}

// routable says whether a prefix is of addresses that a router can lead to.
func routable(p netip.Prefix) bool {
	a := p.Addr()
	return p.Bits() == 0 || !(a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is4In6() || a.Is4() && a.As4()[0] == 0)
}

// way reads the attributes of an UPDATE; reach is for the prefixes in there, nil
// for those of IPv4 outside. It has no next hops for a route that has been here
// already, or that leads nowhere.
func (t *lessons) way(r *teacher, attributes []bgp.PathAttributeInterface, reach *bgp.PathAttributeMpReachNLRI) *way {
	w := &way{preference: usualPreference, external: r.external}
	shut := false
	var hop netip.Addr
	for _, a := range attributes {
		switch a := a.(type) {
		case *bgp.PathAttributeOrigin:
			w.origin = a.Value
		case *bgp.PathAttributeAsPath:
			if !w.along(a.Value, r.asn) {
				return &way{echo: true}
			}
		case *bgp.PathAttributeNextHop:
			hop = addrOf(a.Value)
		case *bgp.PathAttributeMultiExitDisc:
			w.med = a.Value
		case *bgp.PathAttributeLocalPref:
			if !r.external { // RFC 4271, section 5.1.5
				w.preference = a.Value
			}
		case *bgp.PathAttributeOriginatorId: // RFC 4456, section 8
			if !r.external && addrOf(a.Value) == t.routerID {
				return &way{echo: true}
			}
		case *bgp.PathAttributeCommunities:
			shut = slices.Contains(a.Value, uint32(speaker.GracefulShutdown))
		}
	}
	if shut { // RFC 8326, section 4
		w.preference = 0
	}
	if reach != nil {
		hop = r.hop(reach)
	}
	if hop.IsValid() {
		w.hops = []netip.Addr{hop}
	}
	return w
}

// along reads the AS path, and says whether this node is not in it.
func (w *way) along(segments []bgp.AsPathParamInterface, own uint32) bool {
	for i, s := range segments {
		list := s.GetAS()
		if slices.Contains(list, own) {
			return false
		}
		if i == 0 && len(list) > 0 && s.GetType() == bgp.BGP_ASPATH_ATTR_TYPE_SEQ {
			w.neighbor = list[0]
		}
		w.length += s.ASLen()
	}
	return true
}

// hop is where packets for the prefixes of an attribute go: the router's link-local
// address where there is no other, or where the session is with that one.
func (r *teacher) hop(reach *bgp.PathAttributeMpReachNLRI) netip.Addr {
	global, local := addrOf(reach.Nexthop), addrOf(reach.LinkLocalNexthop)
	zone := r.address.Zone()
	switch {
	case zone != "" && local.IsLinkLocalUnicast():
		return local.WithZone(zone)
	case zone != "" && (!global.IsValid() || global.IsUnspecified()):
		return r.address // BIRD's way to name itself
	case global.Is6() && global.IsLinkLocalUnicast():
		if zone == "" {
			return netip.Addr{} // on a link that nobody names
		}
		return global.WithZone(zone)
	}
	return global
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
