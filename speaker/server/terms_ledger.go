package server

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// tells says in which words a session's peer is told of what is of a class; nil is
// no class. The lock is held.
func (l *ledger) tells(s *session, c *class) (v variant, told bool) {
	switch {
	case c == nil:
		return variant{}, false
	case c.plain():
		v, told = variantOf(speaker.Attributes{}, c.family, s.peer.ASN == localASN(s.peer.Session, speaker.Local{ASN: l.asn})), true
	default:
		v, told = c.told[s.at]
	}
	if !told || !s.lets(c.family, v) {
		return variant{}, false
	}
	return v, true
}

// retell changes what classes say, to neighbors without a session.
func (l *ledger) retell(speeches map[*class]speech) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c, o := range speeches {
		c.told, c.audience = o.told, o.audience
	}
}

// classes are those that something wanted is of.
func (l *ledger) classes() map[*class]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	used := make(map[*class]bool)
	for _, c := range l.want {
		used[c] = true
	}
	return used
}

// diff gives what is to be announced, or announced in other words, and what is
// wanted no more. What is to be announced begins with what nobody was told of, and
// ends with what somebody is not told of any more.
func (l *ledger) diff(want map[netip.Prefix]*class) (add, remove []netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.want {
		if want[p] == nil {
			remove = append(remove, p)
		}
	}
	slices.SortFunc(remove, netip.Prefix.Compare)
	return l.addition(want), remove
}

// changes is diff for some prefixes alone, those that are wanted no more with nil.
func (l *ledger) changes(some map[netip.Prefix]*class) (add, remove []netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, c := range some {
		if c == nil && l.want[p] != nil {
			remove = append(remove, p)
		}
	}
	slices.SortFunc(remove, netip.Prefix.Compare)
	return l.addition(some), remove
}

// addition is what is to be announced of some prefixes, in the order of diff. The lock is held.
func (l *ledger) addition(want map[netip.Prefix]*class) (add []netip.Prefix) {
	order := make(map[netip.Prefix]int)
	for p, c := range want {
		if was := l.want[p]; c != nil && was != c {
			add = append(add, p)
			switch {
			case was == nil:
			case c.covers(was):
				order[p] = 1
			default:
				order[p] = 2
			}
		}
	}
	slices.SortFunc(add, func(a, b netip.Prefix) int { return cmp.Or(order[a]-order[b], a.Compare(b)) })
	return add
}

// expect records that p becomes one of class c, or stops being wanted with nil, and
// gives what it was. It comes before the change is handed to GoBGP: a Flush in
// between must not miss it.
func (l *ledger) expect(p netip.Prefix, c *class) (was *class) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if was = l.want[p]; was == c {
		return was
	}
	if c != nil {
		l.want[p] = c
	} else {
		delete(l.want, p)
	}
	family := familyOf(p.Addr())
	for _, s := range l.sessions {
		o := s.out[family]
		if !s.up || o == nil {
			continue
		}
		before, had := l.tells(s, was)
		after, has := l.tells(s, c)
		switch {
		case had != has:
			if _, pending := o.reworded[p]; pending && !s.restarting {
				o.extra[p] = max(o.extra[p], 1)
			}
			delete(o.reworded, p)
			o.expect(p, has, !s.restarting)
		case has:
			o.reword(p, before, after, !s.restarting)
		}
	}
	return was
}

// reword counts in that p, which the peer is told of already, is told again.
func (o *outbox) reword(p netip.Prefix, before, after variant, queued bool) {
	_, sent := o.sent[p]
	_, pending := o.reworded[p]
	n := o.extra[p]
	if !sent || pending {
		n = max(n, 1)
	}
	if queued && n > 0 {
		o.extra[p] = n + 1
	}
	if before != after {
		o.reworded[p] = after
	}
}

// worded takes note of the words in which some prefixes were written to a peer.
func (o *outbox) worded(announced []netip.Prefix, attributes []bgp.PathAttributeInterface, self netip.Addr) {
	if len(o.reworded) == 0 {
		return
	}
	got := variantIn(attributes)
	for _, p := range announced {
		if want, awaited := o.reworded[p]; awaited && want.is(got, self) {
			delete(o.reworded, p)
		}
	}
}

// is says whether what was written is v, where this node's end of the session is
// self. Where that is not known, or a link-local address, for which a router may be
// written another, any next hop will do.
func (v variant) is(written variant, self netip.Addr) bool {
	if !v.hop.IsValid() && (!self.IsValid() || self.IsLinkLocalUnicast() || written.hop == self.Unmap()) {
		written.hop = netip.Addr{}
	}
	return v == written
}

// variantIn reads the attributes of an UPDATE.
func variantIn(attributes []bgp.PathAttributeInterface) variant {
	v := variant{preference: -1, med: -1}
	for _, a := range attributes {
		switch a := a.(type) {
		case *bgp.PathAttributeCommunities:
			list := make([]speaker.Community, len(a.Value))
			for i, c := range a.Value {
				list[i] = speaker.Community(c)
			}
			v.communities = packed(list)
		case *bgp.PathAttributeLargeCommunities:
			list := make([]speaker.LargeCommunity, len(a.Values))
			for i, c := range a.Values {
				list[i] = speaker.LargeCommunity{Global: c.ASN, Local1: c.LocalData1, Local2: c.LocalData2}
			}
			v.large = packedLarge(list)
		case *bgp.PathAttributeLocalPref:
			v.preference = int64(a.Value)
		case *bgp.PathAttributeMultiExitDisc:
			v.med = int64(a.Value)
		case *bgp.PathAttributeAsPath:
			for _, part := range a.Value {
				v.length += part.ASLen()
			}
		case *bgp.PathAttributeNextHop:
			v.hop = addrFrom(a.Value)
		case *bgp.PathAttributeMpReachNLRI:
			v.hop = addrFrom(a.Nexthop)
		}
	}
	return v
}

// addrFrom is the zero address for none.
func addrFrom(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// unheard gives a prefix of f that is announced to nobody who is there, and whether
// somebody is configured that it is announced to; the zero prefix if there is none
// such. The lock is held.
func (l *ledger) unheard(f *flush) (p netip.Prefix, configured bool) {
	heard := make(map[*class]bool)
	for _, p := range f.prefixes {
		c := l.want[p]
		if c == nil || heard[c] {
			continue
		}
		for _, s := range l.sessions {
			if _, told := l.tells(s, c); told && s.up && !s.isEnding() && s.carries(c.family) {
				heard[c] = true
			}
		}
		if !heard[c] {
			return p, c.plain() || c.audience
		}
	}
	return netip.Prefix{}, true
}
