package controller

import (
	"sync"
	"time"

	"github.com/fairway-network/fairway/pools/exchange"
)

// wait is for how long a node has been waiting for an address of a pool.
type wait struct {
	time time.Duration
	node string
}

// requests are those of all nodes, and since when each of the open ones is known.
type requests struct {
	changed []chan struct{} // each of size one

	mu    sync.Mutex
	all   []exchange.Request
	since map[string]time.Time // by UID
}

func newRequests(changed ...chan struct{}) *requests {
	return &requests{changed: changed, since: map[string]time.Time{}}
}

func (r *requests) seen(all []exchange.Request) {
	r.mu.Lock()
	since := make(map[string]time.Time, len(all))
	for _, q := range all {
		// A chosen address that somebody has says nothing about the others.
		if !q.Open() || q.Want.IsValid() {
			continue
		}
		since[q.UID] = time.Now()
		if at, known := r.since[q.UID]; known {
			since[q.UID] = at
		}
	}
	r.all, r.since = all, since
	r.mu.Unlock()
	signal(r.changed...)
}

func (r *requests) list() []exchange.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}

// waiting is the longest wait for each pool.
func (r *requests) waiting(now time.Time) map[string]wait {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]wait{}
	for _, q := range r.all {
		at, open := r.since[q.UID]
		if w := now.Sub(at); open && w > out[q.Pool].time {
			out[q.Pool] = wait{w, q.Node}
		}
	}
	return out
}
