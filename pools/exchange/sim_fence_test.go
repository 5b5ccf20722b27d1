package exchange_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// Live nodes are declared gone, wrongly, and find out by a fence. Until then a node
// takes for its own what it has lost, and nobody can help that: it may be cut off. So
// the oracle leaves such a node out, from the moment at which its fence is set until
// its agent has reported that it has heeded the lifting, and not a moment longer.

// report is the kind of a call that the store's interface does not have: an agent
// writes into the node's own object what it has heeded. Its Block's UID is that of
// the object, and its Tenure the generation.
const report Kind = 0

// writes says whether an op changes the store.
func writes(o *Op) bool { return o.Kind == report || o.Kind.Writes() }

// speakerObject is a node's own object.
type speakerObject struct {
	Fence
	uid string
	set time.Time // when the fence was, last
}

// orders are what an agent makes of the object, nil if it was shown that there is none:
// anew each time that there was one meanwhile.
func (a *agent) orders(s *speakerObject) Orders {
	if s == nil {
		gone := 0
		for _, revision := range a.machine.forgotten {
			if revision <= a.ordered {
				gone++
			}
		}
		return Orders{Number: fmt.Sprintf("%s/%d", NoOrders, gone)}
	}
	o := Orders{Number: fmt.Sprintf("%s/%d", s.uid, s.Generation), Lifting: s.Lifting}
	if s.Stands {
		o.Fence = "gone: " + s.Machine
	}
	return o
}

func speakerOf(speakers []speakerObject, node string) *speakerObject {
	for i := range speakers {
		if speakers[i].Node == node {
			return &speakers[i]
		}
	}
	return nil
}

// fence carries out what a Warden does, and a report.
func (m *model) fence(o *Op, now time.Time) (r Result) {
	node := o.Fence.Node
	if o.Kind == report {
		node = o.Block.Node
	}
	s := speakerOf(m.speakers, node)
	switch {
	case o.Kind == Fences:
		for _, s := range m.speakers {
			if s.Stands {
				r.Fences = append(r.Fences, s.Fence)
			}
		}
		return r
	case s == nil && (o.Kind == SetFence || o.Kind == report):
		m.speakers = append(m.speakers, speakerObject{Fence: Fence{Node: node, Generation: 1}, uid: m.name()})
		s = &m.speakers[len(m.speakers)-1]
	case s == nil:
		return Result{Err: ErrGone}
	}
	switch o.Kind {
	case LookFence:
		return Result{Fence: s.Fence}
	case SetFence:
		s.Stands, s.Lifting, s.Machine, s.set = true, false, o.Fence.Machine, now
		s.Generation++
	case LiftFence, RemoveFence:
		if o.Fence.Version != "" && s.Version != o.Fence.Version {
			return Result{Err: ErrConflict}
		}
		s.Lifting = o.Kind == LiftFence
		s.Stands = s.Lifting
		s.Generation++
	case report:
		if o.Block.UID != "" && o.Block.UID != s.uid {
			return Result{Err: ErrGone}
		}
		s.Heeded = int64(o.Block.Tenure)
	}
	s.Version = m.name()
	m.changed()
	return r
}

// wronged says whether a node takes for its own, perhaps, what it has lost.
func (w *world) wronged(m *machine) bool {
	s := speakerOf(w.store.speakers, m.name)
	return m.astray > 0 || s != nil && s.Stands && !(s.Lifting && s.Heeded >= s.Generation)
}

// fenceKept is how long a fence is kept after its node has gone: longer than a call
// may be late.
const fenceKept = 2 * veryLate

// forget removes the objects of nodes of which nothing is left, fences or not. An
// agent that lives finds out by there being another object, or none.
func (w *world) forget() bool {
	n := len(w.store.speakers)
	w.store.speakers = slices.DeleteFunc(w.store.speakers, func(s speakerObject) bool {
		m := w.machine(s.Node)
		fresh := s.Stands && w.now.Sub(s.set) < fenceKept
		if fresh || w.store.node(s.Node) != nil || len(w.store.own(s.Node)) > 0 {
			return false
		}
		if w.wronged(m) {
			m.astray = w.store.revision + 1
		}
		m.forgotten = append(m.forgotten, w.store.revision+1)
		w.say("%s is forgotten", s.Node)
		return true
	})
	if len(w.store.speakers) == n {
		return false
	}
	w.store.changed()
	return true
}

// findWay says whether a node whose fence was forgotten has found out.
func (m *machine) findWay() bool {
	a := m.agent
	if m.astray == 0 || m.on && (a == nil || a.ordered < m.astray || a.told.Number == "" || a.node.Heeded() != a.told.Number) {
		return false
	}
	m.astray = 0
	return true
}

// condemn declares a live node gone.
func (w *world) condemn() bool {
	m := w.some(func(m *machine) bool { return m.on && w.store.node(m.name) != nil })
	if m == nil || w.rng.IntN(8) >= w.faults.crashes {
		return false
	}
	if w.rng.IntN(3) == 0 {
		w.store.nodes = slices.DeleteFunc(w.store.nodes, func(o nodeObject) bool { return o.name == m.name })
		w.say("%s: Node object removed, and the node lives", m.name)
	} else {
		w.store.node(m.name).outOfService = true
		w.say("%s: out of service, and lives", m.name)
	}
	m.partitioned = m.partitioned || w.rng.IntN(3) == 0
	w.store.changed()
	return true
}

// absolve has a live node counted as one again: it is in service, or makes itself
// another Node object.
func (w *world) absolve(m *machine) bool {
	switch o := w.store.node(m.name); {
	case o != nil && !o.outOfService, o == nil && slices.ContainsFunc(w.vanished, func(v vanished) bool { return v.machine == m }):
		return false
	case o != nil:
		w.say("%s: in service again", m.name)
		o.outOfService = false
	default:
		m.generation++
		m.uid = fmt.Sprintf("%s.%d", m.name, m.generation)
		w.say("%s: another Node object, %s", m.name, m.uid)
		w.store.nodes = append(w.store.nodes, nodeObject{name: m.name, machine: m.uid})
	}
	w.store.changed()
	return true
}

// order lets a node's watch of its own object, and of its Node, catch up.
func (w *world) order() bool {
	m := w.some(func(m *machine) bool { return serving(m) && !m.partitioned })
	if m == nil {
		return false
	}
	past := w.store.past
	first := min(max(len(past)-(w.store.revision-m.agent.ordered), 0), len(past)-1)
	m.agent.hear(first + w.rng.IntN(len(past)-first))
	if m.agent != nil && w.rng.IntN(4) == 0 {
		m.agent.learnMachine()
	}
	return true
}

// hear shows a node its orders at a moment of the past.
func (a *agent) hear(i int) {
	a.ordered = a.w.store.revision - (len(a.w.store.past) - 1 - i)
	s := speakerOf(a.w.store.past[i].speakers, a.name)
	if s != nil {
		seen := *s
		a.speaker = &seen
	} else {
		a.speaker = nil
	}
	now := a.orders(s)
	if now == a.told {
		return
	}
	a.told = now
	a.w.say("%s is told %+v", a.name, now)
	a.node.Obey(now, a.w.now)
	a.confirmed = a.node.Heeded()
	a.pump()
}

// learnMachine has the agent know of another Node object.
func (a *agent) learnMachine() {
	if a.node.Machine != a.uid {
		a.w.say("%s: its machine is %s now", a.name, a.uid)
		a.node.Machine = a.uid
		a.pump()
	}
}

// reportAgain is how soon a report that has failed is made anew, and reportAnyway
// how soon one that has not.
const (
	reportAgain  = 30 * time.Second
	reportAnyway = 2 * time.Minute
)

// confirm has a report made of what was heeded, which a later life has to know first.
func (a *agent) confirm() {
	if now := a.node.Heeded(); now != a.confirmed {
		a.confirmed = now
		a.w.say("%s has heeded %s", a.name, now)
		a.reports = a.w.now
	}
	if a.reporting || !a.ready || !a.w.past(a.reports) {
		return
	}
	if !a.diskFull {
		if a.heeded = a.confirmed; strings.HasPrefix(a.heeded, NoOrders) {
			a.heeded = ""
		}
	}
	o := &Op{Kind: report}
	o.Block.Node = a.name
	if s := a.speaker; s != nil {
		o.Block.UID, o.Block.Tenure = s.uid, int(s.Heeded)
		fmt.Sscanf(a.heeded, s.uid+"/%d", &o.Block.Tenure)
	}
	a.reporting = true
	a.call(o, func(r Result) {
		a.reporting = false
		a.reports = a.w.now.Add(reportAnyway)
		if r.Err != nil {
			a.reports = a.w.now.Add(reportAgain)
		}
		if a.confirmed != a.node.Heeded() || o.Block.UID == "" && a.speaker != nil {
			a.reports = a.w.now
		}
		a.pump()
	})
}

// bars says whether something new may not be leased.
func (a *agent) bars(fresh bool, err error) bool {
	if (fresh || errors.Is(err, pools.ErrNoFree)) && a.node.Fenced() != "" {
		return true
	}
	return fresh && a.node.Unheeded(a.w.now, !a.partitioned)
}

// checkFresh fails the run if a node leases something new though it has been told, or
// would have been by now, that it may not.
func (a *agent) checkFresh(p *pod) {
	switch {
	case a.told.Fence != "":
		a.w.fail("%s: leases %v behind a fence that it knows of", a.name, p.addrs)
	case a.recalled && a.told.Number == "" && !a.partitioned:
		a.w.fail("%s: leases %v before it knows its orders", a.name, p.addrs)
	}
}

// fencedAgain is how often a fenced node reads its blocks.
const fencedAgain = 5 * time.Second

// peace is without a concern before requests are watched no more.
const peace = time.Minute

// watch opens the watch of the requests of some pools. It is closed by chores.
func (a *agent) watch() {
	pools, all := a.node.Concerns()
	if a.scope == nil { // it has just started
		a.scope, all = map[string]time.Time{}, true
	}
	if all {
		pools = append(pools, "")
	}
	for _, p := range pools {
		a.scope[p] = a.w.now.Add(peace)
		a.deaf = false
	}
}

// watches says whether it is shown a request.
func (a *agent) watches(r Request) bool {
	_, all := a.scope[""]
	_, pool := a.scope[r.Pool]
	return all || pool
}

// outgrown says whether something is watched that has not been a concern for long.
func (a *agent) outgrown() bool {
	for _, until := range a.scope {
		if a.w.past(until) {
			return true
		}
	}
	return false
}

// chores are what the agent does by the clock, beside what its node does.
func (a *agent) chores() {
	if a.watch(); a.outgrown() && !a.reading {
		a.reading = true
		a.ask(Op{Kind: Requests}, a.watchLess)
	}
	if a.told.Fence != "" && !a.w.now.Before(a.fenceRead) {
		a.fenceRead = a.w.now.Add(fencedAgain)
		a.node.Audit()
	}
}

// watchLess watches no more what is no concern, having read all.
func (a *agent) watchLess(r Result) {
	a.reading, a.shown = false, nil
	a.node.Seen(r.Requests, a.w.now)
	a.pump()
	maps.DeleteFunc(a.scope, func(_ string, until time.Time) bool { return a.w.past(until) })
	if a.deaf = len(a.scope) == 0; a.deaf {
		a.w.say("%s watches requests no more", a.name)
		a.node.Seen(nil, a.w.now)
		a.pump()
	}
}

// hasChores says whether it is time for some.
func (a *agent) hasChores() bool {
	return a.ready && (a.w.past(a.reports) && !a.reporting || a.outgrown() && !a.reading || a.told.Fence != "" && !a.w.now.Before(a.fenceRead))
}
