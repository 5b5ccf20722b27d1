package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/fairway-network/fairway/routes"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxFailures bounds how many failures of one Sync are told in full: when
// all 10,000 routes fail, it is for one reason.
const maxFailures = 20

// apply makes the change, then deletes what is stale. A prefix that others
// hold at our metric is left to them: the kernel's replacement would take
// theirs.
func (t *Table) apply(ctx context.Context, c routes.Change, stale []key) error {
	var failed failures
	added := t.each(ctx, c.Add, &failed, "add", t.add)
	replaced := 0
	if len(c.Replace) > 0 {
		others, err := t.others(ctx)
		failed.note(err)
		replaced = t.each(ctx, c.Replace, &failed, "replace", func(r routes.Route) error {
			if err != nil {
				return errors.New("others' routes could not be read")
			}
			return t.replace(r, others)
		})
	}
	deleted := t.each(ctx, c.Delete, &failed, "delete", func(r routes.Route) error {
		return t.remove(key{r.Prefix, t.Metric})
	})
	for _, k := range stale {
		if err := t.remove(k); err != nil {
			failed.note(fmt.Errorf("delete stale route %s metric %d: %w", k.prefix, k.metric, err))
			continue
		}
		deleted++
	}
	if added+replaced+deleted > 0 {
		t.log.Info("kernel routes changed", "added", added, "replaced", replaced, "deleted", deleted, "table", t.Table)
	}
	return t.explain(ctx, &failed)
}

// each does one step for each route and returns how often it went well.
func (t *Table) each(ctx context.Context, list []routes.Route, failed *failures, verb string, do func(routes.Route) error) (done int) {
	for _, r := range list {
		err := ctx.Err()
		if err != nil {
			failed.note(fmt.Errorf("%s %s and what follows: %w", verb, r, err))
			return done
		}
		if err = do(r); err == nil {
			done++
			continue
		}
		if errors.Is(err, unix.EEXIST) {
			failed.conflicts = append(failed.conflicts, r.Prefix)
			continue
		}
		failed.note(fmt.Errorf("%s %s: %w", verb, r, err))
	}
	return done
}

func (t *Table) add(r routes.Route) error {
	// With the flag for exclusion: without it, IPv6 and IPv4 differ in
	// what they do to a route at the same prefix and metric.
	return t.conn.RouteAdd(t.encode(r))
}

func (t *Table) replace(r routes.Route, others map[netip.Prefix]string) error {
	if _, taken := others[r.Prefix]; taken {
		return unix.EEXIST
	}
	return t.conn.RouteReplace(t.encode(r))
}

// remove deletes a route of ours; one that is gone is no error. The kernel
// itself matches the protocol, so it can't take another's.
func (t *Table) remove(k key) error {
	err := t.conn.RouteDel(&netlink.Route{
		Dst: ipNet(k.prefix), Table: t.Table, Protocol: netlink.RouteProtocol(t.Protocol),
		Priority: k.metric, Scope: netlink.SCOPE_NOWHERE,
	})
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// explain says who holds the prefixes that could not be ours.
func (t *Table) explain(ctx context.Context, failed *failures) error {
	if len(failed.conflicts) == 0 {
		return failed.err()
	}
	others, err := t.others(ctx)
	failed.note(err)
	for _, p := range failed.conflicts {
		holder := others[p]
		if holder == "" {
			holder = "another program, which has let go of it since"
		}
		failed.note(fmt.Errorf("route %s metric %d in table %d is held by %s: remove it (ip route del %s metric %d table %d) or set another metric for ours",
			p, t.Metric, t.Table, holder, p, t.Metric, t.Table))
	}
	return failed.err()
}

// others names who holds each prefix at our metric that is not ours.
func (t *Table) others(ctx context.Context) (map[netip.Prefix]string, error) {
	holders := map[netip.Prefix]string{}
	for _, family := range families() {
		list, err := t.dump(ctx, family, unix.RTPROT_UNSPEC)
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			if r.Priority != t.Metric || int(r.Protocol) == t.Protocol {
				continue
			}
			if k, ok := keyOf(r); ok {
				holders[k.prefix] = holderName(int(r.Protocol))
			}
		}
	}
	return holders, nil
}

// failures gathers what went wrong in one Sync.
type failures struct {
	errs      []error
	more      int
	conflicts []netip.Prefix // that others hold
}

func (f *failures) note(err error) {
	switch {
	case err == nil:
	case len(f.errs) < maxFailures:
		f.errs = append(f.errs, err)
	default:
		f.more++
	}
}

func (f *failures) err() error {
	if f.more > 0 {
		return errors.Join(append(f.errs, fmt.Errorf("and %d more routes failed", f.more))...)
	}
	return errors.Join(f.errs...)
}
