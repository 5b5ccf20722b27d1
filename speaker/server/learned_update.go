package server

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/log"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// What follows is told by guards, of UPDATEs as they come, and by the lines that GoBGP
// writes about sessions. A session is up before its first UPDATE is read, and GoBGP
// tells of its end when no more are.

// received is an UPDATE of a router: the message without its header. It gives those who
// have told too much by now.
func (l *learned) received(address string, body []byte, agreed *bgp.MarshallingOption) []flood {
	return l.do(func(t *lessons, now time.Time) {
		if l.lesson.read(body, agreed) == nil {
			t.update(address, &l.lesson, now)
		}
	})
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

// update takes what a router says.
func (t *lessons) update(address string, u *lesson, now time.Time) {
	r := t.teachers[address]
	if r == nil || !r.up || r.flooded {
		return // of a session that has ended, or is about to
	}
	defer t.checkFlood(address, r)
	for _, n := range u.withdrawn {
		t.unlearn(r, n.prefix, n.number)
	}
	t.announce(r, u, u.told, u.hop)
	t.announce(r, u, u.reached, r.hop(u.global, u.local))
	if u.end != "" {
		t.endOfRIB(r, u.end, now)
	}
}

// announce enters routes by a next hop.
func (t *lessons) announce(r *teacher, u *lesson, list []telling, hop netip.Addr) {
	if len(list) == 0 {
		return
	}
	if r.mistaken(u) {
		for _, n := range list {
			t.unlearn(r, n.prefix, n.number)
		}
		return
	}
	w := t.way(r, &u.attributes, hop)
	for _, n := range list {
		if routable(n.prefix) {
			t.learn(r, n.prefix, n.number, w)
		} else {
			t.learn(r, n.prefix, n.number, &way{echo: w.echo})
		}
	}
}

// mistaken says whether attributes are wrong that might be right of another router.
func (r *teacher) mistaken(u *lesson) bool {
	return r.external && u.path.confed || u.hop.IsLoopback() && !r.address.IsLoopback()
}

// routable says whether a prefix is of addresses that a router can lead to.
func routable(p netip.Prefix) bool {
	a := p.Addr()
	return p.Bits() == 0 || !(a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is4In6() || a.Is4() && a.As4()[0] == 0)
}

// way is the one over a next hop. It has no next hops for a route that has been here
// already, or that leads nowhere.
func (t *lessons) way(r *teacher, a *attributes, hop netip.Addr) *way {
	w := &way{preference: usualPreference, external: r.external, origin: a.origin, med: a.med}
	mine := !r.external && a.originator.IsValid() && a.originator == t.routerID // RFC 4456, section 8
	if !w.along(a.path, a.path4, r.asn) || mine {
		return &way{echo: true}
	}
	if !r.external && a.carries(bgp.BGP_ATTR_TYPE_LOCAL_PREF) { // RFC 4271, section 5.1.5
		w.preference = a.preference
	}
	if a.shut { // RFC 8326, section 4
		w.preference = 0
	}
	if hop.IsValid() {
		w.hops = []netip.Addr{hop}
	}
	return w
}

// hop is where packets for the prefixes of an attribute go: the router's link-local
// address where there is no other, or where the session is with that one.
func (r *teacher) hop(global, local netip.Addr) netip.Addr {
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

func addrOf(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
