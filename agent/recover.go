package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/fairway-network/fairway/agent/journal"
	"github.com/fairway-network/fairway/pools"
)

const journalFile = "leases.journal"

// recover reads the journal and the blocks and makes the desk of them.
func (a *Agent) recover(ctx context.Context, s *Settings) (*desk, error) {
	path := filepath.Join(a.RunDir, journalFile)
	j, found, err := journal.Open(path, a.Boot)
	if err != nil {
		return nil, err
	}
	d := &desk{
		store: a.Store, log: a.Log, now: time.Now, changed: a.call,
		ledger: pools.NewLedger(a.Node), journal: j,
		doors: map[netip.Prefix]*door{}, unfit: map[netip.Prefix]*unfit{}, claims: map[pools.NoFreeError]*claim{},
		turns: map[pools.Attachment]*turn{}, returned: make(chan struct{}), trouble: trouble{flush: map[pools.Family]error{}},
	}
	if err := d.recover(ctx, s, found.Records, a.told); err != nil {
		return nil, errors.Join(fmt.Errorf("lease journal %s: %w", path, err), j.Close())
	}
	if found.Torn > 0 {
		a.Log.Warn("dropped a lease record that was not written whole; nobody was told of it", "journal", path, "bytes", found.Torn)
	}
	if found.Stale {
		a.Log.Info("the lease journal is of an earlier boot; its sandboxes are gone", "journal", path)
	}
	return d, nil
}

func (d *desk) recover(ctx context.Context, s *Settings, history []pools.Record, told *told) error {
	folded, err := pools.Fold(history)
	if err != nil {
		return fmt.Errorf("%w: %w: drain the node (or reboot it), remove the file and start again", journal.ErrCorrupt, err)
	}
	if err := d.setPools(s); err != nil {
		return err
	}
	unfit, err := d.holdAll(ctx)
	if err != nil {
		return err
	}
	lost, err := d.ledger.Restore(folded, d.now())
	for _, rec := range lost {
		err = errors.Join(err, d.reclaim(ctx, rec))
	}
	if err != nil {
		return err
	}
	for _, h := range d.ledger.Blocks() {
		d.doors[h.Prefix] = newDoor(told.has(h.Prefix))
	}
	d.keepUnfit(unfit, folded, told, s)
	told.keep(func(block netip.Prefix) bool { return d.doors[block] != nil || d.unfit[block] != nil })
	d.planCompaction()
	if len(history) > 2*len(folded) {
		d.compact()
	}
	return nil
}

// holdAll takes in the store's blocks of this node, but for those of a pool
// that is no longer configured, or that no longer fit it.
func (d *desk) holdAll(ctx context.Context) (unfit []pools.Block, err error) {
	blocks, err := d.store.Blocks(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		switch err := d.ledger.Hold(b); {
		case errors.Is(err, pools.ErrUnknownPool), errors.Is(err, pools.ErrOutside):
			unfit = append(unfit, b)
		case err != nil:
			return nil, err
		}
	}
	return unfit, nil
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
		b, err := d.store.Claim(ctx, pool, pools.FamilyOf(a), a)
		if err == nil {
			err = d.ledger.Hold(b)
		}
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

// setPools makes the pools of s the desk's, or changes nothing.
func (d *desk) setPools(s *Settings) error {
	d.mu.Lock()
	defer d.mu.Unlock()
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
	d.readmit()
	return nil
}

// unused are the blocks in which nothing is leased or cools down, those that
// were being returned or that no pool has among them.
func (d *desk) unused() []pools.Block {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	out := append(d.ledger.Idle(now, func(string) time.Duration { return 0 }), d.ledger.Orphans(now)...)
	for _, h := range d.ledger.Blocks() {
		if h.Closed {
			out = append(out, h.Block)
		}
	}
	for _, u := range d.unfits() {
		if u.rested(now) {
			out = append(out, u.Block)
		}
	}
	return out
}

func (d *desk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.ledger.Blocks())
}
