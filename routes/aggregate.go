package routes

import (
	"net/netip"
	"slices"
)

// Aggregate returns the fewest prefixes that cover exactly the addresses that
// prefixes cover, sorted, IPv4 first. Host bits are masked off, duplicates and
// prefixes inside others are swallowed, and an invalid prefix covers nothing.
// The argument is left as it is.
func Aggregate(prefixes []netip.Prefix) []netip.Prefix { return AggregateTo(prefixes, 0, 0) }

// AggregateTo is Aggregate, but for prefixes shorter than those lengths, which it
// does not make of longer ones. What is as short already stays.
func AggregateTo(prefixes []netip.Prefix, shortest4, shortest6 int) []netip.Prefix {
	shortest := func(p netip.Prefix) int {
		if p.Addr().Is4() {
			return shortest4
		}
		return shortest6
	}
	sorted := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		if p.IsValid() {
			sorted = append(sorted, p.Masked())
		}
	}
	slices.SortFunc(sorted, netip.Prefix.Compare)
	// joined grows into the result in place: it is never longer than what was
	// read of sorted. Its prefixes are disjoint and ascend, so that only the
	// last of them can cover or complete the next.
	joined := sorted[:0]
	for _, p := range sorted {
		if n := len(joined); n > 0 && joined[n-1].Contains(p.Addr()) {
			continue
		}
		joined = append(joined, p)
		for n := len(joined); n > 1 && buddies(joined[n-2], joined[n-1]) && joined[n-2].Bits() > shortest(joined[n-2]); n-- {
			joined = append(joined[:n-2], parent(joined[n-2]))
		}
	}
	return joined
}

// buddies says whether a and b, which differ, are the halves of one prefix.
func buddies(a, b netip.Prefix) bool {
	return a.Bits() == b.Bits() && a.Bits() > 0 && parent(a) == parent(b)
}

// parent is the prefix one bit shorter.
func parent(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked()
}
