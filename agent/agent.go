// Package agent is what runs on each node: it holds blocks, leases their
// addresses to sandboxes through CNI, keeps the leases in a journal, and brings
// the kernel and the BGP speaker to what it holds.
//
// There are two parts that meet in the blocks. The desk serves requests in
// memory; it claims a block when it has no address left. The loop reads what
// the desk holds and makes it so in the kernel and at the peers; leases of
// addresses that are new there wait for that.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairway-network/fairway/internal/lockfile"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"github.com/fairway-network/fairway/routes"
	"github.com/fairway-network/fairway/speaker"
	"github.com/prometheus/client_golang/prometheus"
)

// partTime bounds each step of the agent's end.
const partTime = 10 * time.Second

// Kernel is the node's own route table.
type Kernel interface {
	// Sync makes the table hold want and no other route of ours.
	Sync(ctx context.Context, want []routes.Route) error
	// Watch calls changed when the table may no longer be as the last Sync
	// left it, until ctx ends.
	Watch(ctx context.Context, changed func()) error
}

// Parts are what an agent is made of. Who made them closes them, after Run
// has returned; the speaker alone is ended by the agent, as its settings say.
type Parts struct {
	Node   string
	RunDir string // for the journal and the control socket; emptied by a reboot
	Socket string // for the CNI plugin
	Boot   string // the kernel's boot ID
	// Booted is when that boot began; zero if nobody knows.
	Booted time.Time
	Store  exchange.Store
	// Machine tells this node from others of its name that share the store. A
	// Cluster says so itself.
	Machine string
	// Cluster is the one that the node is part of; nil for none. The pools are
	// then the cluster's, and not those of the settings.
	Cluster Cluster
	Kernel  Kernel
	Speaker speaker.Speaker
	Log     *slog.Logger
	// Version is the program's, for people to read.
	Version string
	// MetricsAddress and HealthAddress are where /metrics, and /healthz and /readyz,
	// are served besides the control socket; the zero value is nowhere.
	MetricsAddress, HealthAddress netip.AddrPort
}

// Agent is the agent of one node.
type Agent struct {
	Parts
	desk     *desk
	locks    []*lockfile.Lock
	socket   *net.UnixListener // of the door
	door     *door             // once the journal is read
	settings atomic.Pointer[Settings]
	reload   sync.Mutex
	chosen   netip.Addr        // the router ID that no settings name; under reload
	misfits  map[string]string // why pools are not as the cluster has them; under reload
	// admitted is what of the desk had ended when the pools were last looked at,
	// and when that was; under reload.
	admitted   int
	admittedAt time.Time
	fenced     chan struct{} // of size one: the fence changed
	hurried    chan struct{} // of size one: a report is due
	heeded     chan struct{} // of size one: orders were heeded
	calls      chan struct{} // of size one: look again
	flushes    map[pools.Family]flusher
	told       *told
	paths      *paths
	metrics    *metrics
	front      *front
	// entrance is the door, for those who ask while the agent starts.
	entrance atomic.Pointer[door]
	serving  chan struct{} // closed when Run begins
	// servingSince is when that was, in nanoseconds.
	servingSince atomic.Int64
	began        time.Time // when no earlier agent ran any more, if that is known
	memory       *memory
	upkeep       *upkeep
	mesh         *mesh
	every        cadence
	warnings     sync.WaitGroup // to the cluster, under way
	started      chan struct{}  // closed after the first pass
	stop         chan struct{}  // closed by the first Drain
	drained      chan struct{}  // closed when ended is set
	how          speaker.Stop   // of end, like ended
	ended        error          // how end went
	draining     sync.Once

	// What follows belongs to the loop: what the kernel is known to deliver,
	// the speaker's last state, what was withdrawn and may not have left yet,
	// and since when blocks wait for that.
	inKernel     []netip.Prefix
	announced    []netip.Prefix
	spoken       speaker.Local
	withdrawn    map[netip.Prefix]bool
	closingSince map[netip.Prefix]time.Time
	startOnce    sync.Once
}

// New makes an agent that has read its journal and its blocks and knows which
// leases stand. It refuses to be the second one in a directory or on a socket
// (the error wraps lockfile.ErrHeld and names the other process), to start
// from a damaged journal (journal.ErrCorrupt), and to give up a pool or an
// address that is leased. Where the journal does not say what the node holds, it
// waits for the Cluster and the Store to say so; plugins are told meanwhile. Run
// or Close must follow.
func New(ctx context.Context, parts Parts, s Settings) (*Agent, error) {
	a := &Agent{
		Parts: parts, calls: make(chan struct{}, 1), fenced: make(chan struct{}, 1), hurried: make(chan struct{}, 1), heeded: make(chan struct{}, 1), flushes: newFlushers(), started: make(chan struct{}),
		stop: make(chan struct{}), drained: make(chan struct{}), told: newTold(parts.RunDir, parts.Boot, time.Now), paths: newPaths(parts.Speaker, parts.Log),
		withdrawn: map[netip.Prefix]bool{}, closingSince: map[netip.Prefix]time.Time{},
		memory: newMemory(parts.RunDir, parts.Boot), upkeep: newUpkeep(parts.RunDir, parts.Boot), mesh: newMesh(parts.RunDir, parts.Boot), every: usualCadence(), misfits: map[string]string{},
		metrics: newMetrics(parts.Version), serving: make(chan struct{}),
	}
	a.Kernel = countedKernel{parts.Kernel, a.metrics}
	a.metrics.numbers = func() prometheus.Collector { return newNumbers(a) }
	lockPath := filepath.Join(a.RunDir, "agent.lock")
	if _, err := os.Stat(lockPath); errors.Is(err, fs.ErrNotExist) {
		a.began = a.Booted // this is the first agent of the boot
	}
	for _, path := range []string{lockPath, a.Socket + ".lock"} {
		lock, err := lockfile.Acquire(path)
		if err != nil {
			return nil, errors.Join(err, a.Close())
		}
		a.locks = append(a.locks, lock)
	}
	a.front = a.openFront(ctx)
	err := a.upkeep.recall()
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	if a.socket, err = listen(a.Socket); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	s.Local.Restarting = s.Local.Enabled && a.told.recall(s.Local.Kept())
	if a.desk, err = a.recover(ctx, &s); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	a.identify(&s)
	a.recallMesh()
	a.weave(&s)
	a.settings.Store(&s)
	if a.Cluster != nil {
		a.desk.recallOrders(a.memory.heeded, func() bool { return a.Cluster.State().Reached })
	}
	return a, nil
}

// Close lets go of what New took.
func (a *Agent) Close() error {
	var errs []error
	a.front.close()
	if a.door != nil {
		errs = append(errs, a.door.shut())
	} else if a.socket != nil {
		errs = append(errs, a.socket.Close())
	}
	if a.desk != nil {
		a.desk.hangUp()
		errs = append(errs, a.desk.journal.Close())
	}
	for _, lock := range a.locks {
		errs = append(errs, lock.Close())
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends or Drain is called, then ends the speaker and
// closes the agent. With a drain, or if the settings say so, everything is
// withdrawn: announcements, then routes, then empty blocks. Otherwise the
// peers and the kernel keep forwarding, and the next agent takes over.
func (a *Agent) Run(ctx context.Context) (err error) {
	serving, stopServing := context.WithCancel(ctx)
	defer stopServing()
	control, err := listen(filepath.Join(a.RunDir, ControlSocket))
	if err != nil {
		return errors.Join(err, a.Close())
	}
	a.servingSince.Store(time.Now().UnixNano())
	close(a.serving)
	api := a.controlServer()
	var work, serve sync.WaitGroup
	work.Go(func() { a.loop(serving) })
	work.Go(func() { a.flush(serving, pools.IPv4) })
	work.Go(func() { a.flush(serving, pools.IPv6) })
	work.Go(func() { a.watchKernel(serving) })
	work.Go(func() { a.paths.watch(serving) })
	work.Go(func() { a.watchRequests(serving) })
	work.Go(func() { a.auditNowAndThen(serving) })
	if a.Cluster != nil {
		work.Go(func() { a.watchCluster(serving) })
		work.Go(func() { a.auditFenced(serving) })
		work.Go(func() { a.findLost(serving) })
		work.Go(func() { a.report(serving) })
		work.Go(func() { a.confirmHeeded(serving) })
		work.Go(func() { a.watchMesh(serving) })
	}
	a.door.open(a.leases())
	work.Go(func() {
		<-serving.Done()
		_ = a.door.shut() // Close says how that went
	})
	serve.Go(func() { _ = api.Serve(control) })
	a.Log.Info("serving", "node", a.Node, "socket", a.Socket, "blocks", a.desk.count())
	select {
	case <-ctx.Done():
	case <-a.stop:
	}
	stopServing()
	work.Wait()
	a.warnings.Wait()
	a.ended = a.end(context.WithoutCancel(ctx))
	a.paths.close(context.WithoutCancel(ctx))
	close(a.drained)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTime)
	defer cancel()
	err = errors.Join(a.ended, api.Shutdown(closing)) // a drain's answer is under way
	serve.Wait()
	return errors.Join(err, a.Close())
}

// end finishes the speaker and, with a withdrawal, the kernel and the blocks.
// A step that fails leaves the later ones undone: what peers still send must
// find its route, and what the kernel still delivers its block.
func (a *Agent) end(ctx context.Context) error {
	a.how = a.settings.Load().OnStop
	if a.isDraining() {
		a.how = speaker.Withdraw
	}
	if a.how == speaker.Forward {
		a.Log.Info("stopping; the peers and the kernel keep forwarding")
		return bounded(ctx, partTime, func(ctx context.Context) error { return a.Speaker.Close(ctx, speaker.Forward) })
	}
	a.Log.Info("stopping; withdrawing everything")
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return a.Speaker.Close(ctx, speaker.Withdraw) },
		func(context.Context) error { return a.told.forget() },
		func(ctx context.Context) error { return a.Kernel.Sync(ctx, nil) },
		a.returnEmpty,
	} {
		if err := bounded(ctx, partTime, step); err != nil {
			return fmt.Errorf("not everything was withdrawn: %w", err)
		}
	}
	return nil
}

// bounded gives f so much time.
func bounded(ctx context.Context, time time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time)
	defer cancel()
	return f(ctx)
}

// returnEmpty gives back the blocks in which nothing is leased or cools down.
func (a *Agent) returnEmpty(ctx context.Context) error {
	a.desk.quit()
	for {
		busy, turned := a.desk.returning()
		if !busy {
			return nil
		}
		select {
		case <-turned:
		case <-ctx.Done():
			return fmt.Errorf("return the empty blocks: %w", ctx.Err())
		}
	}
}

// Drain makes Run withdraw everything and return, and waits until the
// withdrawal is done or ctx ends.
func (a *Agent) Drain(ctx context.Context) error {
	a.draining.Do(func() { close(a.stop) })
	select {
	case <-a.drained:
		if a.how != speaker.Withdraw {
			return errors.New("the agent was stopping already, and keeps forwarding: start it and drain it again")
		}
		return a.ended
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *Agent) isDraining() bool {
	select {
	case <-a.stop:
		return true
	default:
		return false
	}
}

// Reload makes s the settings, but for the pools of a Cluster. With an error the
// old ones stay in force.
func (a *Agent) Reload(s Settings) error {
	a.reload.Lock()
	defer a.reload.Unlock()
	now := a.settings.Load()
	s.Local.Restarting = now.Local.Restarting
	if a.Cluster != nil {
		s.Pools = now.Pools
	}
	if err := a.desk.setPools(&s); err != nil {
		return err
	}
	a.identify(&s)
	a.weave(&s)
	a.settings.Store(&s)
	a.turnMesh()
	a.call()
	return nil
}

// Started is closed when the agent has brought kernel and speaker to what it
// holds for the first time, or has tried.
func (a *Agent) Started() <-chan struct{} { return a.started }

// watchKernel calls the loop when the kernel's routes change under it.
func (a *Agent) watchKernel(ctx context.Context) {
	for ctx.Err() == nil {
		if err := a.Kernel.Watch(ctx, a.call); err != nil && ctx.Err() == nil {
			a.Log.Warn("the kernel's routes are not watched; they are read every so often", "err", err, "every", resync)
			select {
			case <-ctx.Done():
			case <-time.After(resync):
			}
		}
	}
}
