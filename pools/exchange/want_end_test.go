package exchange_test

import (
	"errors"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// A node that was cordoned while it waits, or whose pool drains since, takes
// nothing that comes free then, and says why.
func TestNothingIsTakenAnyMore(t *testing.T) {
	for name, c := range map[string]struct {
		bar func(*neighbour)
		why error
	}{
		"cordoned": {func(b *neighbour) { b.SetCordoned(true) }, ErrCordoned},
		"draining": {func(b *neighbour) { b.SetRules(map[string]Rule{"a": {Draining: true}}) }, ErrDraining},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t, 8, "10.0.0.0/29")
			a, b := w.join("a", 0), w.join("b", time.Hour)
			a.run("p", 8)
			b.Need(w.lack(), 1, w.now)
			w.pass(2 * time.Second)
			c.bar(b)
			a.end("p", 8)
			w.pass(20 * time.Second)
			if held := b.Held(); len(held) > 0 || len(w.store.requests) > 0 {
				t.Errorf("it holds %s and asks %v", describe(held), w.store.requests)
			}
			if b.Wants(w.lack()) || !errors.Is(b.Why(w.lack()), c.why) {
				t.Errorf("it goes on: %v, and says %v", b.Wants(w.lack()), b.Why(w.lack()))
			}
		})
	}
}

// A chosen address that was borrowed back out of what was lent is had.
func TestAChosenAddressIsBorrowedBack(t *testing.T) {
	w := newTown(t, 8, "10.0.0.0/29")
	a, b := w.join("a", time.Hour), w.join("b", time.Hour)
	a.run("p", 4)
	b.Need(w.lack(), 2, w.now) // a /31
	w.pass(100 * time.Millisecond)
	b.run("q", 1)
	b.Need(w.lack(), 0, w.now)
	if len(b.Held()) != 1 || b.Held()[0].Prefix.Bits() != 31 {
		t.Fatalf("b was lent %s", describe(b.Held()))
	}
	chosen := b.Held()[0].Prefix.Addr()
	if b.ledger.Grants()[0].Addrs[0] == chosen {
		chosen = chosen.Next()
	}
	lack := Lack{Pool: "a", Family: pools.IPv4, Want: chosen}
	a.Need(lack, 1, w.now)
	w.pass(time.Second)
	if _, _, err := a.ledger.ProposeLease(podNamed("c", chosen), w.now); err != nil {
		t.Errorf("%v can't be leased: %v", chosen, err)
	}
	if a.Wants(lack) || len(w.store.requests) > 0 {
		t.Errorf("a still wants %v and says %v; requests %v", lack, a.Why(lack), w.store.requests)
	}
}
