package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

// Cluster is what the agent has to know of the cluster that its node is part
// of, and what it says there. All of it may be called by many goroutines at
// once.
type Cluster interface {
	// Watch calls changed when State may return something else, until ctx ends.
	Watch(ctx context.Context, changed func()) error
	// State is what is known now. It makes no call.
	State() ClusterState
	// Refresh has this node looked at anew, soon: what State says of it may be minutes
	// old. It makes no call itself.
	Refresh()
	// Place says from which pool the pod of o is served. named is the pool that
	// the network configuration names, "" for none. It makes no call for a pod
	// that is known and new, and a few, bounded, for one that is not or that it
	// would refuse. The error wraps
	// cni.ErrRefused when somebody has to change something first, and
	// cni.ErrTryAgain when not.
	Place(ctx context.Context, o pools.Owner, named string) (Placement, error)
	// Gone says whether the pod of o is known to be gone for certain: another
	// one has its name, or none has. It is an error not to know.
	Gone(ctx context.Context, o pools.Owner) (bool, error)
	// Warn tells who looks after the pod of o.
	Warn(ctx context.Context, o pools.Owner, reason, message string) error
	// Report tells who looks after this node.
	Report(ctx context.Context, r Report) error
	// Confirm says what Report says of these orders, sooner, if somebody waits for that
	// alone: a fence that is to be lifted.
	Confirm(ctx context.Context, orders string) error
	// WatchMesh calls changed with the nodes that take part in a mesh, this one
	// among them if it is known to, when they are known and whenever they may be
	// others, until ctx ends.
	WatchMesh(ctx context.Context, changed func([]MeshNode)) error
}

// ClusterState is what a cluster says of its pools and of this node.
type ClusterState struct {
	// Seen says that the pools and the node were read since the agent's start.
	// Pools mean nothing before.
	Seen bool
	// Reached says that the API server was there when it was called last, whether it
	// has answered yet or not.
	Reached bool
	// Pools are those that nodes may take blocks of.
	Pools []Pool
	// Machine tells this node from others that have, or had, its name. It is ""
	// when the cluster has no node of that name, or none is known yet.
	Machine string
	// Addresses are the node's inside the cluster.
	Addresses []netip.Addr
	// Labels and Annotations are the node's, without those that are too long to be
	// a number, an address or a name. Nobody changes them.
	Labels, Annotations map[string]string
	// Cordoned nodes take no new blocks.
	Cordoned bool
	// Fence is another one each time that this node is declared gone; "" if it
	// never was.
	Fence string
	// Lifting says that the Fence comes off once this node has taken its blocks
	// anew, and has said so.
	Lifting bool
	// Orders is another one after each change of the Fence, also one that was
	// undone before anybody here saw it; one that begins with exchange.NoOrders when
	// nobody can have given any, and "" while they have not been shown since the
	// agent's start.
	Orders string
}

// Placement is where the addresses of a pod come from.
type Placement struct {
	Pool string
	// Want are addresses that were chosen for it, at most one of each family.
	Want []netip.Addr
}

// Report is what an agent says of its node.
type Report struct {
	ASN      uint32
	RouterID netip.Addr
	Peers    []PeerStatus
	Blocks   int
	Routes   int
	// Orders are the last ones since which the agent has read its blocks, in the
	// words of ClusterState, and which it remembers; "" for none.
	Orders string
	// Trouble is what does not work now, empty if all does.
	Trouble string
	// Mesh is where the other nodes of a mesh are to find this one; nil for none.
	Mesh *MeshNode
}

// cadence is how often an agent looks after what nobody tells it of. Each pause
// is drawn anew, between its half and one and a half times of it.
type cadence struct {
	firstAudit time.Duration // at most, after a start from a journal
	settled    time.Duration // before the first audit, after a start without one
	fenced     time.Duration // between the first two audits of a node that counts as gone
	audit      time.Duration
	lost       time.Duration // between two looks for pods whose DEL was lost
	report     time.Duration
	tell       time.Duration // before a pod is told the same again
	peace      time.Duration // without a concern before requests are watched no more; much longer than exchange.Settle
}

func usualCadence() cadence {
	return cadence{firstAudit: 10 * time.Minute, settled: exchange.Settle, fenced: time.Second, audit: time.Hour, lost: 3 * time.Minute, report: 30 * time.Second, tell: time.Minute, peace: time.Minute}
}

// joinCluster learns what the agent needs before it can read its journal: its
// machine and the pools. What an agent of this boot has left is good enough if
// it has all pools that the journal names; else the cluster is waited for.
func (a *Agent) joinCluster(ctx context.Context, s *Settings, history []pools.Record) error {
	m, err := a.memory.recall()
	if err != nil {
		a.Log.Warn("the pools of the last run are unknown; the cluster has to be asked", "err", err)
	}
	a.memory.heeded, a.memory.addresses = m.orders, m.addresses
	known := map[string]bool{}
	for _, p := range m.pools {
		known[p.Name()] = true
	}
	named := map[string]bool{}
	for _, rec := range history {
		if rec.Op == pools.Leased || rec.Op == pools.Claimed {
			named[rec.Pool] = true
		}
	}
	enough := len(named) > 0 && m.machine != ""
	for name := range named {
		enough = enough && known[name]
	}
	if enough {
		a.Machine, s.Pools = m.machine, namedFirst(m.pools, named)
		return nil
	}
	state, err := a.awaitCluster(ctx)
	if err != nil {
		return err
	}
	a.Machine = state.Machine
	s.Pools = namedFirst(beside(state.Pools, drained(m.pools, named)), named)
	return nil
}

// awaitCluster waits until the cluster has shown its pools and this node.
func (a *Agent) awaitCluster(ctx context.Context) (ClusterState, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := make(chan struct{}, 1)
	go func() {
		_ = a.Cluster.Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	remind := time.NewTicker(resync)
	defer remind.Stop()
	for {
		state := a.Cluster.State()
		if state.Seen && state.Machine != "" {
			return state, nil
		}
		why := errors.New("the API server has not shown the pools and this node yet")
		if state.Seen {
			why = fmt.Errorf("the cluster has no Node object %q: is node in the configuration its name?", a.Node)
		}
		a.door.waitsFor(why)
		select {
		case <-changed:
		case <-remind.C:
			a.Log.Warn("the agent can't start yet", "err", why)
		case <-ctx.Done():
			return state, fmt.Errorf("wait for the cluster: %w", ctx.Err())
		}
	}
}

// follow brings the agent to what the cluster says.
func (a *Agent) follow() {
	a.reload.Lock()
	defer a.reload.Unlock()
	state := a.Cluster.State()
	if a.desk.setNode(state.Machine, state.Cordoned) {
		a.Log.Info("this node's object in the cluster changed", "machine", state.Machine, "cordoned", state.Cordoned)
	}
	if a.desk.obey(exchange.Orders{Number: state.Orders, Fence: state.Fence, Lifting: state.Lifting}) {
		if state.Fence != "" {
			a.Log.Warn("this node was declared gone; reading its blocks", "fence", state.Fence, "lifting", state.Lifting)
		}
		select {
		case a.fenced <- struct{}{}:
		default:
		}
	}
	if state.Seen {
		a.admit(state.Pools)
	}
	a.reidentify()
	a.reweave()
	if err := a.remember(); err != nil {
		a.Log.Warn("a restart will need the API server", "err", err)
	}
}

// remember keeps what the next agent of this boot has to know. The reload lock is
// held.
func (a *Agent) remember() error {
	return a.memory.keep(a.desk.machine(), a.settings.Load().Pools, a.desk.ordersHeeded())
}

// watchCluster follows the cluster until ctx ends.
func (a *Agent) watchCluster(ctx context.Context) {
	a.follow()
	for ctx.Err() == nil {
		if err := a.Cluster.Watch(ctx, a.follow); ctx.Err() == nil {
			a.Log.Warn("the cluster is not watched; trying again", "err", err, "in", resync)
			pause(ctx, resync)
		}
	}
}

// setNode takes over what the cluster says of this node, and says whether that
// is news. Blocks get the name of a new machine one after the other.
func (d *desk) setNode(machine string, cordoned bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if machine == "" {
		machine = d.node.Machine // gone, or not known yet: neither is another one
	}
	news := d.node.Machine != machine || d.cordoned != cordoned
	d.node.Machine, d.cordoned = machine, cordoned
	d.node.SetCordoned(cordoned)
	if news && d.calling.Err() == nil {
		d.advance()
	}
	return news
}

func (d *desk) machine() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.node.Machine
}

// audit has the node compare what it holds with what the store has.
func (d *desk) audit() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.node.Audit()
	if d.calling.Err() == nil {
		d.advance()
	}
}

// mostRetry bounds the pause of a start that does not succeed: where a right or a
// definition is missing, all nodes try again until somebody mends that.
const mostRetry = 10 * time.Second

// forfeited is how many blocks were found lost so far.
func (d *desk) forfeited() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.node.Forfeits()
}

// persist does what needs the store again and again, until it is done or ctx
// ends. The pauses grow, and are drawn, so that nodes that fail together do not
// ask together.
func (a *Agent) persist(ctx context.Context, what string, do func() error) error {
	n := news{log: a.Log}
	for wait := retry; ; wait = min(2*wait, mostRetry) {
		err := do()
		if err == nil {
			return nil
		}
		n.waits(what, err)
		a.door.waitsFor(fmt.Errorf("%s: %w", what, err))
		if !pause(ctx, wait/2+rand.N(wait/2+1)) {
			return fmt.Errorf("%s: %w", what, errors.Join(ctx.Err(), err))
		}
	}
}

// pause waits for d, and says whether ctx lasted.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
