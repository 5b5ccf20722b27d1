package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/agent/journal"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

// ErrNotReachable: an address was at hand, but the network was not told of it
// in time. Nothing was leased; the request may be made again.
var ErrNotReachable = fmt.Errorf("the pod would not be reachable: %w", cni.ErrTryAgain)

// desk is where leases are made and ended. Its lock is never held across a
// claim, a route or an announcement.
type desk struct {
	store exchange.Store
	log   *slog.Logger
	now   func() time.Time
	// changed calls the loop after the blocks changed.
	changed   func()
	calls     sync.WaitGroup  // of the store
	calling   context.Context // ends the calls
	stopCalls context.CancelFunc

	mu        sync.Mutex
	ledger    *pools.Ledger
	node      *exchange.Node // has the ledger's blocks
	turned    chan struct{}  // closed and replaced when the node has gone on
	changes   int            // of the node that the loop knows of
	timer     *time.Timer    // of the node
	waiting   map[exchange.Lack]int
	waiters   []*waiter             // who came first is first
	withdrawn map[netip.Prefix]bool // of what the node parts with: peers were told
	lost      int                   // blocks, by the node's count, when the last plan was made: see outdated
	journal   *journal.Journal
	compactAt int64 // size of the journal that calls for its rewriting
	reach     reach
	unfit     map[netip.Prefix]*unfit // blocks that no pool has; the ledger knows nothing of them
	turns     map[pools.Attachment]*turn
	patience  time.Duration   // how long a lease waits for its addresses to be reached
	quiet     map[string]bool // of each pool configured or held, see Pool.Quiet
	draining  map[string]bool // of each pool configured
	cordoned  bool
	leaving   int                // drains that wait; with any no new pod is served, see Agent.DrainWhenEmpty
	releases  int                // so many leases have ended
	replayed  bool               // the blocks are from the journal
	requests  []exchange.Request // of all nodes, as last seen
	// reached says whether the API server is there; nil is no.
	reached    func() bool
	ordersKept string                           // heeded, as heeded was called for
	heeded     func()                           // called when orders were heeded
	called     func(op *exchange.Op, err error) // counts the store's calls
	forfeits   []forfeited                      // of late
	// warn is the cluster's, nil where there is none.
	warn    func(ctx context.Context, o pools.Owner, reason, message string) error
	trouble trouble
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

// Lease implements cni.Leases. It returns when the pod can be reached at its
// addresses, and leases nothing when it returns an error.
func (d *desk) Lease(ctx context.Context, r pools.Request) (cni.Grant, error) {
	d.mu.Lock()
	if d.turns[r.Owner.Attachment] != nil {
		d.mu.Unlock()
		return d.leaseAfterOthers(ctx, r)
	}
	if grant, done, err := d.leaseAtOnce(r); done {
		d.mu.Unlock()
		return grant, err
	}
	ctx, end := d.begin(ctx, r.Owner)
	d.mu.Unlock()
	defer end()
	return d.leaseInTurn(ctx, r)
}

// leaseAfterOthers serves r when its turn has come.
func (d *desk) leaseAfterOthers(ctx context.Context, r pools.Request) (cni.Grant, error) {
	ctx, end, err := d.take(ctx, r.Owner, false)
	if err != nil {
		return cni.Grant{}, err
	}
	defer end()
	return d.leaseInTurn(ctx, r)
}

// leaseAtOnce serves what needs no wait; done is false if r has to wait. The lock is
// held.
func (d *desk) leaseAtOnce(r pools.Request) (grant cni.Grant, done bool, err error) {
	rec, fresh, err := d.propose(r)
	if err != nil {
		return grant, !errors.Is(err, pools.ErrNoFree) && !errors.Is(err, errUnheeded), err
	}
	if !d.reachable(rec) {
		return grant, false, nil
	}
	if fresh {
		err = d.keep(rec)
	}
	if err == nil {
		grant, err = d.grantOf(rec)
		d.runLow(rec)
	}
	return grant, true, err
}

// leaseInTurn serves r, whose turn it is, with all waiting that it takes.
func (d *desk) leaseInTurn(ctx context.Context, r pools.Request) (cni.Grant, error) {
	var waited *waiter
	for {
		rec, fresh, err := d.leaseNow(r, waited)
		waited = nil
		switch {
		case errors.Is(err, pools.ErrNoFree):
			if waited, err = d.claim(ctx, d.lacks(r)...); err != nil {
				return cni.Grant{}, err
			}
			continue
		case errors.Is(err, errUnheeded):
			if err := d.awaitHeeded(ctx); err != nil {
				return cni.Grant{}, err
			}
			continue
		case err != nil:
			return cni.Grant{}, err
		}
		err = d.awaitReach(ctx, rec)
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

// leaseNow makes the lease if the blocks held allow it, and ends the wait for it,
// nil if there was none.
func (d *desk) leaseNow(r pools.Request, waited *waiter) (rec pools.Record, fresh bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if waited != nil {
		defer d.endWait(waited)
	}
	rec, fresh, err = d.propose(r)
	if err == nil && fresh {
		err = d.keep(rec)
	}
	if err != nil {
		return rec, false, err
	}
	d.runLow(rec)
	return rec, fresh, nil
}

// propose is the ledger's, but for pools that lease nothing new, and for orders that
// are to be heeded first. The lock is held.
func (d *desk) propose(r pools.Request) (rec pools.Record, fresh bool, err error) {
	if r.Netns.Namespace == (pools.FileID{}) {
		r.Netns = pools.Netns{} // nobody looked, or it could not be seen
	}
	rec, fresh, err = d.ledger.ProposeLease(r, d.now())
	if d.leaving > 0 && (fresh || errors.Is(err, pools.ErrNoFree)) {
		return pools.Record{}, false, fmt.Errorf("this node is being drained and serves no new pods: %w", cni.ErrTryAgain)
	}
	if fresh && d.draining[r.Pool] || errors.Is(err, pools.ErrNoFree) && d.draining[r.Pool] {
		return pools.Record{}, false, cni.Refuse(fmt.Errorf("%w: pool %q leases nothing new: use another pool", exchange.ErrDraining, r.Pool))
	}
	if why := d.refusal(); why != nil && (fresh || errors.Is(err, pools.ErrNoFree)) {
		return pools.Record{}, false, why
	}
	if fresh && d.unheeded() {
		return pools.Record{}, false, errUnheeded
	}
	return rec, fresh, err
}

// runLow has another block got ahead of need where few addresses are left. The
// lock is held.
func (d *desk) runLow(rec pools.Record) {
	for _, a := range rec.Addrs {
		if d.node.RunsLow(rec.Pool, pools.FamilyOf(a)) {
			d.advance()
			return
		}
	}
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

// record writes rec to the journal. Of blocks it keeps an account only where
// the store is not this node's own. It may be called in the middle of a change of
// the blocks, when the history is not whole: tend sees to the journal after it.
// The lock is held.
func (d *desk) record(rec pools.Record) error {
	if !rec.Op.OfLease() && !d.node.Shared {
		return nil
	}
	err := d.journal.Append(rec)
	if errors.Is(err, journal.ErrBroken) && rec.Op.OfLease() && d.journal.Rewrite(d.history()) == nil {
		err = d.journal.Append(rec)
	}
	d.note(func(t *trouble) { t.journal = err })
	if err != nil {
		return fmt.Errorf("%w: %w", cni.ErrTryAgain, err)
	}
	return nil
}

// keep writes rec, of a lease, to the journal and then applies it. The lock is
// held.
func (d *desk) keep(rec pools.Record) error {
	if err := d.record(rec); err != nil {
		return err
	}
	if err := d.ledger.Apply(rec); err != nil {
		return fmt.Errorf("a proposed record does not apply: %w", err)
	}
	if rec.Op == pools.Released {
		d.releases++
	}
	d.tend()
	return nil
}

// tend mends and shortens the journal where it has to be, while nothing is in the
// middle of a change. The lock is held.
func (d *desk) tend() {
	if errors.Is(d.trouble.journal, journal.ErrBroken) {
		_ = d.mendJournal() // which says so, and is tried again
	}
	if d.journal.Size() > d.compactAt {
		d.compact()
	}
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

// awaitReach waits until the network delivers rec's addresses to this node.
func (d *desk) awaitReach(ctx context.Context, rec pools.Record) error {
	d.mu.Lock()
	ready, grown, patience := d.reachable(rec), d.reach.grown, d.patience
	d.mu.Unlock()
	if ready {
		return nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for !ready {
		select {
		case <-grown:
		case <-ctx.Done():
			return fmt.Errorf("wait for a new block to be announced: %w", context.Cause(ctx))
		case <-timer.C:
			return d.notReachable(patience)
		}
		d.mu.Lock()
		ready, grown = d.reachable(rec), d.reach.grown
		d.mu.Unlock()
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

// exhausted says how full the pool is, for a person.
// The lock is held.
func (d *desk) exhausted(pool *pools.Pool, lack pools.NoFreeError, cause error) error {
	switch {
	case lack.Want.IsValid() && errors.Is(cause, exchange.ErrUnasked):
		return fmt.Errorf("pool %q: %s is not free: %w", pool.Name(), lack.Want, cause)
	case lack.Want.IsValid():
		return fmt.Errorf("pool %q: %w: %s is in use on another node, or rests there", pool.Name(), pools.ErrTaken, lack.Want)
	}
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
	return d.endLease(rec)
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
	return d.endLease(rec)
}

// endLease keeps rec, and has the node go on where somebody waits for that. The lock
// is held.
func (d *desk) endLease(rec pools.Record) error {
	if err := d.keep(rec); err != nil {
		return err
	}
	if (d.draining[rec.Pool] || d.node.Awaited(rec.Pool)) && d.calling.Err() == nil {
		d.advance() // the block may go, or somebody waits for an address
	}
	return nil
}

// Held implements cni.Leases.
func (d *desk) Held(a pools.Attachment) []pools.Lease {
	d.mu.Lock()
	defer d.mu.Unlock()
	rec, _ := d.ledger.Grant(a)
	return leasesOf(rec)
}

// leasesOf are what the record of a lease has leased.
func leasesOf(rec pools.Record) []pools.Lease {
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
	return err == nil && d.reachable(rec)
}
