package exchange

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
)

// view is a pool's blocks as they were at some time.
type view struct {
	at     time.Time
	stored map[netip.Prefix]Stored
	free   map[pools.Family]int  // cells, about; less those claimed since
	scarce map[pools.Family]bool // there are too few free cells should others lack as much as this node
}

// newView is of the blocks of pool, which is nil if it is gone.
func newView(at time.Time, pool *pools.Pool, blocks []Stored) *view {
	v := &view{at: at, stored: make(map[netip.Prefix]Stored, len(blocks)), free: map[pools.Family]int{}, scarce: map[pools.Family]bool{}}
	for _, b := range blocks {
		v.stored[b.Prefix] = b
	}
	if pool == nil {
		return v
	}
	for _, f := range pool.Families() {
		v.free[f] = cells(pool, f)
	}
	for _, b := range blocks {
		if f := pools.FamilyOf(b.Prefix.Addr()); b.Prefix.Bits() == pool.BlockBits(f) && !b.Vacant() {
			v.free[f]--
		}
	}
	return v
}

// claimed adds a block that this node has got.
func (v *view) claimed(st Stored) {
	if old, known := v.stored[st.Prefix]; st.Lender == "" && (!known || old.Vacant()) {
		v.free[pools.FamilyOf(st.Prefix.Addr())]--
	}
	v.stored[st.Prefix] = st
}

// blocks are those of v, what this node has for certain, and the cells that
// others were found to hold.
func (v *view) blocks(n *Node, missed map[netip.Prefix]time.Time) (out []pools.Block) {
	for p, st := range v.stored {
		if n.held[p] == nil && st.Node == n.Name {
			st.Node = "" // returned, or not known yet: not one to grow from
		}
		out = append(out, st.Block)
	}
	for p, h := range n.held {
		if _, known := v.stored[p]; !known {
			out = append(out, h.Block)
		}
	}
	for p, s := range n.strays {
		if _, known := v.stored[p]; !known {
			out = append(out, pools.Block{Prefix: p, Pool: s.Pool})
		}
	}
	for w := range n.everyWant() { // another want's may be there already
		if _, known := v.stored[w.block.Prefix]; !known && w.block.Prefix.IsValid() {
			b := pools.Block{Prefix: w.block.Prefix, Pool: w.Pool}
			if w.phase == creating {
				b.Node = n.Name // one to grow from
			}
			out = append(out, b)
		}
		for _, d := range w.draws {
			if _, known := v.stored[d.Prefix]; !known && d.progress != void {
				out = append(out, pools.Block{Prefix: d.Prefix, Pool: w.Pool})
			}
		}
	}
	for p := range n.unfit {
		if _, known := v.stored[p]; !known {
			out = append(out, pools.Block{Prefix: p})
		}
	}
	for p := range missed {
		if _, known := v.stored[p]; !known {
			out = append(out, pools.Block{Prefix: p})
		}
	}
	return out
}

// vacant cells, by prefix. What was lent falls to the space around it.
func (v *view) vacant() (out []Stored) {
	for _, p := range slices.SortedFunc(maps.Keys(v.stored), netipx.ComparePrefix) {
		if st := v.stored[p]; st.Vacant() && st.Lender == "" {
			out = append(out, st)
		}
	}
	return out
}

// holders counts the nodes that hold blocks of a family.
func (v *view) holders(f pools.Family) int {
	nodes := map[string]bool{}
	for p, st := range v.stored {
		if pools.FamilyOf(p.Addr()) == f && !st.Vacant() {
			nodes[st.Node] = true
		}
	}
	return len(nodes)
}
