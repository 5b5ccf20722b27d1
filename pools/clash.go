package pools

import (
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// Clash is two pools that can't stand side by side.
type Clash struct {
	// A and B, A < B, are the pools' places in the list given to Clashes.
	A, B int
	// Both is what the two have in common: addresses, or, if Cell, a cell of
	// which each has other addresses. A block of it could be held for one of
	// them only.
	Both netipx.IPRange
	Cell bool
	// BlockSize is the largest one that parts pools which share a cell.
	BlockSize int
}

// Describe says it to a person who knows the pools by these names.
func (c Clash) Describe(a, b string) string {
	if !c.Cell {
		return fmt.Sprintf("pools %q and %q both have %s: an address belongs to one pool, take it out of one of them", a, b, words(c.Both))
	}
	return fmt.Sprintf("pools %q and %q have addresses of the same block %s, which one node holds for one pool: give both a blockSize of %d, or ranges that begin and end at whole blocks",
		a, b, words(c.Both), c.BlockSize)
}

// Clashes returns each pair of pools that clash, once.
func Clashes(ps []*Pool) []Clash {
	all := cellRanges(ps)
	var out []Clash
	seen := map[[2]int]bool{}
	for i := range all {
		// What begins before this one ends, whoever's it is.
		for j := i + 1; j < len(all) && !all[i].To().Less(all[j].From()); j++ {
			pair := [2]int{min(all[i].pool, all[j].pool), max(all[i].pool, all[j].pool)}
			if pair[0] == pair[1] || seen[pair] {
				continue
			}
			seen[pair] = true
			out = append(out, clash(ps, pair))
		}
	}
	slices.SortFunc(out, func(x, y Clash) int { return slices.Compare([]int{x.B, x.A}, []int{y.B, y.A}) })
	return out
}

// cellRange is some whole cells of a pool.
type cellRange struct {
	netipx.IPRange
	pool int
}

func cellRanges(ps []*Pool) []cellRange {
	var all []cellRange
	for i, p := range ps {
		for _, f := range p.Families() {
			for _, r := range mustSet(p.cells(f)).Ranges() {
				all = append(all, cellRange{r, i})
			}
		}
	}
	slices.SortFunc(all, func(a, b cellRange) int { return a.From().Compare(b.From()) })
	return all
}

func clash(ps []*Pool, pair [2]int) Clash {
	c := Clash{A: pair[0], B: pair[1]}
	a, b := ps[c.A], ps[c.B]
	if both, ok := a.Overlap(b); ok {
		c.Both = both
		return c
	}
	c.Cell = true
	cell, _ := shared(a, b, a.BlockSize(), b.BlockSize())
	c.Both = netipx.RangeOfPrefix(cell)
	for c.BlockSize = min(a.BlockSize(), b.BlockSize()); c.BlockSize > 1; c.BlockSize /= 2 {
		if _, still := shared(a, b, c.BlockSize, c.BlockSize); !still {
			break
		}
	}
	return c
}

// shared is the first cell that both pools would have with these block sizes.
func shared(a, b *Pool, sizeA, sizeB int) (netip.Prefix, bool) {
	x, y := *a, *b
	x.def.BlockSize, y.def.BlockSize = sizeA, sizeB
	for _, f := range x.Families() {
		both := x.cells(f)
		both.Intersect(mustSet(y.cells(f)))
		if ps := mustSet(both).Prefixes(); len(ps) > 0 {
			return ps[0], true
		}
	}
	return netip.Prefix{}, false
}

// words writes r as a person would.
func words(r netipx.IPRange) string {
	if p, ok := r.Prefix(); ok && !p.IsSingleIP() {
		return p.String()
	}
	if r.From() == r.To() {
		return r.From().String()
	}
	return r.String()
}
