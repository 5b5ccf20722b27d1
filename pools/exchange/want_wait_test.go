package exchange_test

import (
	"testing"
	"time"

	. "github.com/fairway-network/fairway/pools/exchange"
)

// In a pool that stays exhausted nodes look again less and less often, those that
// ask and those that have lent.
func TestAnExhaustedPoolIsLeftInPeace(t *testing.T) {
	w := newTown(t, 8, "10.0.0.0/28")
	a, b, c := w.join("a", time.Hour), w.join("b", time.Hour), w.join("c", time.Hour)
	a.run("p", 8)
	b.run("q", 4)
	c.run("r", 4)           // lent by b
	w.pass(2 * time.Second) // the lenders look what became of the requests
	for _, n := range w.nodes {
		clear(n.calls)
	}
	a.Need(w.lack(), 1, w.now)
	c.Need(w.lack(), 1, w.now)
	w.pass(5 * time.Minute)
	for _, n := range w.nodes {
		n.most(5*12+15, List, LookRequest)
		n.most(8*(5*12+15), Look) // eight parts are lent at most
	}
}

// What comes free is taken soon, the sooner the shorter it was waited for, and
// soon again when more wait.
func TestWhatComesFreeIsTaken(t *testing.T) {
	for _, c := range []struct{ waited, within time.Duration }{
		{time.Second, 600 * time.Millisecond},
		{10 * time.Minute, 6 * time.Second},
	} {
		for _, more := range []bool{false, true} {
			w := newTown(t, 8, "10.0.0.0/29")
			a, b := w.join("a", 0), w.join("b", time.Hour)
			a.run("p", 8)
			b.Need(w.lack(), 1, w.now)
			w.pass(c.waited)
			a.end("p", 8)
			w.pass(10 * time.Millisecond)
			if len(w.store.blocks) != 0 {
				t.Fatalf("a has not returned its block: %s", describe(w.store.blocks))
			}
			within := c.within
			if more {
				b.Need(w.lack(), 2, w.now)
				within = min(within, 1100*time.Millisecond)
			}
			if w.pass(within); len(b.Held()) != 1 {
				t.Errorf("after %v, more wait: %v: nothing was taken within %v", c.waited, more, within)
			}
		}
	}
}

// A list that does not show what others have is not run against.
func TestAListThatLagsIsWaitedFor(t *testing.T) {
	w := newTown(t, 8, "10.0.0.0/24")
	a, b := w.join("a", time.Hour), w.join("b", time.Hour)
	a.run("p", 31*8)
	lags := true
	b.answer = func(o *Op) (Result, bool) { return Result{}, lags && o.Kind == List }
	b.Need(w.lack(), 1, w.now)
	w.pass(10 * time.Second)
	b.most(30, List)
	b.most(90, Create)
	lags = false
	w.pass(5 * time.Second)
	if len(b.Held()) != 1 {
		t.Errorf("the one free cell was not found: %s; calls %v", describe(b.Held()), b.calls)
	}
}

// A node whose view of the pool is gone still knows how many it asks.
func TestARequestSaysHowManyHoldBlocks(t *testing.T) {
	w := newTown(t, 8, "10.0.0.0/28")
	a, b, c := w.join("a", 0), w.join("b", time.Hour), w.join("c", time.Hour)
	a.run("p", 8)
	b.run("q", 8)
	c.refuse(Ask)
	c.Need(w.lack(), 1, w.now)
	w.pass(time.Second)
	c.answer = func(o *Op) (Result, bool) { return Result{}, false }
	w.pass(40 * time.Second) // and the view is old
	if r := w.store.requests; len(r) != 1 || r[0].Holders != 2 {
		t.Errorf("the requests are %+v", r)
	}
}

// A cell that somebody else was first to get, and has returned, is taken soon.
func TestWhatWasMissedMayComeFree(t *testing.T) {
	w := newTown(t, 8, "10.0.0.0/28")
	b := w.join("b", time.Hour)
	misses := 0
	b.answer = func(o *Op) (Result, bool) {
		missed := o.Kind == Create && misses < 2 // both cells
		if missed {
			misses++
		}
		return Result{Err: ErrExists}, missed
	}
	b.Need(w.lack(), 1, w.now)
	w.pass(1200 * time.Millisecond)
	if misses != 2 || len(b.Held()) != 1 {
		t.Errorf("after %d misses b holds %s", misses, describe(b.Held()))
	}
}
