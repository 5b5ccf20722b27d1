package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/exchange"
)

// linger is how long a pool that serves no new pods stays after that was seen:
// agents have to learn of it, of which one may have lost its watch and not know
// yet. One that learns of it later claims blocks of a pool that is gone.
const linger = 30 * time.Second

// protected says whether a pool that is deleted stays until it is let go.
func protected(o *v1alpha1.AddressPool) bool {
	return slices.Contains(o.Finalizers, v1alpha1.PoolFinalizer)
}

// protect makes o stay when it is deleted, and returns it as it is then. That
// comes before its acceptance, so nodes hold no block of a pool that may go.
func (r *registrar) protect(ctx context.Context, o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error) {
	if protected(o) || o.DeletionTimestamp != nil {
		return o, nil
	}
	out := o.DeepCopy()
	out.Finalizers = append(out.Finalizers, v1alpha1.PoolFinalizer)
	return r.finalize(ctx, out)
}

// finalize writes the finalizers of a pool.
func (r *registrar) finalize(ctx context.Context, o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error) {
	is, err := r.registry.WritePoolFinalizers(ctx, o)
	if err == nil {
		r.keep(is)
		return is, nil
	}
	if e := r.read(ctx, o); e != nil && !errors.Is(e, exchange.ErrGone) {
		r.log.Debug("a pool could not be read", "pool", o.Name, "err", e)
	}
	return nil, err
}

// guard protects the pools that were accepted by a controller which did not, and
// lets those go that were deleted and are not in use any more.
func (r *registrar) guard(ctx context.Context, objects []*v1alpha1.AddressPool, verdicts map[string]verdict, addresses func() []netip.Addr) error {
	var errs []error
	for _, o := range objects {
		v := verdicts[string(o.UID)]
		if w := r.written[o.UID]; w.pool != nil {
			o = w.pool
		}
		switch {
		case o.DeletionTimestamp != nil && protected(o):
			errs = append(errs, r.letGo(ctx, o, r.find(v, addresses)))
		case o.DeletionTimestamp == nil && !protected(o) && v.accepted && ruled(o, v):
			_, err := r.protect(ctx, o)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// letGo lets a deleted pool go if it was never accepted, or if nothing of it is
// in use and agents have had the time to learn that it serves nobody.
func (r *registrar) letGo(ctx context.Context, o *v1alpha1.AddressPool, f findings) error {
	if f.standing != applying {
		silent, known := silentSince(o)
		if f.leases() > 0 || f.blocks+f.vacant > 0 || !known || r.now().Before(silent.Add(r.linger)) {
			return nil
		}
		// What is followed may be a little late.
		if held, err := r.registry.HasBlocks(ctx, o.Name); err != nil || held {
			return err
		}
	}
	out := o.DeepCopy()
	out.Finalizers = slices.DeleteFunc(out.Finalizers, func(s string) bool { return s == v1alpha1.PoolFinalizer })
	if _, err := r.finalize(ctx, out); err != nil && !errors.Is(err, exchange.ErrGone) {
		return fmt.Errorf("let the deleted pool %s go: %w", o.Name, err)
	}
	r.log.Info("deleted pool let go: nothing of it is in use", "pool", o.Name)
	return nil
}

// silentSince is since when a deleted pool has certainly served no new pods. One
// that was seen to drain may have been set Active, and then deleted, while nobody
// looked: the drain that stands in its status is an earlier one.
func silentSince(o *v1alpha1.AddressPool) (since time.Time, known bool) {
	if o.Status.Drain == nil || o.DeletionTimestamp == nil {
		return time.Time{}, false
	}
	since = o.Status.Drain.Since.Time
	if deleted := o.DeletionTimestamp.Time; deleted.After(since) {
		since = deleted
	}
	return since, true
}

// leases is how many addresses of the pool pods have.
func (f findings) leases() (n int64) {
	for _, of := range f.use {
		n += many(of)
	}
	return n
}
