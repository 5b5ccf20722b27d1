package agent

import (
	"context"
	"fmt"
	"time"
)

// oldReport is when one is made anew though no session changed.
const oldReport = 10 * time.Minute

// report tells the cluster of this node's sessions, when they have changed and
// not often, and of orders that were heeded and of where the speaker is for a mesh,
// until ctx ends. One that fails is made again sooner: the controller may wait for it.
func (a *Agent) report(ctx context.Context) {
	var last string
	var at time.Time
	var failed setbacks
	for wait := around(a.every.report / 2); a.awaitReport(ctx, wait); {
		wait = a.every.report
		r, err := a.reportNow(ctx)
		if err != nil {
			continue // the next one will say
		}
		digest := r.digest()
		if digest == last && a.isPresented() && time.Since(at) < oldReport {
			continue
		}
		err = a.Cluster.Report(ctx, r)
		a.metrics.reported(err)
		if err != nil {
			again, _ := failed.count(err, 0)
			wait = min(wait, around(again))
			a.Log.Debug("no report was made", "err", err, "again", wait)
		} else {
			last, at, failed = digest, time.Now(), setbacks{}
		}
	}
}

// hurryReport has a report made now. It never blocks.
func (a *Agent) hurryReport() {
	select {
	case a.hurried <- struct{}{}:
	default:
	}
}

// awaitReport waits until it is time for a report, and says whether ctx lasted.
func (a *Agent) awaitReport(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-a.hurried:
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// confirmHeeded tells the cluster of orders as soon as they are heeded, until ctx ends: a
// fence stays until then, and a report waits for a speaker that is silent, and at the API
// server behind all that nobody waits for. It says the same, should this fail for good.
func (a *Agent) confirmHeeded(ctx context.Context) {
	var failed setbacks
	var again <-chan time.Time
	for {
		select {
		case <-a.heeded:
		case <-again:
		case <-ctx.Done():
			return
		}
		if err := a.Cluster.Confirm(ctx, a.confirm()); err != nil {
			wait, _ := failed.count(err, 0)
			a.Log.Debug("orders that were heeded were not confirmed", "err", err, "again", wait)
			again = time.After(around(wait))
		} else {
			failed, again = setbacks{}, nil
		}
	}
}

// hurryConfirmation has orders that were heeded confirmed now, and then reported. It
// never blocks.
func (a *Agent) hurryConfirmation() {
	select {
	case a.heeded <- struct{}{}:
	default:
	}
	a.hurryReport()
}

// confirm returns the orders that were heeded and are remembered: the controller
// relies on it that no later agent needs to hear of them.
func (a *Agent) confirm() (orders string) {
	a.reload.Lock()
	defer a.reload.Unlock()
	if err := a.remember(); err != nil {
		a.Log.Warn("what the controller has said will have to be heeded again", "err", err)
	}
	return a.memory.heeded
}

func (a *Agent) reportNow(ctx context.Context) (Report, error) {
	s, err := a.status(ctx)
	if err != nil {
		return Report{}, err
	}
	local := a.settings.Load().Local
	return Report{
		ASN: local.ASN, RouterID: local.RouterID, Peers: meshLast(s.Peers),
		Blocks: len(s.Blocks), Routes: s.Routes, Orders: a.confirm(), Trouble: s.Trouble, Mesh: a.presented(),
	}, nil
}

// digest is a text that changes when a session does, trouble comes or goes, orders
// were heeded, or the speaker is elsewhere for a mesh.
func (r Report) digest() string {
	text := r.RouterID.String() + " " + r.Orders
	if r.Mesh != nil {
		text += fmt.Sprint(" mesh ", r.Mesh.ASN, r.Mesh.Port, r.Mesh.Addresses)
	}
	if r.Trouble != "" {
		text += " in trouble"
	}
	for _, p := range r.Peers {
		state := "down"
		if p.Established() {
			state = "up"
		}
		text += " " + p.Name + " " + state
		if p.BFD != nil {
			text += " BFD " + p.BFD.State
		}
	}
	return text
}
