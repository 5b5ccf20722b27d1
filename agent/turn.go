package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/fairway-network/fairway/pools"
)

// ErrOvertaken: a release of the same attachment arrived while its lease was
// waiting. Nothing is leased.
var ErrOvertaken = errors.New("overtaken by a release of the same interface")

// turn is a request under way for one attachment. There is one at a time, so
// that what a request takes back when it gives up can't be another request's.
type turn struct {
	owner    pools.Owner
	overtake context.CancelCauseFunc
	done     chan struct{}
}

// take waits for owner's turn at its attachment and begins it. The context
// returned ends when the turn is overtaken, with ErrOvertaken as its cause;
// end must be called. With overtake, a lease that is waiting gives up.
//
// The error wraps pools.ErrNotOwner when the turn to overtake is another pod's.
func (d *desk) take(ctx context.Context, owner pools.Owner, overtake bool) (_ context.Context, end func(), err error) {
	for {
		d.mu.Lock()
		t := d.turns[owner.Attachment]
		if t == nil {
			ctx, end = d.begin(ctx, owner)
			d.mu.Unlock()
			return ctx, end, nil
		}
		d.mu.Unlock()
		if overtake && !owner.Owns(t.owner) {
			return nil, nil, fmt.Errorf("%s: %w: %s", owner, pools.ErrNotOwner, t.owner)
		}
		if overtake {
			t.overtake(ErrOvertaken)
		}
		select {
		case <-t.done:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("%s: another request for it is under way: %w", owner, ctx.Err())
		}
	}
}

// begin begins a turn where there is none. The lock is held.
func (d *desk) begin(ctx context.Context, owner pools.Owner) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := &turn{owner: owner, overtake: cancel, done: make(chan struct{})}
	d.turns[owner.Attachment] = t
	return ctx, func() {
		d.mu.Lock()
		delete(d.turns, owner.Attachment)
		d.mu.Unlock()
		close(t.done)
		cancel(nil)
	}
}
