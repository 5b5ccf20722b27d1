package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/routes"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxDumps bounds how often a dump is repeated because routes changed while
// it ran.
const maxDumps = 5

func families() []int { return []int{netlink.FAMILY_V4, netlink.FAMILY_V6} }

// key is what the kernel tells routes of one protocol in one table apart by.
type key struct {
	prefix netip.Prefix
	metric int
}

// held is what the kernel holds, as far as it concerns us.
type held struct {
	ours      []routes.Route // at our metric
	stale     []key          // ours at another metric: from an earlier configuration
	connected []netip.Prefix // subnets of this host's own links
}

// connects says whether p is in or is a connected subnet.
func (h held) connects(p netip.Prefix) bool {
	return slices.ContainsFunc(h.connected, func(c netip.Prefix) bool {
		return c.Bits() <= p.Bits() && c.Contains(p.Addr())
	})
}

func (t *Table) read(ctx context.Context) (held, error) {
	var h held
	carriers, names := map[int]bool{}, map[int]string{}
	for _, family := range families() {
		ours, err := t.dump(ctx, family, t.Protocol)
		if err != nil {
			return held{}, err
		}
		for _, r := range ours {
			k, ok := keyOf(r)
			switch {
			case !ok:
			case k.metric != t.Metric:
				h.stale = append(h.stale, k)
			default:
				h.ours = append(h.ours, routes.Route{Prefix: k.prefix, Via: t.hops(r, names)})
			}
		}
		kernels, err := t.dump(ctx, family, unix.RTPROT_KERNEL)
		if err != nil {
			return held{}, err
		}
		for _, r := range kernels {
			if p, ok := connected(r); ok {
				h.connected = append(h.connected, p)
				carriers[r.LinkIndex] = true
			}
		}
	}
	t.carriers.Store(&carriers)
	return h, nil
}

// dump returns the routes of a family in the table; protocol RTPROT_UNSPEC is
// any. A table that does not exist and a family that is switched off hold
// none.
func (t *Table) dump(ctx context.Context, family, protocol int) ([]netlink.Route, error) {
	filter := netlink.Route{Table: t.Table, Protocol: netlink.RouteProtocol(protocol)}
	mask := netlink.RT_FILTER_TABLE
	if protocol != unix.RTPROT_UNSPEC {
		mask |= netlink.RT_FILTER_PROTOCOL
	}
	for tried := 1; ; tried++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		list, err := t.conn.RouteListFiltered(family, &filter, mask)
		switch {
		case err == nil:
			return list, nil
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
			return nil, nil
		case !errors.Is(err, netlink.ErrDumpInterrupted) || tried == maxDumps:
			return nil, fmt.Errorf("read route table %d of the kernel: %w", t.Table, err)
		}
	}
}

// connected returns the subnet of a route that the kernel made for an address
// of one of its links. Host routes (an address's own, a pod's) and link-local
// ones are none.
func connected(r netlink.Route) (netip.Prefix, bool) {
	k, ok := keyOf(r)
	p := k.prefix
	ok = ok && r.Protocol == unix.RTPROT_KERNEL && r.Type == unix.RTN_UNICAST && r.Gw == nil &&
		r.Flags&unix.RTNH_F_DEAD == 0 && (r.Family == netlink.FAMILY_V6 || r.Scope == netlink.SCOPE_LINK)
	return p, ok && p.Bits() > 0 && !p.IsSingleIP() && !p.Addr().IsLinkLocalUnicast()
}

func keyOf(r netlink.Route) (key, bool) {
	if r.Dst == nil {
		return key{}, false
	}
	addr, ok := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	// The library gives an IPv4 default route 16 bytes.
	return key{netip.PrefixFrom(addr.Unmap(), bits), r.Priority}, ok
}

// hops are the next hops of a route of ours. One that is neither a blackhole
// nor goes by next hops was bent by somebody: its only hop is the zero Addr,
// which no wanted route has. names are those of links, as far as they are known.
func (t *Table) hops(r netlink.Route, names map[int]string) (via []netip.Addr) {
	switch {
	case r.Type == unix.RTN_BLACKHOLE:
		return nil
	case r.Type == unix.RTN_UNICAST && len(r.MultiPath) > 0:
		for _, hop := range r.MultiPath {
			via = append(via, t.via(addr(hop.Gw), hop.Via, hop.LinkIndex, names))
		}
		slices.SortFunc(via, netip.Addr.Compare)
	case r.Type == unix.RTN_UNICAST:
		via = append(via, t.via(addr(r.Gw), r.Via, r.LinkIndex, names))
	default:
		via = append(via, netip.Addr{})
	}
	return via
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (t *Table) encode(r routes.Route) *netlink.Route {
	out := &netlink.Route{
		Dst: ipNet(r.Prefix), Table: t.Table, Protocol: netlink.RouteProtocol(t.Protocol), Priority: t.Metric,
	}
	switch len(r.Via) {
	case 0:
		out.Type = unix.RTN_BLACKHOLE
	case 1:
		out.Gw = r.Via[0].AsSlice()
	default:
		for _, hop := range r.Via {
			out.MultiPath = append(out.MultiPath, &netlink.NexthopInfo{Gw: hop.AsSlice()})
		}
	}
	return out
}
