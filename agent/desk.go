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
var ErrNotReachable = fmt.Errorf("the pod would not be reachable: %w", cni.ErrTryAgain)

// claimTime bounds one claim of a block.
const claimTime = 15 * time.Second

// desk is where leases are made and ended. Its lock is never held across a
// claim, a route or an announcement.
type desk struct {
	store Store
	log   *slog.Logger
	now   func() time.Time
	// changed calls the loop after the blocks changed.
	changed func()

	mu        sync.Mutex
	ledger    *pools.Ledger
	journal   *journal.Journal
	compactAt int64                   // size of the journal that calls for its rewriting
	doors     map[netip.Prefix]*door  // of every block held whose return is not final
	unfit     map[netip.Prefix]*unfit // blocks that no pool has; the ledger knows nothing of them
	turns     map[pools.Attachment]*turn
	claims    map[pools.NoFreeError]*claim
	returned  chan struct{}   // closed and replaced when a block was returned
	patience  time.Duration   // how long a lease waits for its block's door
	quiet     map[string]bool // of each pool configured or held, see Pool.Quiet
	trouble   trouble
}

// trouble is what a person should know when something does not work.
type trouble struct {
	pass    error                  // why the last pass of the loop failed
	flush   map[pools.Family]error // why announcements have not left
	journal error                  // why the last record could not be kept
	since   time.Time              // when there began to be some; zero if there is none
}

func (t trouble) err() error {
	return errors.Join(t.pass, t.flush[pools.IPv4], t.flush[pools.IPv6], t.journal)
}

// note changes the trouble. The lock is held.
func (d *desk) note(change func(*trouble)) {
	change(&d.trouble)
	switch {
	case d.trouble.err() == nil:
		d.trouble.since = time.Time{}
	case d.trouble.since.IsZero():
		d.trouble.since = d.now()
	}
}

// door opens once the network delivers a block's addresses to this node.
type door struct {
	open chan struct{}
	// known says that peers were told of the block before a restart and have
	// kept forwarding since.
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
	if grant, done, err := d.leaseAtOnce(r); done {
		return grant, err
	}
	ctx, end, err := d.take(ctx, r.Owner, false)
	if err != nil {
		return cni.Grant{}, err
	}
	defer end()
	return d.leaseInTurn(ctx, r)
}

// leaseAtOnce serves what needs no wait; done is false if r has to wait.
func (d *desk) leaseAtOnce(r pools.Request) (grant cni.Grant, done bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.turns[r.Owner.Attachment] != nil {
		return grant, false, nil
	}
	rec, fresh, err := d.ledger.ProposeLease(r, d.now())
	if err != nil {
		return grant, !errors.Is(err, pools.ErrNoFree), err
	}
	if len(d.closedDoors(rec)) > 0 {
		return grant, false, nil
	}
	if fresh {
		err = d.keep(rec)
	}
	if err == nil {
		grant, err = d.grantOf(rec)
	}
	return grant, true, err
}

// leaseInTurn serves r, whose turn it is, with all waiting that it takes.
func (d *desk) leaseInTurn(ctx context.Context, r pools.Request) (cni.Grant, error) {
	for {
		rec, fresh, doors, err := d.leaseNow(r)
		switch {
		case errors.Is(err, pools.ErrNoFree):
			if err := d.claim(ctx, d.lacks(r)...); err != nil {
				return cni.Grant{}, err
			}
			continue
		case err != nil:
			return cni.Grant{}, err
		}
		err = d.waitOpen(ctx, doors)
		d.mu.Lock()
		defer d.mu.Unlock()
		if err == nil {
			return d.grantOf(rec)
		}
		if fresh {
			// In its turn the lease is this request's own.
			err = errors.Join(err, d.takeBack(rec.Owner))
		}
		return cni.Grant{}, err
	}
}

// leaseNow makes the lease if the blocks held allow it, and returns the
// closed doors of the blocks that it is in.
func (d *desk) leaseNow(r pools.Request) (rec pools.Record, fresh bool, doors []*door, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	rec, fresh, err = d.ledger.ProposeLease(r, d.now())
	if err == nil && fresh {
		err = d.keep(rec)
	}
	if err != nil {
		return rec, false, nil, err
	}
	return rec, fresh, d.closedDoors(rec), nil
}

// closedDoors of the blocks that rec's addresses are in. The lock is held.
func (d *desk) closedDoors(rec pools.Record) (closed []*door) {
	for _, a := range rec.Addrs {
		if dr := d.doors[d.ledger.BlockOf(rec.Pool, a)]; dr != nil && !dr.isOpen() {
			closed = append(closed, dr)
		}
	}
	return closed
}

// grantOf is what a pod is told of rec. The lock is held.
func (d *desk) grantOf(rec pools.Record) (grant cni.Grant, err error) {
	pool, err := d.ledger.Pool(rec.Pool)
	if err != nil {
		return grant, err
	}
	for _, a := range rec.Addrs {
		gw := pool.Gateway(pools.FamilyOf(a))
		grant.Addresses = append(grant.Addresses, cni.Address{Addr: a, Bits: gw.Bits(), Gateway: gw.Addr()})
	}
	return grant, nil
}

// keep writes rec to the journal and then applies it. The lock is held.
func (d *desk) keep(rec pools.Record) error {
	err := d.journal.Append(rec)
	if errors.Is(err, journal.ErrBroken) && d.journal.Rewrite(d.history()) == nil {
		err = d.journal.Append(rec)
	}
	d.note(func(t *trouble) { t.journal = err })
	if err != nil {
		return fmt.Errorf("%w: %w", cni.ErrTryAgain, err)
	}
	if err := d.ledger.Apply(rec); err != nil {
		return fmt.Errorf("a proposed record does not apply: %w", err)
	}
	if d.journal.Size() > d.compactAt {
		d.compact()
	}
	return nil
}

// compact shortens the journal. A failure costs nothing but room. The lock is
// held.
func (d *desk) compact() {
	if err := d.journal.Rewrite(d.history()); err != nil {
		d.log.Warn("the lease journal was not shortened", "err", err)
	}
	d.planCompaction()
}

// planCompaction lets the journal grow to twice what it has now and a little.
func (d *desk) planCompaction() {
	const slack = 1 << 20
	d.compactAt = 2*d.journal.Size() + slack
}

func (d *desk) waitOpen(ctx context.Context, doors []*door) error {
	if len(doors) == 0 {
		return nil
	}
	d.mu.Lock()
	patience := d.patience
	d.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for _, dr := range doors {
		select {
		case <-dr.open:
		case <-ctx.Done():
			return fmt.Errorf("wait for a new block to be announced: %w", context.Cause(ctx))
		case <-timer.C:
			return d.notReachable(patience)
		}
	}
	return nil
}

func (d *desk) notReachable(patience time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	why := d.trouble.err()
	if why == nil {
		why = errors.New("no peer has taken the announcement yet")
	}
	return fmt.Errorf("%w: a new block was not announced within %s (bgp.announceTimeout): %w", ErrNotReachable, patience, why)
}

// lacks are the blocks that r needs and that are not held.
func (d *desk) lacks(r pools.Request) []pools.NoFreeError {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ledger.Lacks(r, d.now())
}

// claim gets the blocks that lacks ask for, side by side, each once for all
// who lack the same, and returns the first one's failure. A claim goes on when
// the one who asked first gives up.
func (d *desk) claim(ctx context.Context, lacks ...pools.NoFreeError) error {
	claims := make([]*claim, len(lacks))
	for i, lack := range lacks {
		claims[i] = d.claimOnce(ctx, lack)
	}
	for i, c := range claims {
		select {
		case <-c.done:
			if c.err != nil {
				return c.err
			}
		case <-ctx.Done():
			return fmt.Errorf("claim a block of pool %q: %w", lacks[i].Pool, context.Cause(ctx))
		}
	}
	return nil
}

func (d *desk) claimOnce(ctx context.Context, lack pools.NoFreeError) *claim {
	key := pools.NoFreeError{Pool: lack.Pool, Family: lack.Family, Want: lack.Want}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.claims[key]; c != nil {
		return c
	}
	c := &claim{done: make(chan struct{})}
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
	return c
}

// settle waits for the claims under way, so that none is made after the blocks
// were given back. Nobody asks for new ones by then.
func (d *desk) settle() {
	for {
		d.mu.Lock()
		var some *claim
		for _, some = range d.claims {
			break
		}
		d.mu.Unlock()
		if some == nil {
			return
		}
		<-some.done
	}
}

func (d *desk) claimNow(ctx context.Context, lack pools.NoFreeError) error {
	pool, err := d.pool(lack.Pool)
	if err != nil {
		return err
	}
	returned := d.nextReturn()
	b, err := d.store.Claim(ctx, pool, lack.Family, lack.Want)
	for errors.Is(err, pools.ErrExhausted) || errors.Is(err, pools.ErrBlockExists) {
		if d.reopen(lack) {
			d.changed()
			return nil
		}
		if !d.waitReturn(ctx, lack, returned) {
			return d.exhausted(pool, lack, err)
		}
		returned = d.nextReturn()
		b, err = d.store.Claim(ctx, pool, lack.Family, lack.Want)
	}
	if err != nil {
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
	if d.doors[b.Prefix] == nil {
		// It was returned a moment ago, and giveBack has yet to forget it.
		delete(d.unfit, b.Prefix)
		if err := d.ledger.Drop(b.Prefix); err != nil {
			return err
		}
	}
	return d.admit(b)
}

// admit holds a block that peers know nothing of. The lock is held.
func (d *desk) admit(b pools.Block) error {
	if err := d.ledger.Hold(b); err != nil {
		return err
	}
	if d.doors[b.Prefix] == nil {
		d.doors[b.Prefix] = newDoor(false)
	}
	if d.quiet[b.Pool] {
		d.openDoor(d.doors[b.Prefix]) // nobody is to be told of it
	}
	return nil
}

// reopen takes a block back into use that was about to be returned.
func (d *desk) reopen(lack pools.NoFreeError) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.ledger.Blocks() {
		if !fits(lack, h.Block) || !h.Closed || d.doors[h.Prefix] == nil {
			continue
		}
		d.doors[h.Prefix] = newDoor(false)
		return d.ledger.Reopen(h.Prefix)
	}
	return false
}

// nextReturn is closed when the next block is back.
func (d *desk) nextReturn() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.returned
}

// waitReturn waits for a block to come back, if one that lack asks for is on
// its way: too far to be reopened, and about to be free. It says whether one
// has come back since returned was read.
func (d *desk) waitReturn(ctx context.Context, lack pools.NoFreeError, returned <-chan struct{}) bool {
	if !d.returning(lack) {
		select {
		case <-returned:
			return true
		default:
			return false
		}
	}
	select {
	case <-returned:
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *desk) returning(lack pools.NoFreeError) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range d.unfit {
		if u.final && fits(lack, u.Block) {
			return true
		}
	}
	return slices.ContainsFunc(d.ledger.Blocks(), func(h pools.Held) bool {
		return fits(lack, h.Block) && h.Closed && d.doors[h.Prefix] == nil
	})
}

// back tells who waits that a block was returned. The lock is held.
func (d *desk) back() {
	close(d.returned)
	d.returned = make(chan struct{})
}

// fits says whether a block is one that lack asks for.
func fits(lack pools.NoFreeError, b pools.Block) bool {
	return b.Pool == lack.Pool && pools.FamilyOf(b.Prefix.Addr()) == lack.Family &&
		(!lack.Want.IsValid() || b.Prefix.Contains(lack.Want))
}

// exhausted says how full the pool is, for a person.
func (d *desk) exhausted(pool *pools.Pool, lack pools.NoFreeError, cause error) error {
	if lack.Want.IsValid() {
		return cause
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	leased := d.ledger.Leases(pool.Name(), lack.Family)
	cooling := ""
	if lack.Cooling > 0 {
		cooling = fmt.Sprintf(", %d cooling down, the first until %s", lack.Cooling, lack.Next.Format(time.TimeOnly))
	}
	return fmt.Errorf("pool %q has no free %v address: size %d, %d leased on this node%s: add addresses to the pool: %w",
		pool.Name(), lack.Family, pool.Size(lack.Family), leased, cooling, pools.ErrExhausted)
}

// Release implements cni.Leases. A lease of the same attachment that still
// waits gives up first.
func (d *desk) Release(ctx context.Context, owner pools.Owner) error {
	d.mu.Lock()
	if d.turns[owner.Attachment] == nil {
		defer d.mu.Unlock()
		return d.release(owner)
	}
	d.mu.Unlock()
	_, end, err := d.take(ctx, owner, true)
	if err != nil {
		return err
	}
	defer end()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.release(owner)
}

// release ends what owner holds. The lock is held.
func (d *desk) release(owner pools.Owner) error {
	rec, held, err := d.ledger.ProposeRelease(owner, d.now())
	if err != nil || !held {
		return err
	}
	return d.keep(rec)
}

// takeBack ends a lease that nobody was told of, so that its addresses need
// no rest. The lock is held.
func (d *desk) takeBack(owner pools.Owner) error {
	rec, held, err := d.ledger.ProposeRelease(owner, d.now())
	if err != nil || !held {
		return err
	}
	pool, err := d.ledger.Pool(rec.Pool)
	if err != nil {
		return err
	}
	rec.At = rec.At.Add(-pool.ReuseAfter())
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
func (d *desk) Retain(ctx context.Context, network string, valid []pools.Attachment) error {
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
			errs = append(errs, d.releaseIfStill(ctx, rec))
		}
	}
	return errors.Join(errs...)
}

// releaseIfStill ends the lease that rec made, unless another one stands by
// now.
func (d *desk) releaseIfStill(ctx context.Context, rec pools.Record) error {
	d.mu.Lock()
	now, ok := d.ledger.Grant(rec.Owner.Attachment)
	d.mu.Unlock()
	if !ok || !now.At.Equal(rec.At) {
		return nil
	}
	return d.Release(ctx, rec.Owner)
}

// lasting is how long trouble lasts before the agent says that it can't serve.
const lasting = time.Minute

// Ready implements cni.Leases.
func (d *desk) Ready(_ context.Context, pool string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.ledger.Pool(pool); err != nil {
		return err
	}
	if err := d.mendJournal(); err != nil {
		return err
	}
	if since := d.trouble.since; !since.IsZero() && d.now().Sub(since) >= lasting && !d.serves(pool) {
		return fmt.Errorf("since %s: %w", since.Format(time.TimeOnly), d.trouble.err())
	}
	return nil
}

// mendJournal tries again to write a journal that the last record could not
// be kept in: without a lease nothing else would. The lock is held.
func (d *desk) mendJournal() error {
	if d.trouble.journal == nil {
		return nil
	}
	err := d.journal.Rewrite(d.history())
	d.note(func(t *trouble) { t.journal = err })
	if err == nil {
		d.planCompaction()
	}
	return err
}

// serves says whether a lease from pool could be made at once. The lock is
// held.
func (d *desk) serves(pool string) bool {
	rec, _, err := d.ledger.ProposeLease(pools.Request{Pool: pool}, d.now())
	return err == nil && len(d.closedDoors(rec)) == 0
}
