package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// reasonLost is that of the event of a pod whose address is another's, or soon may
// be.
const reasonLost = "AddressLost"

// lostTime bounds the events of all pods that lose their addresses at once.
const lostTime = time.Minute

// forfeited is a lease that ended since its block was taken from this node.
type forfeited struct {
	block pools.Block
	lease pools.Record
}

func (f forfeited) sentence(node string) string {
	return fmt.Sprintf("%v of pool %q is not this pod's any more: block %s was taken from node %s while that counted as gone, and another pod may get the address: "+
		"delete the pod, so that it is made anew with an address of its own", f.lease.Addrs, f.block.Pool, f.block.Prefix, node)
}

// forfeit notes a lease that is lost. The lock is held.
func (d *desk) forfeit(block pools.Block, lease pools.Record) {
	d.log.Error("a pod has lost its address with the block; it has to be made anew", "owner", lease.Owner, "addresses", lease.Addrs, "pool", block.Pool, "block", block.Prefix)
	if d.warn != nil && lease.Owner.Pod != "" {
		d.forfeits = append(d.forfeits, forfeited{block, lease})
	}
}

// tellForfeits makes an event on each pod that has lost an address. The lock is
// held.
func (d *desk) tellForfeits() {
	if len(d.forfeits) == 0 || d.calling.Err() != nil {
		return
	}
	all := d.forfeits
	d.forfeits = nil
	d.calls.Go(func() {
		ctx, cancel := context.WithTimeout(d.calling, lostTime)
		defer cancel()
		for _, f := range all {
			if err := d.warn(ctx, f.lease.Owner, reasonLost, f.sentence(d.node.Name)); err != nil {
				d.log.Warn("a pod was not told that its address is lost", "owner", f.lease.Owner, "err", err)
			}
		}
	})
}
