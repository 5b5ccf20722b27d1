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
	s.Pools = a.admitEach(a.desk, s, wanted, now)
	if samePools(now, s.Pools) {
		return
	}
	a.weave(&s)
	a.settings.Store(&s)
	a.Log.Info("the pools changed", "pools", poolNames(s.Pools))
	a.call()
}

// admitEach is the desk's, and tells of the misfits and remembers them.
func (a *Agent) admitEach(d *desk, s Settings, wanted, now []Pool) []Pool {
	in, misfits, err := d.admitEach(s, wanted, now)
	known := a.misfits
	a.misfits = make(map[string]string, len(misfits))
	for _, p := range wanted {
		why := misfits[p.Name()]
		if why == nil {
			continue
		}
		a.misfits[p.Name()] = why.Error()
		if known[p.Name()] != why.Error() {
			a.Log.Error("a pool can't be used as it is now; what is held of it stays as it was", "pool", p.Name(), "err", why)
		}
	}
	if err != nil {
		a.Log.Error("the pools stay as they were", "err", err)
	}
	return in
}

// admitEach makes the wanted pools those of d, as many as can be, beside those of
// now, which it has, of which something is held. It returns what it has then, and
// why each misfit can't be as it is wanted: of such a one that it has, it leases
// nothing new. Of two that clash the first one counts. Nobody sees what is tried on
// the way, where pools that were not tried yet drain.
func (d *desk) admitEach(s Settings, wanted, now []Pool) (in []Pool, misfits map[string]error, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	keep := drained(now, d.poolsHeld())
	if samePools(now, beside(wanted, keep)) {
		return now, nil, nil
	}
	misfits = d.losing(wanted)
	rest := slices.DeleteFunc(slices.Clone(wanted), func(p Pool) bool { return misfits[p.Name()] != nil })
	s.Pools = d.fitting(rest, keep, misfits)
	if err := d.becomePools(&s); err != nil {
		return now, misfits, err
	}
	return s.Pools, misfits, nil
}

// fitting adds to in what of wanted can be, in its order, and to misfits why each
// other one can't. It tries many at once: most of them fit. It leaves the ledger
// alone with what it found, so that becomePools has to follow before the lock, which
// is held, is let go.
func (d *desk) fitting(wanted, in []Pool, misfits map[string]error) []Pool {
	if len(wanted) == 0 {
		return in
	}
	try := Settings{Pools: beside(wanted, in)}
	err := d.ledger.SetPools(try.cores())
	switch {
	case err == nil:
		return try.Pools
	case len(wanted) == 1:
		misfits[wanted[0].Name()] = err
		return in
	}
	half := len(wanted) / 2
	in = d.fitting(wanted[:half], in, misfits)
	return d.fitting(wanted[half:], in, misfits)
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

// losing says which of the wanted pools would lose addresses of a block that is held
// of them: they would leave the kernel before the network knows. The block is returned
// first, as one of a pool that leases nothing new. The lock is held.
func (d *desk) losing(wanted []Pool) map[string]error {
	byName := make(map[string]*pools.Pool, len(wanted))
	for _, p := range wanted {
		byName[p.Name()] = p.Pool
	}
	out := map[string]error{}
	for _, b := range d.ledger.Blocks() {
		is, err := d.ledger.Pool(b.Pool)
		will := byName[b.Pool]
		if err != nil || will == nil || will == is || out[b.Pool] != nil {
			continue
		}
		held := common(setOf([]netip.Prefix{b.Prefix}), is.Addresses())
		if !common(held, will.Addresses()).Equal(held) {
			out[b.Pool] = fmt.Errorf("pool %q does not have all of block %s any more, which this node still holds%s", b.Pool, b.Prefix, d.endOf(b.Prefix))
		}
	}
	return out
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
// leased. The lock is held.
func (d *desk) poolsHeld() map[string]bool {
	held := map[string]bool{}
	for _, name := range poolsOf(d.ledger.Blocks()) {
		held[name] = true
	}
	for _, rec := range d.ledger.Grants() {
		held[rec.Pool] = true
	}
	return held
}
