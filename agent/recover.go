package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fairway-network/fairway/agent/journal"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"go4.org/netipx"
)

const journalFile = "leases.journal"

// recover reads the journal and the blocks and makes the desk of them.
func (a *Agent) recover(ctx context.Context, s *Settings) (*desk, error) {
	path := filepath.Join(a.RunDir, journalFile)
	var own []exchange.Stored
	var ownErr error
	var reading sync.WaitGroup
	if _, shared := a.Store.(exchange.Exchange); !shared {
		// Pods wait for both, and they take as long as each other.
		reading.Go(func() { own, ownErr = a.Store.Own(ctx) })
	}
	j, found, folded, err := a.readJournal(path)
	reading.Wait()
	if err != nil {
		return nil, errors.Join(err, ownErr)
	}
	if ownErr != nil {
		return nil, errors.Join(ownErr, j.Close())
	}
	a.door = newDoor(ctx, a.socket, folded, a.Cluster != nil, a.metrics, a.Log)
	a.entrance.Store(a.door)
	if a.Cluster != nil {
		if err := a.joinCluster(ctx, s, folded); err != nil {
			return nil, errors.Join(err, j.Close())
		}
	}
	d := newDesk(ctx, a, j)
	if err := a.restore(ctx, d, s, folded, own); err != nil {
		return nil, errors.Join(fmt.Errorf("lease journal %s: %w", path, err), j.Close())
	}
	if len(found.Records) > 2*len(folded) {
		d.compact()
	}
	if found.Torn > 0 {
		a.Log.Warn("dropped a lease record that was not written whole; nobody was told of it", "journal", path, "bytes", found.Torn)
	}
	if found.Stale {
		a.Log.Info("the lease journal is of an earlier boot; its sandboxes are gone", "journal", path)
	}
	return d, nil
}

// readJournal opens the journal and folds what is in it.
func (a *Agent) readJournal(path string) (*journal.Journal, journal.Opened, []pools.Record, error) {
	j, found, err := journal.Open(path, a.Boot)
	if err != nil {
		return nil, found, nil, err
	}
	folded, err := pools.Fold(found.Records)
	if err != nil {
		return nil, found, nil, errors.Join(fmt.Errorf("lease journal %s: %w: %w: drain the node (or reboot it), remove the file and start again", path, journal.ErrCorrupt, err), j.Close())
	}
	return j, found, folded, nil
}

// restore brings d to what a folded history says, and to the node's own blocks of
// a store that it does not share.
func (a *Agent) restore(ctx context.Context, d *desk, s *Settings, folded []pools.Record, own []exchange.Stored) error {
	if err := d.setPools(s); err != nil && a.Cluster == nil {
		return err
	} else if err != nil {
		s.Pools = a.admitEach(d, *s, s.Pools, nil)
	}
	unfit, err := a.holdAll(ctx, d, folded, own)
	if err != nil {
		return err
	}
	lost, err := d.ledger.Restore(folded, d.now())
	if err = errors.Join(err, a.reclaim(ctx, d, lost)); err != nil {
		return err
	}
	d.keepUnfit(unfit, folded, a.told, s)
	var held netipx.IPSetBuilder
	for _, h := range d.ledger.Blocks() {
		held.AddPrefix(h.Prefix)
	}
	for p := range d.unfit {
		held.AddPrefix(p)
	}
	a.told.keep(built(&held))
	d.reach = newReach(a.told.all())
	d.planCompaction()
	return nil
}

// newDesk is a desk that holds nothing.
func newDesk(ctx context.Context, a *Agent, j *journal.Journal) *desk {
	d := &desk{
		store: a.Store, log: a.Log, now: time.Now, changed: a.call, ledger: pools.NewLedger(a.Node), journal: j,
		turned: make(chan struct{}), waiting: map[exchange.Lack]int{}, withdrawn: map[netip.Prefix]bool{},
		reach: newReach(&netipx.IPSet{}), unfit: map[netip.Prefix]*unfit{}, turns: map[pools.Attachment]*turn{},
		trouble: trouble{flush: map[pools.Family]error{}},
	}
	d.heeded, d.called = a.hurryConfirmation, a.metrics.called
	if a.Cluster != nil {
		d.warn = a.Cluster.Warn
	}
	d.calling, d.stopCalls = context.WithCancel(context.WithoutCancel(ctx))
	_, shared := a.Store.(exchange.Exchange)
	d.node = exchange.NewNode(exchange.Config{Name: a.Node, Machine: a.Machine, Began: a.began, Shared: shared, Keep: d.record, Lost: d.forfeit, Log: a.Log}, d.ledger)
	return d
}

// holdAll takes in the blocks of this node, and returns those that no pool has
// any more. A journal that knows of blocks is believed: it costs the store
// nothing, and an audit later finds what it missed.
func (a *Agent) holdAll(ctx context.Context, d *desk, history []pools.Record, own []exchange.Stored) (unfit []exchange.Stored, err error) {
	if slices.ContainsFunc(history, func(rec pools.Record) bool { return rec.Op == pools.Claimed }) {
		d.replayed = true
		return d.node.Restore(history)
	}
	shared, ok := d.store.(exchange.Exchange)
	if !ok {
		return d.node.Found(nil, own, d.now())
	}
	var requests []exchange.Request
	err = a.persist(ctx, "read the blocks of node "+a.Node, func() (err error) {
		if requests, err = shared.Requests(ctx); err == nil {
			own, err = shared.Own(ctx)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return d.node.Found(requests, own, d.now())
}

// reclaim claims the blocks around standing leases that no block held has. A store that
// nodes share claims in no pool of which it does not know yet that it is there: what an
// earlier agent has left of the cluster does not do.
func (a *Agent) reclaim(ctx context.Context, d *desk, lost []pools.Record) error {
	if len(lost) > 0 && a.Cluster != nil {
		if _, err := a.awaitCluster(ctx); err != nil {
			return err
		}
	}
	var errs []error
	for _, rec := range lost {
		errs = append(errs, d.reclaim(ctx, rec))
	}
	return errors.Join(errs...)
}

// reclaim claims the blocks around a standing lease that no block held has,
// because the store was lost or changed.
func (d *desk) reclaim(ctx context.Context, rec pools.Record) error {
	pool, err := d.ledger.Pool(rec.Pool)
	if err != nil {
		return fmt.Errorf("%s still leases %v: put the pool back until that pod is gone: %w", rec.Owner, rec.Addrs, err)
	}
	for _, a := range rec.Addrs {
		if d.ledger.BlockOf(rec.Pool, a).IsValid() {
			continue
		}
		b, err := d.regain(ctx, pool, a)
		if err != nil {
			return fmt.Errorf("%s still leases %s of pool %q: put it back into the pool until that pod is gone: %w", rec.Owner, a, rec.Pool, err)
		}
		d.log.Warn("claimed anew the block of a standing lease, which the store had lost", "pool", b.Pool, "block", b.Prefix, "owner", rec.Owner)
	}
	if err := d.ledger.Apply(rec); err != nil {
		return fmt.Errorf("%s still leases %v, which pool %q does not have any more: put them back until that pod is gone: %w", rec.Owner, rec.Addrs, rec.Pool, err)
	}
	return nil
}

// regain makes the cell around a this node's again.
func (d *desk) regain(ctx context.Context, pool *pools.Pool, a netip.Addr) (exchange.Stored, error) {
	if !pool.Contains(a) {
		return exchange.Stored{}, pools.ErrOutside
	}
	b := pools.Block{Prefix: pool.Cell(a), Pool: pool.Name(), Node: d.node.Name, Machine: d.node.Machine, Created: d.now()}
	st, err := d.store.Create(ctx, b)
	if errors.Is(err, exchange.ErrExists) {
		if st, err = d.store.Block(ctx, b.Prefix); err == nil && st.Node != d.node.Name {
			err = fmt.Errorf("%w: block %s is of node %q", pools.ErrNotOwner, st.Prefix, st.Node)
		}
	}
	if err != nil {
		return st, err
	}
	inside, err := d.store.Inside(ctx, b.Prefix)
	if err != nil {
		return st, err
	}
	return st, d.node.Adopt(st, inside, d.now())
}

// setPools makes the pools of s the desk's, or changes nothing.
func (d *desk) setPools(s *Settings) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.becomePools(s)
}

// becomePools is setPools. The lock is held.
func (d *desk) becomePools(s *Settings) error {
	if err := d.ledger.SetPools(s.cores()); err != nil {
		return err
	}
	d.patience = s.patience()
	quiet := s.quiet()
	for _, name := range poolsOf(d.ledger.Blocks()) {
		if _, stays := quiet[name]; !stays {
			quiet[name] = d.quiet[name] // until its blocks are returned
		}
	}
	d.quiet = quiet
	rules := s.rules()
	if d.leaving > 0 {
		for name, r := range rules {
			r.Draining = true // so that what is empty goes at once
			rules[name] = r
		}
	}
	d.node.SetRules(rules)
	d.draining = map[string]bool{}
	for name, r := range rules {
		d.draining[name] = r.Draining
	}
	d.readmit()
	return nil
}

func (d *desk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ledger.BlockCount()
}
