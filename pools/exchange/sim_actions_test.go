package exchange_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
	"go4.org/netipx"
)

// newWorld is what the seed makes of it.
func newWorld(seed uint64, record bool) *world {
	w := &world{seed: seed, now: epoch(), log: slog.New(slog.DiscardHandler), rules: map[string]Rule{}}
	w.rng = rand.New(&w.source)
	w.source.Seed(seed, 0)
	w.oracle.confirmed = map[string]bool{}
	w.store.removed = w.removed
	w.store.clock = func() time.Time { return w.now }
	if record {
		w.history = &strings.Builder{}
		w.log = slog.New(slog.NewTextHandler(w.history, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
	}
	w.faults = []faults{
		{},
		{refused: 10, lost: 5, lostLate: 5, unheard: 10, crashes: 1},
		{refused: 60, lost: 30, lostLate: 40, unheard: 60, crashes: 2},
		{lostLate: 150, unheard: 20, crashes: 6},
		{refused: 10, unheard: 5, crashes: 6},
	}[w.rng.IntN(5)]
	w.load = 10
	w.invent()
	for i := range 2 + w.rng.IntN(4) {
		m := &machine{w: w, name: fmt.Sprintf("n%d", i)}
		w.machines = append(w.machines, m)
		w.join(m)
	}
	w.reapers = []*controller{{w: w, name: "reaper", reaper: NewReaper(simAbsence)}, {w: w, name: "reaper2", reaper: NewReaper(simAbsence)}}
	w.store.changed()
	w.drowsy = w.rng.IntN(2) == 0
	return w
}

// invent makes the pools.
func (w *world) invent() {
	pick := func(of ...int) int { return of[w.rng.IntN(len(of))] }
	rest := []time.Duration{0, 0, 2 * time.Second, 20 * time.Second}[w.rng.IntN(4)]
	idle := []time.Duration{0, time.Second, 30 * time.Second}[w.rng.IntN(3)]
	outside := netip.MustParsePrefix("10.0.0.255/24")
	a := pools.Definition{Name: "a", BlockSize: pick(1, 2, 4, 8), ReuseAfter: rest, Ranges: ranges(fmt.Sprintf("10.0.0.0-10.0.0.%d", pick(7, 15, 11, 31)))}
	if w.rng.IntN(2) == 0 {
		a.Gateways = []netip.Prefix{outside}
	}
	w.pools = []pools.Definition{a}
	if w.rng.IntN(2) == 0 {
		w.pools = append(w.pools, pools.Definition{
			Name: "b", BlockSize: pick(2, 4), ReuseAfter: rest, Gateways: []netip.Prefix{outside},
			Ranges: ranges("10.0.0.64/29", fmt.Sprintf("fd00::-fd00::%x", pick(3, 7, 15))),
		})
	}
	for _, d := range w.pools {
		w.rules[d.Name] = Rule{IdleAfter: idle}
	}
}

func ranges(words ...string) (out []netipx.IPRange) {
	for _, s := range words {
		r, err := pools.ParseRange(s)
		if err != nil {
			panic(err)
		}
		out = append(out, r)
	}
	return out
}

func (w *world) machine(name string) *machine {
	for _, m := range w.machines {
		if m.name == name {
			return m
		}
	}
	return nil
}

// join makes a machine, which gets the name's Node object, and boots it.
func (w *world) join(m *machine) {
	m.generation++
	m.uid = fmt.Sprintf("%s.%d", m.name, m.generation)
	w.store.nodes = append(w.store.nodes, nodeObject{name: m.name, machine: m.uid})
	w.store.changed()
	m.powerOn()
	m.start()
}

// some chooses a machine that fits.
func (w *world) some(fits func(*machine) bool) *machine {
	var of []*machine
	for _, m := range w.machines {
		if fits(m) {
			of = append(of, m)
		}
	}
	if len(of) == 0 {
		return nil
	}
	return of[w.rng.IntN(len(of))]
}

func serving(m *machine) bool { return m.agent != nil && m.agent.ready }

// tick advances somebody whose time has come.
func (w *world) tick() bool {
	m := w.some(func(m *machine) bool {
		return m.agent != nil && (m.agent.stirs() || !w.drowsy && m.agent.ready && len(m.pods) > 0)
	})
	if m == nil {
		return false
	}
	m.agent.tick()
	return true
}

// stirs says whether the agent goes on now by itself.
func (a *agent) stirs() bool {
	return a.w.past(a.due) || a.hasChores() || a.ready && (a.w.past(a.audits) || a.w.past(a.retry) || slices.ContainsFunc(a.unfit, a.parted))
}

// past says whether t is a time, and has come.
func (w *world) past(t time.Time) bool { return !t.IsZero() && !w.now.Before(t) }

func (a *agent) tick() {
	if a.ready && a.w.past(a.audits) {
		a.audits = time.Time{}
		a.node.Audit()
	}
	if a.anew = !a.w.drowsy || a.w.past(a.retry); a.anew {
		a.retry = time.Time{}
	}
	if a.ready && len(a.unfit) > 0 {
		a.discard()
	}
	if a.ready {
		a.chores()
	}
	a.pump()
}

// show lets a node's watch of the requests catch up, a little or wholly.
func (w *world) show() bool {
	m := w.some(func(m *machine) bool { return serving(m) && !m.agent.deaf && !m.agent.reading })
	if m == nil {
		return false
	}
	past := w.store.past
	first := max(len(past)-(w.store.revision-m.agent.watched), 0)
	if first >= len(past) {
		first = len(past) - 1
	}
	i := first + w.rng.IntN(len(past)-first)
	m.agent.see(i)
	return true
}

// see shows a node the requests at a moment of the past.
func (a *agent) see(i int) {
	past := a.w.store.past
	requests := []Request{}
	for _, r := range past[i].requests {
		if a.watches(r) {
			requests = append(requests, r)
		}
	}
	if a.w.drowsy && a.shown != nil && slices.EqualFunc(a.shown, requests, Request.Equal) {
		return
	}
	a.shown = requests
	if now := a.w.store.revision - (len(past) - 1 - i); now != a.watched {
		a.watched = now
		a.w.say("%s sees %d of %d requests, of revision %d", a.name, len(requests), len(past[i].requests), now)
	}
	a.node.Seen(slices.Clone(requests), a.w.now)
	a.pump()
}

// pod makes or ends one.
func (w *world) pod() bool {
	n := 0
	for _, m := range w.machines {
		n += len(m.pods)
	}
	if w.rng.IntN(200) == 0 {
		w.load = w.rng.IntN(45)
	}
	if want := n < w.load; want == (w.rng.IntN(10) > 0) {
		return w.addPod()
	}
	m := w.some(func(m *machine) bool { return serving(m) && len(m.pods) > 0 })
	if m == nil {
		return false
	}
	m.agent.finish(m.pods[w.rng.IntN(len(m.pods))])
	return true
}

// finish ends a pod. The node is told only where it matters.
func (a *agent) finish(p *pod) {
	a.release(p)
	if !a.w.drowsy || a.crashed || a.w.rules[p.pool].Draining || a.node.Awaited(p.pool) {
		a.pump()
	}
}

func (w *world) addPod() bool {
	m := w.some(func(m *machine) bool { return m.on && !m.cordoned })
	if m == nil {
		return false
	}
	d := w.pools[w.rng.IntN(len(w.pools))]
	w.pods++
	p := &pod{id: w.pods, pool: d.Name}
	if w.rng.IntN(8) == 0 {
		r := d.Ranges[w.rng.IntN(len(d.Ranges))]
		p.want = []netip.Addr{address(index(r.From()) + w.rng.IntN(index(r.To())-index(r.From())+1))}
		if core, err := pools.New(d); err != nil || core.Reserved(p.want[0]) {
			p.want = nil
		}
	}
	m.pods = append(m.pods, p)
	w.say("%s: pod %d of pool %s wants %v", m.name, p.id, p.pool, p.want)
	if serving(m) {
		m.agent.admit(p)
	}
	return true
}

// admit serves a pod that comes. The node is told only of what can't be served, and
// of what is left where that is little.
func (a *agent) admit(p *pod) {
	if a.w.drowsy && a.lease(p, map[Lack]int{}) && !a.crashed &&
		!slices.ContainsFunc(p.addrs, func(x netip.Addr) bool { return a.node.RunsLow(p.pool, pools.FamilyOf(x)) }) {
		return
	}
	a.pump()
}

func (w *world) network() bool {
	m := w.some(serving)
	if m == nil {
		return false
	}
	m.agent.passNetwork(m.agent.leaving != nil || w.rng.IntN(3) == 0)
	return true
}

// reap has a controller look, late perhaps, or go on, or crash. The nodes are
// read after the blocks.
func (w *world) reap() bool {
	c := w.reapers[0]
	if w.rng.IntN(5) == 0 {
		c = w.reapers[1]
	}
	switch w.rng.IntN(12) {
	case 0:
		c.crash()
	case 1, 2, 3, 4, 5:
		past := w.store.past
		first := 0
		if w.rng.IntN(3) > 0 {
			first = len(past) - 1
		}
		i := first + w.rng.IntN(len(past)-first)
		j, k := i+w.rng.IntN(len(past)-i), i+w.rng.IntN(len(past)-i)
		c.see(past[i].blocks, past[k].requests, past[j].nodes)
	default:
		if c.due.IsZero() || w.now.Before(c.due) {
			return false
		}
		c.advance()
	}
	return true
}

func (w *world) startAgent() bool {
	m := w.some(func(m *machine) bool { return m.on && m.agent == nil })
	if m == nil {
		return false
	}
	m.start()
	return true
}

// heal ends a trouble.
func (w *world) heal() bool {
	m := w.machines[w.rng.IntN(len(w.machines))]
	if w.rng.IntN(3) == 0 {
		if dead := w.some(func(m *machine) bool { return m.on && presence(w.store.nodes, m.name, "") != Present }); dead != nil {
			return w.absolve(dead)
		}
	}
	switch w.rng.IntN(4) {
	case 0:
		m.partitioned = false
	case 1:
		m.diskFull = false
	case 2:
		if m.cordoned {
			m.cordon(false)
		}
	default:
		return w.bringBack(m)
	}
	return true
}

// bringBack boots a machine that is off, or puts another in its place.
func (w *world) bringBack(m *machine) bool {
	if m.on {
		return w.absolve(m)
	}
	if w.now.Sub(m.off) < Settle {
		return false
	}
	switch o := w.store.node(m.name); {
	case o == nil:
		w.say("%s: another machine of that name", m.name)
		w.join(m)
	case o.outOfService:
		w.say("%s: in service again", m.name)
		o.outOfService = false
		w.store.changed()
	default:
		m.powerOn()
		m.start()
	}
	return true
}

func (m *machine) cordon(c bool) {
	m.cordoned = c
	m.w.say("%s: cordoned: %v", m.name, c)
	if m.agent != nil {
		m.agent.node.SetCordoned(c)
		m.agent.pump()
	}
}

// trouble begins one.
func (w *world) trouble() bool {
	if w.rng.IntN(8) >= w.faults.crashes {
		return false
	}
	m := w.machines[w.rng.IntN(len(w.machines))]
	switch w.rng.IntN(12) {
	case 0, 1, 2:
		if len(w.calls) > 0 && w.rng.IntN(2) == 0 {
			if busy := w.calls[w.rng.IntN(len(w.calls))].machine; busy != nil {
				m = busy
			}
		}
		if m.agent != nil {
			m.agent.crash()
			if w.rng.IntN(2) == 0 {
				m.start()
			}
		}
	case 3, 4:
		m.crashAtWrite = 1 + w.rng.IntN(3)
	case 5:
		m.diskFull = w.rng.IntN(2) == 0
	case 6:
		m.partitioned = w.rng.IntN(2) == 0
	case 7:
		m.cordon(w.rng.IntN(2) == 0)
	case 8, 9:
		if m.on {
			m.powerOff()
		}
	case 10, 11:
		return w.writeOff(m)
	}
	return true
}

// writeOff tells the cluster that a machine that is off is gone.
func (w *world) writeOff(m *machine) bool {
	o := w.store.node(m.name)
	if o != nil && m.on {
		return w.vanish(m, *o)
	}
	if o == nil {
		return false
	}
	if w.rng.IntN(4) > 0 {
		o.outOfService = true
		w.say("%s: out of service", m.name)
	} else {
		w.store.nodes = slices.DeleteFunc(w.store.nodes, func(o nodeObject) bool { return o.name == m.name })
		w.say("%s: Node object removed", m.name)
	}
	w.store.changed()
	return true
}

// vanish removes the Node object of a machine that runs, for less time than makes
// it gone; not again before nobody can take the two times for one.
func (w *world) vanish(m *machine, o nodeObject) bool {
	if w.now.Before(m.vanishes) {
		return false
	}
	back := w.now.Add(time.Duration(w.rng.Int64N(int64(simAbsence))))
	m.vanishes = back.Add(2*simAbsence + 2*callTime + time.Second)
	w.vanished = append(w.vanished, vanished{back, m, o})
	w.store.nodes = slices.DeleteFunc(w.store.nodes, func(o nodeObject) bool { return o.name == m.name })
	w.say("%s: Node object vanishes", m.name)
	w.store.changed()
	return true
}

// reappear puts a Node object back, unless another machine has its name.
func (w *world) reappear(v vanished) {
	if w.store.node(v.machine.name) != nil || v.machine.uid != v.object.machine {
		return
	}
	w.say("%s: Node object is back", v.machine.name)
	w.store.nodes = append(w.store.nodes, v.object)
	w.store.changed()
}

// operate is what a person does, and what time does to an agent.
func (w *world) operate() bool {
	switch w.rng.IntN(6) {
	case 0:
		w.redefine()
	case 1, 2, 3:
		m := w.some(func(m *machine) bool { return serving(m) && m.agent.defined != w.defined })
		if m == nil {
			return false
		}
		w.say("%s: pools: %v", m.name, m.agent.define())
		m.agent.pump()
	case 4:
		m := w.some(serving)
		if m == nil {
			return false
		}
		m.agent.compact()
	case 5:
		m := w.some(serving)
		if m == nil {
			return false
		}
		w.say("%s: audit", m.name)
		m.agent.node.Audit()
		m.agent.pump()
	}
	return true
}

// redefine changes the pools.
func (w *world) redefine() {
	w.defined++
	i := w.rng.IntN(len(w.pools))
	d := &w.pools[i]
	rules := map[string]Rule{}
	for name, r := range w.rules {
		rules[name] = r
	}
	w.rules = rules
	switch w.rng.IntN(4) {
	case 0:
		r := w.rules[d.Name]
		r.Draining = !r.Draining
		w.rules[d.Name] = r
		w.say("pool %s draining: %v", d.Name, r.Draining)
	case 1:
		w.grow(len(w.pools[0].Ranges) == 1)
	case 2:
		if len(w.pools) > 1 {
			w.gonePool = append(w.gonePool, w.pools[1])
			w.pools = w.pools[:1:1]
			w.say("pool b is removed")
		}
	default:
		w.bringBackPool()
	}
}

// grow gives pool a its second range, or takes it away.
func (w *world) grow(larger bool) {
	d := &w.pools[0]
	d.Ranges = d.Ranges[:1:1]
	if larger {
		d.Ranges = append(d.Ranges, ranges("10.0.0.32-10.0.0.39")...)
	}
	w.say("pool a has %v", d.Ranges)
}

func (w *world) bringBackPool() {
	if len(w.gonePool) > 0 {
		w.pools = append(slices.Clip(w.pools), w.gonePool[0])
		w.gonePool = nil
		w.say("pool b is back")
	}
}

// settleDown ends all faults and lets the nodes come to rest.
func (w *world) settleDown() {
	w.say("all faults end")
	w.source.Seed(w.seed, 1<<40)
	w.faults, w.settling = faults{}, true
	for name, r := range w.rules {
		r.Draining = false
		w.rules[name] = r
	}
	w.putBack()
	for _, m := range w.machines {
		m.partitioned, m.diskFull, m.crashAtWrite = false, false, 0
		if m.cordoned {
			m.cordon(false)
		}
	}
	for i := 0; w.verdict == nil && i < 3; i++ {
		if i > 0 {
			w.shift(i == 1)
		}
		w.comeToRest()
	}
}

// shift ends some of the pods of nodes that are at rest, or makes some more.
func (w *world) shift(end bool) {
	for _, m := range w.machines {
		for range w.rng.IntN(4) {
			switch {
			case !end:
				w.addPod()
			case serving(m) && len(m.pods) > 0:
				m.agent.finish(m.pods[w.rng.IntN(len(m.pods))])
			}
		}
	}
	w.number++
	w.check()
}

// comeToRest fails the run unless nothing is stranded in the end.
func (w *world) comeToRest() {
	end := w.now.Add(10 * time.Minute)
	why := "?"
	for calm := 0; w.verdict == nil && w.now.Before(end); {
		w.round()
		w.number++
		if why = w.stranded(); why == "" {
			if calm++; calm > 3 {
				return
			}
		} else {
			calm = 0
		}
	}
	if w.verdict == nil {
		w.tellAll()
		w.fail("10 minutes after all faults have ended: %s", why)
		w.kind = strings.Join(slices.DeleteFunc(strings.Fields(why), func(word string) bool { return strings.ContainsAny(word, "0123456789") }), " ")
	}
}

// tellAll adds to the history how things are.
func (w *world) tellAll() {
	w.say("the store: %s", describe(w.store.blocks))
	for _, m := range w.machines {
		if m.agent != nil {
			w.say("%s takes for its own: %v, needs %v, has %d pods: %v", m.name, m.agent.believed(), m.agent.needs, len(m.pods), m.agent.ledger.Usage(w.now))
			for lack := range m.agent.needs {
				w.say("%s: %v: %v", m.name, lack, m.agent.node.Why(lack))
			}
		}
	}
}

// putBack defines what was taken away again, if pods have addresses of it: their
// agents don't start without.
func (w *world) putBack() {
	w.defined++
	var there set
	for _, d := range w.pools {
		there = there.union(usable(d))
	}
	for _, m := range w.machines {
		folded, _ := pools.Fold(m.journal)
		for _, rec := range folded {
			if rec.Op == pools.Leased && slices.ContainsFunc(rec.Addrs, func(a netip.Addr) bool { return !there.has(index(a)) }) {
				w.grow(true)
				w.bringBackPool()
				return
			}
		}
	}
}

// round lets everybody do all that can be done now, and then time go by.
func (w *world) round() {
	for _, m := range w.machines {
		if m.on || w.store.node(m.name) != nil || w.seed%2 == 0 {
			w.bringBack(m)
		}
		if m.on && m.agent == nil {
			m.start()
		}
	}
	for _, m := range w.machines {
		if serving(m) {
			if m.agent.defined != w.defined {
				err := m.agent.define()
				w.say("%s: pools: %v", m.name, err)
				if err != nil { // it has leased of what was taken away meanwhile
					w.putBack()
				}
			}
			for _, p := range slices.Clone(m.pods) {
				if p.ended && m.agent != nil {
					m.agent.release(p)
				}
			}
			if !m.agent.deaf && !m.agent.reading {
				m.agent.see(len(w.store.past) - 1)
			}
			if serving(m) {
				m.agent.hear(len(w.store.past) - 1)
			}
			if serving(m) {
				m.agent.learnMachine()
			}
			if !serving(m) {
				continue
			}
			m.agent.passNetwork(false)
			m.agent.passNetwork(true)
		}
	}
	now := w.store.past[len(w.store.past)-1]
	for _, c := range w.reapers {
		if !w.drowsy || c.seen != w.store.revision || c.reaper.Stale() {
			c.see(now.blocks, now.requests, now.nodes)
			c.seen = w.store.revision
		}
	}
	for i := 0; len(w.calls) > 0 && i < 1000 && w.verdict == nil; i++ {
		w.further(w.calls[w.rng.IntN(len(w.calls))])
		w.check()
	}
	w.letGo()
}

// letGo lets time go by until somebody has something to do.
func (w *world) letGo() {
	next := w.now.Add(2 * time.Second)
	for _, m := range w.machines {
		if m.agent != nil && !m.agent.due.IsZero() && m.agent.due.Before(next) {
			next = m.agent.due
		}
	}
	w.until(later(next, w.now.Add(20*time.Millisecond)))
	for _, m := range w.machines {
		if m.agent != nil && (!w.drowsy || m.agent.stirs()) {
			m.agent.tick()
		}
	}
	for _, c := range w.reapers {
		if !w.drowsy || w.past(c.due) {
			c.advance()
		}
	}
	w.check()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
