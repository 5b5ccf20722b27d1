package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
)

const (
	// bulk is how many first or last prefixes are worth the ways of this file.
	bulk = 100
	// callers is how many calls of GoBGP wait for their turn, so that it finds the
	// next one when it is done with one: waking it takes longer than a path.
	callers = 4
	// openTime bounds the opening of the gate, which is done whatever else ends.
	openTime = 5 * time.Second
)

// load announces the first prefixes, with the gate shut. GoBGP sends
// an UPDATE for each path that is added to it, and packs a thousand prefixes into one
// when it sends its table. So the paths are added while the export policy lets nothing
// out, and the table is then sent to those who have a session. Nothing was announced
// before: who comes up meanwhile misses these prefixes alone, and is sent them like
// the others.
func (r *run) load(ctx context.Context, add []netip.Prefix, want map[netip.Prefix]*class, told *ahead) error {
	r.gated = true
	if err := r.publish(ctx); err != nil {
		return errors.Join(err, r.openGate(ctx))
	}
	work := make(chan netip.Prefix)
	var mu sync.Mutex
	var errs []error
	var workers sync.WaitGroup
	for range callers {
		workers.Go(func() {
			for p := range work {
				if err := r.change(ctx, p, want[p], told); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	for _, p := range add {
		if ctx.Err() != nil {
			break
		}
		work <- p
	}
	close(work)
	workers.Wait()
	return errors.Join(append(errs, ctx.Err(), r.openGate(ctx))...)
}

// publish makes the export policy that of the classes, or one that lets nothing out.
func (r *run) publish(ctx context.Context) error {
	if r.gated {
		return r.export.use(ctx, r.bgp, export{policy: new(api.Policy)})
	}
	return r.export.use(ctx, r.bgp, exportOf(r.targets, r.classes))
}

// openGate lets out what load has added, in its own time.
func (r *run) openGate(ctx context.Context) error {
	if !r.gated {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTime)
	defer cancel()
	r.gated = false
	if err := r.publish(ctx); err != nil {
		r.gated = true
		return err
	}
	if err := r.bgp.ResetPeer(ctx, &api.ResetPeerRequest{Address: "all", Soft: true, Direction: api.ResetPeerRequest_OUT}); err != nil {
		return fmt.Errorf("send the table to the peers: %w", err)
	}
	return nil
}

// mayLoad says whether there is a session to send a table to, and nothing was
// announced in any: neither was something withdrawn that is still to be written, nor
// does GoBGP defer its UPDATEs, since these would come twice. A peer that may hold
// routes of an earlier session must find all of the table when it comes up.
func (l *ledger) mayLoad(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	up := false
	for _, s := range l.sessions {
		if s.up && (s.restarting || s.toldSomething() || !s.settled()) || s.mayHold(now) {
			return false
		}
		up = up || s.up
	}
	return up && len(l.want) == 0
}

// unload withdraws all that was announced in one call.
func (r *run) unload(ctx context.Context, remove []netip.Prefix, told *ahead) error {
	was := make(map[netip.Prefix]*class, len(remove))
	for _, p := range remove {
		was[p] = told.before(p, r.ledger.expect(p, nil))
	}
	var errs []error
	for _, f := range []speaker.Family{speaker.IPv4, speaker.IPv6} {
		err := r.bgp.DeletePath(ctx, &api.DeletePathRequest{Family: unicast(f)})
		if err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("withdraw all %s prefixes: %w", f, err))
		for p, c := range was {
			if familyOf(p.Addr()) == f {
				r.ledger.expect(p, c)
			}
		}
	}
	return errors.Join(errs...)
}
