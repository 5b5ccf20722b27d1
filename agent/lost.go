package agent

import (
	"context"
	"errors"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// lost ends leases whose pods are gone and whose DEL never came, for the node's
// runtime has forgotten them, too. A pod's object may go while its sandbox runs:
// its kubelet is cut off, or somebody has forced the deletion. So it takes both:
// the cluster says twice that the pod is gone, with a pause in between, and the
// sandbox's network namespace is gone from where it was. What can't be seen is no
// evidence, and the lease stays.
type lost struct {
	*Agent
	suspects map[pools.Attachment]suspect
}

// suspect is a lease whose pod was said to be gone.
type suspect struct {
	leased time.Time // tells the lease from a later one
	since  time.Time
	kept   bool // it was said why it stays
}

// findLost looks for lost pods now and then, until ctx ends.
func (a *Agent) findLost(ctx context.Context) {
	l := lost{a, map[pools.Attachment]suspect{}}
	for pause(ctx, around(a.every.lost)) {
		l.look(ctx)
	}
}

// look goes through all leases of pods once. A lease of which the cluster says
// nothing this time is not suspected any more.
func (l *lost) look(ctx context.Context) {
	now := map[pools.Attachment]suspect{}
	var failures []error
	for _, rec := range l.desk.grants() {
		if ctx.Err() != nil {
			return
		}
		sandbox := lookFor(rec.Netns)
		if rec.Owner.Pod == "" || sandbox == sandboxStands {
			continue
		}
		gone, err := l.Cluster.Gone(ctx, rec.Owner)
		if err != nil {
			failures = append(failures, err)
		}
		if !gone || err != nil {
			continue
		}
		s, again := l.suspects[rec.Owner.Attachment]
		if !again || !s.leased.Equal(rec.At) {
			now[rec.Owner.Attachment] = suspect{leased: rec.At, since: l.desk.time()}
			continue
		}
		released, err := l.end(ctx, rec, &s, sandbox)
		if err != nil {
			failures = append(failures, err)
		}
		if !released {
			now[rec.Owner.Attachment] = s
		}
	}
	l.suspects = now
	l.sayWhy(failures)
}

// end releases a lease of which the cluster has said twice that its pod is gone,
// if its sandbox is.
func (l *lost) end(ctx context.Context, rec pools.Record, s *suspect, sandbox sandbox) (released bool, err error) {
	if sandbox != sandboxGone {
		if !s.kept {
			l.Log.Warn("the pod of a lease is gone, but whether its sandbox is can't be seen, and the lease stays: end the sandbox if there is one; an agent in a container needs the directory of the runtime's network namespaces mounted from the host, with propagation",
				"owner", rec.Owner, "addresses", rec.Addrs, "netns", rec.Netns.Path)
		}
		s.kept = true
		return false, nil
	}
	if err := l.desk.releaseIfStill(ctx, rec); err != nil {
		return false, err
	}
	l.Log.Warn("released a lease whose pod and sandbox are gone; its runtime never said so", "owner", rec.Owner, "addresses", rec.Addrs, "suspectedSince", s.since)
	return true, nil
}

// sayWhy logs what kept this look from being a whole one, not each pod of many.
func (l *lost) sayWhy(failures []error) {
	const most = 3
	if err := errors.Join(failures...); err != nil {
		l.Log.Warn("not all leases could be held against their pods", "leases", len(failures), "err", errors.Join(failures[:min(len(failures), most)]...))
	}
}

func (d *desk) grants() []pools.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ledger.Grants()
}
