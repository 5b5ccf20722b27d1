package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"k8s.io/apimachinery/pkg/types"
)

// registry is where pools' statuses are kept.
type registry interface {
	// WritePoolStatus writes the status of the pool with o's UID, at o's
	// version. Its errors are those of an exchange.
	WritePoolStatus(ctx context.Context, o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error)
	// Pool returns the pool of that name as it is now, or exchange.ErrGone.
	Pool(ctx context.Context, name string) (*v1alpha1.AddressPool, error)
	// WritePoolFinalizers writes those of the pool with o's UID, at o's version.
	WritePoolFinalizers(ctx context.Context, o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error)
	// HasBlocks asks the source whether any block is of that pool.
	HasBlocks(ctx context.Context, pool string) (bool, error)
}

// sight is what the registrar sees of the cluster.
type sight interface {
	// pools are all pools. They are not older than since.
	pools() (all []*v1alpha1.AddressPool, since time.Time)
	agents() int // that watch pools
	remains([]*pools.Pool) []string
	census(*pools.Pool) census
	addresses() []netip.Addr // of all pods, sorted
	waiting(now time.Time) map[string]wait
}

// registrar accepts pools and reports on them. One goroutine uses it.
type registrar struct {
	sight    sight
	registry registry
	log      *slog.Logger
	now      func() time.Time
	every    time.Duration // between two reports of a pool's numbers
	linger   time.Duration // of a deleted pool

	turns           map[types.UID]*turn
	numbers, states budget
	opens           time.Time // when a budget for which a pool waits lasts again
	// written are pools as a write or a read of the source showed them last, until
	// the watch shows them, too.
	written  map[types.UID]written
	deplored time.Time // when it was said last that an acceptance is not kept
	// doubtful is an acceptance of which nobody knows whether it was written, and
	// doubted when nobody answered it last.
	doubtful *v1alpha1.AddressPool
	doubted  time.Time
}

// written is a pool as it was at a time.
type written struct {
	pool *v1alpha1.AddressPool
	at   time.Time
}

func newRegistrar(s sight, r registry, every time.Duration, log *slog.Logger) *registrar {
	return &registrar{
		sight: s, registry: r, log: log, now: time.Now, every: every, linger: linger,
		turns: map[types.UID]*turn{}, written: map[types.UID]written{},
		numbers: budgetOf(numbersShare, numbersSaved), states: budgetOf(statesShare, statesSaved),
	}
}

// pass looks at all pools and writes what has to be written. The error says what
// could not be; the rest was done all the same.
func (r *registrar) pass(ctx context.Context) error {
	if err := r.settle(ctx); err != nil {
		return err
	}
	objects := r.objects()
	verdicts := judge(objects, r.sight.remains)
	slices.SortFunc(objects, precedes)
	// There may be a million, to be sorted once.
	addresses := sync.OnceValue(r.sight.addresses)
	err := r.rule(ctx, objects, verdicts, addresses)
	if r.doubtful != nil {
		return err
	}
	return errors.Join(err, r.report(ctx, objects, verdicts, addresses), r.guard(ctx, objects, verdicts, addresses))
}

// settle finds out what became of a doubtful acceptance, by making the very
// same write again: at most one of the two can have an effect. Where that is refused
// for good the pool is read once none can come to count any more.
func (r *registrar) settle(ctx context.Context) error {
	if r.doubtful == nil {
		return nil
	}
	o := r.doubtful
	err := r.write(ctx, o)
	switch {
	case err == nil, errors.Is(err, exchange.ErrGone):
	case errors.Is(err, exchange.ErrUnknown):
		r.doubted = r.now()
		return err
	case errors.Is(err, exchange.ErrConflict), r.now().Sub(r.doubted) > exchange.Settle:
		// It was written, or it never will be.
		if e := r.read(ctx, o); e != nil && !errors.Is(e, exchange.ErrGone) {
			return e
		}
	default:
		return err
	}
	r.doubtful = nil
	return nil
}

// objects are all pools as they are known best.
func (r *registrar) objects() []*v1alpha1.AddressPool {
	objects, since := r.sight.pools()
	there := make(map[types.UID]bool, len(objects))
	for i, o := range objects {
		there[o.UID] = true
		// A list that began after the write shows it, whatever the versions say:
		// they go back when etcd is restored.
		if w := r.written[o.UID]; w.pool != nil && !w.at.Before(since) && later(w.pool.ResourceVersion, o.ResourceVersion) {
			objects[i] = w.pool
		} else {
			delete(r.written, o.UID)
		}
	}
	maps.DeleteFunc(r.turns, func(id types.UID, _ *turn) bool { return !there[id] })
	maps.DeleteFunc(r.written, func(id types.UID, _ written) bool { return !there[id] })
	return objects
}

// rule writes the verdicts that are new, one at a time; refusals first. One that was not
// written harms none of the others, which took it for written. But nothing is accepted
// before a refusal that came too late is understood: a leader before this one may have
// accepted that pool meanwhile. And nothing is decided anew before it is known what became
// of an acceptance.
func (r *registrar) rule(ctx context.Context, objects []*v1alpha1.AddressPool, verdicts map[string]verdict, addresses func() []netip.Addr) error {
	var errs []error
	for _, accepting := range []bool{false, true} {
		for _, o := range objects {
			v := verdicts[string(o.UID)]
			if v.accepted != accepting || ruled(o, v) {
				continue
			}
			err := r.tell(ctx, o, v, addresses)
			errs = append(errs, err)
			if r.doubtful != nil || !accepting && errors.Is(err, exchange.ErrConflict) {
				return errors.Join(errs...)
			}
		}
	}
	return errors.Join(errs...)
}

// tell writes a verdict.
func (r *registrar) tell(ctx context.Context, o *v1alpha1.AddressPool, v verdict, addresses func() []netip.Addr) error {
	if v.accepted {
		is, err := r.protect(ctx, o)
		if err != nil {
			return err
		}
		o = is
	}
	out := o.DeepCopy()
	out.Status = report(o, r.find(v, addresses), r.now())
	err := r.write(ctx, out)
	switch {
	case errors.Is(err, exchange.ErrUnknown) && v.accepted:
		r.doubtful, r.doubted = out, r.now()
	case err != nil:
	case v.accepted && v.standing == changed:
		r.log.Info("changed pool accepted", "pool", o.Name, "generation", o.Generation)
	case v.accepted:
		r.log.Info("pool accepted", "pool", o.Name, "blockSize", v.pool.BlockSize())
	default:
		r.log.Warn("pool refused", "pool", o.Name, "reason", v.reason, "message", v.message)
	}
	return err
}

// ruled says whether the verdict stands in the pool's status.
func ruled(o *v1alpha1.AddressPool, v verdict) bool {
	return o.Status.ObservedGeneration == o.Generation && v.accepted == (standingOf(o) == inForce)
}

// find is what is to be said of a pool; addresses are those that pods have, sorted.
func (r *registrar) find(v verdict, addresses func() []netip.Addr) findings {
	f := findings{verdict: v}
	if v.pool == nil {
		return f
	}
	f.census = r.sight.census(v.pool)
	if v.accepted || v.standing != applying { // else the addresses are others'
		f.use = countUse(v.pool, addresses())
	}
	return f
}

// write writes the status of a pool. After an error it knows the pool as it is
// now, if the pool can be read.
func (r *registrar) write(ctx context.Context, o *v1alpha1.AddressPool) error {
	is, err := r.registry.WritePoolStatus(ctx, o)
	if err == nil {
		r.keep(is)
		r.deplore(o, is)
		r.turnOf(o.UID).numbers = r.now().Add(r.every)
		return nil
	}
	if e := r.read(ctx, o); e != nil && !errors.Is(e, exchange.ErrGone) {
		r.log.Debug("a pool could not be read", "pool", o.Name, "err", e)
	}
	return err
}

// deploreEvery is how often it is said that what was accepted is not kept.
const deploreEvery = time.Minute

// deplore says so when what was accepted, which o has, is not in the answer to its
// write. A field that the definition in the API server does not have is dropped
// there without an error; the next change that is refused would then leave nodes
// without the pool.
func (r *registrar) deplore(o, is *v1alpha1.AddressPool) {
	if slices.Equal(o.Status.Addresses, is.Status.Addresses) || r.now().Before(r.deplored.Add(deploreEvery)) {
		return
	}
	r.deplored = r.now()
	r.log.Error("the API server does not keep what was accepted of pools (status.addresses): its definition of AddressPools is older than this controller; apply this version's (kubectl apply -f deploy/crds)",
		"pool", o.Name, "written", o.Status.Addresses, "kept", is.Status.Addresses)
}

// read looks at a pool as it is now. It is exchange.ErrGone if there is none, or
// another one of its name.
func (r *registrar) read(ctx context.Context, o *v1alpha1.AddressPool) error {
	now, err := r.registry.Pool(ctx, o.Name)
	if err == nil && now.UID != o.UID {
		err = fmt.Errorf("pool %s: %w", o.Name, exchange.ErrGone)
	}
	if err == nil {
		r.keep(now)
	}
	return err
}

func (r *registrar) keep(o *v1alpha1.AddressPool) { r.written[o.UID] = written{o, r.now()} }

// wake is when pass has to be called again though nothing has changed: when it
// failed, when a pool's turn comes, and now and then, for what takes time.
func (r *registrar) wake(failed bool) time.Time {
	const retry = time.Second
	now := r.now()
	at := now.Add(r.every)
	if failed {
		at = now.Add(min(retry, r.every))
	}
	for _, due := range r.dues() {
		if due.After(now) && due.Before(at) {
			at = due
		}
	}
	return at
}

// dues are the times at which something may be written that could not before.
func (r *registrar) dues() []time.Time {
	all := []time.Time{r.opens}
	for _, t := range r.turns {
		all = append(all, t.numbers, t.state)
	}
	return all
}
