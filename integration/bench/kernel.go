package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// kernel is the routing of a namespace.
type kernel struct{ *netlink.Handle }

// openKernel is that of the namespace of a process.
func openKernel(pid int) (kernel, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return kernel{}, fmt.Errorf("namespace of process %d: %w", pid, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	return kernel{h}, err
}

// blackhole makes or removes a route that drops.
func (k kernel) blackhole(_ context.Context, p netip.Prefix, there bool) error {
	r := &netlink.Route{Dst: networkOf(p), Type: unix.RTN_BLACKHOLE}
	if there {
		return k.RouteAdd(r)
	}
	return k.RouteDel(r)
}

func networkOf(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// routeEvent is a change of a kernel's routes.
type routeEvent struct {
	prefix netip.Prefix
	gone   bool
}

// routeEvents are those of IPv4 in the namespace of a process, until stop. Their
// buffer holds what a test that counts them later may leave unread.
func routeEvents(pid int) (events <-chan routeEvent, stop func(), err error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, nil, fmt.Errorf("namespace of process %d: %w", pid, err)
	}
	defer ns.Close()
	updates, done := make(chan netlink.RouteUpdate), make(chan struct{})
	err = netlink.RouteSubscribeWithOptions(updates, done, netlink.RouteSubscribeOptions{Namespace: &ns, ReceiveBufferSize: 16 << 20})
	if err != nil {
		return nil, nil, err
	}
	passed := make(chan routeEvent, 1<<16)
	go func() {
		defer close(passed)
		for u := range updates {
			if u.Dst == nil {
				continue
			}
			ones, _ := u.Dst.Mask.Size()
			if a, ok := netip.AddrFromSlice(u.Dst.IP); ok && a.Unmap().Is4() {
				passed <- routeEvent{netip.PrefixFrom(a.Unmap(), ones), u.Type == unix.RTM_DELROUTE}
			}
		}
	}()
	return passed, func() { close(done) }, nil
}

// awaitRoute waits until a route came or went.
func awaitRoute(ctx context.Context, events <-chan routeEvent, want routeEvent) error {
	for {
		select {
		case e, open := <-events:
			if !open {
				return fmt.Errorf("wait for %v in the kernel: its events have ended", want)
			}
			if e == want {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("wait for %s in the kernel (gone %v): %w", want.prefix, want.gone, ctx.Err())
		}
	}
}
