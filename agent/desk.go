package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/agent/journal"
	"github.com/fairway-network/fairway/pools"
)

// Store is where blocks are claimed and returned: pools/embedded, or the API
// server.
type Store interface {
	// Blocks returns the blocks of this node.
	Blocks(ctx context.Context) ([]pools.Block, error)
	// Claim makes a block of pool this node's: the cell around want if that
	// is valid, else any free one of family f. It wraps pools.ErrExhausted
	// and pools.ErrBlockExists.
	Claim(ctx context.Context, pool *pools.Pool, f pools.Family, want netip.Addr) (pools.Block, error)
	// Return gives a block back; one that is gone is returned already.
	Return(ctx context.Context, b pools.Block) error
}

// ErrNotReachable: an address was at hand, but the network was not told of it
// in time. Nothing was leased; the request may be made again.
var ErrNotReachable = errors.New("the pod would not be reachable")

// claimTime bounds one claim of a block.
const claimTime = 15 * time.Second

// desk is where leases are made and ended. Its lock is held for
// microseconds: never across a claim, a route or an announcement.
type desk struct {
	store Store
	log   *slog.Logger
	now   func() time.Time
	// changed calls the loop after the blocks changed.
	changed func()

	mu        sync.Mutex
	ledger    *pools.Ledger
	journal   *journal.Journal
	compactAt int64                  // size of the journal that calls for its rewriting
	doors     map[netip.Prefix]*door // of every block held
	claims    map[pools.NoFreeError]*claim
	patience  time.Duration   // how long a lease waits for its block's door
	quiet     map[string]bool // of each pool configured or held, see Pool.Quiet
	trouble   error           // what keeps doors closed, for messages; nil if nothing is known
}

// door opens once the network delivers a block's addresses to this node.
type door struct {
	open chan struct{}
	// known says that leases of the block outlived a restart: the network has
	// been told of it before.
	known bool
}

func newDoor(known bool) *door { return &door{open: make(chan struct{}), known: known} }

func (d *door) isOpen() bool {
	select {
	case <-d.open:
		return true
	default:
		return false
	}
}

// claim is one claim under way, which all requests that lack the same share.
type claim struct {
	done chan struct{}
	err  error
}

// Lease implements cni.Leases. It returns when the pod can be reached at its
// addresses, and leases nothing when it returns an error.
func (d *desk) Lease(ctx context.Context, r pools.Request) (cni.Grant, error) {
	for {
		rec, fresh, doors, grant, err := d.lease(r)
		var lack *pools.NoFreeError
		switch {
		case errors.As(err, &lack):
			if err := d.claim(ctx, *lack); err != nil {
				return cni.Grant{}, err
			}
			continue
		case err != nil:
			return cni.Grant{}, err
		}
		if err := d.waitOpen(ctx, doors); err != nil {
			if fresh {
				err = errors.Join(err, d.release(rec.Owner))
			}
			return cni.Grant{}, err
		}
		return grant, nil
	}
}

// lease makes the lease if the blocks held allow it, and returns the closed
// doors of the blocks that it is in.
func (d *desk) lease(r pools.Request) (rec pools.Record, fresh bool, doors []*door, grant cni.Grant, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	rec, fresh, err = d.ledger.ProposeLease(r, d.now())
	if err != nil {
		return rec, false, nil, grant, err
	}
	pool, err := d.ledger.Pool(rec.Pool)
	if err != nil {
		return rec, false, nil, grant, err
	}
	if fresh {
		if err := d.keep(rec); err != nil {
			return rec, false, nil, grant, err
		}
	}
	for _, a := range rec.Addrs {
		if dr := d.doors[d.ledger.BlockOf(rec.Pool, a)]; dr != nil && !dr.isOpen() {
			doors = append(doors, dr)
		}
		gw := pool.Gateway(pools.FamilyOf(a))
		grant.Addresses = append(grant.Addresses, cni.Address{Addr: a, Bits: gw.Bits(), Gateway: gw.Addr()})
	}
	return rec, fresh, doors, grant, nil
}

// keep writes rec to the journal and then applies it. The lock is held.
func (d *desk) keep(rec pools.Record) error {
	if err := d.journal.Append(rec); err != nil {
		return err
	}
	if err := d.ledger.Apply(rec); err != nil {
		return fmt.Errorf("a proposed record does not apply: %w", err)
	}
	if d.journal.Size() > d.compactAt {
		d.compact()
	}
	return nil
}

// compact shortens the journal. A failure costs nothing but room.
func (d *desk) compact() {
	if err := d.journal.Rewrite(d.ledger.History(d.now())); err != nil {
		d.log.Warn("the lease journal was not shortened", "err", err)
	}
	const slack = 1 << 20
	d.compactAt = 2*d.journal.Size() + slack
}

func (d *desk) waitOpen(ctx context.Context, doors []*door) error {
	if len(doors) == 0 {
		return nil
	}
	patience, _ := d.waiting()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, dr := range doors {
		select {
		case <-dr.open:
		case <-ctx.Done():
			_, trouble := d.waiting()
			return fmt.Errorf("%w: the network was not told of its new block within %s (bgp.announceTimeout): %w", ErrNotReachable, patience, trouble)
		}
	}
	return nil
}

func (d *desk) waiting() (time.Duration, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.patience, d.trouble
}

// claim gets the block that lack asks for, once for all who lack the same.
// The claim goes on when the one who asked first gives up.
func (d *desk) claim(ctx context.Context, lack pools.NoFreeError) error {
	key := pools.NoFreeError{Pool: lack.Pool, Family: lack.Family, Want: lack.Want}
	d.mu.Lock()
	c := d.claims[key]
	if c == nil {
		c = &claim{done: make(chan struct{})}
		d.claims[key] = c
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimTime)
			defer cancel()
			c.err = d.claimNow(ctx, lack)
			d.mu.Lock()
			delete(d.claims, key)
			d.mu.Unlock()
			close(c.done)
		}()
	}
	d.mu.Unlock()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("claim a block of pool %q: %w", lack.Pool, ctx.Err())
	}
}

func (d *desk) claimNow(ctx context.Context, lack pools.NoFreeError) error {
	pool, err := d.pool(lack.Pool)
	if err != nil {
		return err
	}
	b, err := d.store.Claim(ctx, pool, lack.Family, lack.Want)
	switch {
	case errors.Is(err, pools.ErrExhausted), errors.Is(err, pools.ErrBlockExists):
		if d.reopen(lack) {
			d.changed()
			return nil
		}
		return d.exhausted(pool, lack, err)
	case err != nil:
		return err
	}
	if err := d.hold(b); err != nil {
		return errors.Join(err, d.store.Return(ctx, b))
	}
	d.log.Info("claimed a block", "pool", b.Pool, "block", b.Prefix)
	d.changed()
	return nil
}

func (d *desk) pool(name string) (*pools.Pool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ledger.Pool(name)
}

func (d *desk) hold(b pools.Block) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.ledger.Hold(b); err != nil {
		return err
	}
	if d.doors[b.Prefix] == nil {
		d.doors[b.Prefix] = newDoor(false)
	}
	return nil
}

// reopen takes a block back into use that was about to be returned.
func (d *desk) reopen(lack pools.NoFreeError) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.ledger.Blocks() {
		if h.Pool != lack.Pool || !h.Closed || pools.FamilyOf(h.Prefix.Addr()) != lack.Family ||
			lack.Want.IsValid() && !h.Prefix.Contains(lack.Want) || d.doors[h.Prefix] == nil {
			continue
		}
		d.doors[h.Prefix] = newDoor(false)
		return d.ledger.Reopen(h.Prefix)
	}
	return false
}

// exhausted says how full the pool is, for a person.
func (d *desk) exhausted(pool *pools.Pool, lack pools.NoFreeError, cause error) error {
	if lack.Want.IsValid() {
		return cause
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	leased := 0
	for _, rec := range d.ledger.Grants() {
		if rec.Pool == pool.Name() && slices.ContainsFunc(rec.Addrs, func(a netip.Addr) bool { return pools.FamilyOf(a) == lack.Family }) {
			leased++
		}
	}
	cooling := ""
	if lack.Cooling > 0 {
		cooling = fmt.Sprintf(", %d cooling down, the first until %s", lack.Cooling, lack.Next.Format(time.TimeOnly))
	}
	return fmt.Errorf("pool %q has no free %v address: size %d, %d leased on this node%s: add addresses to the pool: %w",
		pool.Name(), lack.Family, pool.Size(lack.Family), leased, cooling, pools.ErrExhausted)
}

// Release implements cni.Leases.
func (d *desk) Release(_ context.Context, owner pools.Owner) error { return d.release(owner) }

func (d *desk) release(owner pools.Owner) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	rec, held, err := d.ledger.ProposeRelease(owner, d.now())
	if err != nil || !held {
		return err
	}
	return d.keep(rec)
}

// Held implements cni.Leases.
func (d *desk) Held(a pools.Attachment) []pools.Lease {
	d.mu.Lock()
	defer d.mu.Unlock()
	rec, ok := d.ledger.Grant(a)
	if !ok {
		return nil
	}
	out := make([]pools.Lease, len(rec.Addrs))
	for i, addr := range rec.Addrs {
		out[i] = pools.Lease{Pool: rec.Pool, Addr: addr, Owner: rec.Owner, Since: rec.At}
	}
	return out
}

// Retain implements cni.Leases: it ends the leases of a network whose
// attachments are not among valid.
func (d *desk) Retain(_ context.Context, network string, valid []pools.Attachment) error {
	d.mu.Lock()
	grants := d.ledger.Grants()
	d.mu.Unlock()
	keep := make(map[pools.Attachment]bool, len(valid))
	for _, a := range valid {
		keep[a] = true
	}
	var errs []error
	for _, rec := range grants {
		if rec.Owner.Network == network && !keep[rec.Owner.Attachment] {
			d.log.Info("released a lease that the runtime no longer knows", "owner", rec.Owner, "addresses", rec.Addrs)
			errs = append(errs, d.release(rec.Owner))
		}
	}
	return errors.Join(errs...)
}

// Ready implements cni.Leases: the desk can make leases.
func (d *desk) Ready(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ledger.Usage(d.now())) == 0 {
		return errors.New("no pool is configured: add one under pools")
	}
	return nil
}
