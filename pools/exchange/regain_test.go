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

// asking brings a scene to where a sets aside for b all that it has to spare, and c
// lacks some as well.
func asking(t *testing.T) (s *scene, a *player) {
	t.Helper()
	s = newScene(t)
	a = s.enter(t, "a", "a.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 1)
	for _, name := range []string{"b", "c"} {
		p := s.enter(t, name, name+".1")
		p.needs(3)
		p.completes("List a")
		p.completes("Ask " + requestOf(name))
		a.sees()
		a.does()
	}
	if parting := a.Parting(); len(parting) != 2 {
		t.Fatalf("a parts with %v", parting)
	}
	return s, a
}

// What was set aside for a request that others have filled is there for the next one.
func TestWhatOneDoesNotNeedTheNextOneGets(t *testing.T) {
	for name, parted := range map[string]bool{"while the network still leads here": false, "when it does no more": true} {
		t.Run(name, func(t *testing.T) {
			s, a := asking(t)
			s.store.requests = slices.DeleteFunc(s.store.requests, func(r Request) bool { return r.Node == "b" })
			a.sees()
			if parted {
				a.Parted(a.Parting())
			}
			var calls []*Op
			for range 10 {
				ops, next := a.Advance(s.now)
				calls = append(calls, ops...)
				if next.IsZero() {
					break
				}
				if len(a.Parting()) > 0 && len(a.ledger.Asides()) > 0 && slices.ContainsFunc(a.ledger.Asides(), func(b pools.Block) bool { return b.Node == "c" }) {
					return
				}
				s.now = next.Add(time.Millisecond)
			}
			t.Errorf("c is offered nothing: a has set aside %v, makes the calls %v, and sleeps", a.ledger.Asides(), calls)
		})
	}
}

// A request is not granted more than it lacks, though the journal does not take that the
// rest is not for it: a grant that nobody answered would be taken for one that was too late.
func TestNoMoreIsGrantedThanIsLacking(t *testing.T) {
	s, a := asking(t)
	full := errors.New("no space left")
	broken := true
	a.Keep = func(rec pools.Record) error {
		if broken && rec.Op == pools.Regained {
			return full
		}
		return nil
	}
	i, _ := s.store.findRequest(RequestName("b", Lack{Pool: "a", Family: pools.IPv4}))
	first := s.store.requests[i]
	first.Grants = []Grant{{Lender: "d", Prefix: netip.MustParsePrefix("10.0.0.8/31")}}
	if _, err := s.store.grant("d", first); err != nil {
		t.Fatal(err)
	}
	a.sees()
	a.Parted(a.Parting())
	a.does("Grant 10.0.0.2/31, 10.0.0.0/32 to " + requestOf("b"))
	a.answered() // it is another version by now
	s.now = s.now.Add(100 * time.Millisecond)
	a.does()
	broken = false
	s.now = s.now.Add(time.Second)
	a.does("Grant 10.0.0.8/31, 10.0.0.0/32 to " + requestOf("b"))
}
