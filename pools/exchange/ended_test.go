package exchange_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

var (
	aroundIt = netip.MustParsePrefix("10.0.0.0/30")
	inIt     = netip.MustParsePrefix("10.0.0.2/31")
	inThat   = netip.MustParsePrefix("10.0.0.3/32")
)

// writer is a node with a journal, which has a cell and a lent block in that, of which
// it has lent an address on.
type writer struct {
	*player
	journal []pools.Record
}

func newWriter(t *testing.T) *writer {
	s := newScene(t)
	w := &writer{player: s.enter(t, "a", "a.1")}
	w.Keep = func(rec pools.Record) error {
		w.journal = append(w.journal, rec)
		return nil
	}
	w.holds(aroundIt.String(), 0)
	put := func(p netip.Prefix, node, lender string) Stored {
		st, err := s.store.create(node, pools.Block{Prefix: p, Pool: "a", Node: node, Machine: node + ".1", Lender: lender, Created: s.now})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	inner, lent := put(inIt, "a", "c"), put(inThat, "b", "a")
	if err := w.Adopt(inner, []Stored{lent}, s.now); err != nil {
		t.Fatal(err)
	}
	return w
}

// loses has another node take the inner block.
func (w *writer) loses() {
	w.t.Helper()
	taken := w.scene.vacate(w.t, inIt.String())
	taken.Node, taken.Machine = "x", "x.1"
	if _, err := w.scene.store.take("x", taken); err != nil {
		w.t.Fatal(err)
	}
}

// serves leases an address, as the desk does.
func (w *writer) serves(want netip.Addr) {
	w.t.Helper()
	owner := pools.Owner{Attachment: pools.Attachment{ContainerID: want.String()}}
	rec, _, err := w.ledger.ProposeLease(pools.Request{Pool: "a", Want: []netip.Addr{want}, Owner: owner}, w.scene.now)
	if err == nil {
		err = w.ledger.Apply(rec)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.journal = append(w.journal, rec)
}

// reborn is the node's next life, with this journal.
func (w *writer) reborn(t *testing.T, journal []pools.Record) *player {
	t.Helper()
	p := w.scene.enter(t, "a", "a.1")
	folded, err := pools.Fold(slices.Clone(journal))
	if err != nil {
		t.Fatal(err)
	}
	if unfit, err := p.Restore(folded); err != nil || len(unfit) > 0 {
		t.Fatal(unfit, err)
	}
	if lost, err := p.ledger.Restore(folded, w.scene.now); err != nil || len(lost) > 0 {
		t.Fatal(lost, err)
	}
	return p
}

// settles makes all calls for a while.
func (p *player) settles() {
	for range 200 {
		ops, _ := p.Advance(p.scene.now)
		p.calls = ops
		p.answered()
		p.scene.now = p.scene.now.Add(time.Second)
	}
}

// owns are the addresses that a node takes for its own.
func (p *player) owns() (own []netip.Prefix) {
	return p.ledger.Effective("a", func(pools.Held) bool { return true }).Prefixes()
}

// Wherever a crash comes while a block is given up that was lost in a cell of the
// node's own, the next life has that part of the cell for another's.
func TestACrashWhileALostBlockIsGivenUp(t *testing.T) {
	points := 0
	for at := 0; at <= points; at++ {
		t.Run(fmt.Sprint("after record ", at), func(t *testing.T) {
			w := newWriter(t)
			w.serves(inIt.Addr())
			w.loses()
			before := len(w.journal)
			w.Audit()
			w.settles()
			points = len(w.journal) - before
			w.has(aroundIt.String())
			if is := w.owns(); !slices.Equal(is, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/31")}) {
				t.Fatalf("without a crash it takes %v for its own", is)
			}
			next := w.reborn(t, w.journal[:before+at])
			if len(next.Held()) == 2 {
				next.Audit() // which is what has found the loss
				next.settles()
			}
			for range 2 {
				if is := next.owns(); !slices.Equal(is, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/31")}) {
					t.Errorf("after a crash it takes %v for its own, and %s is another's", is, inIt)
				}
				next.settles()
			}
		})
	}
	if points < 3 {
		t.Errorf("there are %d records, want the end of the lease, of the block and of what was lent of it", points)
	}
}

// Wherever a crash comes while a block is returned that stands in a cell of the node's
// own, that part of the cell is the node's again if the block is gone, and is not if it
// is another's by now; also when the journal was shortened meanwhile.
func TestACrashWhileABlockInACellIsReturned(t *testing.T) {
	for name, lost := range map[string]bool{"returned": false, "lost meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			points := 1
			for at := -1; at <= points; at++ {
				w := newWriter(t)
				w.releaseLent()
				before := len(w.journal)
				w.closes()
				w.does("Delete " + inIt.String())
				short := w.History()
				if lost {
					w.loses()
				}
				w.answered()
				w.settles()
				points = len(w.journal) - before
				journal := w.journal
				if at >= 0 {
					journal = journal[:before+at]
				} else {
					journal = short
				}
				next := w.reborn(t, journal)
				next.Audit()
				next.settles()
				want := []netip.Prefix{aroundIt}
				if lost {
					want = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/31")}
				}
				for _, p := range []*player{w.player, next} {
					if is := p.owns(); !slices.Equal(is, want) {
						t.Errorf("after record %d of %d (-1 is a shortened journal) it takes %v for its own, want %v", at, points, is, want)
					}
				}
			}
		})
	}
}

// A block that is being returned is set aside in the cell around it. When the cell goes
// before the block does, and is had again, nothing of it is set aside any more: neither
// for this life nor for the next one, in which a pod has an address there.
func TestACellThatIsHadAgainIsHadWhole(t *testing.T) {
	for name, failing := range map[string]bool{"journal works": false, "journal fails as the block goes": true} {
		t.Run(name, func(t *testing.T) {
			w := newWriter(t)
			keep := w.Keep
			w.releaseLent()
			w.closes()
			w.does("Delete " + inIt.String())
			removal := w.calls
			i, _ := w.scene.store.find(aroundIt)
			w.scene.store.blocks = slices.Delete(w.scene.store.blocks, i, i+1)
			w.Keep = func(rec pools.Record) error {
				if failing && rec.Op == pools.Regained {
					return errors.New("the journal is full")
				}
				return keep(rec)
			}
			w.Audit()
			w.completes("Own")
			w.calls = removal
			w.answered()
			w.has()
			w.Keep = keep
			w.holds(aroundIt.String(), 0)
			w.serves(inIt.Addr())
			next := w.reborn(t, w.journal)
			if is := next.owns(); !slices.Equal(is, []netip.Prefix{aroundIt}) {
				t.Errorf("the next life takes %v for its own, want %v", is, aroundIt)
			}
		})
	}
}

// releaseLent has what was lent of the inner block come back.
func (w *writer) releaseLent() {
	w.t.Helper()
	i, _ := w.scene.store.find(inThat)
	w.scene.store.blocks = slices.Delete(w.scene.store.blocks, i, i+1)
	w.settles()
}

// closes begins the return of the inner block.
func (w *writer) closes() {
	w.t.Helper()
	w.CloseEmpty(w.scene.now)
	parting := w.Parting()
	if !slices.Equal(parting, []netip.Prefix{inIt}) {
		w.t.Fatalf("it parts with %v, want %s alone", parting, inIt)
	}
	w.Parted(parting)
}
