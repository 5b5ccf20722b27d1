package exchange

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// A vacant cell that a block stands in waits, and is not looked into time and
// again, whatever other blocks there are.
func TestAVacantBlockWaitsForWhatStandsInIt(t *testing.T) {
	at := func(prefix, node, lender string) Stored {
		return Stored{Block: pools.Block{Prefix: netip.MustParsePrefix(prefix), Pool: "web", Node: node, Lender: lender, UID: prefix}, Version: "1"}
	}
	vacant, inner := at("10.0.0.0/28", "", ""), at("10.0.0.4/30", "n1", "gone")
	others := []Stored{at("10.0.0.16/28", "n1", ""), at("10.0.0.32/28", "n2", "")}
	nobodyGone := func(string, string) bool { return false }
	now := time.Unix(0, 0)
	r := NewReaper(AbsenceTime)
	r.See(append(others, inner, vacant), nil, nobodyGone)
	if ops, next := r.Advance(now); len(ops) != 0 || !next.IsZero() {
		t.Errorf("with a block inside it does %v, next at %v", ops, next)
	}
	r.See(append(others, vacant), nil, nobodyGone)
	if ops, _ := r.Advance(now); len(ops) != 1 || ops[0].Kind != Inside {
		t.Errorf("with none inside it does %v", ops)
	}
}

// deathbed is a reaper and one block of a node.
type deathbed struct {
	*testing.T
	reaper *Reaper
	block  Stored
	now    time.Time
}

func newDeathbed(t *testing.T) *deathbed {
	b := Stored{Block: pools.Block{Prefix: netip.MustParsePrefix("10.0.0.0/28"), Pool: "web", Node: "n1", Machine: "m1", UID: "u"}, Version: "1"}
	return &deathbed{t, NewReaper(AbsenceTime), b, time.Unix(1000, 0)}
}

// see shows it the block, and whether its node seems to be gone.
func (d *deathbed) see(gone bool) {
	d.reaper.See([]Stored{d.block}, nil, func(string, string) bool { return gone })
}

// read has it read the node after a while, which is found so.
func (d *deathbed) read(after time.Duration, found Presence) {
	d.Helper()
	d.now = d.now.Add(after)
	ops, _ := d.reaper.Advance(d.now)
	if len(ops) != 1 || ops[0].Kind != LookNode {
		d.Fatalf("it does %v", ops)
	}
	d.reaper.Done(ops[0], Result{Presence: found}, d.now)
}

// waits says that it does nothing for a while.
func (d *deathbed) waits(time time.Duration) {
	d.Helper()
	d.now = d.now.Add(time)
	if ops, next := d.reaper.Advance(d.now); len(ops) != 0 || !next.After(d.now) {
		d.Errorf("it does %v, the next at %v, %v from now", ops, next, next.Sub(d.now))
	}
}

// fences has it fence the node.
func (d *deathbed) fences() {
	d.Helper()
	ops, _ := d.reaper.Advance(d.now)
	if len(ops) != 1 || ops[0].Kind != SetFence {
		d.Fatalf("it does %v", ops)
	}
	d.reaper.Done(ops[0], Result{}, d.now)
}

func (d *deathbed) vacates() {
	d.Helper()
	d.fences()
	if ops, _ := d.reaper.Advance(d.now); len(ops) != 1 || ops[0].Kind != Vacate {
		d.Errorf("it does %v", ops)
	}
}

func TestANodeHasToBeAbsentForAWhile(t *testing.T) {
	d := newDeathbed(t)
	d.see(true)
	d.read(0, Absent)
	d.waits(AbsenceTime - 1)
	d.see(true)
	d.waits(0)
	d.read(1, Absent)
	d.vacates()
}

func TestANodeThatIsOutOfServiceIsGoneAtOnce(t *testing.T) {
	d := newDeathbed(t)
	d.see(true)
	d.read(0, Departed)
	d.vacates()
}

// Whoever saw it, or found it when it was read: it has been there.
func TestAnAbsenceBeginsAnew(t *testing.T) {
	for name, interrupt := range map[string]func(*deathbed){
		"seen": func(d *deathbed) {
			d.waits(AbsenceTime / 2)
			d.see(false)
			d.see(true)
		},
		"read": func(d *deathbed) {
			d.read(AbsenceTime, Present)
			d.now = d.now.Add(retryReaping)
		},
		"nobody looked": func(d *deathbed) { d.now = d.now.Add(2*AbsenceTime + 1) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDeathbed(t)
			d.see(true)
			d.read(0, Absent)
			interrupt(d)
			d.read(0, Absent)
			d.waits(AbsenceTime - 1)
			d.read(1, Absent)
			d.vacates()
		})
	}
}

// What it has done itself may be shown before it knows that it has done it; what
// somebody else has done meanwhile has to be shown again.
func TestABlockThatIsSeenWhileItIsMadeVacant(t *testing.T) {
	for _, own := range []bool{true, false} {
		d := newDeathbed(t)
		d.see(true)
		d.read(0, Departed)
		d.fences()
		ops, _ := d.reaper.Advance(d.now)
		vacant := d.block
		vacant.Node, vacant.Machine, vacant.Version = "", "", "2"
		d.block = vacant
		if !own {
			d.block.Version = "3"
		}
		d.see(false)
		d.reaper.Done(ops[0], Result{Block: vacant}, d.now)
		if stale := d.reaper.Stale(); stale == own {
			t.Errorf("changed by itself: %v; it waits to be shown that: %v", own, stale)
		}
		if !own {
			d.see(false)
		}
		if ops, _ := d.reaper.Advance(d.now); len(ops) != 1 || ops[0].Kind != Inside || ops[0].Block.Version != d.block.Version {
			t.Errorf("changed by itself: %v; it does %v", own, ops)
		}
	}
}

// A Node object that is made anew has another UID, which its agent writes on its
// blocks: that the one before was absent says nothing of it.
func TestEachNodeOfANameIsAbsentForItself(t *testing.T) {
	d := newDeathbed(t)
	d.see(true)
	d.read(0, Absent)
	d.block.Machine, d.block.Version = "m2", "2" // and gone again, before it was seen
	d.see(true)
	d.read(AbsenceTime, Absent)
	d.waits(AbsenceTime - 1)
	d.read(1, Absent)
	d.vacates()
}
