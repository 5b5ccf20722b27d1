package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairway-network/fairway/pools/exchange"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/rest"
)

// Options say how a controller runs.
type Options struct {
	// Config is the API server, and who the controller is there.
	Config *rest.Config
	// Elect has the controller wait until it leads. Without it there must be no
	// other one.
	Elect bool
	// Namespace is where the Lease of the election is.
	Namespace string
	// Identity tells this controller from the others; "" makes one up.
	Identity string
	// Health is a loopback address on which /healthz and /readyz answer over
	// HTTP; none without it.
	Health netip.AddrPort
	// Absence is how long a Node object is away before its node is gone. 0 is
	// exchange.AbsenceTime; less is for tests, since what makes a Node anew first
	// deletes it.
	Absence time.Duration
	// Log is slog.Default() if it is nil.
	Log *slog.Logger
}

// reportEvery is the time between two reports of a pool's numbers.
const reportEvery = 5 * time.Second

// forgetEvery is the time between two looks for NodeSpeakers without a Node: the
// second that finds one removes it.
const forgetEvery = 10 * time.Minute

// Controller looks after pools and blocks.
type Controller struct {
	options Options
	log     *slog.Logger
	clients *clients
	terms   terms
	every   time.Duration
	linger  time.Duration // of deleted pools
	absence time.Duration // after which a node is gone
	forget  time.Duration // between two looks for what nodes that are no more have left

	election election
	cluster  atomic.Pointer[cluster] // of the leader
}

// New checks the options. It sends nothing yet.
func New(o Options) (*Controller, error) {
	c := &Controller{
		options: o, log: o.Log, terms: usualTerms(),
		every: reportEvery, linger: linger, absence: cmp.Or(o.Absence, exchange.AbsenceTime), forget: forgetEvery,
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	if o.Elect && o.Namespace == "" {
		return nil, errors.New("leader election: the namespace of its Lease is missing")
	}
	if o.Health.IsValid() && !o.Health.Addr().Unmap().IsLoopback() {
		return nil, fmt.Errorf("health: %s is reachable from outside: use a loopback address such as 127.0.0.1:%d", o.Health, o.Health.Port())
	}
	if c.options.Identity == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("a name for this controller: %w", err)
		}
		c.options.Identity = host + "_" + rand.String(8)
	}
	var err error
	c.clients, err = newClients(o.Config, c.log)
	return c, err
}

// Run runs the controller until ctx ends, and returns nil then. It returns
// ErrLeadershipLost when it has to be started again.
func (c *Controller) Run(ctx context.Context) error {
	if c.options.Health.IsValid() {
		listener, err := net.Listen("tcp", c.options.Health.String())
		if err != nil {
			return fmt.Errorf("health: %w", err)
		}
		defer c.serveHealth(listener)()
	}
	if !c.options.Elect {
		return c.work(ctx)
	}
	e := &c.election
	e.leases, e.namespace, e.identity = c.clients.leases, c.options.Namespace, c.options.Identity
	e.terms, e.log = c.terms, c.log
	return e.run(ctx, c.work)
}

// work is what the leader does.
func (c *Controller) work(ctx context.Context) error {
	s := newCluster(c.clients, c.log)
	c.cluster.Store(s)
	var all sync.WaitGroup
	all.Go(func() { s.follow(ctx, c.clients.custodian) })
	all.Go(func() { c.register(ctx, s) })
	all.Go(func() {
		r := &reap{store: c.clients.custodian, look: s.leftovers, back: s.back, know: s.know, changed: s.ownersChanged, absence: c.absence, log: c.log}
		r.run(ctx)
	})
	all.Go(func() { c.forgetNodes(ctx, s) })
	all.Wait()
	return nil
}

// register passes over the pools when they or their numbers have changed.
func (c *Controller) register(ctx context.Context, s *cluster) {
	began := time.Now()
	for !s.known() {
		select {
		case <-ctx.Done():
			return
		case <-s.poolsChanged:
		case <-s.numbersChanged:
		}
	}
	r := newRegistrar(s, c.clients.custodian, c.every, c.log)
	r.linger = c.linger
	for first := true; ctx.Err() == nil; first = false {
		passed := time.Now()
		err := r.pass(ctx)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("writing pools' statuses; retrying", "err", err)
		}
		if first {
			c.log.Info("ready", "took", time.Since(began))
		}
		c.awaitPass(ctx, s, passed.Add(countPause(time.Since(passed))), r.wake(err != nil))
	}
}

// countPause is the least time from one count of everything to the next, where
// the last one took as long: a million pods' addresses take a while to sort.
func countPause(took time.Duration) time.Duration {
	return min(max(time.Second, 10*took), 10*time.Second)
}

// awaitPass returns when the pools have to be passed over again: at once when
// one has changed, not before count when numbers have, at wake anyway.
func (c *Controller) awaitPass(ctx context.Context, s *cluster, count, wake time.Time) {
	anyway := time.NewTimer(time.Until(wake))
	defer anyway.Stop()
	select {
	case <-ctx.Done():
		return
	case <-anyway.C:
		return
	case <-s.poolsChanged:
		return
	case <-s.numbersChanged:
	}
	pause := time.NewTimer(time.Until(count))
	defer pause.Stop()
	select {
	case <-ctx.Done():
	case <-pause.C:
	case <-s.poolsChanged:
	}
}

// forgetNodes removes the NodeSpeakers of nodes that are no more.
func (c *Controller) forgetNodes(ctx context.Context, s *cluster) {
	var before map[string]bool // what had vanished at the last look
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(c.forget):
		}
		now, vanished := map[string]bool{}, s.vanished()
		err := c.clients.custodian.Forget(ctx, func(node string) bool {
			if vanished(node) {
				now[node] = true
			}
			return now[node] && before[node]
		})
		if err != nil && ctx.Err() == nil {
			c.log.Warn("NodeSpeakers of nodes that are no more; retrying", "err", err)
		}
		before = now
	}
}
