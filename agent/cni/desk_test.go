package cni

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/fairway-network/fairway/pools"
)

// desk is a small Leases: pools of a few addresses in memory.
type desk struct {
	mu     sync.Mutex
	pools  map[string][]Address
	leases []pools.Lease
	unfit  error // what Ready says
}

func newDesk() *desk {
	v4 := func(last byte) Address {
		return Address{netip.AddrFrom4([4]byte{10, 244, 120, last}), 24, netip.MustParseAddr("10.244.120.1")}
	}
	v6 := Address{netip.MustParseAddr("fd00:10:244::7"), 128, netip.MustParseAddr("fe80::1")}
	return &desk{pools: map[string][]Address{
		"default": {v4(7), v4(8)},
		"v6":      {v6},
		"dual":    {v4(20), v6},
		"v4":      {v4(30)},
		"bridged": {v4(40), {netip.MustParseAddr("fd00:10:244::28"), 64, netip.MustParseAddr("fd00:10:244::1")}},
		"flat":    {{netip.MustParseAddr("192.0.2.9"), 32, netip.Addr{}}},
	}}
}

func (d *desk) Lease(ctx context.Context, r pools.Request) (Grant, error) {
	if err := ctx.Err(); err != nil {
		return Grant{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	addrs, ok := d.pools[r.Pool]
	if !ok {
		return Grant{}, fmt.Errorf("pool %q: %w", r.Pool, pools.ErrUnknownPool)
	}
	var g Grant
	taken := make(map[pools.Family]bool)
	for _, a := range addrs {
		f := pools.FamilyOf(a.Addr)
		wanted := !slices.ContainsFunc(r.Want, func(w netip.Addr) bool { return pools.FamilyOf(w) == f }) || slices.Contains(r.Want, a.Addr)
		if !taken[f] && wanted && d.mayLease(r, a.Addr) {
			taken[f] = true
			g.Addresses = append(g.Addresses, a)
		}
	}
	if len(g.Addresses) == 0 {
		return Grant{}, fmt.Errorf("pool %q: all of its %d addresses are in use: %w", r.Pool, len(addrs), pools.ErrExhausted)
	}
	return g, nil
}

// mayLease leases addr to r's owner unless another one has it.
func (d *desk) mayLease(r pools.Request, addr netip.Addr) bool {
	for _, l := range d.leases {
		if l.Addr == addr {
			return l.Owner.Owns(r.Owner)
		}
	}
	d.leases = append(d.leases, pools.Lease{Pool: r.Pool, Addr: addr, Owner: r.Owner})
	return true
}

// gateway of the pod that has addr.
func (d *desk) gateway(addr netip.Addr) netip.Addr {
	for _, addrs := range d.pools {
		for _, a := range addrs {
			if a.Addr == addr {
				return a.Gateway
			}
		}
	}
	return netip.Addr{}
}

func (d *desk) Release(_ context.Context, o pools.Owner) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.leases {
		if l.Owner.Attachment == o.Attachment && !o.Owns(l.Owner) {
			return fmt.Errorf("%s: %w", l.Addr, pools.ErrNotOwner)
		}
	}
	d.leases = slices.DeleteFunc(d.leases, func(l pools.Lease) bool { return o.Owns(l.Owner) })
	return nil
}

func (d *desk) Held(a pools.Attachment) []pools.Lease {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.leases), func(l pools.Lease) bool { return l.Owner.Attachment != a })
}

func (d *desk) Retain(_ context.Context, network string, valid []pools.Attachment) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leases = slices.DeleteFunc(d.leases, func(l pools.Lease) bool {
		return l.Owner.Network == network && !slices.Contains(valid, l.Owner.Attachment)
	})
	return nil
}

func (d *desk) Ready(_ context.Context, pool string) error {
	if _, ok := d.pools[pool]; !ok {
		return fmt.Errorf("pool %q: %w", pool, pools.ErrUnknownPool)
	}
	return d.unfit
}
