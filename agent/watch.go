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

// auditNow and then audits the blocks now and then, until ctx ends. The agents
// of a cluster start at one time, and don't read all at once.
func (a *Agent) auditNowAndThen(ctx context.Context) {
	if _, shared := a.Store.(exchange.Exchange); !shared {
		return
	}
	first := a.every.audit
	if a.desk.replayed {
		first = a.every.firstAudit / 2
	}
	for wait := around(first); pause(ctx, wait); wait = around(a.every.audit) {
		a.desk.audit()
	}
}

// around draws a time between half of d and one and a half of it.
func around(d time.Duration) time.Duration {
	return d/2 + rand.N(d+1)
}
