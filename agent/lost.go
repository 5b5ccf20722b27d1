package agent

import (
	"context"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// lost ends leases whose pods are gone and whose DEL never came, for the node's
// runtime has forgotten them, too. It wants to hear it from the cluster twice,
// with a pause in between; what the cluster does not say is no evidence.
type lost struct {
	*Agent
	suspects map[pools.Attachment]suspect
}

// suspect is a lease whose pod was said to be gone.
type suspect struct {
	leased time.Time // tells the lease from a later one
	since  time.Time
}

// findLost looks for lost pods now and then, until ctx ends.
func (a *Agent) findLost(ctx context.Context) {
	l := lost{a, map[pools.Attachment]suspect{}}
	for pause(ctx, around(a.every.lost)) {
		l.look(ctx)
	}
}

// look goes through all leases of pods once.
func (l lost) look(ctx context.Context) {
	before := l.suspects
	now := map[pools.Attachment]suspect{}
	for _, rec := range l.desk.grants() {
		if rec.Owner.Pod == "" {
			continue
		}
		gone, err := l.Cluster.Gone(ctx, rec.Owner)
		if err != nil {
			l.Log.Debug("whether the pod of a lease is gone can't be said", "owner", rec.Owner, "err", err)
			break // nobody answers, and what was suspected before is not known any more
		}
		if !gone {
			continue
		}
		s, again := before[rec.Owner.Attachment]
		if !again || !s.leased.Equal(rec.At) {
			now[rec.Owner.Attachment] = suspect{leased: rec.At, since: l.desk.time()}
			continue
		}
		if err := l.desk.releaseIfStill(ctx, rec); err != nil {
			l.Log.Error("a lease whose pod is gone can't be released", "owner", rec.Owner, "err", err)
			continue
		}
		l.Log.Warn("released a lease whose pod is gone; its runtime never said so", "owner", rec.Owner, "addresses", rec.Addrs, "suspectedSince", s.since)
	}
	clear(l.suspects)
	for k, s := range now {
		l.suspects[k] = s
	}
}

func (d *desk) grants() []pools.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ledger.Grants()
}
