package exchange_test

import (
	"net/netip"
	"slices"
	"time"

	. "github.com/fairway-network/fairway/pools/exchange"
)

// A plot is what chance hardly ever brings about: a lent block is being made while
// those who take part lose their power and are written off; or a node that lives is
// back while its block is being made vacant, which comes to count late.

// plotSteps is how long a plot lasts: about as long as a call may come late.
const plotSteps = 300

// turnOf says which of the calls under way may go on next.
type turnOf func(*call) bool

// worthAPlot says whether c makes a lent block, or one vacant of a node that lives, in a
// world where plots can succeed.
func (w *world) worthAPlot(c *call) bool {
	if w.faults.crashes == 0 || w.plotting > 0 || len(w.script) > 0 {
		return false
	}
	if c.op.Kind == Vacate {
		m := w.machine(c.op.Block.Node)
		return m != nil && m.on
	}
	lender := w.machine(c.op.Block.Lender)
	return c.op.Kind == Create && c.machine != nil && lender != nil && lender.on && lender != c.machine
}

// plot begins one against the call, if that is still under way.
func (w *world) plot(c *call) {
	if c.op.Kind == Vacate {
		w.plotAgainstNode(c, w.machine(c.op.Block.Node))
		return
	}
	lender := w.machine(c.op.Block.Lender)
	if c.effected || !slices.Contains(w.calls, c) || !c.machine.on || !lender.on {
		return
	}
	if len(w.machines) > 3 && w.rng.IntN(2) == 0 {
		w.plotAgainstBoth(c, lender)
	} else {
		w.plotAgainstLender(c, lender)
	}
}

// plotAgainstBoth has the maker and the lender go, so that others take over the
// block around the lent one before that is there.
func (w *world) plotAgainstBoth(c *call, lender *machine) {
	w.say("a plot against %v of %s, lent by %s", c.op.Block.Prefix, c.machine.name, lender.name)
	for _, m := range []*machine{c.machine, lender} {
		w.strikeDown(m)
	}
	w.lates = append(w.lates, lateWrite{w.now.Add(w.delay(c.op)), c.op, c.node})
	w.plotting, w.slow = plotSteps, nil
}

// plotAgainstLender has the lender go while the block is made and checked: the
// controller, which has seen all before, frees the block around it step by step,
// and at one of them it is the maker's turn, until that has done all that it can.
func (w *world) plotAgainstLender(c *call, lender *machine) {
	outer, ok := w.around(c.op.Block.Prefix, lender)
	if !ok {
		return
	}
	w.say("a plot against %v, of which %s lends %v to %s", outer, lender.name, c.op.Block.Prefix, c.machine.name)
	w.strikeDown(lender)
	now := w.store.past[len(w.store.past)-1]
	w.reapers[0].see(now.blocks, now.requests, now.nodes)
	lent := c.op.Block.Prefix
	frees := func(o *call) bool { return o.who == w.reapers[0].name && o.op.Block.Prefix == outer }
	makes := func(o *call) bool {
		return o.machine == c.machine && (o.op.Block.Prefix == lent || o.op.Block.Prefix == outer || grants(o.op.Request, lent))
	}
	// It reads the node, makes the block vacant, looks inside, and removes it; each
	// call is made and answered.
	for range w.rng.IntN(6) {
		w.script = append(w.script, frees)
	}
	w.script = append(w.script, slices.Repeat([]turnOf{makes}, 8)...)
	w.script = append(w.script, slices.Repeat([]turnOf{frees}, 8)...)
}

// grants says whether a request has a grant of p.
func grants(r Request, p netip.Prefix) bool {
	return slices.ContainsFunc(r.Grants, func(g Grant) bool { return g.Prefix == p })
}

// plotAgainstNode has a node come back while the call that makes a block of it vacant
// hangs, and perhaps while the node is slow to take its blocks anew.
func (w *world) plotAgainstNode(c *call, m *machine) {
	if c.effected || !slices.Contains(w.calls, c) || !m.on || !w.absolve(m) {
		return
	}
	w.say("a plot against %v of %s, which is back", c.op.Block.Prefix, m.name)
	m.partitioned = false
	w.lates = append(w.lates, lateWrite{w.now.Add(time.Duration(w.rng.Int64N(int64(2 * Settle)))), c.op, c.node})
	w.reply(c, Result{Err: ErrUnknown})
	w.plotting, w.slow = plotSteps, nil
	if w.rng.IntN(2) == 0 {
		w.slow = m
	}
}

// around is the block of m that p lies in.
func (w *world) around(p netip.Prefix, m *machine) (outer netip.Prefix, ok bool) {
	for _, b := range w.store.blocks { // outer ones first
		if b.Node == m.name && b.Prefix.Bits() < p.Bits() && b.Prefix.Contains(p.Addr()) {
			outer, ok = b.Prefix, true
		}
	}
	return outer, ok
}

// strikeDown has a machine lose its power, and be out of service.
func (w *world) strikeDown(m *machine) {
	m.powerOff()
	if o := w.store.node(m.name); o != nil {
		o.outOfService = true
		w.store.changed()
	}
}

// play makes the next step of a plot's script.
func (w *world) play() {
	turn := w.script[0]
	w.script = w.script[1:]
	if i := slices.IndexFunc(w.calls, turn); i >= 0 {
		w.further(w.calls[i])
	}
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
	case n < 42:
		w.order()
	case n < 55:
		w.until(w.now.Add(time.Duration(w.rng.IntN(400)) * time.Millisecond))
	default:
		w.progress()
	}
}

// stalls says whether a plot holds a call up.
func (w *world) stalls(c *call) bool {
	return w.plotting > 0 && w.slow != nil && c.machine == w.slow && c.op.Kind == Take
}
