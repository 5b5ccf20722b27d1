package kube

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/fairway-network/fairway/api/v1alpha1"
)

const (
	// placeBits is the size of a place: an IPv4 /24, an IPv6 /120. Whatever lies
	// in a prefix begins in a place that the prefix covers or lies in.
	placeBits = 8
	// largeBits is the size of the largest cell that there can be.
	largeBits = 16
	// placesAtOnce bounds how many places one request names, and its length.
	placesAtOnce = 128
)

// around is the place that a is in, of which v1alpha1.BlockAround is the name.
func around(a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, a.BitLen()-placeBits).Masked()
}

// selections are label selectors that together find all blocks in p, each of
// them once, and others nearby.
func selections(p netip.Prefix) (selectors []string) {
	if p.Addr().BitLen()-p.Bits() > largeBits {
		return []string{""}
	}
	var places []string
	for a := p.Addr(); a.IsValid() && p.Contains(a); a = after(around(a)) {
		places = append(places, v1alpha1.BlockName(around(a)))
	}
	for names := range slices.Chunk(places, placesAtOnce) {
		selectors = append(selectors, v1alpha1.LabelAround+" in ("+strings.Join(names, ",")+")")
	}
	return selectors
}

// after is the address behind a place, the zero Addr behind the last one.
func after(place netip.Prefix) netip.Addr {
	last := place.Addr().AsSlice()
	last[len(last)-1] = 1<<placeBits - 1
	a, _ := netip.AddrFromSlice(last)
	return a.Next()
}
