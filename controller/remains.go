package controller

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
)

// remains says which blocks stand in the cells of each pool that are none of
// its own: a pool was deleted while nodes held blocks of it, or was made again
// with another block size. Its nodes would take cells around them.
func (t blocks) remains(ps []*pools.Pool) []string {
	type span struct {
		netipx.IPRange
		pool int
	}
	var spans []span
	for i, p := range ps {
		for _, r := range p.Addresses().Ranges() {
			spans = append(spans, span{netipx.IPRangeFrom(p.Cell(r.From()).Addr(), netipx.PrefixLastIP(p.Cell(r.To()))), i})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.From().Compare(b.From()) })
	found := make([][]placed, len(ps))
	for _, of := range t {
		for p, b := range of {
			end := netipx.PrefixLastIP(p)
			first := sort.Search(len(spans), func(i int) bool { return !spans[i].To().Less(p.Addr()) })
			for _, s := range spans[first:] {
				if end.Less(s.From()) {
					break
				}
				if at := (placed{p, b}); !fits(at, ps[s.pool]) && !slices.Contains(found[s.pool], at) {
					found[s.pool] = append(found[s.pool], at)
				}
			}
		}
	}
	out := make([]string, len(ps))
	for i, f := range found {
		out[i] = sentence(f)
	}
	return out
}

// fits says whether b can be a block of p: it is a whole cell, or was lent out
// of one.
func fits(b placed, p *pools.Pool) bool {
	cell := p.BlockBits(pools.FamilyOf(b.Addr()))
	return b.pool.Value() == p.Name() && (b.Bits() == cell || b.Bits() > cell && b.lender.Value() != "")
}

func sentence(found []placed) string {
	if len(found) == 0 {
		return ""
	}
	first := slices.MinFunc(found, func(a, b placed) int { return a.Compare(b.Prefix) })
	text := fmt.Sprintf("a block from before stands in it, %s of pool %q on node %q", netip.Prefix(first.Prefix), first.pool.Value(), first.node.Value())
	if len(found) > 1 {
		text = fmt.Sprintf("%d blocks from before stand in it, the first one %s of pool %q on node %q", len(found), first.Prefix, first.pool.Value(), first.node.Value())
	}
	return text + ": the pool is accepted when nodes have returned what stood there"
}
