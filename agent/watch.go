package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fairway-network/fairway/pools/exchange"
)

// watchRequests tells the desk what nodes ask for, until ctx ends: at the start all of
// them, then of those pools only that concern this node. Of what nodes ask for in other
// pools, and for as long as it has no concern of any, it hears nothing: there may be
// thousands of such nodes. Before it hears less it reads all of them once: a watch may
// have been cut off all the time in which a request of its own came to count that nobody
// waits for, and which the others would answer for ever.
func (a *Agent) watchRequests(ctx context.Context) {
	shared, ok := a.Store.(exchange.Exchange)
	if !ok {
		return
	}
	// The agents of a cluster start at one time.
	s := newScope(a.desk.concerns, a.every.peace, time.Now().Add(around(a.every.peace)))
	var failed, unreadable setbacks
	unread := extent{all: true} // what may have changed unseen
	for ctx.Err() == nil {
		began := time.Now()
		e, _, _ := s.look(began)
		if !e.covers(unread) {
			err := a.readRequests(ctx, shared)
			if unread = (extent{all: err != nil}); unread.all {
				if _, news := unreadable.count(err, 0); news && ctx.Err() == nil {
					a.Log.Warn("the requests of other nodes can't be read once more before fewer are watched; all are watched for now", "err", err)
				}
				s.stay(time.Now())
			}
			continue // there may be other concerns now
		}
		unread = e
		if e.none() {
			a.desk.seen(nil) // what was seen gets old
			s.outgrow(ctx, e)
			continue
		}
		watching, stop := context.WithCancel(ctx)
		var outgrown sync.WaitGroup
		outgrown.Go(func() {
			s.outgrow(watching, e)
			stop()
		})
		err := shared.Watch(watching, e.selection(), a.desk.seen)
		over := watching.Err() != nil
		stop()
		outgrown.Wait()
		switch {
		case over:
			failed = setbacks{}
		case ctx.Err() == nil:
			wait, news := failed.count(err, time.Since(began))
			if news {
				a.Log.Warn("the requests of other nodes are not watched; trying again", "err", err, "within", wait)
			}
			pause(ctx, wait/2+rand.N(wait/2+1))
		}
	}
}

// readRequestsTime bounds for how long no request is seen while all are read.
const readRequestsTime = 5 * time.Second

// readRequests tells the desk of all requests once.
func (a *Agent) readRequests(ctx context.Context, shared exchange.Exchange) error {
	ctx, cancel := context.WithTimeout(ctx, readRequestsTime)
	defer cancel()
	requests, err := shared.Requests(ctx)
	if err == nil {
		a.desk.seen(requests)
	}
	return err
}

// mostRewatch bounds the pause before requests are watched again: a refusal may last
// until somebody mends it.
const mostRewatch = time.Minute

// setbacks are what failed since something went well.
type setbacks struct {
	wait time.Duration
	last string
}

// count says how long to wait after err, which came after a while of going well, and
// whether it is another one than last time.
func (f *setbacks) count(err error, well time.Duration) (wait time.Duration, news bool) {
	if well >= mostRewatch {
		*f = setbacks{}
	}
	f.wait = min(max(2*f.wait, retry), mostRewatch)
	why := fmt.Sprint(err)
	news = why != f.last
	f.last = why
	return f.wait, news
}

// seen takes in all requests that there are, of the pools that concern the node.
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
// they are taken from it one by one, some time after it hears of it. As long as it
// loses some it looks often.
func (a *Agent) auditFenced(ctx context.Context) {
	wait, lost := a.every.fenced, a.desk.forfeited()
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
			if now := a.desk.forfeited(); now != lost {
				wait, lost = a.every.fenced, now
			}
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
