package exchange_test

import (
	"fmt"
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

// A node that is lent a part of what it takes for its own has lost that: the pods that
// have addresses of it are not to keep them by the loan, for others have had them.
func TestAGrantInAnOwnBlockIsASignOfItsLoss(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 4)
	lost := s.vacate(t, "10.0.0.0/30")
	lost.Node, lost.Machine = "b", "b.1"
	lost, err := s.store.take("b", lost)
	if err != nil {
		t.Fatal(err)
	}
	a.asks(1)
	r := s.store.requests[0]
	r.Grants = []Grant{{Lender: "b", Prefix: netip.MustParsePrefix("10.0.0.1/32"), Outer: lost.Prefix, OuterUID: lost.UID, OuterTenure: lost.Tenure}}
	if _, err := s.store.grant("b", r); err != nil {
		t.Fatal(err)
	}
	a.sees()
	a.completes("Retract " + requestOf("a"))
	a.completes("Own")
	a.has("10.0.0.4/30")
	if n := a.ledger.Leases("a", pools.IPv4); n != 4 {
		t.Errorf("%d leases stand, want 4", n)
	}
}

// A node that has lost a lent block in a cell of its own keeps the cell for as long as
// that block is there, vacant perhaps: whoever claims a cell does not look inside.
func TestACellStaysAroundALostBlock(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	a.holds("10.0.0.0/30", 0)
	a.holds("10.0.0.1/32", 0)
	lost := s.vacate(t, "10.0.0.1/32")
	a.Audit()
	a.completes("Own")
	a.has("10.0.0.0/30")
	s.now = s.now.Add(time.Second)
	a.CloseEmpty(s.now)
	if parting := a.Parting(); len(parting) > 0 {
		t.Errorf("a parts with %v", parting)
	}
	if i, _ := s.store.find(lost.Prefix); s.store.blocks[i].UID == lost.UID {
		s.store.blocks = slices.Delete(s.store.blocks, i, i+1)
	}
	s.now = s.now.Add(time.Minute)
	a.completes("Block 10.0.0.1/32")
	a.does()
	a.CloseEmpty(s.now)
	if parting := a.Parting(); len(parting) != 1 {
		t.Errorf("a parts with %v", parting)
	}
}

// What others have in a vacant block that a node takes is in its journal before the
// block is: a life that has nothing but the journal leases none of it.
func TestWhatOthersHaveIsInTheJournalFirst(t *testing.T) {
	s := newScene(t)
	s.enter(t, "b", "b.1").holds("10.0.0.0/30", 0)
	s.enter(t, "d", "d.1").holds("10.0.0.4/30", 4)
	lent := pools.Block{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Pool: "a", Node: "c", Lender: "b"}
	if r := s.store.do("c", &Op{Kind: Create, Block: Stored{Block: lent}}); r.Err != nil {
		t.Fatal(r.Err)
	}
	s.vacate(t, "10.0.0.0/30")
	a := s.enter(t, "a", "a.1")
	var kept []string
	a.Keep = func(r pools.Record) error {
		kept = append(kept, fmt.Sprint(r.Op, " ", r.Block.Prefix, " of ", r.Block.Node))
		return nil
	}
	a.needs(1)
	for range 10 {
		a.calls, _ = a.Advance(s.now)
		a.answered()
	}
	a.has("10.0.0.0/30")
	want := []string{fmt.Sprint(pools.Lent, " 10.0.0.1/32 of c"), fmt.Sprint(pools.Claimed, " 10.0.0.0/30 of a")}
	if !slices.Equal(kept, want) {
		t.Errorf("the journal has %q, not %q", kept, want)
	}
}

// A block that lies in a lost one, by which the network may still lead to this node, is
// removed when it leads here no more.
func TestWhatLiesInALostBlockIsPartedWithAnew(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	a.holds("10.0.0.0/30", 0)
	inner := a.removes("10.0.0.1/32")
	s.vacate(t, "10.0.0.0/30")
	a.Audit()
	a.completes("Own")
	a.has()
	a.waits(time.Minute)
	a.does()
	if parting := a.Parting(); len(parting) != 1 || parting[0] != inner.Prefix {
		t.Fatalf("it parts with %v, not %v", parting, inner.Prefix)
	}
	a.Parted(a.Parting())
	a.completes("Block 10.0.0.1/32")
	a.completes("Delete 10.0.0.1/32")
}
