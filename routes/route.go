// Package routes holds what every route table has in common: the route, the
// difference between two tables, and the aggregation of prefixes. It is pure;
// the tables themselves are in its sub-packages.
package routes

import (
	"fmt"
	"net/netip"
	"slices"
)

// Route says how a table delivers a prefix. The family is that of Prefix,
// which is always masked (no host bits).
type Route struct {
	Prefix netip.Prefix
	// Via are the next hops, sorted; several are equal-cost paths of one weight. A
	// link-local one has the name of its interface for a zone, and one of an IPv4
	// prefix may be an IPv6 address (RFC 8950). None means
	// blackhole: the prefix is ours, and what no more specific route takes is
	// dropped here rather than sent back to the router that it came from.
	Via []netip.Addr
}

// Blackhole says whether r drops what it takes.
func (r Route) Blackhole() bool { return len(r.Via) == 0 }

// Equal says whether r and o deliver the same prefix in the same way.
func (r Route) Equal(o Route) bool {
	return r.Prefix == o.Prefix && slices.Equal(r.Via, o.Via)
}

// String is for messages: "10.0.0.0/26 blackhole", "10.0.0.0/26 via [192.0.2.1]".
func (r Route) String() string {
	if r.Blackhole() {
		return fmt.Sprintf("%s blackhole", r.Prefix)
	}
	return fmt.Sprintf("%s via %v", r.Prefix, r.Via)
}
