package exchange_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
	"go4.org/netipx"
)

// machine is a node of the cluster: what outlives its agent.
type machine struct {
	w            *world
	name, uid    string
	generation   int
	on           bool
	vanishes     time.Time // its Node object does not, before
	off          time.Time // since when
	cordoned     bool
	partitioned  bool
	diskFull     bool
	crashAtWrite int // the agent crashes at that many records from now; 0 is never
	journal      []pools.Record
	agent        *agent
	lives        int
	pods         []*pod
	announced    set    // what the network leads here
	residue      set    // that it led here when the node did not know yet that it is lost
	astray       int    // revision at which its fence was forgotten; zero is none that it has not found out about
	forgotten    []int  // revisions at which there was no place for its orders any more
	heeded       string // the orders in the file beside the journal
	leaving      []netip.Prefix
	planned      set // what is announced once these are not
	forfeits     int // of its node, when that was planned
}

// pod is a sandbox, with addresses or waiting for them.
type pod struct {
	id    int
	pool  string
	want  []netip.Addr
	addrs []netip.Addr
	ended bool // its DEL has begun, which is made again until it is done
}

func (p *pod) request() pools.Request {
	return pools.Request{Pool: p.pool, Want: p.want, Owner: p.owner()}
}

func (p *pod) owner() pools.Owner {
	return pools.Owner{Attachment: pools.Attachment{Network: "n", ContainerID: fmt.Sprint("c", p.id), IfName: "eth0"}, PodUID: fmt.Sprint("u", p.id)}
}

// agent is one life of a machine's agent, as the real one drives a Node.
type agent struct {
	*machine
	ledger  *pools.Ledger
	node    *Node
	life    int
	ready   bool // serves
	crashed bool
	defined int
	watched int // revision of the requests seen
	unfit   []Stored
	needs   map[Lack]int
	anew    bool      // the pods that wait try again
	retry   time.Time // when those do that have failed
	shown   []Request // last, by the watch
	due     time.Time
	audits  time.Time // when to look for what came late
	spins   int
	dirty   bool

	recalled  bool           // its blocks are from its journal
	told      Orders         // last, by the watch
	speaker   *speakerObject // its own, as last shown
	ordered   int            // revision of it
	confirmed string         // that a report was made of, or is under way
	reporting bool
	reports   time.Time            // when to report
	fenceRead time.Time            // when to read its blocks while it is fenced
	deaf      bool                 // does not watch requests
	scope     map[string]time.Time // those of which pools it watches, and until when at least; of "", all
	reading   bool                 // them once more, before it watches less
}

// podRetry is how long after it has failed a pod's ADD is made again.
const podRetry = 10 * time.Second

var errCrash = errors.New("crashed at a write")

// start begins a life of the agent. It serves once it is ready.
func (m *machine) start() {
	m.lives++
	a := &agent{machine: m, life: m.lives, ledger: pools.NewLedger(m.name), needs: map[Lack]int{}, dirty: true, audits: m.w.now.Add(Settle), reports: m.w.now.Add(reportAgain / 2)}
	a.node = NewNode(Config{Name: m.name, Machine: m.uid, Shared: true, Keep: a.keep, Log: m.w.log}, a.ledger)
	m.agent = a
	m.w.say("%s: agent starts, life %d, %d records in its journal", m.name, a.life, len(m.journal))
	folded, err := pools.Fold(m.journal)
	if err != nil {
		m.w.fail("%s: journal: %v", m.name, err)
		return
	}
	if err := a.define(); err != nil {
		m.w.fail("%s: pools at start: %v", m.name, err)
		return
	}
	a.node.SetCordoned(m.cordoned)
	if a.unfit, err = a.node.Restore(folded); err != nil {
		m.w.fail("%s: restore: %v", m.name, err)
		return
	}
	if !slices.ContainsFunc(folded, func(r pools.Record) bool { return r.Op == pools.Claimed }) {
		a.restoreLeases(folded)
		a.find()
		return
	}
	if a.restoreLeases(folded) && a.standing() {
		a.ready, a.recalled = true, true
		a.confirmed = m.heeded
		a.node.Recall(m.heeded, m.w.now)
		a.disown()
		a.pump()
	}
}

// restoreLeases says whether the agent can serve.
func (a *agent) restoreLeases(folded []pools.Record) bool {
	lost, err := a.ledger.Restore(folded, a.w.now)
	if err != nil {
		a.w.fail("%s: leases: %v", a.name, err)
		return false
	}
	for _, rec := range lost {
		if p, err := a.ledger.Pool(rec.Pool); err == nil && !slices.ContainsFunc(rec.Addrs, func(x netip.Addr) bool { return !p.Contains(x) }) {
			a.w.fail("%s: the lease %v of %v is in no block that is remembered", a.name, rec.Addrs, rec.Owner)
			return false
		}
	}
	if len(lost) > 0 {
		a.w.say("%s: agent can't start: no pool for the leases %v", a.name, lost)
		a.crash()
		return false
	}
	return true
}

// standing says whether all sandboxes have their leases still.
func (a *agent) standing() bool {
	for _, p := range a.pods {
		if g, _ := a.ledger.Grant(p.owner().Attachment); p.addrs != nil && !p.ended && !slices.Equal(g.Addrs, p.addrs) {
			a.w.fail("%s: after a crash pod %d has %v, and the ledger says %v", a.name, p.id, p.addrs, g.Addrs)
			return false
		}
	}
	return true
}

// find reads what the store has for a node that remembers nothing.
func (a *agent) find() {
	a.ask(Op{Kind: Requests}, func(requests Result) {
		a.ask(Op{Kind: Own}, func(own Result) {
			var err error
			if a.unfit, err = a.node.Found(requests.Requests, own.Blocks, a.w.now); err != nil {
				a.w.say("%s: found: %v", a.name, err)
				a.crash()
				return
			}
			a.ready = true
			a.pump()
		})
	})
}

func (a *agent) disown() {
	a.ask(Op{Kind: Requests}, func(r Result) {
		a.node.Disown(r.Requests)
		a.pump()
	})
}

// ask makes a call of the agent's own until it is answered.
func (a *agent) ask(o Op, then func(Result)) {
	a.call(&o, func(r Result) {
		if r.Err != nil {
			a.ask(o, then)
			return
		}
		then(r)
	})
}

func (a *agent) call(o *Op, answer func(Result)) {
	a.w.begin(&call{op: o, who: a.name, node: a.name, machine: a.machine, answer: answer, alive: func() bool { return a.machine.agent == a }})
}

// keep is the journal.
func (a *agent) keep(rec pools.Record) error {
	if a.crashed {
		return errCrash
	}
	if a.diskFull {
		return errors.New("no space left on device")
	}
	if rec.Block != nil {
		b := *rec.Block
		rec.Block = &b
	}
	a.journal = append(a.journal, rec)
	a.bereave(rec)
	if a.crashAtWrite > 0 {
		if a.crashAtWrite--; a.crashAtWrite == 0 {
			a.w.say("%s: crashes right after a write to its journal", a.name)
			a.crashed = true
			return errCrash
		}
	}
	return nil
}

// bereave ends the pod whose lease ends though it stands: the block is lost.
func (a *agent) bereave(rec pools.Record) {
	for _, p := range a.pods {
		if rec.Op == pools.Released && p.owner() == rec.Owner && !p.ended {
			a.w.say("%s: pod %d has lost %v", a.name, p.id, rec.Addrs)
			p.ended = true
			a.w.oracle.released(p)
		}
	}
}

// pump goes on with the node and the pods that wait, as after every event.
func (a *agent) pump() {
	a.dirty = true
	for range 3 {
		ops, next := a.node.Advance(a.w.now)
		a.due = next
		a.watch()
		a.confirm()
		a.watchSpin(len(ops) == 0 && a.w.past(next))
		if a.crashed {
			a.crash()
			return
		}
		for _, o := range ops {
			a.call(o, func(r Result) {
				a.node.Done(o, r, a.w.now)
				a.pump()
			})
		}
		if !a.serve() {
			break
		}
	}
	if a.crashed {
		a.crash()
	}
}

// watchSpin fails the run if the node wants to go on at once, and then does nothing.
func (a *agent) watchSpin(spins bool) {
	if !spins {
		a.spins = 0
	} else if a.spins++; a.spins > 100 {
		a.w.fail("%s: the node wants to go on at once, and does nothing", a.name)
	}
}

// serve leases to the pods that wait. It says whether the node has news.
func (a *agent) serve() (news bool) {
	if !a.ready {
		return false
	}
	needs := map[Lack]int{}
	for _, p := range a.pods {
		if p.addrs == nil && !p.ended && !a.crashed {
			news = a.lease(p, needs) || news
		}
	}
	for _, lack := range slices.SortedFunc(maps.Keys(a.needs), lacksInOrder) {
		if needs[lack] == 0 {
			needs[lack] = 0
		}
	}
	for _, lack := range slices.SortedFunc(maps.Keys(needs), lacksInOrder) {
		n := needs[lack]
		if n == a.needs[lack] && (n == 0 || a.node.Wants(lack) || a.node.Why(lack) != nil && !a.anew) {
			if n > 0 && !a.node.Wants(lack) {
				a.retryLater()
			}
			continue
		}
		a.w.say("%s needs %d of %v", a.name, n, lack)
		a.node.Need(lack, n, a.w.now)
		news = true
	}
	maps.DeleteFunc(needs, func(_ Lack, n int) bool { return n == 0 })
	a.needs, a.anew = needs, false
	return news
}

// retryLater has the pods that wait try again in a while: an ADD has failed.
func (a *agent) retryLater() {
	if a.retry.IsZero() {
		a.retry = a.w.now.Add(podRetry)
	}
}

func lacksInOrder(a, b Lack) int {
	return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Family, b.Family), a.Want.Compare(b.Want))
}

// lease tries to serve one pod, and says whether it did; else it counts what is
// lacking.
func (a *agent) lease(p *pod, needs map[Lack]int) bool {
	req := p.request()
	rec, fresh, err := a.ledger.ProposeLease(req, a.w.now)
	if fresh && a.w.rules[p.pool].Draining || a.bars(fresh, err) {
		a.retryLater()
		return false
	}
	if errors.Is(err, pools.ErrNoFree) {
		for _, l := range a.ledger.Lacks(req, a.w.now) {
			needs[Lack{Pool: l.Pool, Family: l.Family, Want: l.Want}]++
		}
	}
	if err != nil {
		if !errors.Is(err, pools.ErrNoFree) {
			a.retryLater()
		}
		return false
	}
	if fresh {
		if a.keep(rec) != nil {
			a.retryLater()
			return false
		}
		if err := a.ledger.Apply(rec); err != nil {
			a.w.fail("%s: a proposed lease does not apply: %v", a.name, err)
			return false
		}
	}
	p.addrs = rec.Addrs
	if fresh {
		a.checkFresh(p)
	}
	a.w.say("%s: pod %d has %v", a.name, p.id, p.addrs)
	a.w.oracle.leased(a.w, a.machine, p)
	return true
}

// release ends a pod. It says whether its DEL was done.
func (a *agent) release(p *pod) bool {
	if !p.ended {
		p.ended = true
		a.releaseWrong(p)
		a.w.oracle.released(p)
	}
	rec, held, err := a.ledger.ProposeRelease(p.owner(), a.w.now)
	if err != nil {
		a.w.fail("%s: pod %d has %v, and can't be released: %v", a.name, p.id, p.addrs, err)
		return false
	}
	if held {
		if a.keep(rec) != nil {
			return false
		}
		if err := a.ledger.Apply(rec); err != nil {
			a.w.fail("%s: a proposed release does not apply: %v", a.name, err)
			return false
		}
	}
	a.w.say("%s: pod %d gives back %v", a.name, p.id, p.addrs)
	a.pods = slices.DeleteFunc(a.pods, func(o *pod) bool { return o == p })
	return true
}

// releaseWrong is a DEL that is not for this pod.
func (a *agent) releaseWrong(p *pod) {
	wrong := p.owner()
	wrong.PodUID = "somebody else's"
	if _, _, err := a.ledger.ProposeRelease(wrong, a.w.now); p.addrs != nil && !errors.Is(err, pools.ErrNotOwner) {
		a.w.fail("%s: a DEL of another pod would free %v: %v", a.name, p.addrs, err)
	}
}

// define brings the agent the pools of the world.
func (a *agent) define() error {
	var ps []*pools.Pool
	for _, d := range a.w.pools {
		p, err := pools.New(d)
		if err != nil {
			return err
		}
		ps = append(ps, p)
	}
	if err := a.ledger.SetPools(ps); err != nil {
		return err
	}
	a.node.SetRules(a.w.rules)
	a.defined = a.w.defined
	a.readmit()
	return nil
}

// readmit takes the blocks in again whose pool came back.
func (a *agent) readmit() {
	a.unfit = slices.DeleteFunc(a.unfit, func(st Stored) bool { return a.node.Adopt(st, nil, a.w.now) == nil })
}

// discard returns the blocks that no pool has, and that the network does not
// lead here.
func (a *agent) discard() {
	a.unfit = slices.DeleteFunc(a.unfit, func(st Stored) bool {
		if !a.parted(st) {
			return false
		}
		a.w.say("%s discards %v", a.name, st.Prefix)
		return a.node.Discard(st, a.w.now) == nil
	})
}

// parted says whether the network does not lead st here.
func (a *agent) parted(st Stored) bool {
	var all set
	all.addRange(netipx.RangeOfPrefix(st.Prefix))
	return a.announced.both(all) == set{}
}

// passNetwork tells the peers: at first what is new, then what is not any more.
func (a *agent) passNetwork(more bool) {
	open := a.effective()
	if !more {
		a.leaving, a.planned, a.forfeits = a.node.Parting(), open, a.node.Forfeits()
		if a.announced.union(open) != a.announced || a.leaving != nil {
			a.w.say("%s announces %v, takes leave of %v", a.name, open, a.leaving)
		}
		a.announced = a.announced.union(open)
		return
	}
	if a.leaving != nil { // the plan may be out of date by now
		open = a.planned
	}
	switch {
	case a.announced != open || a.leaving != nil:
		a.w.say("%s has withdrawn all but %v, and %v", a.name, open, a.leaving)
	case a.w.drowsy:
		return
	}
	a.announced = open
	if a.node.Forfeits() == a.forfeits {
		a.node.Parted(a.leaving)
	}
	a.leaving = nil
	a.pump()
}

// effective is what the real agent announces.
func (a *agent) effective() (out set) {
	for _, d := range a.w.pools {
		ips := a.ledger.Effective(d.Name, func(h pools.Held) bool { return !h.Closed })
		for _, r := range ips.Ranges() {
			out.addRange(r)
		}
	}
	return out
}

// compact rewrites the journal.
func (a *agent) compact() {
	var out []pools.Record
	for _, u := range a.unfit {
		b := u.Block
		out = append(out, pools.Record{Op: pools.Claimed, Pool: u.Pool, At: u.Created, Block: &b})
	}
	out = append(out, a.node.History()...)
	a.journal = append(out, a.ledger.History(a.w.now)...)
	a.w.say("%s: journal of %d records", a.name, len(a.journal))
}

// crash ends this life.
func (a *agent) crash() {
	a.w.say("%s: agent crashes", a.name)
	if a.w.noteHeld(a) {
		a.w.paint()
	}
	a.machine.agent = nil
	a.crashAtWrite, a.leaving = 0, nil
	m := a.machine
	a.w.abandon(func(c *call) bool { return c.machine == m })
}

// powerOff ends all that is on the machine but its disk, which is a tmpfs.
func (m *machine) powerOff() {
	if m.agent != nil {
		m.agent.crash()
	}
	m.w.say("%s: machine %s is switched off", m.name, m.uid)
	for _, p := range m.pods {
		m.w.oracle.released(p)
	}
	m.on, m.off, m.pods, m.journal, m.announced, m.leaving, m.heeded = false, m.w.now, nil, nil, set{}, nil, ""
}

// powerOn is a boot.
func (m *machine) powerOn() {
	m.w.say("%s: machine %s boots", m.name, m.uid)
	m.on, m.diskFull, m.partitioned = true, false, false
}

// controller runs a Reaper.
type controller struct {
	w      *world
	name   string
	reaper *Reaper
	due    time.Time
	seen   int // revision
}

func (c *controller) see(blocks []Stored, requests []Request, nodes []nodeObject) {
	c.reaper.See(blocks, requests, func(node, machine string) bool { return presence(nodes, node, machine) != Present })
	c.reaper.SeeBack(func(node string) bool { return presence(nodes, node, "") == Present })
	c.advance()
}

func (c *controller) advance() {
	ops, next := c.reaper.Advance(c.w.now)
	c.due = next
	life := c.reaper
	for _, o := range ops {
		c.w.begin(&call{op: o, who: c.name, alive: func() bool { return c.reaper == life }, answer: func(r Result) {
			c.reaper.Done(o, r, c.w.now)
			c.advance()
		}})
	}
}

func (c *controller) crash() {
	c.w.say("%s: crashes", c.name)
	c.w.abandon(func(o *call) bool { return o.who == c.name })
	c.reaper = NewReaper(simAbsence)
	c.due, c.seen = time.Time{}, 0
}
