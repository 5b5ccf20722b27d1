package agent

import (
	"context"
	"maps"
	"slices"
	"time"
)

// mostSelected bounds how many pools the API server is asked to select requests by.
const mostSelected = 100

// concerns are the pools of which requests concern a node now, all of them if it can't
// tell, and what is closed when to ask again.
type concerns func() (pools []string, all bool, turned <-chan struct{})

// concerns are those of the node.
func (d *desk) concerns() (pools []string, all bool, turned <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	pools, all = d.node.Concerns()
	return pools, all, d.turned
}

// scope is of which pools requests are watched. It grows at once, and shrinks only when
// something has been no concern for as long as peace: to open a watch anew costs the API
// server more than some events. One goroutine at a time uses it.
type scope struct {
	ask   concerns
	peace time.Duration
	all   time.Time            // until when all requests are watched
	until map[string]time.Time // until when those of a pool are
	// What was a concern at the last look, and all the time since.
	allNow bool
	now    []string
}

// newScope is of everything until all.
func newScope(ask concerns, peace time.Duration, all time.Time) *scope {
	return &scope{ask: ask, peace: peace, all: all, until: map[string]time.Time{}}
}

// look is what is to be watched now, and when to look again.
func (s *scope) look(now time.Time) (e extent, next time.Time, turned <-chan struct{}) {
	pools, all, turned := s.ask()
	for _, name := range slices.Concat(s.now, pools) {
		s.until[name] = now.Add(s.peace)
	}
	if s.allNow || all {
		s.all = now.Add(s.peace)
	}
	s.now, s.allNow = pools, all
	maps.DeleteFunc(s.until, func(_ string, t time.Time) bool { return !now.Before(t) })
	e = extent{all: now.Before(s.all) || len(s.until) > mostSelected, pools: slices.Sorted(maps.Keys(s.until))}
	next = now.Add(s.peace)
	for _, t := range append(slices.Collect(maps.Values(s.until)), s.all) {
		if now.Before(t) && t.Before(next) {
			next = t
		}
	}
	return e, next, turned
}

// stay has everything be watched for as long as peace from now on.
func (s *scope) stay(now time.Time) { s.all = now.Add(s.peace) }

// outgrow returns when another extent than e is to be watched, or ctx ends.
func (s *scope) outgrow(ctx context.Context, e extent) {
	for {
		now := time.Now()
		to, next, turned := s.look(now)
		if !to.equal(e) {
			return
		}
		timer := time.NewTimer(next.Sub(now))
		select {
		case <-turned:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// extent is of which pools requests are watched, all or these.
type extent struct {
	all   bool
	pools []string // by name, in order
}

func (e extent) none() bool { return !e.all && len(e.pools) == 0 }

// covers says whether who watches e sees all that who watches o does.
func (e extent) covers(o extent) bool {
	return e.all || !o.all && !slices.ContainsFunc(o.pools, func(name string) bool { return !slices.Contains(e.pools, name) })
}

func (e extent) equal(o extent) bool {
	return e.all && o.all || e.all == o.all && slices.Equal(e.pools, o.pools)
}

// selection is what the store is asked for; nil is everything.
func (e extent) selection() []string {
	if e.all {
		return nil
	}
	return e.pools
}
