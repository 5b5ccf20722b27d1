package agent

import (
	"context"
	"time"
)

// oldReport is when one is made anew though no session changed.
const oldReport = 10 * time.Minute

// report tells the cluster of this node's sessions, when they have changed and
// not often, until ctx ends.
func (a *Agent) report(ctx context.Context) {
	var last string
	var at time.Time
	for wait := around(a.every.report / 2); pause(ctx, wait); wait = a.every.report {
		r, err := a.reportNow(ctx)
		if err != nil {
			continue // the next one will say
		}
		if digest := r.sessions(); digest == last && time.Since(at) < oldReport {
			continue
		} else if err := a.Cluster.Report(ctx, r); err != nil {
			a.Log.Debug("no report was made", "err", err)
		} else {
			last, at = digest, time.Now()
		}
	}
}

func (a *Agent) reportNow(ctx context.Context) (Report, error) {
	s, err := a.status(ctx)
	if err != nil {
		return Report{}, err
	}
	local := a.settings.Load().Local
	return Report{
		ASN: local.ASN, RouterID: local.RouterID, Peers: s.Peers,
		Blocks: len(s.Blocks), Routes: s.Routes, Trouble: s.Trouble,
	}, nil
}

// sessions is a text that changes when a session does, or trouble comes or goes.
func (r Report) sessions() string {
	text := r.RouterID.String()
	if r.Trouble != "" {
		text += " in trouble"
	}
	for _, p := range r.Peers {
		state := "down"
		if p.Established() {
			state = "up"
		}
		text += " " + p.Name + " " + state
	}
	return text
}
