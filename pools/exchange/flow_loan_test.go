package exchange_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// lender brings a scene to where a holds the whole pool and uses a part of it.
func lender(t *testing.T) (s *scene, a, b *player) {
	t.Helper()
	s = newScene(t)
	a, b = s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 1)
	return s, a, b
}

// lending brings a scene to where b has drawn nothing yet of what a granted.
func lending(t *testing.T) (s *scene, a, b *player) {
	t.Helper()
	s, a, b = lender(t)
	b.needs(1)
	b.completes("List a")
	b.trips, b.writes = 0, 0
	b.completes("Ask " + requestOf("b"))
	b.does()
	a.sees()
	a.does()
	if parting := a.Parting(); len(parting) != 1 || parting[0].String() != "10.0.0.3/32" {
		t.Fatalf("a parts with %v", parting)
	}
	a.Parted(a.Parting())
	a.does("Grant 10.0.0.3/32 to " + requestOf("b"))
	return s, a, b
}

// A loan: asked for, set aside, no longer led to the lender, granted, drawn,
// the request ended and the block around read, used. Usable after four round trips,
// with four writes.
func TestFlowOfALoan(t *testing.T) {
	s, a, b := lending(t)
	a.answered()
	b.sees()
	b.completes("Create 10.0.0.3/32")
	b.has()
	b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	b.has("10.0.0.3/32")
	if trips := a.trips + b.trips; trips != 4 {
		t.Errorf("usable after %d round trips, want 4", trips)
	}
	if writes := a.writes + b.writes; writes != 4 {
		t.Errorf("%d writes, want 4", writes)
	}
	// The lender finds that the request is gone, and that the block is there.
	a.sees()
	s.now = s.now.Add(time.Second)
	a.completes("Request " + requestOf("b"))
	s.now = s.now.Add(time.Second)
	a.does("Block 10.0.0.3/32")
	a.answered()
	// It comes back: the asker withdraws and removes it, the lender looks again.
	b.needs(0)
	b.CloseEmpty(s.now.Add(time.Minute))
	b.Parted(b.Parting())
	b.completes("Delete 10.0.0.3/32")
	s.now = s.now.Add(time.Minute)
	a.completes("Block 10.0.0.3/32")
	if left := a.ledger.Asides(); len(left) > 0 {
		t.Errorf("still set aside: %v", left)
	}
}

// A loan does not stand if its lender lost the block around it meanwhile, or has
// taken it anew, without a memory of what it granted.
func TestFlowOfALoanThatDoesNotStand(t *testing.T) {
	for name, meanwhile := range map[string]func(*model, Stored) (Stored, error){
		"lost":       (*model).vacate,
		"taken anew": func(m *model, outer Stored) (Stored, error) { return m.take("a", outer) },
	} {
		t.Run(name, func(t *testing.T) {
			s, a, b := lending(t)
			a.answered()
			b.sees()
			b.does("Create 10.0.0.3/32")
			i, _ := s.store.find(netip.MustParsePrefix("10.0.0.0/30"))
			if _, err := meanwhile(&s.store, s.store.blocks[i]); err != nil {
				t.Fatal(err)
			}
			b.answered()
			b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
			b.completes("Delete 10.0.0.3/32")
			b.has()
		})
	}
}

// A lent block is not used if it was somebody else who removed the request, or may have
// been: the lender may have looked for the block before it was made.
func TestFlowOfALoanWhoseRequestIsGone(t *testing.T) {
	for name, unanswered := range map[string]bool{"removed by somebody else": false, "removed, and not answered": true} {
		t.Run(name, func(t *testing.T) {
			s, a, b := lending(t)
			a.answered()
			b.sees()
			b.completes("Create 10.0.0.3/32")
			if unanswered {
				b.does("Retract "+requestOf("b"), "Block 10.0.0.0/30")
				b.unanswered(true)
				b.does("Retract "+requestOf("b"), "Block 10.0.0.0/30")
			} else {
				s.store.retract("", s.store.requests[0])
				b.does("Retract "+requestOf("b"), "Block 10.0.0.0/30")
			}
			b.answered()
			b.does("Delete 10.0.0.3/32")
			b.has()
		})
	}
}

// lendingParts brings a scene to where b makes the blocks of two grants of a.
func lendingParts(t *testing.T) (s *scene, a, b *player) {
	t.Helper()
	s, a, b = lender(t)
	b.asks(3)
	a.makesRoom()
	a.completes("Grant 10.0.0.2/31, 10.0.0.0/32 to " + requestOf("b"))
	b.sees()
	b.does("Create 10.0.0.2/31", "Create 10.0.0.0/32")
	return s, a, b
}

// What is granted together is drawn side by side, and what is around it read once.
func TestFlowOfALoanOfTwoParts(t *testing.T) {
	_, _, b := lendingParts(t)
	b.answered()
	b.has()
	b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	b.has("10.0.0.2/31", "10.0.0.0/32")
}

// One part of what was granted is another node's block by now, and nothing of it is
// made; the other is used.
func TestFlowOfALoanOfWhichAPartIsAnothers(t *testing.T) {
	s, _, b := lendingParts(t)
	s.store.create("c", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.0/32"), Pool: "a", Node: "c"})
	b.answered()
	b.completes("Block 10.0.0.0/32")
	b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	b.has("10.0.0.2/31")
}

// An asker that ends between the creations of one request returns what it has made, and
// then the lender has all of it back.
func TestFlowOfAnAskerThatEndsBetweenCreations(t *testing.T) {
	s, a, b := lendingParts(t)
	s.store.do("b", b.calls[0])
	again := s.enter(t, "b", "b.1")
	again.does()
	again.Disown(s.store.requests)
	s.now = s.now.Add(Settle)
	again.completes("Request " + requestOf("b"))
	again.completes("Block 10.0.0.2/31", "Block 10.0.0.0/32")
	again.completes("Delete 10.0.0.2/31", "Retract "+requestOf("b"))
	again.has()
	a.sees()
	for range 10 {
		s.now = s.now.Add(time.Second)
		a.calls, _ = a.Advance(s.now)
		a.answered()
	}
	if left := a.ledger.Asides(); len(left) > 0 || a.ledger.Free("a", pools.IPv4, s.now) != 3 {
		t.Errorf("still set aside: %v", left)
	}
}

// A lender that ends asks once after all that it has granted together.
func TestFlowOfALenderThatEndsAfterAGrant(t *testing.T) {
	s, a, b := lendingParts(t)
	again := s.enter(t, "a", "a.1")
	if _, err := again.Restore(a.History()); err != nil {
		t.Fatal(err)
	}
	again.completes("Request " + requestOf("b"))
	b.answered()
	b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	s.now = s.now.Add(time.Second)
	again.completes("Request " + requestOf("b"))
	s.now = s.now.Add(time.Second)
	again.completes("Block 10.0.0.2/31", "Block 10.0.0.0/32")
	if asides := again.ledger.Asides(); len(asides) != 2 {
		t.Errorf("set aside: %v", asides)
	}
	b.has("10.0.0.2/31", "10.0.0.0/32")
}

// A request that was given more since it was read is not removed before that is drawn,
// too; what was read of the blocks around is read again.
func TestFlowOfAGrantThatComesWhileTheRequestIsClosed(t *testing.T) {
	s, a, b := lending(t)
	b.needs(3)
	a.answered()
	first := s.store.requests[0]
	first.Count = 3 // more than b has asked for at first
	s.store.requests[0] = first
	b.sees()
	b.completes("Create 10.0.0.3/32")
	s.now = s.now.Add(time.Second)
	b.does("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	outer := first.Grants[0]
	outer.Prefix = netip.MustParsePrefix("10.0.0.2/32")
	first.Grants = append(slices.Clip(first.Grants), outer)
	if _, err := s.store.grant("a", first); err != nil {
		t.Fatal(err)
	}
	b.answered()
	b.has()
	b.sees()
	b.completes("Create 10.0.0.2/32")
	s.now = s.now.Add(time.Second)
	b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	b.has("10.0.0.2/32", "10.0.0.3/32")
}

// What comes free while another node waits is lent at once: whoever releases is told
// that somebody waits, and the node wakes by itself when an address has rested.
func TestFlowOfWhatComesFree(t *testing.T) {
	const rest = 20 * time.Second
	s := newSceneWithRest(t, rest)
	a, b := s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 4)
	b.asks(1)
	if a.Awaited("a") {
		t.Error("a has heard of nobody who waits")
	}
	a.sees()
	a.does()
	if !a.Awaited("a") || a.Awaited("another") {
		t.Errorf("somebody waits for pool a: %v, for another one: %v", a.Awaited("a"), a.Awaited("another"))
	}
	free := s.now.Add(rest)
	a.release("10.0.0.0/30b")
	_, next := a.Advance(s.now)
	if !next.Equal(free) {
		t.Fatalf("a goes on in %v, want %v", next.Sub(s.now), rest)
	}
	s.now = next
	a.does()
	if parting := a.Parting(); len(parting) != 1 {
		t.Errorf("a parts with %v", parting)
	}
}

// A block in which nothing was leased yet goes back soon to the one who asks: its node
// wakes by itself when it may go.
func TestFlowOfWhatIsFresh(t *testing.T) {
	s := newScene(t)
	a, b := s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/32", 0) // too small to lend a part of
	claimed := s.now
	b.asks(1)
	a.sees()
	_, next := a.Advance(s.now)
	if parting := a.Parting(); len(parting) > 0 {
		t.Fatalf("a parts with %v after %v", parting, s.now.Sub(claimed))
	}
	if wait := next.Sub(claimed); next.IsZero() || wait > time.Second {
		t.Fatalf("a goes on %v after it has claimed the block", wait)
	}
	s.now = next
	a.does()
	if parting := a.Parting(); len(parting) != 1 || parting[0].String() != "10.0.0.0/32" {
		t.Errorf("a parts with %v", parting)
	}
}

// Pods of a node that wait get what has rested there as soon as it has.
func TestFlowOfWhatHasRested(t *testing.T) {
	const rest = 20 * time.Millisecond
	s := newSceneWithRest(t, rest)
	a := s.enter(t, "a", "a.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 4)
	a.asks(1)
	a.does()
	a.release("10.0.0.0/30b")
	if _, next := a.Advance(s.now); !next.Equal(s.now.Add(rest)) {
		t.Errorf("a goes on in %v, want %v", next.Sub(s.now), rest)
	}
}

// Who answers too late leaves the request alone, though the watch shows it open still.
func TestFlowOfAnAnswerThatComesTooLate(t *testing.T) {
	s, a, _ := lending(t)
	i, _ := s.store.findRequest(RequestName("b", Lack{Pool: "a", Family: pools.IPv4}))
	first := s.store.requests[i]
	first.Grants = []Grant{{Lender: "c", Prefix: netip.MustParsePrefix("10.0.0.9/32")}}
	if _, err := s.store.grant("c", first); err != nil {
		t.Fatal(err)
	}
	a.answered()
	a.does()
	s.now = s.now.Add(time.Second)
	a.completes("Request " + requestOf("b"))
	a.does()
	if parting := a.Parting(); len(parting) > 0 || len(a.ledger.Asides()) > 0 {
		t.Errorf("a parts with %v, and has set %v aside", parting, a.ledger.Asides())
	}
}

// A grant that nobody answered may count: it is read, and what it grants stays
// set aside.
func TestFlowOfAnUnknownGrant(t *testing.T) {
	for name, done := range map[string]bool{"done": true, "not done": false} {
		t.Run(name, func(t *testing.T) {
			_, a, _ := lending(t)
			a.unanswered(done)
			a.does("Request " + requestOf("b"))
			if len(a.ledger.Asides()) != 1 {
				t.Fatal("what was perhaps granted is not set aside")
			}
			a.answered()
			if done {
				a.does()
			} else {
				a.does("Grant 10.0.0.3/32 to " + requestOf("b"))
			}
		})
	}
}

// A draw that nobody answered is made again, until it is known; then the loan is
// checked as always.
func TestFlowOfAnUnknownDraw(t *testing.T) {
	for name, done := range map[string]bool{"done": true, "not done": false} {
		t.Run(name, func(t *testing.T) {
			_, a, b := lending(t)
			a.answered()
			b.sees()
			b.does("Create 10.0.0.3/32")
			b.unanswered(done)
			b.completes("Create 10.0.0.3/32")
			if done {
				b.completes("Block 10.0.0.3/32")
			}
			b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
			b.has("10.0.0.3/32")
		})
	}
}

// An address that one want of a node was granted in an earlier life, and another
// one was granted since, is the latter's.
func TestFlowOfTwoGrantsOfOneAddress(t *testing.T) {
	s := newScene(t)
	a, b := s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 1)
	chosen := Lack{Pool: "a", Family: pools.IPv4, Want: netip.MustParseAddr("10.0.0.3")}
	earlier := Request{Name: RequestName("b", chosen), Node: "b", Pool: "a", Family: pools.IPv4, Want: chosen.Want, Count: 1}
	earlier, err := s.store.ask("b", earlier)
	if err != nil {
		t.Fatal(err)
	}
	earlier.Grants = []Grant{{Lender: "a", Prefix: netip.MustParsePrefix("10.0.0.3/32"), Outer: netip.MustParsePrefix("10.0.0.0/30"), OuterUID: "x"}}
	if _, err = s.store.grant("a", earlier); err != nil {
		t.Fatal(err)
	}
	b.Need(chosen, 1, s.now)
	b.completes("List a")
	b.completes("Ask " + earlier.Name + " of b")
	b.does("Request " + earlier.Name + " of b")
	b.answered() // refused: it is to be swept when nothing can make the block any more
	s.store.retract("b", earlier)
	b.asks(1)
	a.makesRoom()
	a.completes("Grant 10.0.0.3/32 to " + requestOf("b"))
	s.now = s.now.Add(Settle)
	b.sees()
	b.Seen(s.store.requests, s.now)
	for range 8 {
		b.calls, _ = b.Advance(s.now)
		b.answered()
		s.now = s.now.Add(time.Second)
	}
	for _, st := range b.Held() {
		if i, there := s.store.find(st.Prefix); !there || s.store.blocks[i].UID != st.UID {
			t.Errorf("b holds %v, which is not there", st.Prefix)
		}
	}
}

// A chosen address is lent as a block of one.
func TestFlowOfAChosenAddress(t *testing.T) {
	s := newScene(t)
	a, b := s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.0/30", 1)
	want := Lack{Pool: "a", Family: pools.IPv4, Want: netip.MustParseAddr("10.0.0.2")}
	name := RequestName("b", want) + " of b"
	b.Need(want, 1, s.now)
	b.completes("List a")
	b.completes("Ask " + name)
	a.makesRoom()
	a.completes("Grant 10.0.0.2/32 to " + name)
	b.sees()
	b.completes("Create 10.0.0.2/32")
	b.completes("Retract "+name, "Block 10.0.0.0/30")
	b.lease("chosen", want.Want)
}

// A lender that has answered one request twice, and begins anew before it knows whether the
// second answer counts, does not take the first one for both.
func TestFlowOfTwoAnswersBeforeARestart(t *testing.T) {
	s := newScene(t)
	a, b := s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 3)
	b.asks(2)
	a.makesRoom()
	a.completes("Grant 10.0.0.0/32 to " + requestOf("b"))
	a.release("10.0.0.0/30c")
	a.makesRoom()
	a.does("Grant 10.0.0.0/32, 10.0.0.3/32 to " + requestOf("b"))
	late := a.calls[0]

	var blocks []pools.Record
	for _, st := range a.Held() {
		blocks = append(blocks, pools.Record{Op: pools.Claimed, Pool: "a", At: s.now, Block: &st.Block})
	}
	next := a.restarts(append(blocks, a.journal...))
	next.waits(time.Second)
	next.completes("Request " + requestOf("b"))
	if asides := next.ledger.Asides(); len(asides) != 2 {
		t.Fatalf("%v is set aside, while 10.0.0.0 and 10.0.0.3 may be b's", asides)
	}
	if r := s.store.do("a", late); r.Err != nil {
		t.Fatal(r.Err)
	}
	b.sees()
	b.completes("Create 10.0.0.0/32", "Create 10.0.0.3/32")
	b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	b.has("10.0.0.0/32", "10.0.0.3/32")
	s.goesOn(time.Minute, never, next)
	if asides := next.ledger.Asides(); len(asides) != 2 {
		t.Errorf("%v is set aside, while b has 10.0.0.0 and 10.0.0.3", asides)
	}
}

// Of a request that has changed, and is gone by the time that it is read, what was drawn is
// returned, and the node asks anew.
func TestFlowOfALoanWhoseRequestChangesAndGoes(t *testing.T) {
	for name, anew := range map[string]bool{"gone": false, "made again, late": true} {
		t.Run(name, func(t *testing.T) {
			s, _, b := lendingParts(t)
			b.answered()
			b.waits(time.Second)
			r := s.store.requests[0]
			r.Grants = append(slices.Clone(r.Grants), Grant{Lender: "c", Prefix: netip.MustParsePrefix("10.0.0.7/32"), Outer: netip.MustParsePrefix("10.0.0.4/30"), OuterUID: "x"})
			if _, err := s.store.grant("c", r); err != nil {
				t.Fatal(err)
			}
			b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30") // at a version that is gone
			if err := s.store.retract("", s.store.requests[0]); err != nil {
				t.Fatal(err)
			}
			if anew {
				r.Grants = nil
				if _, err := s.store.ask("b", r); err != nil {
					t.Fatal(err)
				}
			}
			b.waits(time.Second)
			b.completes("Request " + requestOf("b"))
			b.completes("Block 10.0.0.0/30")
			b.has()
			b.waits(time.Second)
			b.comesTo("Ask " + requestOf("b"))
			for _, st := range s.store.own("b") {
				t.Errorf("%v is there still", st.Prefix)
			}
		})
	}
}

// A cell that a node comes by while it makes a block that it was lent of it: the lent block
// is used, and all of the cell is the node's.
func TestFlowOfALoanInACellTakenMeanwhile(t *testing.T) {
	s, a, b := lending(t)
	a.answered()
	b.sees()
	b.completes("Create 10.0.0.3/32")
	cell := s.vacate(t, "10.0.0.0/30")
	cell.Node, cell.Machine = "b", "b.1"
	taken, err := s.store.take("b", cell)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Adopt(taken, s.store.inside(taken.Prefix), s.now); err != nil {
		t.Fatal(err)
	}
	if own := b.ledger.Effective("a", func(pools.Held) bool { return true }); own.Contains(netip.MustParseAddr("10.0.0.3")) {
		t.Error("the lent block is taken for own before the loan is confirmed")
	}
	i, _ := s.store.find(netip.MustParsePrefix("10.0.0.3/32"))
	if err := b.Adopt(s.store.blocks[i], nil, s.now); err != nil {
		t.Fatal(err)
	}
	if own := b.ledger.Effective("a", func(pools.Held) bool { return true }); !own.ContainsPrefix(taken.Prefix) {
		t.Errorf("of %v the node takes %v for its own", taken.Prefix, own.Prefixes())
	}
	next := b.restarts(b.journal)
	if own := next.ledger.Effective("a", func(pools.Held) bool { return true }); !own.ContainsPrefix(taken.Prefix) {
		t.Errorf("of %v the next life takes %v for its own", taken.Prefix, own.Prefixes())
	}
}
