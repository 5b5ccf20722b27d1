package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

const (
	// callTime bounds one call of the store.
	callTime = 5 * time.Second
	// claimTime bounds a lease's wait for a block.
	claimTime = 15 * time.Second
	// askTime is how long a lease waits for what nobody has to spare, and for a
	// store that fails.
	askTime = 5 * time.Second
)

// advance goes on with the exchange: it makes the calls of the store that are
// due, each in a goroutine of its own, and tells the loop of changes. The
// history of blocks and leases must be whole. The lock is held.
func (d *desk) advance() {
	ops, next := d.node.Advance(d.now())
	for _, op := range ops {
		d.calls.Go(func() { d.run(op) })
	}
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if !next.IsZero() {
		// The pause keeps a step that has nothing to wait for from spinning.
		d.timer = time.AfterFunc(max(next.Sub(d.now()), time.Millisecond), d.tick)
	}
	d.tellHeeded()
	d.tellForfeits()
	d.tend()
	if n := d.node.Changes(); n != d.changes {
		d.changes = n
		d.changed()
	}
	close(d.turned)
	d.turned = make(chan struct{})
}

func (d *desk) tick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.calling.Err() == nil {
		d.advance()
	}
}

// run makes one call.
func (d *desk) run(op *exchange.Op) {
	ctx, cancel := context.WithTimeout(d.calling, callTime)
	defer cancel()
	r := exchange.Run(ctx, d.store, op)
	d.called(op, r.Err)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.calling.Err() != nil {
		return // the agent ends: what comes of it the next one finds out
	}
	d.node.Done(op, r, d.now())
	d.advance()
}

// hangUp ends the calls under way and makes no further ones.
func (d *desk) hangUp() {
	d.stopCalls()
	d.mu.Lock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.mu.Unlock()
	d.calls.Wait()
}

// claim has the node get the blocks that lacks ask for, side by side. The first
// one that can't be had makes the error.
func (d *desk) claim(ctx context.Context, lacks ...pools.NoFreeError) error {
	deadline := time.NewTimer(claimTime)
	defer deadline.Stop()
	patience := time.NewTimer(askTime)
	defer patience.Stop()
	defer d.need(lacks, -1)
	d.need(lacks, +1)
	for impatient := false; ; {
		turned, err, over := d.claimed(lacks, impatient)
		if over {
			return err
		}
		select {
		case <-turned:
		case <-patience.C:
			impatient = true
		case <-deadline.C:
			return fmt.Errorf("claim a block of pool %q: %w", lacks[0].Pool, errors.Join(err, context.DeadlineExceeded))
		case <-ctx.Done():
			return fmt.Errorf("claim a block of pool %q: %w", lacks[0].Pool, errors.Join(context.Cause(ctx), err))
		}
	}
}

// need counts those who wait.
func (d *desk) need(lacks []pools.NoFreeError, more int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range lacks {
		lack := lackOf(l)
		if d.waiting[lack] += more; d.waiting[lack] == 0 {
			delete(d.waiting, lack)
		}
		d.node.Need(lack, d.waiting[lack], d.now())
	}
	if d.calling.Err() == nil {
		d.advance()
	}
}

func lackOf(e pools.NoFreeError) exchange.Lack {
	return exchange.Lack{Pool: e.Pool, Family: e.Family, Want: e.Want}
}

// claimed says whether the wait for lacks is over, and how it ended; else why
// it is not, and when to look again.
func (d *desk) claimed(lacks []pools.NoFreeError, impatient bool) (turned <-chan struct{}, err error, over bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	waits := false
	for _, l := range lacks {
		lack := lackOf(l)
		why := d.node.Why(lack)
		wants := d.node.Wants(lack)
		switch {
		case why == nil:
		case !wants, impatient && errors.Is(why, pools.ErrExhausted):
			return nil, d.unavailable(l, why), true
		case impatient: // the store does not answer, or not as it should
			return nil, fmt.Errorf("%w: claim a block of pool %q: %w", cni.ErrTryAgain, l.Pool, why), true
		}
		err = errors.Join(err, why)
		waits = waits || wants
	}
	return d.turned, err, !waits
}

// unavailable says to a person why there is no block. The lock is held.
func (d *desk) unavailable(lack pools.NoFreeError, why error) error {
	pool, err := d.ledger.Pool(lack.Pool)
	if err != nil {
		return err
	}
	switch {
	case errors.Is(why, pools.ErrExhausted):
		return d.exhausted(pool, lack, why)
	case errors.Is(why, exchange.ErrCordoned):
		return fmt.Errorf("%w: pool %q has no free address in the blocks that node %s holds: %w: uncordon it, or run the pod on another node", cni.ErrTryAgain, pool.Name(), d.node.Name, why)
	case errors.Is(why, exchange.ErrDraining):
		return cni.Refuse(why)
	}
	return why
}

// quit begins the return of all that is not in use; nothing new is got. The
// network leads nothing here any more.
func (d *desk) quit() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.node.Quit()
	d.node.CloseEmpty(d.now())
	d.node.Parted(d.node.Parting())
	for _, u := range d.unfits() {
		if u.rested(d.now()) {
			d.discard(u)
		}
	}
	d.advance()
}

// returning says whether blocks are on their way, and when to look again.
func (d *desk) returning() (busy bool, turned <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.node.Busy(), d.turned
}
