package exchange_test

import (
	"time"

	. "github.com/fairway-network/fairway/pools/exchange"
)

// A plot is what chance hardly ever brings about: while a lent block is being made
// its maker and its lender both lose their power and are written off, so that
// others take over the block around it before it is there.

// plotSteps is how long a plot lasts: about as long as a call may come late.
const plotSteps = 300

// plot begins one, if a lent block is being made.
func (w *world) plot() bool {
	if w.faults.crashes == 0 {
		return false
	}
	for _, c := range w.calls {
		lender := w.machine(c.op.Block.Lender)
		if c.op.Kind != Create || c.effected || c.machine == nil || !c.machine.on || lender == nil || !lender.on || lender == c.machine || len(w.machines) < 4 {
			continue
		}
		w.say("a plot against %v of %s, lent by %s", c.op.Block.Prefix, c.machine.name, lender.name)
		w.lates = append(w.lates, lateWrite{w.now.Add(time.Duration(w.rng.Int64N(int64(late)))), c.op, c.node})
		for _, m := range []*machine{c.machine, lender} {
			m.powerOff()
			if o := w.store.node(m.name); o != nil {
				o.outOfService = true
				w.store.changed()
			}
		}
		w.plotting = plotSteps
		return true
	}
	return false
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
