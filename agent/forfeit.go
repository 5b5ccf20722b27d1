package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// reasonLost is that of the event of a pod whose address is another's, or soon may
// be.
const reasonLost = "AddressLost"

const (
	// lostTime bounds the events of all pods that lose their addresses at once.
	lostTime = time.Minute
	// lostTogether is for how long a pod that loses an address is told again of one that
	// it has lost before: blocks of its families are not taken in one moment.
	lostTogether = 10 * time.Minute
)

// forfeited is what a pod has lost since blocks were taken from this node.
type forfeited struct {
	owner     pools.Owner
	pool      string
	addresses []netip.Addr   // sorted, as are the blocks
	blocks    []netip.Prefix // that they were in
	last      time.Time      // when it lost something last
	told      bool           // of all that
}

func (f forfeited) sentence(node string) string {
	return fmt.Sprintf("this pod has lost %s of pool %q: node %s counted as gone, and %s was taken from it, so that another pod may get the same: "+
		"delete this one, so that it is made anew with an address of its own", joined(f.addresses), f.pool, node, joined(f.blocks))
}

// forfeit notes a lease that is lost, one of both families with what was lost of it
// before: a pod is told of all at once. The lock is held.
func (d *desk) forfeit(block pools.Block, lease pools.Record) {
	d.log.Error("a pod has lost its address with the block; it has to be made anew", "owner", lease.Owner, "addresses", lease.Addrs, "pool", block.Pool, "block", block.Prefix)
	if d.warn == nil || lease.Owner.Pod == "" {
		return
	}
	at := slices.IndexFunc(d.forfeits, func(f forfeited) bool { return f.owner == lease.Owner && f.pool == block.Pool })
	if at < 0 {
		at = len(d.forfeits)
		d.forfeits = append(d.forfeits, forfeited{owner: lease.Owner, pool: block.Pool})
	}
	f := &d.forfeits[at]
	f.last, f.told = d.now(), false
	f.blocks, f.addresses = append(f.blocks, block.Prefix), append(f.addresses, lease.Addrs...)
	slices.SortFunc(f.blocks, netip.Prefix.Compare)
	slices.SortFunc(f.addresses, netip.Addr.Compare)
}

// joined is a list for people.
func joined[T fmt.Stringer](list []T) string {
	var words []string
	for _, one := range list {
		words = append(words, one.String())
	}
	return strings.Join(words, " and ")
}

// tellForfeits makes an event on each pod that has lost an address. The lock is
// held.
func (d *desk) tellForfeits() {
	if d.calling.Err() != nil {
		return
	}
	var all []forfeited
	d.forfeits = slices.DeleteFunc(d.forfeits, func(f forfeited) bool { return f.told && d.now().Sub(f.last) > lostTogether })
	for i := range d.forfeits {
		if f := &d.forfeits[i]; !f.told {
			f.told = true
			told := *f
			told.addresses, told.blocks = slices.Clone(f.addresses), slices.Clone(f.blocks)
			all = append(all, told)
		}
	}
	if len(all) == 0 {
		return
	}
	d.calls.Go(func() {
		ctx, cancel := context.WithTimeout(d.calling, lostTime)
		defer cancel()
		for _, f := range all {
			if err := d.warn(ctx, f.owner, reasonLost, f.sentence(d.node.Name)); err != nil {
				d.log.Warn("a pod was not told that its address is lost", "owner", f.owner, "err", err)
			}
		}
	})
}
