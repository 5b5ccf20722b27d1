package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/routes"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxFailures bounds how many failures of one Sync are told in full: when
// all 10,000 routes fail, it is for one reason.
const maxFailures = 20

// apply makes the change, then deletes what is stale, and notes what failed. A
// prefix that others hold at our metric is left to them: the kernel's
// replacement would take theirs.
func (t *Table) apply(ctx context.Context, c routes.Change, stale []key, failed *failures) {
	added := each(ctx, c.Add, "add", failed.missing, t.add)
	replaced := 0
	if len(c.Replace) > 0 {
		others, err := t.others(ctx)
		replaced = each(ctx, c.Replace, "replace", failed.missing, func(r routes.Route) error {
			if err != nil {
				return fmt.Errorf("whether another program has a route there is not known: %w", err)
			}
			return t.replace(r, others)
		})
	}
	deleted := each(ctx, c.Delete, "delete", failed.lingering, func(r routes.Route) error {
		return t.remove(key{r.Prefix, t.Metric})
	})
	for _, k := range stale {
		if err := t.remove(k); err != nil {
			failed.lingering(k.prefix, fmt.Errorf("delete stale route %s metric %d: %w", k.prefix, k.metric, err))
			continue
		}
		deleted++
	}
	if added+replaced+deleted > 0 {
		t.log.Info("kernel routes changed", "added", added, "replaced", replaced, "deleted", deleted, "table", t.Table)
	}
	t.explain(ctx, failed)
}

// each does one step for each route, tells fail of those that did not go
// well, and returns how many did.
func each(ctx context.Context, list []routes.Route, verb string, fail func(netip.Prefix, error), do func(routes.Route) error) (done int) {
	for _, r := range list {
		err := ctx.Err()
		if err == nil {
			err = do(r)
		}
		if err != nil {
			fail(r.Prefix, fmt.Errorf("%s %s: %w", verb, r, err))
			continue
		}
		done++
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
func (t *Table) explain(ctx context.Context, failed *failures) {
	if len(failed.conflicts) == 0 {
		return
	}
	others, err := t.others(ctx)
	failed.note(err)
	for _, p := range failed.conflicts {
		holder := others[p]
		switch {
		case err != nil:
			holder = "another program"
		case holder == "":
			holder = "another program, which has let go of it since"
		}
		failed.note(fmt.Errorf("route %s metric %d in table %d is held by %s: remove it (ip route del %s metric %d table %d) or set another metric for ours",
			p, t.Metric, t.Table, holder, p, t.Metric, t.Table))
	}
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
	routes.SyncError // without Err
	errs             []error
	more             int
	conflicts        []netip.Prefix // that others hold; explain tells of them
}

func (f *failures) missing(p netip.Prefix, err error) {
	if p.IsValid() {
		f.Missing = append(f.Missing, p)
	}
	if errors.Is(err, unix.EEXIST) {
		f.conflicts = append(f.conflicts, p)
		return
	}
	f.note(err)
}

func (f *failures) lingering(p netip.Prefix, err error) {
	f.Lingering = append(f.Lingering, p)
	f.note(err)
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

// err is nil or a *routes.SyncError.
func (f *failures) err() error {
	if len(f.errs) == 0 {
		return nil
	}
	if f.more > 0 {
		f.errs = append(f.errs, fmt.Errorf("and %d more routes failed", f.more))
	}
	return &routes.SyncError{Missing: distinct(f.Missing), Lingering: distinct(f.Lingering), Err: errors.Join(f.errs...)}
}

// distinct sorts list and leaves each prefix once.
func distinct(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list)
}
