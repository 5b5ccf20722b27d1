package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/pools/exchange"
)

// lookForStore is how often a lease that waits for orders looks whether the API
// server is away: nobody tells.
const lookForStore = time.Second

// errUnheeded: nothing new is leased before the blocks were read.
var errUnheeded = errors.New("this node's blocks may have been taken from it")

// errFenced: nothing new is leased while this node counts as gone, since its blocks
// are taken from it one by one.
var errFenced = errors.New("this node counts as gone, and leases nothing new")

// refusal is why nothing new is leased however long one waits, nil if that is not so.
// The lock is held.
func (d *desk) refusal() error {
	fence := d.node.Fenced()
	if fence == "" {
		return nil
	}
	return fmt.Errorf("%w: %w (%s): if it is in service, take the taint node.kubernetes.io/out-of-service off Node %s; the fence in its NodeSpeaker goes then, while the controller runs",
		cni.ErrTryAgain, errFenced, fence, d.node.Name)
}

// unheeded says whether the blocks have to be read before something new is leased.
// The lock is held.
func (d *desk) unheeded() bool {
	return d.node.Unheeded(d.now(), d.reached != nil && d.reached())
}

// recallOrders begins with those that an earlier agent of this boot has heeded.
// reached says whether the API server can be reached, is called with the lock held,
// and must not block. A desk that has its blocks from the store has heeded what was
// told before.
func (d *desk) recallOrders(heeded string, reached func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reached = reached
	if d.replayed {
		d.node.Recall(heeded, d.now())
		d.ordersKept = heeded
	}
}

// obey takes orders in, and says whether they are news that blocks are read for.
func (d *desk) obey(o exchange.Orders) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	news := d.node.Obey(o, d.now())
	d.ordersKept = d.node.Heeded() // before them nothing has to be said
	if d.calling.Err() == nil {
		d.advance() // for those who wait for the orders
	}
	return news
}

// tellHeeded has those told who have given orders. The lock is held.
func (d *desk) tellHeeded() {
	if now := d.node.Heeded(); now != d.ordersKept {
		d.ordersKept = now
		d.heeded()
	}
}

// ordersHeeded are those that need no audit when they are found again.
func (d *desk) ordersHeeded() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if heeded := d.node.Heeded(); !strings.HasPrefix(heeded, exchange.NoOrders) {
		return heeded
	}
	return ""
}

// awaitHeeded waits until something new can be leased. It is an error when the
// blocks can't be read.
func (d *desk) awaitHeeded(ctx context.Context) error {
	deadline := time.NewTimer(askTime)
	defer deadline.Stop()
	for {
		turned, over := d.heeding()
		if over {
			return nil
		}
		again := time.NewTimer(lookForStore)
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
func (d *desk) heeding() (turned <-chan struct{}, over bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.turned, !d.unheeded()
}
