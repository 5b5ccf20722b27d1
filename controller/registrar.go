package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
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
}

// sight is what the registrar sees of the cluster.
type sight interface {
	pools() []*v1alpha1.AddressPool
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

	due map[types.UID]time.Time // of a pool's next report
	// written are pools as a write or a read of the source showed them last, until
	// the watch shows them, too.
	written map[types.UID]*v1alpha1.AddressPool
	// doubtful is an acceptance of which nobody knows whether it was written.
	doubtful *v1alpha1.AddressPool
}

func newRegistrar(s sight, r registry, every time.Duration, log *slog.Logger) *registrar {
	return &registrar{
		sight: s, registry: r, log: log, now: time.Now, every: every,
		due: map[types.UID]time.Time{}, written: map[types.UID]*v1alpha1.AddressPool{},
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
	err := r.rule(ctx, objects, verdicts)
	if r.doubtful != nil {
		return err
	}
	return errors.Join(err, r.report(ctx, objects, verdicts))
}

// settle finds out what became of a doubtful acceptance, by making the very
// same write again: at most one of the two can have an effect.
func (r *registrar) settle(ctx context.Context) error {
	if r.doubtful == nil {
		return nil
	}
	o := r.doubtful
	err := r.write(ctx, o)
	if errors.Is(err, exchange.ErrConflict) {
		// It was written, or something else was and it never will be.
		err = r.read(ctx, o)
	}
	if err != nil && !errors.Is(err, exchange.ErrGone) {
		return err
	}
	r.doubtful = nil
	return nil
}

// objects are all pools as they are known best.
func (r *registrar) objects() []*v1alpha1.AddressPool {
	objects := r.sight.pools()
	there := make(map[types.UID]bool, len(objects))
	for i, o := range objects {
		there[o.UID] = true
		if w := r.written[o.UID]; w != nil && newer(w, o) {
			objects[i] = w
		} else {
			delete(r.written, o.UID)
		}
	}
	for id := range r.due {
		if !there[id] {
			delete(r.due, id)
		}
	}
	for id := range r.written {
		if !there[id] {
			delete(r.written, id)
		}
	}
	return objects
}

// newer says whether a is a later version of the same object.
func newer(a, b *v1alpha1.AddressPool) bool {
	// Versions are numbers that grow (Kubernetes API conventions, since 1.35).
	if len(a.ResourceVersion) != len(b.ResourceVersion) {
		return len(a.ResourceVersion) > len(b.ResourceVersion)
	}
	return a.ResourceVersion > b.ResourceVersion
}

// rule writes the verdicts that are new, one at a time. One that was not written
// harms none of the others, which took it for written; but nothing is decided
// anew before it is known.
func (r *registrar) rule(ctx context.Context, objects []*v1alpha1.AddressPool, verdicts map[string]verdict) error {
	var errs []error
	for _, o := range objects {
		v := verdicts[string(o.UID)]
		if ruled(o, v) {
			continue
		}
		out := o.DeepCopy()
		out.Status = report(o, r.find(o, v, nil), r.now())
		err := r.write(ctx, out)
		if errors.Is(err, exchange.ErrUnknown) && v.accepted {
			r.doubtful = out
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, err)
		switch {
		case err != nil:
		case v.accepted && v.standing == changed:
			r.log.Info("changed pool accepted", "pool", o.Name, "generation", o.Generation)
		case v.accepted:
			r.log.Info("pool accepted", "pool", o.Name, "blockSize", v.pool.BlockSize())
		default:
			r.log.Warn("pool refused", "pool", o.Name, "reason", v.reason, "message", v.message)
		}
	}
	return errors.Join(errs...)
}

// ruled says whether the verdict stands in the pool's status.
func ruled(o *v1alpha1.AddressPool, v verdict) bool {
	return o.Status.ObservedGeneration == o.Generation && v.accepted == (standingOf(o) == inForce)
}

// report writes the numbers that have changed, of the pools whose turn it is.
func (r *registrar) report(ctx context.Context, objects []*v1alpha1.AddressPool, verdicts map[string]verdict) error {
	now := r.now()
	var errs []error
	var uses map[*pools.Pool]use
	waits := r.sight.waiting(now)
	for _, o := range objects {
		if now.Before(r.due[o.UID]) {
			continue
		}
		if uses == nil {
			uses = r.uses(verdicts)
		}
		v := verdicts[string(o.UID)]
		if w := r.written[o.UID]; w != nil {
			o = w
		}
		if !ruled(o, v) {
			continue // rule could not, and tries again
		}
		f := r.find(o, v, uses)
		f.waits, f.waiting = waits[o.Name].time, waits[o.Name].node
		out := o.DeepCopy()
		if out.Status = report(o, f, now); reflect.DeepEqual(out.Status, o.Status) {
			continue
		}
		if err := r.write(ctx, out); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// find is what is to be said of a pool.
func (r *registrar) find(o *v1alpha1.AddressPool, v verdict, uses map[*pools.Pool]use) findings {
	f := findings{verdict: v}
	if v.pool == nil {
		return f
	}
	f.census = r.sight.census(v.pool)
	switch {
	case !v.accepted && v.standing == applying:
		// The addresses are others'.
	case uses == nil || !v.accepted:
		f.use = countUse([]*pools.Pool{v.pool}, r.sight.addresses())[v.pool]
	default:
		f.use = uses[v.pool]
	}
	return f
}

// uses counts for all accepted pools at once.
func (r *registrar) uses(verdicts map[string]verdict) map[*pools.Pool]use {
	var accepted []*pools.Pool
	for _, v := range verdicts {
		if v.accepted {
			accepted = append(accepted, v.pool)
		}
	}
	return countUse(accepted, r.sight.addresses())
}

// write writes the status of a pool. After an error it knows the pool as it is
// now, if the pool can be read.
func (r *registrar) write(ctx context.Context, o *v1alpha1.AddressPool) error {
	written, err := r.registry.WritePoolStatus(ctx, o)
	if err == nil {
		r.written[o.UID] = written
		r.due[o.UID] = r.now().Add(r.every)
		return nil
	}
	if e := r.read(ctx, o); e != nil && !errors.Is(e, exchange.ErrGone) {
		r.log.Debug("a pool could not be read", "pool", o.Name, "err", e)
	}
	return err
}

// read looks at a pool as it is now. It is exchange.ErrGone if there is none, or
// another one of its name.
func (r *registrar) read(ctx context.Context, o *v1alpha1.AddressPool) error {
	now, err := r.registry.Pool(ctx, o.Name)
	if err == nil && now.UID != o.UID {
		err = fmt.Errorf("pool %s: %w", o.Name, exchange.ErrGone)
	}
	if err == nil {
		r.written[o.UID] = now
	}
	return err
}

// wake is when pass has to be called again though nothing has changed: when it
// failed, when a pool's turn comes, and now and then, for what takes time.
func (r *registrar) wake(failed bool) time.Time {
	const retry = time.Second
	now := r.now()
	at := now.Add(r.every)
	if failed {
		at = now.Add(min(retry, r.every))
	}
	for _, due := range r.due {
		if due.After(now) && due.Before(at) {
			at = due
		}
	}
	return at
}
