package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/pools"
)

// admit makes wanted the pools, beside those of now of which something is held:
// these lease nothing new any more. A pool that can't be as it is wanted is left
// as it was, and does not keep the others. The reload lock is held.
func (a *Agent) admit(wanted []Pool) {
	a.admitted, a.admittedAt = a.desk.ended(), a.desk.time()
	s := *a.settings.Load()
	now := s.Pools
	held := a.desk.poolsHeld()
	s.Pools = beside(wanted, drained(now, held))
	if samePools(now, s.Pools) {
		return
	}
	if err := a.desk.admitPools(&s); err == nil {
		clear(a.misfits)
	} else if s.Pools = a.admitEach(a.desk, s, wanted, drained(now, held)); samePools(now, s.Pools) {
		return
	}
	a.weave(&s)
	a.settings.Store(&s)
	a.Log.Info("the pools changed", "pools", poolNames(s.Pools))
	a.call()
}

// admitEach makes the wanted pools those of d, as many as can be, beside those
// that it has to keep, and returns what it has then. Of a wanted one that it has
// and that can't be as it is wanted, it leases nothing new. Of two that clash the
// first one counts.
func (a *Agent) admitEach(d *desk, s Settings, wanted, keep []Pool) []Pool {
	misfits := map[string]string{}
	in := d.admitSome(s, wanted, keep, func(p Pool, err error) {
		misfits[p.Name()] = err.Error()
		if a.misfits[p.Name()] != err.Error() {
			a.Log.Error("a pool can't be used as it is now; what is held of it stays as it was", "pool", p.Name(), "err", err)
		}
	})
	a.misfits = misfits
	s.Pools = in
	if err := d.admitPools(&s); err != nil {
		a.Log.Error("the pools stay as they were", "err", err)
	}
	return in
}

// admitSome adds to in what of wanted can be, in its order, and calls misfit for
// each other one. It tries many at once: most of them fit.
func (d *desk) admitSome(s Settings, wanted, in []Pool, misfit func(Pool, error)) []Pool {
	if len(wanted) == 0 {
		return in
	}
	s.Pools = beside(wanted, in)
	err := d.admitPools(&s)
	switch {
	case err == nil:
		return s.Pools
	case len(wanted) == 1:
		misfit(wanted[0], err)
		return in
	}
	half := len(wanted) / 2
	in = d.admitSome(s, wanted[:half], in, misfit)
	return d.admitSome(s, wanted[half:], in, misfit)
}

// whyUnusable is what keeps a pool that the cluster has from being used here,
// which will end, or else err.
func (a *Agent) whyUnusable(pool string, err error) error {
	a.reload.Lock()
	defer a.reload.Unlock()
	if why := a.misfits[pool]; why != "" {
		return fmt.Errorf("%w: pool %q can't be used on this node now: %s", cni.ErrTryAgain, pool, why)
	}
	if errors.Is(err, pools.ErrUnknownPool) {
		return fmt.Errorf("%w: %w", cni.ErrTryAgain, err)
	}
	return err
}

// readmitAfter is how often pools that are not as they should be are tried again
// without a reason.
const readmitAfter = time.Minute

// dropUnheld lets go of pools that were kept for what was held of them, and
// takes in those that they were in the way of. It looks when what is held has
// changed.
func (a *Agent) dropUnheld() {
	if a.Cluster == nil {
		return
	}
	a.reload.Lock()
	defer a.reload.Unlock()
	ended, now := a.desk.ended(), a.desk.time()
	if ended == a.admitted && now.Sub(a.admittedAt) < readmitAfter {
		return
	}
	state := a.Cluster.State()
	if !state.Seen {
		return
	}
	a.admitted, a.admittedAt = ended, now
	if len(a.misfits) > 0 || len(beside(state.Pools, a.settings.Load().Pools)) > len(state.Pools) {
		a.admit(state.Pools)
	}
}

// admitPools makes the pools of s the desk's, or changes nothing.
func (d *desk) admitPools(s *Settings) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.keepsBlocks(s.cores()); err != nil {
		return err
	}
	return d.becomePools(s)
}

// keepsBlocks names a block held some addresses of which are not to be its
// pool's any more: they would leave the kernel before the network knows. It is
// returned first, as one of a pool that leases nothing new. The lock is held.
func (d *desk) keepsBlocks(next []*pools.Pool) error {
	byName := make(map[string]*pools.Pool, len(next))
	for _, p := range next {
		byName[p.Name()] = p
	}
	for _, b := range d.ledger.Blocks() {
		is, err := d.ledger.Pool(b.Pool)
		will := byName[b.Pool]
		if err != nil || will == nil || will == is {
			continue
		}
		held := common(setOf([]netip.Prefix{b.Prefix}), is.Addresses())
		if !common(held, will.Addresses()).Equal(held) {
			return fmt.Errorf("pool %q does not have all of block %s any more, which this node still holds%s", b.Pool, b.Prefix, d.endOf(b.Prefix))
		}
	}
	return nil
}

// endOf says when a block that is not to be leased from any more will be
// returned. The lock is held.
func (d *desk) endOf(block netip.Prefix) string {
	for _, g := range d.ledger.Grants() {
		if slices.ContainsFunc(g.Addrs, block.Contains) {
			return fmt.Sprintf(" for %s: wait until that pod is gone", g.Owner)
		}
	}
	return ": wait until it is returned"
}

// ended is another number whenever leases or blocks may have ended.
func (d *desk) ended() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.releases + d.node.Changes()
}

// beside are the pools of first, and those of second of other names.
func beside(first, second []Pool) []Pool {
	names := make(map[string]bool, len(first))
	for _, p := range first {
		names[p.Name()] = true
	}
	out := slices.Clone(first)
	for _, p := range second {
		if !names[p.Name()] {
			out = append(out, p)
		}
	}
	return out
}

// drained are the pools whose names are among names, so that they lease nothing
// new.
func drained(ps []Pool, names map[string]bool) []Pool {
	var out []Pool
	for _, p := range ps {
		if names[p.Name()] {
			p.Draining = true
			out = append(out, p)
		}
	}
	return out
}

// namedFirst puts the pools whose names are among names before the others.
func namedFirst(ps []Pool, names map[string]bool) []Pool {
	out := slices.Clone(ps)
	slices.SortStableFunc(out, func(a, b Pool) int {
		switch {
		case names[a.Name()] == names[b.Name()]:
			return 0
		case names[a.Name()]:
			return -1
		}
		return 1
	})
	return out
}

func samePools(as, bs []Pool) bool {
	return slices.EqualFunc(as, bs, func(a, b Pool) bool {
		return a.Quiet == b.Quiet && a.Draining == b.Draining && a.IdleAfter == b.IdleAfter &&
			(a.Pool == b.Pool || reflect.DeepEqual(a.Definition(), b.Definition()))
	})
}

func poolNames(ps []Pool) []string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.Name()
	}
	return out
}

// poolsHeld are the names of the pools of which blocks are held or addresses
// leased.
func (d *desk) poolsHeld() map[string]bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	held := map[string]bool{}
	for _, name := range poolsOf(d.ledger.Blocks()) {
		held[name] = true
	}
	for _, rec := range d.ledger.Grants() {
		held[rec.Pool] = true
	}
	return held
}
