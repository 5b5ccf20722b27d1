package controller

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/fairway-network/fairway/pools/exchange"
)

// leftovers are what nodes that are gone have left, by all appearances, in the
// terms of a Reaper.
type leftovers struct {
	blocks   []exchange.Stored
	unknown  []netip.Prefix // blocks of which UID and version are not known yet
	requests []exchange.Request
	gone     func(node, machine string) bool
}

// reap frees what nodes that are gone have left, and has the fences lifted of those
// that are back, until ctx ends.
type reap struct {
	store exchange.Custodian
	look  func(now time.Time) leftovers
	back  func(node string) bool
	// know keeps a block of which something was unknown.
	know    func(exchange.Stored) error
	changed <-chan struct{}
	absence time.Duration // after which a node is gone
	log     *slog.Logger

	reaper  *exchange.Reaper
	queue   []*exchange.Op
	running int
	results chan finished
}

type finished struct {
	op     *exchange.Op
	result exchange.Result
}

const (
	// reapersAtOnce bounds the calls that are under way.
	reapersAtOnce = 8
	// reapPause is the least time between two looks at everything.
	reapPause = 100 * time.Millisecond
	// askPause is when what could not be read is asked for again.
	askPause = time.Second
	// lookAnyway is when everything is looked at though nothing has changed: a
	// node may have had its time.
	lookAnyway = 30 * time.Second
)

func (r *reap) run(ctx context.Context) {
	r.reaper, r.results = exchange.NewReaper(r.absence), make(chan finished, reapersAtOnce)
	defer r.wait()
	look, lookAgain := true, time.Now()
	for ctx.Err() == nil {
		now := time.Now()
		if look && !now.Before(lookAgain) {
			l := r.look(now)
			if len(l.unknown) > 0 {
				r.ask(ctx, l.unknown)
				l = r.look(now)
			}
			r.reaper.See(l.blocks, l.requests, l.gone)
			r.reaper.SeeBack(r.back)
			look, lookAgain = false, now.Add(reapPause)
			if len(l.unknown) > 0 {
				look, lookAgain = true, now.Add(askPause)
			}
		}
		var next time.Time
		// Not while there is enough to do: it goes through all blocks.
		if len(r.queue) < reapersAtOnce {
			var ops []*exchange.Op
			ops, next = r.reaper.Advance(now)
			r.queue = append(r.queue, ops...)
		}
		r.start(ctx)
		look = r.await(ctx, look, lookAgain, next) || look || r.reaper.Stale()
	}
}

// ask reads blocks of which something is unknown. One that can't be read stays
// so.
func (r *reap) ask(ctx context.Context, unknown []netip.Prefix) {
	var asking sync.WaitGroup
	defer asking.Wait()
	turn := make(chan struct{}, reapersAtOnce)
	for _, p := range unknown {
		turn <- struct{}{}
		asking.Go(func() {
			defer func() { <-turn }()
			b, err := r.store.Block(ctx, p)
			if err == nil {
				err = r.know(b)
			}
			if err != nil && !errors.Is(err, exchange.ErrGone) && ctx.Err() == nil {
				r.log.Warn("a block that nobody has can't be read; retrying", "block", p, "err", err)
			}
		})
	}
}

// await returns when there is something to do, and whether everything has to be
// looked at.
func (r *reap) await(ctx context.Context, look bool, lookAgain, next time.Time) bool {
	wake := time.Now().Add(lookAnyway)
	if look && lookAgain.Before(wake) {
		wake = lookAgain
	}
	if !next.IsZero() && next.Before(wake) {
		wake = next
	}
	timer := time.NewTimer(time.Until(wake))
	defer timer.Stop()
	changed := r.changed
	if look {
		changed = nil // known
	}
	select {
	case <-ctx.Done():
	case f := <-r.results:
		r.done(f)
	case <-changed:
		return true
	case now := <-timer.C:
		return !now.Before(lookAgain.Add(lookAnyway - reapPause))
	}
	return false
}

// start starts calls that wait for one.
func (r *reap) start(ctx context.Context) {
	for ; r.running < reapersAtOnce && len(r.queue) > 0; r.running++ {
		op := r.queue[0]
		r.queue = r.queue[1:]
		go func() { r.results <- finished{op, exchange.Run(ctx, r.store, op)} }()
	}
}

// done takes the results that are there.
func (r *reap) done(f finished) {
	for {
		r.running--
		r.tell(f)
		r.reaper.Done(f.op, f.result, time.Now())
		select {
		case f = <-r.results:
		default:
			return
		}
	}
}

func (r *reap) tell(f finished) {
	err := f.result.Err
	block := f.op.Block
	switch {
	case errors.Is(err, exchange.ErrGone) || errors.Is(err, exchange.ErrConflict) || errors.Is(err, context.Canceled):
		// Somebody was quicker, and it is looked at again.
		r.log.Debug("freeing what a node has left", "call", f.op.String(), "err", err)
	case err != nil:
		r.log.Warn("freeing what a node has left; retrying", "call", f.op.String(), "err", err)
	case f.op.Kind == exchange.Vacate:
		r.log.Info("block of a node that is gone is vacant", "block", block.Prefix, "pool", block.Pool, "node", block.Node)
	case f.op.Kind == exchange.Discard:
		r.log.Info("vacant block removed: its addresses are free", "block", block.Prefix, "pool", block.Pool)
	case f.op.Kind == exchange.Retract:
		r.log.Info("request of a node that is gone removed", "request", f.op.Request.Name, "node", f.op.Request.Node)
	}
}

// wait waits for the calls under way, which end as ctx has ended.
func (r *reap) wait() {
	for ; r.running > 0; r.running-- {
		<-r.results
	}
}
