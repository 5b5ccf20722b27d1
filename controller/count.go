package controller

import (
	"net/netip"
	"slices"
	"sort"
	"unique"

	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
)

// census is who holds what of one pool.
type census struct {
	blocks int // of nodes
	vacant int
	nodes  int
	routes int
}

// countBlocks counts the blocks of a pool with these addresses, each of them
// before those inside it. It walks through the addresses once, as a router would
// that looked each of them up: what pools.Effective is for one node, this is
// for all.
func countBlocks(sorted []placed, addrs *netipx.IPSet) census {
	w := walk{addrs: addrs.Ranges()}
	var c census
	nodes := map[unique.Handle[string]]bool{}
	for _, b := range sorted {
		if b.vacant() {
			c.vacant++
		} else {
			c.blocks++
			nodes[b.node] = true
		}
		w.enter(b)
	}
	w.leave(netip.Addr{})
	w.announce()
	c.nodes, c.routes = len(nodes), w.routes
	return c
}

// walk goes through the blocks of a pool from the first address to the last.
type walk struct {
	addrs  []netipx.IPRange
	open   []placed   // the blocks around the present address, the smallest last
	at     netip.Addr // the first address of the smallest that was not looked at
	routes int

	// What belongs to one node without a gap, up to here.
	node     unique.Handle[string]
	from, to netip.Addr
	buffer   []netip.Prefix
}

// enter goes to the first address of b.
func (w *walk) enter(b placed) {
	w.leave(b.Addr())
	if len(w.open) > 0 && w.at.IsValid() && w.at.Less(b.Addr()) {
		w.pass(b.Addr().Prev())
	}
	w.open, w.at = append(w.open, b), b.Addr()
}

// leave goes to the ends of the blocks that end before next; the zero Addr is
// behind all.
func (w *walk) leave(next netip.Addr) {
	for len(w.open) > 0 {
		last := w.open[len(w.open)-1]
		if next.IsValid() && last.Contains(next) {
			return
		}
		end := netipx.PrefixLastIP(last.Prefix)
		if w.at.IsValid() && !end.Less(w.at) {
			w.pass(end)
		}
		w.open = w.open[:len(w.open)-1]
	}
}

// pass goes through addresses of the smallest open block up to to.
func (w *walk) pass(to netip.Addr) {
	b := w.open[len(w.open)-1]
	if b.vacant() {
		w.announce()
	} else if w.from.IsValid() && w.node == b.node && w.to.Next() == w.at {
		w.to = to
	} else {
		w.announce()
		w.node, w.from, w.to = b.node, w.at, to
	}
	w.at = to.Next()
}

// announce counts the prefixes of what belongs to one node without a gap.
func (w *walk) announce() {
	if !w.from.IsValid() {
		return
	}
	first := sort.Search(len(w.addrs), func(i int) bool { return !w.addrs[i].To().Less(w.from) })
	for _, r := range w.addrs[first:] {
		if w.to.Less(r.From()) {
			break
		}
		from, to := r.From(), r.To()
		if from.Less(w.from) {
			from = w.from
		}
		if w.to.Less(to) {
			to = w.to
		}
		w.buffer = netipx.IPRangeFrom(from, to).AppendPrefixes(w.buffer[:0])
		w.routes += len(w.buffer)
	}
	w.from = netip.Addr{}
}

// use is how many addresses of a pool pods have, for each family.
type use map[pools.Family]uint64

// countUse counts which of a pool's addresses are among those that pods have.
// These are sorted; one that occurs twice counts once.
func countUse(p *pools.Pool, sorted []netip.Addr) use {
	n := use{}
	for _, r := range p.Addresses().Ranges() {
		first, _ := slices.BinarySearchFunc(sorted, r.From(), netip.Addr.Compare)
		for i := first; i < len(sorted) && !r.To().Less(sorted[i]); i++ {
			if a := sorted[i]; (i == first || a != sorted[i-1]) && !p.Reserved(a) {
				n[pools.FamilyOf(a)]++
			}
		}
	}
	return n
}
