package exchange

import (
	"testing"
	"time"
)

// does has the reaper make one call, of that kind, and answers it.
func (d *deathbed) does(k Kind, res Result) *Op {
	d.Helper()
	ops, _ := d.reaper.Advance(d.now)
	if len(ops) != 1 || ops[0].Kind != k {
		d.Fatalf("it does %v, not %v", ops, k)
	}
	d.reaper.Done(ops[0], res, d.now)
	return ops[0]
}

// A fence comes off in two steps, of which the second one waits for the agent; each
// at the version that was read.
func TestAFenceIsLiftedBeforeItComesOff(t *testing.T) {
	d := newDeathbed(t)
	d.see(true)
	d.read(0, Departed)
	d.fences()
	d.does(Vacate, Result{Err: ErrConflict}) // its node has taken it anew
	d.see(false)
	isBack := func(back bool) { d.reaper.SeeBack(func(string) bool { return back }) }
	isBack(false)
	d.does(Fences, Result{Fences: []Fence{{Node: "n1", Stands: true}}})
	d.waits(heedTime)
	isBack(true)
	stands := Fence{Node: "n1", Stands: true, Version: "1", Generation: 1, Heeded: 1}
	d.does(LookFence, Result{Fence: stands})
	if op := d.does(LiftFence, Result{}); op.Fence != stands {
		t.Errorf("%+v is lifted, not %+v", op.Fence, stands)
	}
	d.waits(0)
	lifting := stands
	lifting.Version, lifting.Generation, lifting.Lifting = "2", 2, true
	for range 3 {
		d.now = d.now.Add(heedTime)
		d.does(LookFence, Result{Fence: lifting})
		d.waits(0)
	}
	lifting.Heeded = 2
	isBack(false)
	d.waits(heedTime)
	isBack(true)
	d.does(LookFence, Result{Fence: lifting})
	if op := d.does(RemoveFence, Result{}); op.Fence != lifting {
		t.Errorf("%+v comes off, not %+v", op.Fence, lifting)
	}
	d.waits(heedTime)
}

// What is seen as it is after a fence was set needs another one: that fence may have
// come off meanwhile.
func TestAFenceCoversWhatWasSeenBefore(t *testing.T) {
	d := newDeathbed(t)
	d.see(true)
	d.read(0, Departed)
	d.fences()
	d.does(Vacate, Result{Err: ErrUnknown})
	d.now = d.now.Add(time.Second)
	d.see(true)
	d.read(0, Departed)
	d.does(Vacate, Result{Err: ErrConflict})
	d.block.Version = "2"
	d.see(true)
	d.read(0, Departed)
	d.does(SetFence, Result{Err: ErrConflict}) // the node is there
	d.see(true)
	d.read(time.Second, Departed)
	d.vacates()
}
