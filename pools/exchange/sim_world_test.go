package exchange_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

const (
	// callTime bounds a call: then its caller knows nothing.
	callTime = 5 * time.Second
	// late is how long after that a write may come to count.
	late = Settle
	// veryLate is the same for removals.
	veryLate = 10 * Settle
	// simAbsence is after which a node is gone.
	simAbsence = 3 * time.Second
)

// world is a cluster: a store, machines with agents, controllers, and a
// scheduler that does one thing at a time, in an order and with faults that the
// seed decides. What one step does depends on the seed, its number and the
// world alone, so that a step can be left out without changing the others'
// choices.
type world struct {
	seed     uint64
	source   rand.PCG
	rng      *rand.Rand
	now      time.Time
	number   int // of the step
	ops      int // steps and calls made
	store    model
	faults   faults
	machines []*machine
	reapers  []*controller
	pools    []pools.Definition
	rules    map[string]Rule
	gonePool []pools.Definition
	defined  int // counts the changes of pools and rules
	calls    []*call
	lates    []lateWrite
	vanished []vanished
	load     int // how many pods there should be, about
	pods     int // made so far
	oracle   oracle
	settling bool     // all faults have ended
	drowsy   bool     // nobody goes on but when told something, or at the time that they named
	victim   *call    // against which there is to be a plot
	plotting int      // so many steps are the plot's still
	slow     *machine // which it makes so
	script   []turnOf // whose turn it is, by a plot
	verdict  error
	kind     string           // of the verdict
	history  *strings.Builder // nil: nobody reads it
	log      *slog.Logger
}

// faults says how often, in a thousand, what goes wrong.
type faults struct {
	refused, lost, lostLate, unheard int
	crashes                          int // factor: 0 is none
}

// call is one call of the store under way.
type call struct {
	op       *Op
	who      string
	node     string // "" is the controller
	machine  *machine
	deadline time.Time
	effected bool
	result   Result
	answer   func(Result)
	alive    func() bool
}

// lateWrite comes to count after its caller has given up.
type lateWrite struct {
	at   time.Time
	op   *Op
	node string
}

// vanished is a Node object that comes back.
type vanished struct {
	at      time.Time
	machine *machine
	object  nodeObject
}

// fail ends the run.
func (w *world) fail(format string, args ...any) {
	if w.verdict == nil {
		w.kind = format
		w.verdict = fmt.Errorf("step %d: %s", w.number, fmt.Sprintf(format, args...))
		w.say("VIOLATION %v", w.verdict)
	}
}

// say adds a line to the history.
func (w *world) say(format string, args ...any) {
	if w.history != nil {
		fmt.Fprintf(w.history, "%6d %9.3fs  ", w.number, w.now.Sub(epoch()).Seconds())
		fmt.Fprintf(w.history, format, args...)
		w.history.WriteByte('\n')
	}
}

func epoch() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// chance is true n times in a thousand.
func (w *world) chance(n int) bool { return w.rng.IntN(1000) < n }

// run makes steps, those left out that skip has, then lets all faults end, and
// returns the first violation.
func (w *world) run(steps int, skip map[int]bool) error {
	for w.number = 1; w.number <= steps && w.verdict == nil; w.number++ {
		if skip[w.number] {
			continue
		}
		w.source.Seed(w.seed, uint64(w.number))
		w.step()
		w.check()
	}
	if w.verdict == nil {
		w.settleDown()
	}
	return w.verdict
}

// step does one thing.
func (w *world) step() {
	w.ops++
	if c := w.victim; c != nil {
		w.victim = nil
		w.plot(c)
		return
	}
	if len(w.script) > 0 {
		w.play()
		return
	}
	if w.plotting > 0 {
		w.plotting--
		w.thicken()
		return
	}
	n := w.rng.IntN(1000)
	for _, a := range actions() {
		if n -= a.weight; n < 0 {
			if !a.do(w) {
				w.progress()
			}
			return
		}
	}
	w.progress()
}

type action struct {
	weight int
	do     func(*world) bool // false: not possible now
}

// actions and how often, in a thousand, each is chosen; else a call goes on.
func actions() []action {
	return []action{
		{150, (*world).pass},
		{120, (*world).tick},
		{60, (*world).show},
		{30, (*world).order},
		{6, (*world).condemn},
		{6, (*world).forget},
		{70, (*world).pod},
		{80, (*world).network},
		{40, (*world).reap},
		{30, (*world).startAgent},
		{20, (*world).heal},
		{25, (*world).trouble},
		{8, (*world).operate},
	}
}

// pass lets time go by.
func (w *world) pass() bool {
	d := time.Duration(w.rng.IntN(20)) * time.Millisecond
	switch n := w.rng.IntN(100); {
	case n < 3:
		d = time.Duration(w.rng.IntN(60)) * time.Second
	case n < 10:
		d = time.Duration(w.rng.IntN(8000)) * time.Millisecond
	case n < 35:
		d = time.Duration(w.rng.IntN(1000)) * time.Millisecond
	}
	w.until(w.now.Add(d))
	return true
}

// until lets time go by, with what happens at its own time meanwhile.
func (w *world) until(then time.Time) {
	for w.verdict == nil {
		next, what := then, -1
		for i, l := range w.lates {
			if l.at.Before(next) {
				next, what = l.at, i
			}
		}
		back := -1
		for i, v := range w.vanished {
			if v.at.Before(next) {
				next, what, back = v.at, -1, i
			}
		}
		var expired *call
		for _, c := range w.calls {
			if c.deadline.Before(next) {
				next, expired = c.deadline, c
			}
		}
		if next.After(w.now) {
			w.now = next
		}
		switch {
		case expired != nil:
			w.expire(expired)
		case back >= 0:
			v := w.vanished[back]
			w.vanished = slices.Delete(w.vanished, back, back+1)
			w.reappear(v)
		case what >= 0:
			l := w.lates[what]
			w.lates = slices.Delete(w.lates, what, what+1)
			r := w.store.do(l.node, l.op)
			w.say("LATE %s: %v %v", l.node, l.op, result(l.op, r))
			w.check()
		default:
			return
		}
	}
}

// expire ends a call that took too long.
func (w *world) expire(c *call) {
	if !c.effected && writes(c.op) {
		w.perhapsLate(c)
	}
	w.reply(c, Result{Err: unknown(c.op)})
}

// perhapsLate lets a call that nobody waits for come to count within the time
// that there is for it, or not.
func (w *world) perhapsLate(c *call) {
	if w.rng.IntN(2) == 0 {
		w.lates = append(w.lates, lateWrite{w.now.Add(w.delay(c.op)), c.op, c.node})
	}
}

// unknown is what a caller learns whose call has no answer.
func unknown(o *Op) error {
	if writes(o) {
		return ErrUnknown
	}
	return errRefused
}

// begin has a call under way.
func (w *world) begin(c *call) {
	w.ops++
	c.deadline = w.now.Add(callTime)
	if w.worthAPlot(c) && w.rng.IntN(4) == 0 {
		w.victim = c
	}
	w.calls = append(w.calls, c)
	w.say("%s calls: %v", c.who, c.op)
}

// progress lets one call go on: the store does it, or answers it, or neither.
func (w *world) progress() {
	if len(w.calls) == 0 {
		w.pass()
		return
	}
	if c := w.calls[w.rng.IntN(len(w.calls))]; !w.stalls(c) {
		w.further(c)
	}
}

func (w *world) further(c *call) {
	switch {
	case c.effected:
		if writes(c.op) && w.chance(w.faults.unheard) {
			w.say("%s: %v was done, and the answer lost", c.who, c.op)
			w.reply(c, Result{Err: ErrUnknown})
			return
		}
		w.reply(c, c.result)
	case c.machine != nil && c.machine.partitioned:
		w.unreached(c)
	default:
		w.reach(c)
	}
}

// unreached is a call of a node that is cut off.
func (w *world) unreached(c *call) {
	if writes(c.op) && w.rng.IntN(2) == 0 {
		w.reply(c, Result{Err: ErrUnknown})
		return
	}
	w.reply(c, Result{Err: errRefused})
}

func (w *world) reach(c *call) {
	n := w.rng.IntN(1000)
	switch f := w.faults; {
	case n < f.refused:
		w.reply(c, Result{Err: errRefused})
	case n < f.refused+f.lost && writes(c.op):
		w.say("%s: %v is lost", c.who, c.op)
		w.reply(c, Result{Err: ErrUnknown})
	case n < f.refused+f.lost+f.lostLate && writes(c.op):
		w.say("%s: %v is lost, or late", c.who, c.op)
		w.lates = append(w.lates, lateWrite{w.now.Add(w.delay(c.op)), c.op, c.node})
		w.reply(c, Result{Err: ErrUnknown})
	default:
		w.effect(c)
	}
}

// delay of a late write. A removal may come at any time: it is void once its block
// was taken anew. So may what the controller does.
func (w *world) delay(o *Op) time.Duration {
	most := late
	switch o.Kind {
	case Delete, Vacate, Discard, SetFence, LiftFence, RemoveFence:
		most = veryLate
	}
	return time.Duration(w.rng.Int64N(int64(most)))
}

// effect has the store do it.
func (w *world) effect(c *call) {
	if c.op.Kind == List {
		c.result.Blocks = w.store.ofPool(w.agoOrNow().blocks, c.op.Pool)
	} else {
		c.result = w.store.do(c.node, c.op)
	}
	c.effected = true
	w.say("%s: store does %v: %s", c.who, c.op, result(c.op, c.result))
}

// agoOrNow is the past that a late reader sees.
func (w *world) agoOrNow() snapshot {
	if len(w.store.past) == 0 {
		return snapshot{}
	}
	back := 0
	if w.rng.IntN(2) == 0 && !w.settling {
		back = w.rng.IntN(len(w.store.past))
	}
	return w.store.past[len(w.store.past)-1-back]
}

// reply answers a call.
func (w *world) reply(c *call, r Result) {
	w.calls = slices.DeleteFunc(w.calls, func(o *call) bool { return o == c })
	if !c.alive() {
		return
	}
	w.say("%s hears of %v: %s", c.who, c.op, result(c.op, r))
	c.answer(r)
}

// abandon ends the calls of somebody who crashed.
func (w *world) abandon(of func(*call) bool) {
	for _, c := range slices.Clone(w.calls) {
		if !of(c) {
			continue
		}
		if !c.effected && writes(c.op) {
			w.perhapsLate(c)
		}
		w.calls = slices.DeleteFunc(w.calls, func(o *call) bool { return o == c })
	}
}

// result in a few words.
func result(o *Op, r Result) string {
	switch {
	case r.Err != nil:
		return r.Err.Error()
	case len(r.Blocks) > 0:
		return describe(r.Blocks)
	case r.Block.Prefix.IsValid():
		return describe([]Stored{r.Block})
	case r.Request.Name != "":
		return fmt.Sprintf("request %s#%s of %s, granted %v", r.Request.Name, r.Request.UID, r.Request.Node, r.Request.Grants)
	case o.Kind == LookNode:
		return fmt.Sprintf("%v", r.Presence)
	}
	return "ok"
}

func describe(blocks []Stored) string {
	words := make([]string, len(blocks))
	for i, b := range blocks {
		words[i] = fmt.Sprintf("%v#%s of %q", b.Prefix, b.UID, b.Node)
		if b.Lender != "" {
			words[i] += " from " + b.Lender
		}
		if b.Tenure > 0 {
			words[i] += fmt.Sprintf(" tenure %d", b.Tenure)
		}
	}
	return strings.Join(words, ", ")
}
