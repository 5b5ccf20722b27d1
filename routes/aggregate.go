package routes

import (
	"net/netip"
	"slices"
)

// Aggregate returns the fewest prefixes that cover exactly the addresses that
// prefixes cover, sorted, IPv4 first. Host bits are masked off, duplicates and
// prefixes inside others are swallowed, and an invalid prefix covers nothing.
// The argument is left as it is.
func Aggregate(prefixes []netip.Prefix) []netip.Prefix {
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
		for n := len(joined); n > 1 && buddies(joined[n-2], joined[n-1]); n-- {
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
