package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// ahead is what routers were told before GoBGP, which has to follow.
type ahead struct {
	was      map[netip.Prefix]*class // of every prefix that changes, before
	couriers map[string]*courier     // that told something, by router
}

// sampled is how many prefixes are worth a sample.
const sampled = 100

// sampleTime is how long routers may take to hear of the first of many prefixes.
const sampleTime = 100 * time.Millisecond

// sample has GoBGP announce the first of many prefixes, if a router has not heard yet how
// it puts such ones, and gives those that are left.
func (r *run) sample(ctx context.Context, add []netip.Prefix, want map[netip.Prefix]*class) (rest []netip.Prefix, err error) {
	if len(add) < sampled {
		return add, nil
	}
	first := make(map[*class]bool)
	var samples []netip.Prefix
	for _, p := range add {
		if c := want[p]; !first[c] && r.unheardOf(p, want) {
			samples = append(samples, p)
		} else {
			rest = append(rest, p)
		}
		first[want[p]] = true
	}
	if len(samples) == 0 {
		return rest, nil
	}
	if err := errors.Join(r.publish(ctx), r.changeAll(ctx, samples, want, nil)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, sampleTime)
	defer cancel()
	_ = r.flush(ctx, samples) // without it the others take longer
	return rest, nil
}

// unheardOf says whether there is a router that is to be told of a prefix and has not
// heard how GoBGP puts that.
func (r *run) unheardOf(p netip.Prefix, want map[netip.Prefix]*class) bool {
	return slices.ContainsFunc(r.ledger.errands([]netip.Prefix{p}, nil, want), func(e errand) bool {
		c := r.guards.courier(e.router)
		return c != nil && !c.knows(e.announced)
	})
}

// tellAhead sends couriers out with what is to be announced and then withdrawn, and
// enters in the ledger what they told. After it GoBGP has to be told all of it: if it
// told nobody anything it gives nil.
func (r *run) tellAhead(add, remove []netip.Prefix, want map[netip.Prefix]*class) *ahead {
	type told struct {
		courier *courier
		errand
		delivery
	}
	var all []told
	couriers := r.guards.couriers() // before the errands, so that none is run in a later session
	for _, e := range r.ledger.errands(add, remove, want) {
		c := couriers[e.router]
		if c == nil {
			continue
		}
		if d, begun := c.run(e); begun {
			all = append(all, told{c, e, d})
		}
	}
	if len(all) == 0 {
		return nil
	}
	a := &ahead{was: make(map[netip.Prefix]*class, len(add)+len(remove)), couriers: make(map[string]*courier, len(all))}
	for _, p := range add {
		a.was[p] = r.ledger.expect(p, want[p])
	}
	for _, p := range remove {
		a.was[p] = r.ledger.expect(p, nil)
	}
	for _, t := range all {
		enter := func() { r.ledger.told(t.errand, t.delivery) }
		if len(t.rest) > 0 {
			go t.courier.finish(t.delivery, enter)
		} else {
			enter()
		}
		a.couriers[t.router] = t.courier
	}
	return a
}

// follow is a context for GoBGP to be told all that routers were told ahead: it ends
// with ctx if there is nothing of that kind.
func (a *ahead) follow(ctx context.Context) context.Context {
	if a == nil {
		return ctx
	}
	return context.WithoutCancel(ctx)
}

// before is what a prefix was before it was expected to be something else, which it is
// by now at the latest.
func (a *ahead) before(p netip.Prefix, expected *class) *class {
	if a == nil {
		return expected
	}
	return a.was[p]
}

// recall ends the sessions in which something was told ahead that GoBGP did not take:
// the next ones begin with what it has.
func (r *run) recall(a *ahead, err error) error {
	if a == nil || err == nil {
		return err
	}
	for _, c := range a.couriers {
		c.close()
	}
	routers := slices.Sorted(maps.Keys(a.couriers))
	return fmt.Errorf("%w; the sessions %q, whose routers know more, are begun again", err, routers)
}

// errands are what the changes from what is wanted to what is in want say to each
// router: no more than what it lacks of them alone, not of changes before. add is in the
// order in which it is to be told.
func (l *ledger) errands(add, remove []netip.Prefix, want map[netip.Prefix]*class) []errand {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []errand
	for router, s := range l.sessions {
		if !s.up || s.restarting || s.isEnding() || s.freed != nil {
			continue
		}
		e := errand{router: router, since: s.since, whole: s.settled()}
		for _, p := range add {
			l.enter(&e, s, p, want[p])
		}
		for _, p := range remove {
			l.enter(&e, s, p, nil)
		}
		if len(e.announced)+len(e.withdrawn) > 0 {
			list = append(list, e)
		}
	}
	return list
}

// enter puts into an errand what the router of a session is to be told of a prefix when
// it becomes one of class c. The lock is held.
func (l *ledger) enter(e *errand, s *session, p netip.Prefix, c *class) {
	o := s.out[familyOf(p.Addr())]
	if o == nil {
		return
	}
	before, had := l.tells(s, l.want[p])
	after, has := l.tells(s, c)
	switch {
	case had == has && before == after:
	case !o.holds(p, had):
		e.whole = false
	case has:
		e.announced = append(e.announced, notice{p, after})
	default:
		e.withdrawn = append(e.withdrawn, p)
	}
}

// told enters what a router was told ahead in a session, unless that has ended. It comes
// after expect, and after what came of it before GoBGP writes more in the session.
func (l *ledger) told(e errand, d delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[e.router]
	if s == nil || !s.up || !s.since.Equal(e.since) {
		return
	}
	for _, p := range d.withdrawn {
		l.wrote(s, p, false)
	}
	for _, n := range d.announced {
		l.wrote(s, n.prefix, true)
		if o := s.out[familyOf(n.prefix.Addr())]; o.reworded[n.prefix] == n.words {
			delete(o.reworded, n.prefix)
		}
	}
	l.wake()
}

// couriers are those to all routers that there is a connection with.
func (gs *guards) couriers() map[string]*courier {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	all := make(map[string]*courier, len(gs.on))
	for router, g := range gs.on {
		all[router] = g.out
	}
	return all
}

// courier is the one to a router, nil if there is none.
func (gs *guards) courier(address string) *courier {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if g := gs.on[address]; g != nil {
		return g.out
	}
	return nil
}
