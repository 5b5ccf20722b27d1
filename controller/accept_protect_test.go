package controller

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/exchange"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WritePoolFinalizers is the API server's: a deleted pool goes with its last one.
func (k *kept) WritePoolFinalizers(_ context.Context, o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error) {
	if k.r != nil && k.r.IntN(6) == 0 {
		return nil, errors.New("refused")
	}
	is := k.pools[o.Name]
	switch {
	case is == nil:
		return nil, exchange.ErrGone
	case is.UID != o.UID || is.ResourceVersion != o.ResourceVersion:
		return nil, exchange.ErrConflict
	}
	is = is.DeepCopy()
	is.Finalizers = slices.Clone(o.Finalizers)
	k.put(is)
	is = k.pools[o.Name].DeepCopy()
	if is.DeletionTimestamp != nil && len(is.Finalizers) == 0 {
		delete(k.pools, o.Name)
	}
	return is, nil
}

func (k *kept) HasBlocks(_ context.Context, pool string) (bool, error) {
	return len(k.held.of(pool)) > 0, nil
}

// remove deletes a pool as a person does.
func (k *kept) remove(name string) {
	o := k.pools[name].DeepCopy()
	if len(o.Finalizers) == 0 {
		delete(k.pools, name)
		return
	}
	if o.DeletionTimestamp == nil {
		now := metav1.NewTime(k.now)
		o.DeletionTimestamp = &now
		o.Generation++
		k.put(o)
	}
}

// next shows what there is some time later, and looks at it.
func (k *kept) next(r *registrar, later time.Duration) {
	k.t.Helper()
	k.now = k.now.Add(later)
	k.show()
	k.pass(r)
}

// A deleted pool stays until no pod has its addresses, no node its blocks, and
// agents must have heard of it. Nobody gets its addresses before.
func TestADeletedPoolStaysWhileItIsInUse(t *testing.T) {
	k := newKept(t)
	k.put(aPool("web", 1, "10.0.0.0/24"))
	r := k.registrar()
	k.next(r, 0)
	if o := k.pools["web"]; !protected(o) || standingOf(o) != inForce {
		t.Fatalf("the accepted pool has finalizers %v", o.Finalizers)
	}
	block := lies("web", "n1", "10.0.0.0/28", "")
	k.held.put(block)
	k.remove("web")
	k.put(aPool("heir", 2, "10.0.0.0/25"))
	k.next(r, time.Second)
	if s := k.pools["web"].Status; s.State != v1alpha1.PoolIsTerminating || s.Drain == nil || s.Drain.Blocks != 1 {
		t.Errorf("the deleted pool has the status %+v", s)
	}
	k.next(r, time.Hour)
	if k.pools["web"] == nil || standingOf(k.pools["heir"]) != applying {
		t.Fatalf("while nodes hold blocks, the pool is gone: %v, its heir %s", k.pools["web"] == nil, k.pools["heir"].Status.State)
	}
	k.held.drop(block)
	k.next(r, time.Second)
	k.next(r, time.Second)
	if k.pools["web"] != nil || standingOf(k.pools["heir"]) != inForce {
		t.Errorf("without blocks, the pool is there: %v, its heir %s", k.pools["web"] != nil, k.pools["heir"].Status.State)
	}
}

func TestADeletedPoolStaysUntilAgentsMustHaveHeardOfIt(t *testing.T) {
	k := newKept(t)
	k.put(aPool("web", 1, "10.0.0.0/24"))
	r := k.registrar()
	k.next(r, 0)
	k.remove("web")
	k.next(r, 0)
	k.next(r, linger-time.Second)
	if k.pools["web"] == nil {
		t.Error("the pool went at once")
	}
	k.next(r, time.Second)
	if k.pools["web"] != nil {
		t.Error("the pool stays")
	}
	// One that has drained needs as much: it may have been Active in between.
	old := aPool("old", 2, "10.0.1.0/24")
	old.Spec.State = v1alpha1.PoolDraining
	k.put(old)
	k.next(r, 0)
	k.next(r, time.Hour)
	active := k.pools["old"].DeepCopy()
	active.Spec.State = v1alpha1.PoolActive
	active.Generation++
	k.put(active)
	k.remove("old") // no controller has looked meanwhile
	k.next(r, linger-time.Second)
	if k.pools["old"] == nil {
		t.Error("a pool that served pods until it was deleted went at once")
	}
	k.next(r, time.Second)
	if k.pools["old"] != nil {
		t.Error("a drained pool stays")
	}
}

func TestADeletedPoolThatWasNeverAcceptedGoes(t *testing.T) {
	k := newKept(t)
	web := aPool("web", 1, "10.0.0.0/24")
	web.Finalizers = []string{v1alpha1.PoolFinalizer}
	k.put(web)
	k.remove("web")
	r := k.registrar()
	k.next(r, 0)
	if k.pools["web"] != nil {
		t.Errorf("the pool stays: %+v", k.pools["web"].Status)
	}
}

// A controller from before set no finalizer, and did not say what it accepted.
func TestPoolsThatWereAcceptedBeforeAreProtected(t *testing.T) {
	k := newKept(t)
	old := accepted(aPool("web", 1, "10.0.0.0/24"))
	old.Status.Addresses, old.Status.Exclude = nil, nil
	k.put(old)
	r := k.registrar()
	k.next(r, 0)
	k.next(r, time.Second)
	if o := k.pools["web"]; !protected(o) || !slices.Equal(o.Status.Addresses, []string{"10.0.0.0/24"}) {
		t.Errorf("finalizers %v, accepted addresses %v", o.Finalizers, o.Status.Addresses)
	}
}
