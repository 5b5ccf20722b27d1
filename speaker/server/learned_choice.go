package server

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/speaker"
)

const (
	// maxHops bounds the next hops of one route.
	maxHops = 64
	// usualPreference is LOCAL_PREF where a router says none.
	usualPreference = 100
)

// way is what one UPDATE says of all its prefixes.
type way struct {
	hops       []netip.Addr // one, as a rule; none for a way that leads nowhere
	preference uint32
	length     int // of the AS path, RFC 4271 section 9.1.2.2
	origin     uint8
	med        uint32
	neighbor   uint32 // the ASN that the MED is of
	external   bool
	echo       bool // it has been through this node, or another of its ASN
}

// compare orders ways by what decides before MED (RFC 4271, section 9.1.2.2), the
// better first.
func (w *way) compare(o *way) int {
	return cmp.Or(cmp.Compare(o.preference, w.preference), cmp.Compare(w.length, o.length), cmp.Compare(w.origin, o.origin))
}

// want are the next hops by which a prefix is to be delivered, sorted; none if no
// route to it counts. Ways that nothing in RFC 4271 tells apart, but for the age
// and the router's name, share the traffic, whichever ASNs they come by.
func (t *lessons) want(p netip.Prefix, e *entry) []netip.Addr {
	if !slices.ContainsFunc(e.paths, func(one report) bool { return one.accepted }) || t.own.contain(p) {
		return nil // what this node holds is delivered here
	}
	if len(e.paths) == 1 {
		return e.paths[0].way.hops
	}
	var ways []*way
	for _, one := range e.paths {
		if one.accepted {
			ways = append(ways, one.way)
		}
	}
	if ways = best(ways); len(ways) == 1 {
		return ways[0].hops
	}
	var hops []netip.Addr
	for _, w := range ways {
		hops = append(hops, w.hops...)
	}
	slices.SortFunc(hops, netip.Addr.Compare)
	hops = slices.Compact(hops)
	return hops[:min(len(hops), maxHops)]
}

// best drops the ways that others are better than.
func best(ways []*way) []*way {
	if len(ways) < 2 {
		return ways
	}
	top := slices.MinFunc(ways, (*way).compare)
	ways = slices.DeleteFunc(ways, func(w *way) bool { return w.compare(top) > 0 })
	lowest := make(map[uint32]uint32, len(ways)) // MED, by the ASN that it is of
	external := false
	for _, w := range ways {
		if med, has := lowest[w.neighbor]; !has || w.med < med {
			lowest[w.neighbor] = w.med
		}
	}
	ways = slices.DeleteFunc(ways, func(w *way) bool { return w.med > lowest[w.neighbor] })
	for _, w := range ways {
		external = external || w.external
	}
	return slices.DeleteFunc(ways, func(w *way) bool { return w.external != external })
}

// takes says whether a route of the router counts.
func (r *teacher) takes(p netip.Prefix, w *way) bool { return len(w.hops) > 0 && r.accepts(p) }

// accepts says whether the router's rules accept a prefix.
func (r *teacher) accepts(p netip.Prefix) bool {
	return slices.ContainsFunc(r.accept, func(rule speaker.PrefixRule) bool { return ruleAccepts(rule, p) })
}

func ruleAccepts(r speaker.PrefixRule, p netip.Prefix) bool {
	least, most := lengthsOf(r)
	return p.Bits() >= least && p.Bits() <= most && r.Network.Contains(p.Addr())
}

// lengthsOf are AtLeast and AtMost with what zero values stand for.
func lengthsOf(r speaker.PrefixRule) (least, most int) {
	least, most = max(r.AtLeast, r.Network.Bits()), r.AtMost
	switch {
	case most > 0:
	case r.AtLeast > 0:
		most = r.Network.Addr().BitLen()
	default:
		most = r.Network.Bits()
	}
	return least, most
}

// checkRule says what is wrong with a rule.
func checkRule(r speaker.PrefixRule) error {
	n := r.Network
	if !n.IsValid() || n != n.Masked() || n.Addr().Is4In6() {
		return fmt.Errorf("accepted prefix %q: want a network without host bits", n)
	}
	for _, bits := range []int{r.AtLeast, r.AtMost} {
		if bits != 0 && (bits < n.Bits() || bits > n.Addr().BitLen()) {
			return fmt.Errorf("accepted prefix %s: a length of %d: want from %d to %d, or 0", n, bits, n.Bits(), n.Addr().BitLen())
		}
	}
	if least, most := lengthsOf(r); least > most {
		return fmt.Errorf("accepted prefix %s: lengths from %d to %d are none: exchange them", n, least, most)
	}
	return nil
}
