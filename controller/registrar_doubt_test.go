package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/exchange"
)

// scripted is a registry that answers the writes of one pool otherwise.
type scripted struct {
	*kept
	write func(o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error)
}

func (s scripted) WritePoolStatus(_ context.Context, o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error) {
	return s.write(o)
}

// An acceptance that nobody answered, and that is refused each time that it is made
// again, keeps no other pool waiting once it can't come to count any more.
func TestAnAcceptanceInDoubtHoldsUpOthersForAWhile(t *testing.T) {
	k := newKept(t)
	k.put(aPool("aaa", 1, "10.0.0.0/24"))
	k.put(aPool("bbb", 2, "10.9.0.0/24"))
	k.show()
	r := k.registrar()
	answers := 0
	r.registry = scripted{k, func(o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error) {
		if o.Name != "aaa" {
			return k.write(o)
		}
		if answers++; answers == 1 {
			return nil, exchange.ErrUnknown
		}
		return nil, errors.New("denied the request")
	}}
	began := k.now
	for k.now.Sub(began) < exchange.Settle {
		_ = r.pass(t.Context())
		k.now = k.now.Add(time.Second)
	}
	if is := standingOf(k.pools["bbb"]); is == inForce {
		t.Fatalf("pool bbb is %v while it is not known what became of pool aaa", is)
	}
	for range 3 {
		k.now = k.now.Add(time.Second)
		_ = r.pass(t.Context())
	}
	if is := standingOf(k.pools["bbb"]); is != inForce {
		t.Errorf("pool bbb is %v", is)
	}
}

// A leader's acceptance comes to count while the next leader writes. Of the two pools,
// which have addresses in common by now, one is accepted.
func TestALateAcceptanceMeetsTheNextLeader(t *testing.T) {
	k := newKept(t)
	k.put(aPool("grown", 1, "10.0.1.0/24"))
	k.show()
	k.pass(k.registrar())
	k.put(aPool("new", 2, "10.0.0.0/24"))
	k.show()
	var late *v1alpha1.AddressPool
	before := k.registrar()
	before.registry = scripted{k, func(o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error) {
		late = o.DeepCopy()
		return nil, exchange.ErrUnknown
	}}
	_ = before.pass(t.Context())
	grown := k.pools["grown"].DeepCopy()
	grown.Spec.Addresses = append(grown.Spec.Addresses, "10.0.0.0/24")
	grown.Generation++
	for name, arrives := range map[string]int{"before the first write": 0, "after the first write": 1} {
		t.Run(name, func(t *testing.T) {
			k := *k
			k.pools = map[string]*v1alpha1.AddressPool{"grown": grown, "new": k.pools["new"]}
			k.put(grown)
			k.show()
			next, writes := k.registrar(), 0
			next.registry = scripted{&k, func(o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error) {
				if writes == arrives {
					_, _ = k.write(late)
				}
				is, err := k.write(o)
				if writes++; writes == arrives {
					_, _ = k.write(late)
				}
				return is, err
			}}
			for range 5 {
				_ = next.pass(t.Context())
				k.show()
			}
			has := 0
			for _, name := range []string{"grown", "new"} {
				for _, r := range k.pools[name].Status.Addresses {
					if r == "10.0.0.0/24" {
						has++
					}
				}
			}
			if has != 1 {
				t.Errorf("10.0.0.0/24 was accepted %d times: of grown %v, of new %v", has, k.pools["grown"].Status.Addresses, k.pools["new"].Status.Addresses)
			}
		})
	}
}
