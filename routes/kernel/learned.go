package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/fairway-network/fairway/routes"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// DefaultLearnedProtocol marks learned routes (`ip route show proto 118`). It
	// is as free as DefaultProtocol.
	DefaultLearnedProtocol = 118
	// DefaultLearnedMetric makes every other route to the same prefix win: our
	// blackholes, pods' routes, and this host's own default route, whatever its
	// DHCP client or its router advertisements (1024) gave it.
	DefaultLearnedMetric = 4096
	// maxTold bounds of how many useless next hops the log tells.
	maxTold = 1024
)

// Learned is the routes that BGP peers told, in one kernel route table, in the
// network namespace that NewLearned was called in. They carry a protocol number
// of their own, and no route that carries another is ever touched. Made for many:
// a change goes to the kernel in few system calls. Its methods may be called from
// any goroutine.
//
// A route is refused, and named in the error, when it is or is inside a subnet
// that a link of this host is connected to: the longest match would take its
// hosts off the link. Next hops that are not on a link are left out; a route
// without any other is refused.
type Learned struct {
	part *Table // that the routes are in: for dumps and signals
	log  *slog.Logger

	// questions are asked without strict checking, which IPv6 takes amiss.
	questions *netlink.Handle

	mu        sync.Mutex // one Held or Apply at a time
	wire      *wire
	connected held                     // as of the last Held; only its subnets
	reach     map[netip.Addr]reachable // what the kernel said of next hops
	doubt     atomic.Bool              // what it said may be wrong by now
	// told is what the log said last of next hops that are of no use.
	told map[netip.Addr]string
}

// reachable says over which link a next hop is, or why it is of no use.
type reachable struct {
	link int
	err  error
}

// NewLearned opens the table; zero values of c are those of learned routes.
// Nothing is read or written yet. Close must follow.
func NewLearned(c Config, log *slog.Logger) (*Learned, error) {
	c.Protocol = cmp.Or(c.Protocol, DefaultLearnedProtocol)
	c.Metric = cmp.Or(c.Metric, DefaultLearnedMetric)
	part, err := New(c, log)
	if err != nil {
		return nil, err
	}
	questions, err := netlink.NewHandleAt(part.ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a netlink socket: %w", err), part.Close())
	}
	w, err := newWire(part.ns)
	if err != nil {
		questions.Close()
		return nil, errors.Join(err, part.Close())
	}
	part.self = w.port
	return &Learned{part: part, log: log, questions: questions, wire: w, reach: make(map[netip.Addr]reachable), told: make(map[netip.Addr]string)}, nil
}

// Close lets go of the sockets. The routes stay.
func (l *Learned) Close() error {
	l.wire.close()
	l.questions.Close()
	return l.part.Close()
}

// Held reads the learned routes that stand, of this process or one before it.
// Ones with another metric, of an earlier configuration, are removed.
func (l *Learned) Held(ctx context.Context) ([]routes.Route, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, err := l.part.read(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, k := range h.stale {
		if err := l.part.remove(k); err != nil {
			errs = append(errs, fmt.Errorf("delete stale route %s metric %d: %w", k.prefix, k.metric, err))
		}
	}
	l.connected = held{connected: h.connected}
	return h.ours, errors.Join(errs...)
}

// Apply makes a change: it adds, then replaces, then deletes. One route's failure
// does not stop the others: the error is then a *routes.SyncError. A prefix that
// another program holds at our metric is left to it.
func (l *Learned) Apply(ctx context.Context, c routes.Change) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.doubt.Swap(false) {
		l.forget()
	}
	var failed failures
	for _, step := range []struct {
		kind uint16
		// An addition is exclusive: without that, IPv6 and IPv4 differ in what
		// they do to a route at the same prefix and metric.
		flags  uint16
		verb   string
		list   []routes.Route
		failed func(netip.Prefix, error)
	}{
		{unix.RTM_NEWROUTE, unix.NLM_F_CREATE | unix.NLM_F_EXCL, "add", c.Add, failed.missing},
		{unix.RTM_NEWROUTE, unix.NLM_F_CREATE | unix.NLM_F_REPLACE, "replace", c.Replace, failed.missing},
		{unix.RTM_DELROUTE, 0, "delete", c.Delete, failed.lingering},
	} {
		fail := func(r routes.Route, err error) {
			if step.kind == unix.RTM_DELROUTE && errors.Is(err, unix.ESRCH) {
				return // gone already is as good
			}
			step.failed(r.Prefix, fmt.Errorf("%s learned route %s: %w", step.verb, r, err))
		}
		l.each(ctx, step.kind, step.flags, step.list, fail)
	}
	l.part.explain(ctx, &failed)
	return failed.err()
}

// each sends one message for each route.
func (l *Learned) each(ctx context.Context, kind, flags uint16, list []routes.Route, fail func(routes.Route, error)) {
	var sent []routes.Route // that await their answers
	flush := func() {
		l.wire.flush(func(i int, err error) { fail(sent[i], err) })
		sent = sent[:0]
	}
	m := message{kind: kind, flags: flags, Config: l.part.Config}
	for _, r := range list {
		m.prefix, m.hops = r.Prefix, m.hops[:0]
		err := ctx.Err()
		if err == nil && kind == unix.RTM_NEWROUTE {
			m.hops, err = l.usable(r, m.hops)
		}
		if err != nil {
			fail(r, err)
			continue
		}
		l.wire.add(m)
		if sent = append(sent, r); l.wire.full() {
			flush()
		}
	}
	flush()
}

// usable appends the next hops of a route that are on a link.
func (l *Learned) usable(r routes.Route, to []target) ([]target, error) {
	switch {
	case !r.Prefix.IsValid() || r.Prefix != r.Prefix.Masked() || r.Prefix.Addr().Is4In6():
		return to, errors.New("the prefix is not a network")
	case l.connected.connects(r.Prefix):
		return to, errors.New("it is, or is inside, a subnet that this host is connected to, whose hosts it would cut off")
	case r.Blackhole():
		return to, errors.New("it has no next hop")
	}
	var why error
	for _, hop := range r.Via {
		found, known := l.reach[hop]
		if !known {
			found = l.look(hop)
			l.reach[hop] = found
		}
		if found.err == nil && hop.Is4() && r.Prefix.Addr().Is6() {
			found.err = errors.New("an IPv4 next hop can't deliver IPv6")
		}
		if found.err != nil {
			why = fmt.Errorf("next hop %s: %w", hop, found.err)
			continue
		}
		to = append(to, target{hop, found.link})
	}
	if len(to) == 0 {
		return to, why
	}
	return to, nil
}

// look asks the kernel where a next hop is.
func (l *Learned) look(hop netip.Addr) reachable {
	found := l.locate(hop)
	if found.err != nil {
		l.tell(hop, found.err.Error())
		return found
	}
	delete(l.told, hop)
	links := map[int]bool{found.link: true}
	if old := l.part.routers.Load(); old != nil {
		maps.Copy(links, *old)
	}
	l.part.routers.Store(&links)
	return found
}

// tell logs why a next hop is of no use, unless that is what it said last.
func (l *Learned) tell(hop netip.Addr, reason string) {
	last, known := l.told[hop]
	if reason == last || !known && len(l.told) >= maxTold {
		return
	}
	l.told[hop] = reason
	l.log.Warn("a next hop of learned routes is left out", "next hop", hop, "reason", reason)
}

// forget has all next hops looked up again. What was told of them is remembered;
// when there is no room for more, only of those that routes went by of late.
func (l *Learned) forget() {
	if len(l.told) >= maxTold {
		maps.DeleteFunc(l.told, func(hop netip.Addr, _ string) bool { _, recent := l.reach[hop]; return !recent })
	}
	clear(l.reach)
}

func (l *Learned) locate(hop netip.Addr) reachable {
	switch {
	case !hop.IsValid() || hop.IsUnspecified() || hop.IsMulticast():
		return reachable{err: errors.New("it is no host's address")}
	case hop.Is6() && hop.IsLinkLocalUnicast():
		link, err := l.part.conn.LinkByName(hop.Zone())
		if err != nil {
			return reachable{err: fmt.Errorf("link-local on an interface that is not there: %w", err)}
		}
		return reachable{link: link.Attrs().Index}
	}
	list, err := l.questions.RouteGet(hop.AsSlice())
	switch {
	case err != nil:
		return reachable{err: fmt.Errorf("no link leads to it: %w", err)}
	case len(list) == 0 || list[0].Type == unix.RTN_LOCAL:
		return reachable{err: errors.New("it is this host's own address")}
	case list[0].Gw != nil || list[0].Via != nil || len(list[0].MultiPath) > 0 || list[0].Type != unix.RTN_UNICAST:
		return reachable{err: errors.New("no link leads to it directly: it is behind another router")}
	}
	return reachable{link: list[0].LinkIndex}
}

// Watch calls changed when the kernel may no longer be as the last Apply left it:
// once it listens, when somebody else removes or replaces a route of ours, when a
// link that leads somewhere goes down, when a connected subnet comes or goes, and
// when the kernel dropped messages. It returns nil when ctx ends, else an error
// after which it can be called again. changed must not block.
func (l *Learned) Watch(ctx context.Context, changed func()) error {
	return l.part.Watch(ctx, func() {
		l.doubt.Store(true)
		changed()
	})
}

// via is the gateway of a route or of one of its next hops, with the name of its
// link where it is link-local.
func (t *Table) via(gateway netip.Addr, across netlink.Destination, link int, names map[int]string) netip.Addr {
	if v, is := across.(*netlink.Via); is {
		gateway = addr(v.Addr)
	}
	if !gateway.Is6() || !gateway.IsLinkLocalUnicast() {
		return gateway
	}
	name, known := names[link]
	if !known {
		if l, err := t.conn.LinkByIndex(link); err == nil {
			name = l.Attrs().Name
		}
		names[link] = name
	}
	return gateway.WithZone(name)
}
