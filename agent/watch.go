package agent

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/fairway-network/fairway/pools/exchange"
)

// watchRequests tells the desk what nodes ask for, until ctx ends.
func (a *Agent) watchRequests(ctx context.Context) {
	shared, ok := a.Store.(exchange.Exchange)
	if !ok {
		return
	}
	for ctx.Err() == nil {
		if err := shared.Watch(ctx, a.desk.seen); ctx.Err() == nil {
			a.Log.Warn("the requests of other nodes are not watched; trying again", "err", err, "in", retry)
			pause(ctx, retry)
		}
	}
}

// seen takes in all requests that there are.
func (d *desk) seen(requests []exchange.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests = requests
	d.node.Seen(requests, d.now())
	if d.calling.Err() == nil {
		d.advance()
	}
}

// auditNowAndThen audits the blocks now and then, until ctx ends. The agents
// of a cluster start at one time, and don't read all at once.
func (a *Agent) auditNowAndThen(ctx context.Context) {
	if _, shared := a.Store.(exchange.Exchange); !shared {
		return
	}
	// Without a journal, the calls of an earlier life are unknown that may still
	// have come to count after the blocks were read at the start.
	first := a.every.settled + rand.N(a.every.settled+1)
	if a.desk.replayed {
		first = around(a.every.firstAudit / 2)
	}
	for wait := first; pause(ctx, wait); wait = around(a.every.audit) {
		a.desk.audit()
	}
}

// auditFenced audits the blocks again and again while the node counts as gone:
// they are taken from it one by one, some time after it hears of it.
func (a *Agent) auditFenced(ctx context.Context) {
	wait := a.every.fenced
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.fenced:
			wait = a.every.fenced // and one is under way
		case <-timer.C:
			wait = min(wait+wait/2, lastFenced)
			if a.Cluster.State().Fence != "" {
				a.desk.audit()
			}
		}
		if a.Cluster.State().Fence != "" {
			timer.Reset(around(wait))
		}
	}
}

// lastFenced is the longest pause between two audits of a node that counts as
// gone.
const lastFenced = 30 * time.Second

// around draws a time between half of d and one and a half of it.
func around(d time.Duration) time.Duration {
	return d/2 + rand.N(d+1)
}
