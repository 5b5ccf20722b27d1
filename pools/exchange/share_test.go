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
	manyBlocks(t, time.Second, [][]Kind{{List}, {Create}, {List}, {Create, Create, Create, Create}, nil})
}

// A list that is as young is not made again.
func TestManyBlocksAreClaimedFromOneList(t *testing.T) {
	manyBlocks(t, 0, [][]Kind{{List}, {Create}, {Create, Create, Create, Create}, nil})
}

// manyBlocks has a node claim several blocks, the first one for so long.
func manyBlocks(t *testing.T, first time.Duration, trips [][]Kind) {
	t.Helper()
	w := newTown(t, 4, "10.0.0.0/26")
	a := w.join("a", time.Hour)
	a.Need(w.lack(), 20, w.now)
	for i, want := range trips {
		if i == 2 {
			w.now = w.now.Add(first)
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

// Who was late for its first block looks anew, and then goes for all that it lacks: by
// one block at a time others would be first each time.
func TestWhoWasLateGoesForAll(t *testing.T) {
	w := newTown(t, 4, "10.0.0.0/26")
	a := w.join("a", time.Hour)
	a.Need(w.lack(), 20, w.now)
	for i, want := range [][]Kind{{List}, {Create}, {List}, {Create, Create, Create, Create, Create}, nil} {
		if i == 1 {
			cell, err := w.pool.NextCell(pools.IPv4, "a", nil)
			if err != nil {
				t.Fatal(err)
			}
			if r := w.store.do("b", &Op{Kind: Create, Block: Stored{Block: pools.Block{Prefix: cell, Pool: w.pool.Name(), Node: "b"}}}); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		if got := a.trip(); !slices.Equal(got, want) {
			t.Fatalf("trip %d is %v, want %v", i, got, want)
		}
	}
	if n := len(a.Held()); n != 5 {
		t.Errorf("a holds %d blocks, want 5", n)
	}
}

// Where there are too few cells for all to take a last one for a few addresses, nobody
// does before it is known what the others have taken.
func TestScarceCellsAreNotTakenForFew(t *testing.T) {
	w := newTown(t, 4, "10.0.0.0/26")
	for _, name := range []string{"b", "c", "d"} {
		w.join(name, time.Hour).run("p", 4)
	}
	a := w.join("a", time.Hour)
	a.Need(w.lack(), 21, w.now)
	for i, want := range [][]Kind{{List}, {Create}, {List}, {Create, Create, Create, Create}, {List}, {Create}, nil} {
		switch i {
		case 2:
			a.run("p", 4)
			a.Need(w.lack(), 17, w.now)
		case 4:
			a.run("q", 16)
			a.Need(w.lack(), 1, w.now)
		}
		if got := a.trip(); !slices.Equal(got, want) {
			t.Fatalf("trip %d is %v, want %v", i, got, want)
		}
	}
}

// Where nothing is free a node that lacks many asks once, for no more than it lacks;
// several others answer, each with all that it has, and nothing is left in the end.
func TestManyAddressesAreAskedForAtOnce(t *testing.T) {
	w := newTown(t, 16, "10.0.0.0/26")
	lenders := []*neighbour{w.join("b", time.Hour), w.join("c", time.Hour), w.join("d", time.Hour), w.join("e", time.Hour)}
	for _, l := range lenders {
		l.run("p", 6)
	}
	a := w.join("a", time.Hour)
	a.Need(w.lack(), 25, w.now)
	w.pass(300 * time.Millisecond)
	if got := a.ledger.Free("a", pools.IPv4, w.now); got != 25 {
		t.Errorf("a was lent %d addresses", got)
	}
	if len(w.store.requests) > 0 {
		t.Errorf("requests are left: %+v", w.store.requests)
	}
	a.most(1, Ask, Retract)
	a.most(3, Look) // the blocks of three lenders
	a.most(10, Create)
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
