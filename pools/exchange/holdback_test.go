package exchange_test

import (
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// rushed has a node that claimed a cell of 16 a moment ago, in which so many pods have an
// address.
func rushed(t *testing.T, addresses string, pods int) *player {
	t.Helper()
	a := newSceneOf(t, pools.Definition{BlockSize: 16, Ranges: ranges(addresses)}).enter(t, "a", "a.1")
	a.needs(pods)
	a.completes("List a")
	a.completes("Create 10.0.0.0/28")
	for i := range pods {
		a.lease(string(rune('a' + i)))
	}
	a.needs(0)
	a.does()
	return a
}

// In a rush who lacks little leaves what is free to others for a moment, and then looks
// what they have left.
func TestWhoLacksLittleHoldsBack(t *testing.T) {
	for _, c := range []struct {
		name  string
		other bool // takes the last cell
		comes string
	}{
		{"to nobody", false, "Create 10.0.0.16/28"},
		{"to another one", true, "Ask " + requestOf("a")},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := rushed(t, "10.0.0.0/27", 16)
			a.needs(1)
			a.does()
			if c.other {
				a.scene.enter(t, "b", "b.1").holds("10.0.0.16/28", 0)
			}
			if _, next := a.Advance(a.scene.now); !next.After(a.scene.now) || next.Sub(a.scene.now) > 3*time.Millisecond {
				t.Errorf("the next look is after %v", next.Sub(a.scene.now)) // the claim took 1 ms
			}
			a.waits(3 * time.Millisecond)
			a.completes("List a")
			a.completes(c.comes)
		})
	}
}

// Who comes to lack much does not hold back any more, and who comes to lack a little more
// does.
func TestWhoLacksMuchDoesNotHoldBack(t *testing.T) {
	a := rushed(t, "10.0.0.0/27", 16)
	a.needs(1)
	a.does()
	a.needs(8)
	a.does()
	a.needs(9)
	a.completes("List a")
	a.completes("Create 10.0.0.16/28")
}

// Where there is plenty nobody holds back.
func TestNobodyHoldsBackWherePlentyIsFree(t *testing.T) {
	a := newSceneOf(t, pools.Definition{BlockSize: 16, Ranges: ranges("10.0.0.0/22")}).enter(t, "a", "a.1")
	a.needs(16)
	a.completes("List a")
	a.comesTo("Create " + a.cell(t))
	a.answered()
	for i := range 16 {
		a.lease(string(rune('a' + i)))
	}
	a.needs(1)
	a.does("Create " + a.cell(t))
}

// In a rush nothing is claimed ahead. When it is over it is, also if nothing else happens.
func TestNothingIsClaimedAheadInARush(t *testing.T) {
	a := rushed(t, "10.0.0.0/27", 15)
	if a.RunsLow("a", pools.IPv4) {
		t.Error("it runs low in a rush")
	}
	_, next := a.Advance(a.scene.now)
	if wait := next.Sub(a.scene.now); wait <= 0 || wait > calm {
		t.Fatalf("it goes on after %v", wait)
	}
	a.scene.now = next
	a.completes("Create 10.0.0.16/28")
	a.has("10.0.0.0/28", "10.0.0.16/28")
	a.waits(calm)
	a.does()
}

// A rush is over in a while, though claims go on: pods that come steadily don't wait for
// each further block.
func TestARushIsShort(t *testing.T) {
	a := rushed(t, "10.0.0.0/26", 16)
	a.waits(200 * time.Millisecond)
	a.needs(1)
	a.does()
	a.waits(10 * time.Millisecond)
	a.completes("List a")
	a.completes("Create 10.0.0.16/28")
	for i := range 16 {
		a.lease("next" + string(rune('a'+i)))
	}
	a.needs(0)
	a.does()
	a.waits(40 * time.Millisecond)
	a.completes("Create 10.0.0.32/28")
}

// It is one also where a claim that met another one has the view forgotten.
func TestARushGoesOnWithoutAView(t *testing.T) {
	a := newSceneOf(t, pools.Definition{BlockSize: 16, Ranges: ranges("10.0.0.0/25")}).enter(t, "a", "a.1")
	a.needs(48)
	a.completes("List a")
	a.completes("Create 10.0.0.0/28")
	for i := range 16 {
		a.lease("first" + string(rune('a'+i)))
	}
	a.needs(32)
	a.does("Create 10.0.0.16/28", "Create 10.0.0.32/28")
	a.scene.enter(t, "b", "b.1").holds("10.0.0.32/28", 0)
	a.waits(time.Millisecond)
	for _, i := range []int{1, 0} {
		a.Done(a.calls[i], a.scene.store.do("a", a.calls[i]), a.scene.now)
	}
	a.has("10.0.0.0/28", "10.0.0.16/28")
	for i := range 16 {
		a.lease("second" + string(rune('a'+i)))
	}
	a.needs(2)
	a.does()
}

// Who has the store for itself has nobody to hold back for.
func TestNobodyHoldsBackAlone(t *testing.T) {
	s := newSceneOf(t, pools.Definition{BlockSize: 16, Ranges: ranges("10.0.0.0/27")})
	s.alone = true
	a := s.enter(t, "a", "a.1")
	a.needs(16)
	a.completes("List a")
	a.completes("Create 10.0.0.0/28")
	for i := range 16 {
		a.lease(string(rune('a' + i)))
	}
	a.needs(1)
	a.does("Create 10.0.0.16/28")
}

// Where the store fails a node that would hold back tries no more often for each pod that
// comes.
func TestHoldingBackIsNoReasonToTryMoreOften(t *testing.T) {
	a := rushed(t, "10.0.0.0/27", 16)
	a.needs(1)
	a.does()
	tries := 0
	for more := range 20 {
		a.needs(9 + more)
		ops, _ := a.Advance(a.scene.now)
		for _, o := range ops {
			tries++
			a.Done(o, Result{Err: errRefused}, a.scene.now)
		}
	}
	if tries > 2 {
		t.Errorf("it tries %d times at once", tries)
	}
}
