package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

// warnTime bounds one event.
const warnTime = 5 * time.Second

// Reasons of the events that pods get.
const (
	reasonRefused   = "PoolRefused"
	reasonExhausted = "PoolExhausted"
	reasonCordoned  = "NodeCordoned"
)

// counter is the desk in front of a cluster's pods: it finds out which pool a
// pod is served from, and tells those who look after the pod why it is not.
type counter struct {
	*desk
	agent *Agent

	mu   sync.Mutex
	told map[complaint]time.Time
}

// complaint is what a pod was told.
type complaint struct{ namespace, pod, uid, what string }

// leases is where CNI requests go.
func (a *Agent) leases() cni.Leases {
	if a.Cluster == nil {
		return a.desk
	}
	return &counter{desk: a.desk, agent: a, told: map[complaint]time.Time{}}
}

// Lease implements cni.Leases.
func (c *counter) Lease(ctx context.Context, r pools.Request) (cni.Grant, error) {
	grant, err := c.serve(ctx, r)
	if err != nil {
		c.warn(ctx, r.Owner, err)
	}
	return grant, err
}

// serve has its turn before it asks the cluster: a release that comes meanwhile would
// find nothing to end, and no other one ends what is leased after it.
func (c *counter) serve(ctx context.Context, r pools.Request) (cni.Grant, error) {
	ctx, end, err := c.desk.take(ctx, r.Owner, false)
	if err != nil {
		return cni.Grant{}, err
	}
	defer end()
	r, err = c.place(ctx, r)
	if cause := context.Cause(ctx); errors.Is(cause, ErrOvertaken) {
		return cni.Grant{}, cause
	}
	if err != nil {
		return cni.Grant{}, err
	}
	return c.lease(ctx, r)
}

// lease serves r, whose turn it is, from a pool that the cluster has, which may be news
// to the desk.
func (c *counter) lease(ctx context.Context, r pools.Request) (cni.Grant, error) {
	grant, err := c.desk.leaseInTurn(ctx, r)
	if errors.Is(err, pools.ErrUnknownPool) {
		c.agent.follow()
		grant, err = c.desk.leaseInTurn(ctx, r)
	}
	// One that the cluster has otherwise than what is held of it drains here.
	if errors.Is(err, pools.ErrUnknownPool) || errors.Is(err, exchange.ErrDraining) {
		err = c.agent.whyUnusable(r.Pool, err)
	}
	return grant, err
}

// place completes r. What is leased already stays what it is, whatever the pod
// and the pools say by now.
func (c *counter) place(ctx context.Context, r pools.Request) (pools.Request, error) {
	if held := c.desk.Held(r.Owner.Attachment); len(held) > 0 {
		r.Pool = held[0].Pool
		return r, nil
	}
	r.Netns = noteNetns(r.Netns.Path)
	if r.Owner.Pod == "" || r.Owner.Namespace == "" {
		if r.Pool != "" {
			return r, nil
		}
		return r, cni.Refuse(errors.New("CNI_ARGS names no pod (K8S_POD_NAMESPACE, K8S_POD_NAME), and the network configuration no pool (ipam.pool): one of them says where the addresses come from"))
	}
	p, err := c.agent.Cluster.Place(ctx, r.Owner, r.Pool)
	if err != nil {
		return r, err
	}
	r.Pool = p.Pool
	if len(r.Want) == 0 {
		r.Want = p.Want
	}
	return r, nil
}

// Ready implements cni.Leases. Without the name of a pool it is about the node.
func (c *counter) Ready(ctx context.Context, pool string) error {
	if pool != "" {
		return c.desk.Ready(ctx, pool)
	}
	return c.desk.readyForPods()
}

// readyForPods says why no pool can serve.
func (d *desk) readyForPods() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.mendJournal(); err != nil {
		return err
	}
	since := d.trouble.since
	if since.IsZero() || d.now().Sub(since) < lasting {
		return nil
	}
	for _, u := range d.ledger.Usage(d.now()) {
		if d.serves(u.Pool) {
			return nil
		}
	}
	return fmt.Errorf("since %s: %w", since.Format(time.TimeOnly), d.trouble.err())
}

// warn makes an event of what a person can do something about, not again for a
// while. It does not wait for it.
func (c *counter) warn(ctx context.Context, o pools.Owner, err error) {
	reason, what := reasonOf(err)
	if reason == "" || o.Pod == "" {
		return
	}
	if !c.news(complaint{o.Namespace, o.Pod, o.PodUID, what}) {
		return
	}
	ctx = context.WithoutCancel(ctx)
	c.agent.warnings.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, warnTime)
		defer cancel()
		if err := c.agent.Cluster.Warn(ctx, o, reason, err.Error()); err != nil {
			c.agent.Log.Debug("no event was made", "pod", o.Namespace+"/"+o.Pod, "err", err)
		}
	})
}

// reasonOf a refusal, "" if it is none that a pod is told of, and what makes it
// the same as another one: numbers and times may differ.
func reasonOf(err error) (reason, what string) {
	switch {
	case errors.Is(err, exchange.ErrCordoned):
		return reasonCordoned, reasonCordoned
	case errors.Is(err, pools.ErrExhausted):
		return reasonExhausted, reasonExhausted
	case errors.Is(err, cni.ErrRefused), errors.Is(err, exchange.ErrDraining), errors.Is(err, pools.ErrUnknownPool), errors.Is(err, pools.ErrOutside):
		return reasonRefused, err.Error()
	}
	return "", ""
}

// news says whether it is time to say what.
func (c *counter) news(what complaint) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.desk.time()
	for k, at := range c.told {
		if now.Sub(at) >= c.agent.every.tell {
			delete(c.told, k)
		}
	}
	if _, said := c.told[what]; said {
		return false
	}
	c.told[what] = now
	return true
}
