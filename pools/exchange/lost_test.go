package exchange_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// A pod that has lost the block of its IPv4 address keeps its IPv6 one.
func TestLostBlockOfOneFamily(t *testing.T) {
	l := newLab(t)
	g := l.joins("n", 2, "10.0.0.0/30", "fd00::/127")
	both := func() {
		g.node.Need(anyOf(pools.IPv4), 1, l.now)
		g.node.Need(anyOf(pools.IPv6), 1, l.now)
		l.pass(time.Second)
		g.node.Need(anyOf(pools.IPv4), 0, l.now)
		g.node.Need(anyOf(pools.IPv6), 0, l.now)
	}
	both()
	first, err := g.lease("first")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(l.store.blocks, func(b Stored) bool { return b.Prefix.Contains(first[0]) })
	l.store.blocks = slices.Delete(l.store.blocks, i, i+1)
	g.node.Audit()
	l.pass(2 * time.Minute)
	if have, _ := g.ledger.Grant(ownerNamed("first").Attachment); !slices.Equal(have.Addrs, first[1:]) {
		t.Errorf("of %v the pod still has %v", first, have.Addrs)
	}
	both()
	if second, err := g.lease("second"); err != nil || second[1] == first[1] {
		t.Errorf("the next one has %v, %v", second, err)
	}
	both()
	if third, err := g.lease("third"); err == nil {
		t.Errorf("of two IPv6 addresses the third one has %v", third)
	}
	g.release("first")
	l.pass(2 * time.Minute)
	both()
	if third, err := g.lease("third"); err != nil || third[1] != first[1] {
		t.Errorf("after the end of the first one the third one has %v, %v", third, err)
	}
}

// A block is lost of which a part is lent, and the beginning of that borrowed back.
// When it is this node's again the part is still another's.
func TestLostBlockAroundWhatWasBorrowedBack(t *testing.T) {
	l := newLab(t)
	g := l.joins("n", 8, "10.0.0.0/29")
	put := func(p, node, lender string) Stored {
		st, err := l.store.create(node, pools.Block{Prefix: netip.MustParsePrefix(p), Pool: "a", Node: node, Machine: node + "-machine", Lender: lender, Created: l.now})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	cell, lent := put("10.0.0.0/29", "n", ""), put("10.0.0.0/31", "x", "n")
	if err := g.node.Adopt(cell, []Stored{lent}, l.now); err != nil {
		t.Fatal(err)
	}
	if err := g.node.Adopt(put("10.0.0.0/32", "n", "x"), nil, l.now); err != nil {
		t.Fatal(err)
	}
	if _, err := l.store.vacate(l.store.blocks[0]); err != nil {
		t.Fatal(err)
	}
	g.node.Audit()
	l.pass(time.Second)
	if left := g.ledger.Asides(); len(left) > 0 {
		t.Errorf("without the block %v are still set aside of it", left)
	}
	g.leases(7)
	if held := g.node.Held(); len(held) != 2 {
		t.Fatalf("it holds %v", describe(held))
	}
	if a, err := g.lease("one more"); err == nil {
		t.Errorf("it leases %v, and all others are leased, or lent: %v", a, lent.Prefix)
	}
}
