package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
)

const (
	// ordersTime is how long a start from the journal waits with new leases for
	// what the controller has told this node meanwhile. If by then there is no
	// connection to the API server it is away, and the agent goes on without.
	ordersTime = time.Second
)

// NoOrders are those of a node that there is no place to leave any for. Its blocks
// may have been taken without a word.
const NoOrders = "none"

// errUnheeded: nothing new is leased before the blocks were read.
var errUnheeded = errors.New("this node's blocks may have been taken from it")

// errFenced: nothing new is leased while this node counts as gone, since its blocks
// are taken from it one by one.
var errFenced = errors.New("this node counts as gone, and leases nothing new")

// orders are what the controller tells this node, and what the desk has done about
// it. Each time that they change it may have lost blocks: it reads them, and leases
// nothing new before. The desk's lock guards them.
type orders struct {
	told  string // the last ones, see ClusterState; "" while they are not known
	fence string
	// heeded are those since which the blocks were read.
	heeded string
	// until is before when orders that are not known are waited for in any case, and
	// there says whether the API server is: then it has some to show.
	until time.Time
	there func() bool
	// audit and renewal are the numbers of those that are to be over; 0 is none.
	audit, renewal int
}

// wanting says whether the blocks have to be read before something is leased.
func (o *orders) wanting(now time.Time) bool {
	if o.told == "" {
		return now.Before(o.until) || o.there != nil && o.there()
	}
	return o.told != o.heeded
}

// refusal is why nothing new is leased however long one waits, nil if that is not so.
func (o *orders) refusal(node string) error {
	if o.fence == "" {
		return nil
	}
	return fmt.Errorf("%w: %w (%s): if it is in service, take the taint node.kubernetes.io/out-of-service off Node %s; the fence in its NodeSpeaker goes then, while the controller runs",
		cni.ErrTryAgain, errFenced, o.fence, node)
}

// expectOrders begins with those that an earlier agent of this boot has heeded. there
// says whether the API server can be reached, is called with the lock held, and must
// not block. A desk that has its blocks from the store has heeded what was told before.
func (d *desk) expectOrders(heeded string, there func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.replayed {
		d.orders = orders{heeded: heeded, there: there, until: d.now().Add(ordersTime)}
	}
}

// obey takes orders in, and says whether they are news that blocks are read for.
// With a fence that is to be lifted they are taken anew, too.
func (d *desk) obey(told, fence string, lifting bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := &d.orders
	if told == "" || told == o.told && fence == o.fence {
		return false
	}
	if o.told == "" && !d.replayed && fence == "" {
		o.heeded = told
	}
	o.told, o.fence = told, fence
	news := o.told != o.heeded || fence != ""
	if news {
		d.readBlocks()
	}
	o.renewal = 0 // the controller has thought better of it
	if lifting && o.told != o.heeded {
		o.renewal = d.node.Renew()
	}
	if d.calling.Err() == nil {
		d.advance() // for those who wait for the orders
	}
	return news
}

// readBlocks wants an audit for the orders. The lock is held.
func (d *desk) readBlocks() { d.orders.audit = d.node.Audit() }

// heed notes that the audit for the orders is over, and the blocks are taken anew if
// they are to be. The lock is held.
func (d *desk) heed() {
	o := &d.orders
	if o.audit == 0 || !d.node.Audited(o.audit) || !d.node.Renewed(o.renewal) {
		return
	}
	o.audit, o.renewal = 0, 0
	if o.heeded != o.told {
		o.heeded = o.told
		d.heeded()
	}
}

// ordersHeeded are those that need no audit when they are found again.
func (d *desk) ordersHeeded() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.orders.heeded == NoOrders {
		return ""
	}
	return d.orders.heeded
}

// awaitHeeded waits until something new can be leased. It is an error when the
// blocks can't be read.
func (d *desk) awaitHeeded(ctx context.Context) error {
	deadline := time.NewTimer(askTime)
	defer deadline.Stop()
	for {
		turned, wait, over := d.heeding()
		if over {
			return nil
		}
		again := time.NewTimer(wait)
		select {
		case <-turned:
		case <-again.C:
		case <-deadline.C:
			again.Stop()
			return fmt.Errorf("%w: %w, and the API server does not say which: see the NodeSpeaker of node %s", cni.ErrTryAgain, errUnheeded, d.node.Name)
		case <-ctx.Done():
			again.Stop()
			return fmt.Errorf("%w: %w", errUnheeded, context.Cause(ctx))
		}
		again.Stop()
	}
}

// heeding says whether the wait is over; else when to look again.
func (d *desk) heeding() (turned <-chan struct{}, wait time.Duration, over bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, now := &d.orders, d.now()
	if !o.wanting(now) {
		return nil, 0, true
	}
	if o.told == "" {
		if now.Before(o.until) {
			return d.turned, o.until.Sub(now), false
		}
		return d.turned, ordersTime, false // nobody tells when the API server goes
	}
	if o.audit == 0 && d.calling.Err() == nil {
		d.readBlocks()
		d.advance()
	}
	return d.turned, askTime, false
}
