package exchange_test

import (
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// trip makes the calls that are due, side by side, and says what they were.
func (b *neighbour) trip() (kinds []Kind) {
	b.town.now = b.town.now.Add(time.Millisecond)
	ops, _ := b.Advance(b.town.now)
	for _, o := range ops {
		kinds = append(kinds, o.Kind)
		b.Done(o, b.town.store.do(b.Name, o), b.town.now)
	}
	return kinds
}

// Where many pods wait the first claim of a node goes alone, and the others, once
// it is known where others have theirs, side by side.
func TestManyBlocksAreClaimedSideBySide(t *testing.T) {
	w := newTown(t, 4, "10.0.0.0/26")
	a := w.join("a", time.Hour)
	a.Need(w.lack(), 20, w.now)
	for i, want := range [][]Kind{{List}, {Create}, {List}, {Create, Create, Create, Create}, nil} {
		if i == 2 {
			a.run("p", 4)
			a.Need(w.lack(), 16, w.now)
		}
		if got := a.trip(); !slices.Equal(got, want) {
			t.Fatalf("trip %d is %v, want %v", i, got, want)
		}
	}
	var cells []pools.Block
	for _, st := range a.Held() {
		cells = append(cells, st.Block)
	}
	if n := len(pools.Effective("a", cells, w.pool.Addresses()).Prefixes()); len(cells) != 5 || n > 2 {
		t.Errorf("a holds %s, which are %d prefixes", describe(a.Held()), n)
	}
}

// Where nothing is free a node that lacks many asks several others at the same
// time, for no more than it lacks, and has no request left in the end.
func TestManyAddressesAreAskedForSideBySide(t *testing.T) {
	w := newTown(t, 16, "10.0.0.0/26")
	lenders := []*neighbour{w.join("b", time.Hour), w.join("c", time.Hour), w.join("d", time.Hour), w.join("e", time.Hour)}
	for _, l := range lenders {
		l.run("p", 6)
	}
	a := w.join("a", time.Hour)
	a.Need(w.lack(), 20, w.now)
	asked, most := 0, 0
	for range 300 {
		w.pass(10 * time.Millisecond)
		open := 0
		for _, r := range w.store.requests {
			if open++; r.Count > 20 {
				t.Errorf("%d are asked for", r.Count)
			}
		}
		asked, most = max(asked, open), max(most, a.ledger.Free("a", pools.IPv4, w.now))
	}
	if asked < 2 {
		t.Errorf("%d requests at the same time", asked)
	}
	if most < 20 {
		t.Errorf("a was lent %d addresses", most)
	}
	a.Need(w.lack(), 0, w.now)
	w.pass(time.Minute)
	if len(w.store.requests) > 0 {
		t.Errorf("requests are left: %+v", w.store.requests)
	}
}

// Pods that wait are served as soon as there is something, whatever else is on its
// way.
func TestWhatIsThereIsNotWaitedFor(t *testing.T) {
	w := newTown(t, 4, "10.0.0.0/26")
	a := w.join("a", time.Hour)
	a.Need(w.lack(), 1, w.now)
	w.pass(time.Second)
	a.Need(w.lack(), 9, w.now)
	if a.Wants(w.lack()) || a.Why(w.lack()) != nil {
		t.Error("what is free is waited for")
	}
}
