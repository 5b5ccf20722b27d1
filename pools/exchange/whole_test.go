package exchange_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// goesOn lets players make their calls, each of which takes a millisecond, and look when
// they want to, until over says so or the time is up. It returns how long that took.
func (s *scene) goesOn(most time.Duration, over func() bool, ps ...*player) time.Duration {
	began := s.now
	var shown []Request
	for s.now.Sub(began) < most && !over() {
		next := began.Add(most)
		for _, p := range ps {
			ops, at := p.Advance(s.now)
			p.calls = ops
			if parting := p.Parting(); len(parting) > 0 {
				p.Parted(parting)
				at = s.now
			}
			if len(ops) > 0 {
				at = s.now
			}
			if !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		for _, p := range ps {
			for _, o := range p.calls {
				p.Done(o, s.store.do(p.Name, o), s.now)
			}
		}
		if !slices.EqualFunc(shown, s.store.requests, Request.Equal) {
			shown, next = slices.Clone(s.store.requests), s.now
			for _, p := range ps {
				p.Seen(shown, s.now)
			}
		}
		if soon := s.now.Add(time.Millisecond); next.Before(soon) {
			next = soon
		}
		s.now = next
	}
	return s.now.Sub(began)
}

func never() bool { return false }

// A node whose own loan is given back, since it asks for addresses, notices at once.
func TestALenderThatAsksSeesItsLoanCome(t *testing.T) {
	s, a, b := lending(t)
	a.answered()
	b.sees()
	b.completes("Create 10.0.0.3/32")
	b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	b.lease("pod")
	b.needs(0)
	a.lease("x1")
	a.lease("x2")
	s.goesOn(10*time.Minute, never, a, b) // by then a looks seldom
	b.release("pod")
	a.needs(1)
	if took := s.goesOn(time.Minute, func() bool { return a.ledger.Free("a", pools.IPv4, s.now) > 0 }, a, b); took > 2*time.Second {
		t.Errorf("it has the address after %v", took)
	}
}

// What came for a pod that waits for a chosen address is not lent to another node that
// has asked for it, or for any, before the pod can lease it: whether anybody waits there
// still, or the other node is down.
func TestAChosenAddressStaysForItsPod(t *testing.T) {
	x := Lack{Pool: "a", Family: pools.IPv4, Want: netip.MustParseAddr("10.0.0.1")}
	for name, c := range map[string]struct {
		asks func(*player)
		lack Lack
		down bool
	}{
		"asked for by a node where nobody waits any more": {lack: x, asks: func(b *player) { b.Need(x, 0, b.scene.now) }},
		"asked for by a node that is down":                {lack: x, down: true},
		"any are asked for":                               {lack: Lack{Pool: "a", Family: pools.IPv4}, down: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			a, b, has := s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1"), s.enter(t, "c", "c.1")
			has.holds("10.0.0.4/30", 4)
			has.holds("10.0.0.0/30", 0)
			has.lease("x", x.Want)
			for _, id := range []string{"w", "y", "z"} {
				has.lease(id)
			}
			s.now = s.now.Add(time.Minute)
			b.Need(c.lack, 3, s.now)
			s.goesOn(time.Second, never, a, b, has)
			if c.asks != nil {
				c.asks(b)
			}
			alive := []*player{a, has}
			if !c.down {
				alive = append(alive, b)
			}
			for _, id := range []string{"w", "x", "y", "z"} {
				has.release(id)
			}
			a.Need(x, 1, s.now)
			offered := func() bool { return a.ledger.Offers(a.ledger.BlockOf("a", x.Want), x.Want) }
			s.goesOn(time.Minute, offered, alive...)
			a.Advance(s.now) // the node goes on before those who wait look
			if !offered() {
				t.Errorf("a holds %s and has set aside %v", describe(a.Held()), a.ledger.Asides())
			}
		})
	}
}

// An agent ends while it claims a block, which is made. The next life has the block as
// soon as it looks for one, and asks nobody else.
func TestAClaimUnderWayAtARestart(t *testing.T) {
	s := newScene(t)
	made := func(prefix string) pools.Block {
		st, err := s.store.create("a", pools.Block{Prefix: netip.MustParsePrefix(prefix), Pool: "a", Node: "a", Machine: "a.1"})
		if err != nil {
			t.Fatal(err)
		}
		return st.Block
	}
	known := made("10.0.0.0/30")
	made("10.0.0.4/30")
	a := s.enter(t, "a", "a.1")
	if _, err := a.Restore([]pools.Record{{Op: pools.Claimed, Pool: "a", At: s.now, Block: &known}}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"1", "2", "3", "4"} {
		a.lease(id)
	}
	s.goesOn(2*Settle, never, a)
	a.needs(1)
	if took := s.goesOn(time.Minute, func() bool { return a.ledger.Free("a", pools.IPv4, s.now) > 0 }, a); took > time.Second {
		t.Errorf("the pod has one of the free addresses after %v", took)
	}
}

// A block that a call without an answer has made is the node's, also if it can't be taken
// anew at once and nobody waits for it any more.
func TestABlockMadeWithoutAnAnswerIsNotForgotten(t *testing.T) {
	l := newLab(t)
	g := l.joins("n", 8, "10.0.0.0/29")
	refused := errors.New("not now")
	g.instead = func(o *Op) (Result, bool) {
		switch {
		case o.Kind == Create && g.calls[Create] == 1:
			l.store.do("n", o)
			return Result{Err: ErrUnknown}, true
		case o.Kind == Look && l.now.Sub(epoch()) < 2*Settle:
			return Result{Err: refused}, true
		case o.Kind == Take && g.calls[Take] == 1:
			g.node.Need(anyOf(pools.IPv4), 0, l.now)
			return Result{Err: refused}, true
		}
		return Result{}, false
	}
	g.node.Need(anyOf(pools.IPv4), 1, l.now)
	l.pass(2 * time.Minute)
	if len(l.store.blocks) != len(g.node.Held()) {
		t.Errorf("the store has %v, and the node holds %s; it made the calls %v", l.store.blocks, describe(g.node.Held()), g.calls)
	}
}

// A cell that the node comes by while it removes what it was lent of it is not removed
// before that is gone, after a crash neither; nor is one that it has lost and come by again.
func TestACellOutlivesWhatIsRemovedInIt(t *testing.T) {
	for name, again := range map[string]bool{"once": false, "lost, and again": true} {
		t.Run(name, func(t *testing.T) { cellAround(t, again) })
	}
}

func cellAround(t *testing.T, again bool) {
	s := newScene(t)
	s.enter(t, "b", "b.1").holds("10.0.0.4/30", 4)
	cell := netip.MustParsePrefix("10.0.0.0/30")
	if _, err := s.store.create("z", pools.Block{Prefix: cell, Pool: "a", Node: "z"}); err != nil {
		t.Fatal(err)
	}
	a := s.enter(t, "a", "a.1")
	inner := a.removes("10.0.0.1/32")
	goesOn := func(needs int) { // what stands in the cell can't be removed meanwhile
		a.needs(needs)
		for range 40 {
			a.Parted(a.Parting())
			a.calls, _ = a.Advance(s.now)
			for _, o := range a.calls {
				res := Result{Err: errRefused}
				if o.Block.Prefix != inner.Prefix {
					res = s.store.do("a", o)
				}
				a.Done(o, res, s.now)
			}
			a.waits(50 * time.Millisecond)
		}
	}
	s.vacate(t, cell.String())
	goesOn(1)
	a.has(cell.String())
	if again {
		s.vacate(t, cell.String())
		a.Audit()
		goesOn(0)
		a.has()
		a.journal = a.History() // as it is rewritten now and then
		a.waits(time.Minute)
		goesOn(1)
		a.has(cell.String())
	}

	next := a.restarts(a.journal)
	next.has(cell.String())
	next.waits(time.Hour)
	next.CloseEmpty(s.now)
	if parting := next.Parting(); len(parting) > 0 {
		t.Errorf("the next life is about to return %v, in which %v stands", parting, inner.Prefix)
	}
}
