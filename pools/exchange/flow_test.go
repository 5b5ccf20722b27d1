package exchange_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// The first claim of a pool lists its blocks and makes one; the next one is the
// buddy of the first, and one call.
func TestFlowOfClaims(t *testing.T) {
	a := newScene(t).enter(t, "a", "a.1")
	a.needs(1)
	a.completes("List a")
	a.completes("Create 10.0.0.0/30")
	a.has("10.0.0.0/30")
	if a.trips != 2 || a.writes != 1 {
		t.Errorf("%d round trips and %d writes, want 2 and 1", a.trips, a.writes)
	}
	a.needs(0)
	a.does()
	for _, id := range []string{"1", "2", "3", "4"} {
		a.lease(id)
	}
	a.waits(calm)
	a.needs(1)
	a.completes("Create 10.0.0.4/30")
	a.has("10.0.0.0/30", "10.0.0.4/30")
	if a.trips != 3 {
		t.Errorf("%d round trips more, want 1", a.trips-2)
	}
}

// A vacant block is taken, and looked into before it is used.
func TestFlowOfATakeOver(t *testing.T) {
	s := newScene(t)
	gone := s.enter(t, "gone", "gone.1")
	gone.holds("10.0.0.0/30", 0)
	gone.holds("10.0.0.4/30", 0)
	s.store.create("b", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Pool: "a", Node: "b", Lender: "gone"})
	s.vacate(t, "10.0.0.0/30")
	a := s.enter(t, "a", "a.1")
	a.needs(1)
	a.completes("List a")
	a.completes("Take 10.0.0.0/30")
	a.has()
	a.completes("Inside 10.0.0.0/30")
	a.has("10.0.0.0/30")
	if asides := a.ledger.Asides(); len(asides) != 1 || asides[0].Node != "b" {
		t.Errorf("set aside: %v, want b's 10.0.0.1", asides)
	}
}

// A vacant block that was lent is nobody's to take: it falls to the space around
// it, whose node may have leased of it already.
func TestFlowOfAVacantLoan(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	for _, cell := range []string{"10.0.0.0/30", "10.0.0.4/30"} {
		s.store.create("b", pools.Block{Prefix: netip.MustParsePrefix(cell), Pool: "a", Node: "b"})
	}
	lent, err := s.store.create("gone", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Pool: "a", Node: "gone", Lender: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.vacate(lent); err != nil {
		t.Fatal(err)
	}
	a.needs(1)
	a.completes("List a")
	a.does("Ask " + requestOf("a"))
}

// A node that came by the space around a block that it was lent keeps the space
// for as long as it has that block.
func TestFlowOfAReturnAroundAnOwnBlock(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	a.holds("10.0.0.0/30", 0)
	a.holds("10.0.0.1/32", 0)
	a.lease("pod", netip.MustParseAddr("10.0.0.1"))
	s.now = s.now.Add(time.Minute)
	a.CloseEmpty(s.now)
	if parting := a.Parting(); len(parting) > 0 {
		t.Errorf("a parts with %v", parting)
	}
}

// When a lent block is gone its lender looks for what its node has lent on.
func TestFlowOfWhatWasLentOn(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	block := func(prefix, node string) *pools.Block {
		return &pools.Block{Prefix: netip.MustParsePrefix(prefix), Pool: "a", Node: node}
	}
	held, err := s.store.create("a", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.0/30"), Pool: "a", Node: "a", Machine: "a.1"})
	if err != nil {
		t.Fatal(err)
	}
	s.store.create("c", *block("10.0.0.3/32", "c"))
	if _, err := a.Restore([]pools.Record{
		{Op: pools.Claimed, Pool: "a", Block: &held.Block},
		{Op: pools.Lent, Pool: "a", Block: block("10.0.0.2/31", "b")},
	}); err != nil {
		t.Fatal(err)
	}
	a.comesTo("Block 10.0.0.2/31")
	a.answered()
	a.completes("Inside 10.0.0.2/31")
	if asides := a.ledger.Asides(); len(asides) != 1 || asides[0].Node != "c" {
		t.Errorf("set aside: %v, want c's 10.0.0.3", asides)
	}
}

// A claim that nobody answered is made again; if the block is there by then, its
// node looks whose it is.
func TestFlowOfAnUnknownClaim(t *testing.T) {
	for name, done := range map[string]bool{"done": true, "not done": false} {
		t.Run(name, func(t *testing.T) {
			a := newScene(t).enter(t, "a", "a.1")
			a.needs(1)
			a.completes("List a")
			a.does("Create 10.0.0.0/30")
			a.unanswered(done)
			a.has()
			a.completes("Create 10.0.0.0/30")
			if done {
				a.completes("Block 10.0.0.0/30")
				a.completes("Take 10.0.0.0/30")
				a.has()
				a.completes("Inside 10.0.0.0/30")
			}
			a.has("10.0.0.0/30")
		})
	}
}

// What a claim finds in its node's name may be of an earlier life, whose removal
// of it is still under way: taken anew, it stays.
func TestFlowOfAClaimOfWhatAnEarlierLifeRemoves(t *testing.T) {
	s := newScene(t)
	old := s.enter(t, "a", "a.1")
	old.holds("10.0.0.0/30", 0)
	s.now = s.now.Add(time.Minute)
	old.CloseEmpty(s.now)
	old.Parted(old.Parting())
	old.does("Delete 10.0.0.0/30")
	late := old.calls[0]
	a := s.enter(t, "a", "a.1")
	a.needs(1)
	a.does("List a")
	a.calls[0].Pool = "behind" // shows nothing yet
	a.answered()
	a.does("Create 10.0.0.0/30")
	a.unanswered(false)
	a.completes("Create 10.0.0.0/30")
	a.completes("Block 10.0.0.0/30")
	a.does("Take 10.0.0.0/30")
	a.unanswered(false)
	a.completes("Take 10.0.0.0/30")
	a.completes("Inside 10.0.0.0/30")
	a.has("10.0.0.0/30")
	if r := s.store.do("a", late); r.Err == nil {
		t.Error("a late removal has removed what is in use")
	}
}

// A block whose removal has begun is not used any more, whatever became of it.
func TestFlowOfAnUnknownReturn(t *testing.T) {
	for name, done := range map[string]bool{"done": true, "not done": false} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			a := s.enter(t, "a", "a.1")
			a.holds("10.0.0.0/30", 0)
			s.now = s.now.Add(time.Minute)
			a.CloseEmpty(s.now)
			a.does()
			a.Parted(a.Parting())
			a.does("Delete 10.0.0.0/30")
			a.unanswered(done)
			a.has()
			a.completes("Delete 10.0.0.0/30")
			a.does()
			a.has()
		})
	}
}

// An empty block is returned, not lent, when somebody asks.
func TestFlowOfAReturnOnRequest(t *testing.T) {
	s := newScene(t)
	a, b := s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 0)
	s.now = s.now.Add(time.Minute)
	b.asks(1)
	a.makesRoom()
	a.completes("Delete 10.0.0.0/30")
	b.comesTo("Create 10.0.0.0/30")
	b.answered()
	b.has("10.0.0.0/30")
	b.does("Retract " + requestOf("b"))
}

// A machine without a journal takes its name's cells anew at once, and returns
// what was lent to it.
func TestFlowOfAReboot(t *testing.T) {
	s := newScene(t)
	old := s.enter(t, "a", "a.1")
	old.holds("10.0.0.0/30", 2)
	s.store.create("c", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.4/30"), Pool: "a", Node: "c"})
	s.store.create("a", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.5/32"), Pool: "a", Node: "a", Machine: "a.1", Lender: "c"})
	a := s.enter(t, "a", "a.2")
	if _, err := a.Found(nil, s.store.own("a"), s.now); err != nil {
		t.Fatal(err)
	}
	a.does("Take 10.0.0.0/30", "Delete 10.0.0.5/32")
	a.has()
	a.answered()
	a.completes("Inside 10.0.0.0/30")
	a.has("10.0.0.0/30")
	if held := a.Held()[0]; held.Machine != "a.2" || held.Tenure != 1 {
		t.Errorf("it is %v's in tenure %d", held.Machine, held.Tenure)
	}
}

// A block that no pool has goes before what of it is lent is forgotten: a life
// that finds the one in its journal finds the other.
func TestFlowOfADiscard(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	var kept []pools.Op
	a.Keep = func(rec pools.Record) error {
		kept = append(kept, rec.Op)
		return nil
	}
	block := func(prefix, node string) *pools.Block {
		return &pools.Block{Prefix: netip.MustParsePrefix(prefix), Pool: "gone", Node: node, UID: prefix}
	}
	unfit, err := a.Restore([]pools.Record{
		{Op: pools.Claimed, Pool: "gone", Block: block("10.0.1.0/30", "a")},
		{Op: pools.Lent, Pool: "gone", Block: block("10.0.1.3/32", "b")},
	})
	if err != nil || len(unfit) != 1 {
		t.Fatalf("unfit: %v, %v", unfit, err)
	}
	if err := a.Discard(unfit[0], s.now); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(kept, []pools.Op{pools.Returned, pools.Regained}) {
		t.Errorf("the journal says %v, want returned (%v), then regained (%v)", kept, pools.Returned, pools.Regained)
	}
}
