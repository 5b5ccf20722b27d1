package exchange_test

import (
	"slices"
	"time"

	. "github.com/fairway-network/fairway/pools/exchange"
)

// A plot is what chance hardly ever brings about: while a lent block is being made
// its maker and its lender both lose their power and are written off, so that
// others take over the block around it before it is there.

// plotSteps is how long a plot lasts: about as long as a call may come late.
const plotSteps = 300

// worthAPlot says whether c makes a lent block, in a world where plots can succeed.
func (w *world) worthAPlot(c *call) bool {
	lender := w.machine(c.op.Block.Lender)
	return w.faults.crashes > 0 && len(w.machines) > 3 && w.plotting == 0 &&
		c.op.Kind == Create && c.machine != nil && lender != nil && lender.on && lender != c.machine
}

// plot begins one against the call, if that is still under way.
func (w *world) plot(c *call) {
	lender := w.machine(c.op.Block.Lender)
	if c.effected || !slices.Contains(w.calls, c) || !c.machine.on || !lender.on {
		return
	}
	w.say("a plot against %v of %s, lent by %s", c.op.Block.Prefix, c.machine.name, lender.name)
	for _, m := range []*machine{c.machine, lender} {
		m.powerOff()
		if o := w.store.node(m.name); o != nil {
			o.outOfService = true
			w.store.changed()
		}
	}
	w.lates = append(w.lates, lateWrite{w.now.Add(w.delay(c.op)), c.op, c.node})
	w.plotting = plotSteps
}

// thicken has the others go on while little time goes by: the controller sees all
// and stops in the middle, and there are more pods than before.
func (w *world) thicken() {
	now := w.store.past[len(w.store.past)-1]
	switch n := w.rng.IntN(100); {
	case n < 10:
		w.reapers[0].see(now.blocks, now.requests, now.nodes)
	case n < 13:
		w.reapers[0].crash()
	case n < 17:
		w.addPod()
	case n < 30:
		w.tick()
	case n < 36:
		w.network()
	case n < 50:
		w.until(w.now.Add(time.Duration(w.rng.IntN(400)) * time.Millisecond))
	default:
		w.progress()
	}
}
