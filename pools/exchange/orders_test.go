package exchange_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// What a node is told first it has heeded if it has just read its blocks from the
// store. Later there may have been a fence that was forgotten meanwhile.
func TestTheFirstOrdersOfANodeThatHasReadItsBlocks(t *testing.T) {
	for after, unheeded := range map[time.Duration]bool{time.Second: false, Settle: true} {
		s := newScene(t)
		a := s.enter(t, "a", "a.1")
		if _, err := a.Found(nil, nil, s.now); err != nil {
			t.Fatal(err)
		}
		s.now = s.now.Add(after)
		if news := a.Obey(Orders{Number: NoOrders}, s.now); news != unheeded || a.Unheeded(s.now, true) != unheeded {
			t.Errorf("%v after it has read its blocks: news %v, to be heeded %v", after, news, a.Unheeded(s.now, true))
		}
	}
}

// A block whose pool was gone when the node started is one of those that may have been
// lost meanwhile: when the pool is back it is looked for, and taken anew.
func TestABlockOfAPoolThatWasGoneIsLostBehindAFence(t *testing.T) {
	for name, lost := range map[string]bool{"lost": true, "still its own": false} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			g := l.joins("n", 4, "10.0.0.0/30")
			st, err := l.store.create("n", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.0/30"), Pool: "a", Node: "n", Machine: "n-machine", Created: l.now})
			if err != nil {
				t.Fatal(err)
			}
			pool, err := g.ledger.Pool("a")
			if err != nil {
				t.Fatal(err)
			}
			if err := g.ledger.SetPools(nil); err != nil {
				t.Fatal(err)
			}
			unfit, err := g.node.Restore([]pools.Record{{Op: pools.Claimed, Pool: "a", At: l.now, Block: &st.Block}})
			if err != nil || len(unfit) != 1 {
				t.Fatal(unfit, err)
			}
			g.node.Recall("o/1", l.now)
			g.node.Obey(Orders{Number: "o/2", Fence: "gone", Lifting: true}, l.now)
			if lost {
				if _, err := l.store.vacate(st); err != nil {
					t.Fatal(err)
				}
			}
			l.pass(time.Second)
			g.node.Obey(Orders{Number: "o/3"}, l.now)
			l.pass(time.Second)
			if heeded := g.node.Heeded(); heeded != "o/3" {
				t.Fatalf("it has heeded %q", heeded)
			}
			if err := g.ledger.SetPools([]*pools.Pool{pool}); err != nil {
				t.Fatal(err)
			}
			if err := g.node.Adopt(unfit[0], nil, l.now); err != nil {
				t.Fatal(err)
			}
			if n := len(g.node.Held()); n > 0 {
				t.Errorf("it holds %d blocks before it has looked", n)
			}
			l.pass(time.Second)
			if n := len(g.node.Held()); lost != (n == 0) {
				t.Errorf("it holds %v", describe(g.node.Held()))
			}
			if now := l.store.blocks[0]; !lost && now.Tenure != st.Tenure+1 {
				t.Errorf("it was not taken anew: %v", describe(l.store.blocks))
			}
		})
	}
}

// Orders that come say that the store is there: what has failed while it was not is
// tried at once.
func TestOrdersEndTheWaitOfAnAuditThatFails(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	a.holds("10.0.0.0/30", 1)
	a.Recall("o/1", s.now)
	a.Audit()
	for range 10 {
		s.now = s.now.Add(time.Minute)
		a.does("Own")
		a.Done(a.calls[0], Result{Err: errors.New("no route to host")}, s.now)
		a.does()
	}
	a.Obey(Orders{Number: "o/2", Fence: "gone"}, s.now)
	a.does("Own")
	a.answered()
	a.does()
	if a.Heeded() != "o/2" {
		t.Errorf("it has heeded %s", a.Heeded())
	}
}

// Orders are heeded when the blocks were read, and taken anew if they are to be,
// whichever of the two is over last.
func TestOrdersAreHeededWhenAllIsDone(t *testing.T) {
	for _, takenLast := range []bool{false, true} {
		s := newScene(t)
		a := s.enter(t, "a", "a.1")
		a.holds("10.0.0.0/30", 1)
		a.Recall("o/1", s.now)
		a.Obey(Orders{Number: "o/2", Fence: "gone", Lifting: true}, s.now)
		a.does("Take 10.0.0.0/30", "Own")
		first, second := a.calls[:1], a.calls[1:]
		if takenLast {
			first, second = second, first
		}
		a.calls = first
		a.answered()
		a.does()
		if a.Heeded() != "o/1" {
			t.Errorf("taken last: %v; it has heeded %s with a call under way", takenLast, a.Heeded())
		}
		a.calls = second
		a.answered()
		a.does()
		if a.Heeded() != "o/2" || a.Fenced() == "" {
			t.Errorf("taken last: %v; in the end it has heeded %s, and the fence is %q", takenLast, a.Heeded(), a.Fenced())
		}
	}
}

// A node is cut off between the call that took a block and the one that reads what is in
// it. Its orders say that it may have been taken for gone meanwhile: the block is not held
// as it was, for it may be another's by now.
func TestABlockTakenBeforeNewsIsTakenAnew(t *testing.T) {
	s := newScene(t)
	p := s.enter(t, "a", "a.1")
	p.Obey(Orders{Number: "none/0"}, s.now)
	p.settles()
	s.store.do("gone", &Op{Kind: Create, Block: Stored{Block: pools.Block{Prefix: netip.MustParsePrefix("10.0.0.0/30"), Pool: "a", Node: "gone"}}})
	s.store.do("full", &Op{Kind: Create, Block: Stored{Block: pools.Block{Prefix: netip.MustParsePrefix("10.0.0.4/30"), Pool: "a", Node: "full"}}})
	s.vacate(t, "10.0.0.0/30")
	p.needs(1)
	p.comesTo("Take 10.0.0.0/30")
	p.answered()
	p.does("Inside 10.0.0.0/30")
	reading := p.calls
	s.vacate(t, "10.0.0.0/30")
	p.Obey(Orders{Number: "none/1"}, s.now)
	p.completes("Own")
	p.calls = reading
	p.answered()
	p.has()
	p.comesTo("Take 10.0.0.0/30")
	p.answered()
	p.has()
}
