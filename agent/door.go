package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/pools"
)

// doorTime is how long a request waits for an agent that starts: its plugin
// waits as long for one that is away.
const doorTime = 2 * time.Second

// door is where plugins come in, from the moment the journal is read: what is
// leased is known then. What it takes to lease may not be for as long as the API
// server is away; requests are told so meanwhile, and those that find nothing of
// theirs to end have what they want.
type door struct {
	standing map[pools.Attachment]pools.Record
	shut     func() error // ends the service
	opened   chan struct{}
	leases   cni.Leases // once opened

	mu    sync.Mutex
	why   error // what the start waits for
	queue map[*waiting]bool
}

// waiting is a lease that waits at the door.
type waiting struct {
	of       pools.Attachment
	overtake context.CancelCauseFunc
}

// newDoor serves plugins on l, which it closes when it is shut. The leases that
// stand are those of a folded history. chosen is as in cni.Handler. What plugins ask
// is timed by m.
func newDoor(ctx context.Context, l *net.UnixListener, history []pools.Record, chosen bool, m *metrics, log *slog.Logger) *door {
	d := &door{standing: map[pools.Attachment]pools.Record{}, opened: make(chan struct{}), why: errors.New("it reads what it holds"), queue: map[*waiting]bool{}}
	for _, rec := range history {
		if rec.Op == pools.Leased {
			d.standing[rec.Owner.Attachment] = rec
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	plugins := &cni.Handler{Leases: timedLeases{d, m}, Chosen: chosen}
	go func() { done <- plugins.ServeSocket(ctx, l, cni.DefaultTimes(), log) }()
	d.shut = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	return d
}

// open lets all requests through to leases, which know what stands. It is called
// once.
func (d *door) open(leases cni.Leases) {
	d.leases = leases
	close(d.opened)
}

// waitsFor says what the start waits for.
func (d *door) waitsFor(why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.why = why
}

// isOpen says whether the leases can be asked.
func (d *door) isOpen() bool {
	select {
	case <-d.opened:
		return true
	default:
		return false
	}
}

// enter waits until the door is open, for a while.
func (d *door) enter(ctx context.Context) error {
	if d.isOpen() {
		return nil
	}
	timer := time.NewTimer(doorTime)
	defer timer.Stop()
	select {
	case <-d.opened:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the agent's start: %w", context.Cause(ctx))
	case <-timer.C:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Errorf("%w: the agent is starting and can't lease yet: %w", cni.ErrTryAgain, d.why)
}

// Lease implements cni.Leases.
func (d *door) Lease(ctx context.Context, r pools.Request) (cni.Grant, error) {
	if !d.isOpen() {
		if err := d.wait(ctx, r.Owner.Attachment); err != nil {
			return cni.Grant{}, err
		}
	}
	return d.leases.Lease(ctx, r)
}

// wait is enter for a lease, which a release of its attachment overtakes.
func (d *door) wait(ctx context.Context, a pools.Attachment) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &waiting{a, cancel}
	d.mu.Lock()
	d.queue[w] = true
	d.mu.Unlock()
	err := d.enter(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.queue, w)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx) // overtaken as the door opened
	}
	return err
}

// overtake ends the leases of a that wait.
func (d *door) overtake(a pools.Attachment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for w := range d.queue {
		if w.of == a {
			w.overtake(ErrOvertaken)
		}
	}
}

// Release implements cni.Leases.
func (d *door) Release(ctx context.Context, o pools.Owner) error {
	if !d.isOpen() {
		d.overtake(o.Attachment)
		if _, stands := d.standing[o.Attachment]; !stands {
			return nil
		}
		if err := d.enter(ctx); err != nil {
			return err
		}
	}
	return d.leases.Release(ctx, o)
}

// Held implements cni.Leases.
func (d *door) Held(a pools.Attachment) []pools.Lease {
	if d.isOpen() {
		return d.leases.Held(a)
	}
	return leasesOf(d.standing[a])
}

// Retain implements cni.Leases.
func (d *door) Retain(ctx context.Context, network string, valid []pools.Attachment) error {
	if !d.isOpen() {
		if len(d.standing) == 0 {
			return nil
		}
		if err := d.enter(ctx); err != nil {
			return err
		}
	}
	return d.leases.Retain(ctx, network, valid)
}

// Ready implements cni.Leases.
func (d *door) Ready(ctx context.Context, pool string) error {
	if err := d.enter(ctx); err != nil {
		return err
	}
	return d.leases.Ready(ctx, pool)
}
