// Package routes holds what every route table has in common: the route, the
// difference between two tables, and the aggregation of prefixes. It is pure;
// the tables themselves are in its sub-packages.
package routes

import "net/netip"

// Route says how a table delivers a prefix. The family is that of Prefix,
// which is always masked (no host bits).
type Route struct {
	Prefix netip.Prefix
	// Via are the next hops, sorted; several are equal-cost paths. None means
	// blackhole: the prefix is ours, and what no more specific route takes is
	// dropped here rather than sent back to the router that it came from.
	Via []netip.Addr
}
