package controller

import (
	"fmt"
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
	found := make([]strays, len(ps))
	for _, of := range t {
		for p, b := range of {
			at, end := (placed{p, b}), netipx.PrefixLastIP(p)
			first := sort.Search(len(spans), func(i int) bool { return !spans[i].To().Less(p.Addr()) })
			for _, s := range spans[first:] {
				if end.Less(s.From()) {
					break
				}
				if !fits(at, ps[s.pool]) {
					found[s.pool].add(at)
				}
			}
		}
	}
	out := make([]string, len(ps))
	for i, f := range found {
		out[i] = f.sentence()
	}
	return out
}

// strays are blocks that stand in a pool's way.
type strays struct {
	n           int
	first, last placed // by address; by when it was added
}

// add counts b, which may come several times on end.
func (s *strays) add(b placed) {
	if s.n > 0 && b == s.last {
		return
	}
	if s.n == 0 || b.Compare(s.first.Prefix) < 0 {
		s.first = b
	}
	s.last = b
	s.n++
}

// fits says whether b can be a block of p: it is a whole cell, or was lent out
// of one.
func fits(b placed, p *pools.Pool) bool {
	cell := p.BlockBits(pools.FamilyOf(b.Addr()))
	return b.pool.Value() == p.Name() && (b.Bits() == cell || b.Bits() > cell && b.lender.Value() != "")
}

func (s strays) sentence() string {
	if s.n == 0 {
		return ""
	}
	text := "a block from before stands in it,"
	if s.n > 1 {
		text = fmt.Sprintf("%d blocks from before stand in it, the first one", s.n)
	}
	return fmt.Sprintf("%s %s of pool %q on node %q: the pool is accepted when nodes have returned what stood there",
		text, s.first.Prefix, s.first.pool.Value(), s.first.node.Value())
}
