package controller

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/fairway-network/fairway/pools/exchange"
)

// reap frees what nodes that are gone have left, until ctx ends.
type reap struct {
	store exchange.Custodian
	// see returns what a Reaper has to see.
	see     func(now time.Time) (blocks []exchange.Stored, requests []exchange.Request, gone func(node, machine string) bool)
	changed <-chan struct{}
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
	// lookAnyway is when everything is looked at though nothing has changed: a
	// node may have had its time.
	lookAnyway = 30 * time.Second
)

func (r *reap) run(ctx context.Context) {
	r.reaper, r.results = exchange.NewReaper(), make(chan finished, reapersAtOnce)
	defer r.wait()
	look, lookAgain := true, time.Now()
	for ctx.Err() == nil {
		now := time.Now()
		if look && !now.Before(lookAgain) {
			r.reaper.See(r.see(now))
			look, lookAgain = false, now.Add(reapPause)
		}
		var next time.Time
		// Not while there is enough to do: it goes through all blocks.
		if len(r.queue) < reapersAtOnce {
			var ops []*exchange.Op
			ops, next = r.reaper.Advance(now)
			r.queue = append(r.queue, ops...)
		}
		r.start(ctx)
		look = r.await(ctx, look, lookAgain, next) || look
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
