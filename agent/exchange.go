package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	d.wake()
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

// waiter is a lease that waits for blocks.
type waiter struct {
	lacks     []pools.NoFreeError
	impatient bool          // it waits no longer for what nobody has to spare
	woken     bool          // it is to look, and has not waited on since
	look      chan struct{} // has room for one
}

// claim has the node get the blocks that lacks ask for, side by side. The first
// one that can't be had makes the error. Without one the caller ends the wait when it
// has taken its addresses: until then others are not woken for these.
func (d *desk) claim(ctx context.Context, lacks ...pools.NoFreeError) (*waiter, error) {
	w := &waiter{lacks: lacks, look: make(chan struct{}, 1)}
	d.mu.Lock()
	d.waiters = append(d.waiters, w)
	d.need(lacks, +1)
	d.mu.Unlock()
	err := d.await(ctx, w)
	if err == nil {
		return w, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endWait(w)
	return nil, err
}

// endWait ends the wait of w, which has taken what it waited for or gives up: what is
// left is for the others. The lock is held.
func (d *desk) endWait(w *waiter) {
	d.waiters = slices.DeleteFunc(d.waiters, func(o *waiter) bool { return o == w })
	d.need(w.lacks, -1)
}

// await waits until the wait of w is over, and says how it ended.
func (d *desk) await(ctx context.Context, w *waiter) error {
	deadline := time.NewTimer(claimTime)
	defer deadline.Stop()
	patience := time.NewTimer(askTime)
	defer patience.Stop()
	for impatient := false; ; {
		err, over := d.claimed(w, impatient)
		if over {
			return err
		}
		select {
		case <-w.look:
		case <-patience.C:
			impatient = true
		case <-deadline.C:
			return fmt.Errorf("claim a block of pool %q: %w", w.lacks[0].Pool, errors.Join(err, context.DeadlineExceeded))
		case <-ctx.Done():
			return fmt.Errorf("claim a block of pool %q: %w", w.lacks[0].Pool, errors.Join(context.Cause(ctx), err))
		}
	}
}

// need counts those who wait, and goes on. The lock is held.
func (d *desk) need(lacks []pools.NoFreeError, more int) {
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

// prospect is how it stands with a lack.
type prospect struct {
	why   error // see exchange.Node.Why
	wants bool  // see exchange.Node.Wants
	free  int   // so many addresses are there
	left  int   // so many of them nobody was woken for
}

// wake has those look whose wait is over. Where addresses are what they waited for
// it is as many as there are: each of them advances when it ends its wait, and then
// it is the turn of others. The lock is held.
func (d *desk) wake() {
	if len(d.waiters) == 0 {
		return
	}
	news := false
	prospects := make(map[exchange.Lack]*prospect, len(d.waiting))
	for lack := range d.waiting {
		p := &prospect{why: d.node.Why(lack), wants: d.node.Wants(lack)}
		if !lack.Want.IsValid() {
			p.free = d.ledger.Free(lack.Pool, lack.Family, d.now())
		}
		p.left = p.free
		prospects[lack] = p
		news = news || p.why != nil || !p.wants
	}
	if !news {
		return
	}
	for _, w := range d.waiters {
		if w.woken {
			w.takes(prospects)
		}
	}
	for _, w := range d.waiters {
		if w.woken || !w.over(prospects) {
			continue
		}
		w.takes(prospects)
		w.woken = true
		select {
		case w.look <- struct{}{}:
		default:
		}
	}
}

// over says whether w has something to look at: what claimed ends a wait for, and
// addresses that no other one is about to take.
func (w *waiter) over(prospects map[exchange.Lack]*prospect) bool {
	waits := false
	for _, l := range w.lacks {
		p := prospects[lackOf(l)]
		if p.why != nil && (!p.wants || w.impatient) {
			return true
		}
		waits = waits || p.wants || p.free > 0 && p.left <= 0
	}
	return !waits
}

// takes one address for each of the lacks of w.
func (w *waiter) takes(prospects map[exchange.Lack]*prospect) {
	for _, l := range w.lacks {
		prospects[lackOf(l)].left--
	}
}

// claimed says whether the wait of w is over, and how it ended; else why it is
// not. It is to be asked again when w is told to look.
func (d *desk) claimed(w *waiter, impatient bool) (err error, over bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	waits := false
	w.impatient = impatient
	for _, l := range w.lacks {
		lack := lackOf(l)
		why := d.node.Why(lack)
		wants := d.node.Wants(lack)
		switch {
		case why == nil:
		case !wants, impatient && errors.Is(why, pools.ErrExhausted):
			return d.unavailable(l, why), true
		case impatient: // the store does not answer, or not as it should
			return fmt.Errorf("%w: claim a block of pool %q: %w", cni.ErrTryAgain, l.Pool, why), true
		}
		err = errors.Join(err, why)
		waits = waits || wants
	}
	if w.woken && waits {
		w.woken = false
		d.wake() // it leaves to others what was not all that it lacks
	}
	return err, !waits
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
