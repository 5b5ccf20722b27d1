// Package kernel keeps routes in the Linux kernel: those of one protocol
// number in one table, and never anybody else's. It also sees to the sysctls
// that forwarding needs.
//
// Nothing is remembered of what was written: each Sync reads what the kernel
// really holds.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fairway-network/fairway/routes"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// DefaultProtocol marks our routes (`ip route show proto 117`). It is
	// neither in the kernel's rtnetlink.h nor in iproute2's rt_protos, and
	// not one that FRR, BIRD, systemd-networkd, Calico, Coil or kube-router
	// use.
	DefaultProtocol = 117
	// DefaultTable is the main table.
	DefaultTable = unix.RT_TABLE_MAIN
	// DefaultMetric makes anybody else's route to the same prefix win over
	// our blackhole: a lower metric is preferred, the kernel's own are 0 and
	// 256, and those of routing daemons and DHCP clients are below 1024.
	DefaultMetric = 2048
)

// Config says which routes are ours. Zero values are the defaults.
type Config struct {
	Protocol int // 5 to 255 and not another program's, see rtnetlink(7)
	Table    int // 1 to 2^31-1
	Metric   int // 1 to 2^31-1
}

// Table is our part of one kernel route table, in the network namespace that
// New was called in. Its methods may be called from any goroutine.
type Table struct {
	Config
	log  *slog.Logger
	ns   netns.NsHandle
	conn *netlink.Handle
	mu   sync.Mutex // one Sync at a time
	// carriers are the links that had a connected subnet at the last read.
	// They only say which links' going down is worth a signal.
	carriers atomic.Pointer[map[int]bool]
	// receiveBuffer is that of Watch in bytes; 0 is the system's. For tests.
	receiveBuffer int
	// routers are the links that next hops are on, whose coming is worth one, too.
	routers atomic.Pointer[map[int]bool]
	// self is the netlink port whose changes Watch does not tell of; 0 is none.
	self uint32
}

// New opens the table. Nothing is read or written yet. Close must follow.
func New(c Config, log *slog.Logger) (*Table, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	t := &Table{Config: c, log: log}
	if t.ns, err = netns.Get(); err != nil {
		return nil, fmt.Errorf("find the network namespace: %w", err)
	}
	if t.conn, err = netlink.NewHandleAt(t.ns, unix.NETLINK_ROUTE); err != nil {
		return nil, errors.Join(fmt.Errorf("open a netlink socket: %w", err), t.ns.Close())
	}
	// The kernel then filters its dumps itself, which matters beside a daemon
	// with a full table.
	if err := t.conn.SetStrictCheck(true); err != nil {
		return nil, errors.Join(fmt.Errorf("netlink strict checking (Linux 4.20 or later): %w", err), t.Close())
	}
	return t, nil
}

// Close lets go of the sockets. The routes stay.
func (t *Table) Close() error {
	t.conn.Close()
	return t.ns.Close()
}

func (c Config) complete() (Config, error) {
	if c.Protocol == 0 {
		c.Protocol = DefaultProtocol
	}
	if c.Table == 0 {
		c.Table = DefaultTable
	}
	if c.Metric == 0 {
		c.Metric = DefaultMetric
	}
	const most = 1<<31 - 1
	var errs []error
	if name := protocolName(c.Protocol); name != "" || c.Protocol < 5 || c.Protocol > 255 {
		errs = append(errs, fmt.Errorf("route protocol %d is taken%s or out of range: all routes that carry it would be deleted; use %d, or another free number from 5 to 255",
			c.Protocol, by(name), DefaultProtocol))
	}
	if c.Table < 1 || c.Table > most || c.Table == unix.RT_TABLE_LOCAL {
		errs = append(errs, fmt.Errorf("route table %d: use %d (main), or another from 1 to %d except %d (local)",
			c.Table, DefaultTable, most, unix.RT_TABLE_LOCAL))
	}
	if c.Metric < 1 || c.Metric > most {
		errs = append(errs, fmt.Errorf("route metric %d: use %d, or another from 1 to %d", c.Metric, DefaultMetric, most))
	}
	return c, errors.Join(errs...)
}

func by(name string) string {
	if name == "" {
		return ""
	}
	return " by " + name
}

// Sync makes the kernel hold want and no other route of ours: it adds, then
// replaces, then deletes. A blackhole is left out where a connected subnet of
// this host covers it, since it would cut the pods on that link off; traffic
// to the subnet does not follow the default route anyway, so that the prefix
// counts as delivered.
//
// One route's failure does not stop the others: the error is then a
// *routes.SyncError, its lists sorted. A prefix that is not valid is named in
// its Err alone. Any other error means that the table could not be read and
// nothing was changed.
func (t *Table) Sync(ctx context.Context, want []routes.Route) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	held, err := t.read(ctx)
	if err != nil {
		return err
	}
	var failed failures
	good := slices.DeleteFunc(accept(want, &failed), func(r routes.Route) bool {
		return r.Blackhole() && held.connects(r.Prefix)
	})
	t.apply(ctx, routes.Diff(held.ours, good), held.stale, &failed)
	return failed.err()
}

// Flush removes all routes of ours.
func (t *Table) Flush(ctx context.Context) error { return t.Sync(ctx, nil) }

// List returns the routes that the kernel holds for us, sorted by prefix.
func (t *Table) List(ctx context.Context) ([]routes.Route, error) {
	held, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(held.ours, func(a, b routes.Route) int { return a.Prefix.Compare(b.Prefix) })
	return held.ours, nil
}

// accept copies the routes that a table can hold, their next hops sorted.
func accept(want []routes.Route, failed *failures) (good []routes.Route) {
	for _, r := range want {
		if err := check(r); err != nil {
			failed.missing(r.Prefix, fmt.Errorf("route %s: %w", r, err))
			continue
		}
		if len(r.Via) > 1 {
			r.Via = slices.SortedFunc(slices.Values(r.Via), netip.Addr.Compare)
		}
		good = append(good, r)
	}
	return good
}

func check(r routes.Route) error {
	p := r.Prefix
	switch {
	case !p.IsValid():
		return errors.New("the prefix is not valid")
	case p != p.Masked():
		return fmt.Errorf("the prefix has host bits; %s has none", p.Masked())
	case p.Addr().Is4In6():
		return errors.New("IPv4-mapped prefixes are never routed; write it as IPv4")
	}
	for _, hop := range r.Via {
		switch {
		case !hop.IsValid() || hop.Is4() != p.Addr().Is4():
			return fmt.Errorf("next hop %s is not of the prefix's family", hop)
		case hop.Zone() != "" || hop.IsLinkLocalUnicast():
			return fmt.Errorf("next hop %s is link-local: routes over a named interface are not supported; use a global address", hop)
		}
	}
	return nil
}
