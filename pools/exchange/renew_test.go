package exchange_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// late has the store do what somebody has begun long ago; it has to be void.
func (s *scene) late(t *testing.T, k Kind, b Stored) {
	t.Helper()
	if r := s.store.do("", &Op{Kind: k, Block: b}); !errors.Is(r.Err, ErrConflict) {
		t.Errorf("a late %v of %s: %+v, %v", k, b.Prefix, r.Block, r.Err)
	}
}

// A block that stays this node's after all is taken anew, so that nobody's call
// from before makes it vacant; leases and what is lent stand.
func TestARenewalVoidsWhatWasBegunBefore(t *testing.T) {
	s := newScene(t)
	a, b := s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.0/30", 2)
	b.holds("10.0.0.4/30", 4)
	chosen := netip.MustParseAddr("10.0.0.3")
	b.Need(Lack{Pool: "a", Family: pools.IPv4, Want: chosen}, 1, s.now)
	for range 3 { // it lists, and asks
		b.calls, _ = b.Advance(s.now)
		b.answered()
	}
	a.sees()
	a.calls, _ = a.Advance(s.now)
	a.Parted(a.Parting())
	a.calls, _ = a.Advance(s.now)
	a.answered()
	b.sees()
	for range 3 { // it draws the block, and checks
		b.calls, _ = b.Advance(s.now)
		b.answered()
	}
	b.lease("chosen", chosen)
	before := a.Held()[0]
	number := a.Renew()
	a.does("Take 10.0.0.0/30")
	if a.Renewed(number) {
		t.Error("it is over before it was answered")
	}
	a.answered()
	if !a.Renewed(number) {
		t.Error("it is not over")
	}
	s.late(t, Vacate, before)
	a.has("10.0.0.0/30")
	if n := a.ledger.Leases("a", pools.IPv4); n != 2 || a.ledger.Free("a", pools.IPv4, s.now) != 1 {
		t.Errorf("%d leases stand, and %d addresses are free, beside one that is lent", n, a.ledger.Free("a", pools.IPv4, s.now))
	}
	b.does()
	b.has("10.0.0.4/30", "10.0.0.3/32")
	if now := a.Held()[0]; now.Tenure != before.Tenure+1 {
		t.Errorf("it has tenure %d, before %d", now.Tenure, before.Tenure)
	}
}

// What a renewal finds to be another's is given up, and the renewal is over then.
func TestARenewalFindsWhatIsLost(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	a.holds("10.0.0.0/30", 1)
	s.vacate(t, "10.0.0.0/30")
	number := a.Renew()
	a.completes("Take 10.0.0.0/30")
	a.does("Own")
	if a.Renewed(number) {
		t.Error("it is over with a block that is lost")
	}
	a.answered()
	a.has()
	if !a.Renewed(number) || a.Forfeits() != 1 {
		t.Errorf("over: %v, with %d blocks lost", a.Renewed(number), a.Forfeits())
	}
}

// A claim that was begun before a renewal, and is answered after it, is taken anew
// before anything of it is leased.
func TestAClaimAcrossARenewal(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	a.needs(1)
	a.completes("List a")
	a.does("Create 10.0.0.0/30")
	number := a.Renew()
	a.answered()
	a.has()
	made := s.store.own("a")[0]
	if !a.Renewed(number) {
		t.Error("what is not held yet keeps it from being over")
	}
	a.completes("Take 10.0.0.0/30")
	s.late(t, Vacate, made)
	a.completes("Inside 10.0.0.0/30")
	a.has("10.0.0.0/30")
}

// What was found in the node's name and taken before a renewal is taken once more
// before it is held.
func TestAFindAcrossARenewal(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	found, err := s.store.create("a", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.0/30"), Pool: "a", Node: "a", Machine: "a.0"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Found(nil, []Stored{found}, s.now); err != nil {
		t.Fatal(err)
	}
	a.completes("Take 10.0.0.0/30")
	before := s.store.own("a")[0]
	a.does("Inside 10.0.0.0/30")
	a.Renew()
	a.answered()
	a.has()
	a.completes("Take 10.0.0.0/30")
	s.late(t, Vacate, before)
	a.completes("Inside 10.0.0.0/30")
	a.has("10.0.0.0/30")
}

// An audit is not over with a block that is lost, and is being taken anew in vain.
func TestAnAuditOfWhatIsBeingTakenAnew(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	a.holds("10.0.0.0/30", 1)
	s.vacate(t, "10.0.0.0/30")
	a.Machine = "a.2"
	a.does("Take 10.0.0.0/30")
	taking := a.calls
	number := a.Audit()
	a.completes("Own")
	if a.Audited(number) {
		t.Error("it is over before it is known whose the block is")
	}
	a.calls = taking
	a.answered()
	a.comesTo("Own")
	a.answered()
	a.has()
	if !a.Audited(number) {
		t.Error("it is not over")
	}
}
