package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/agent/choice"
	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/kube"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// defaultIdleAfter is what the schema fills in.
const defaultIdleAfter = 5 * time.Minute

// inForce is a pool as it was when it was accepted.
type inForce struct {
	uid  types.UID
	pool agent.Pool
}

// readPool is what a pool says, read once: its status changes much more often.
type readPool struct {
	key                         poolKey
	namespaces, pods, nodes     labels.Selector
	pool                        *pools.Pool // nil if it is not in force
	errSelectors, errDefinition error
}

// poolKey is another one when the pool is to be read again.
type poolKey struct {
	uid        types.UID
	generation int64
	inForce    bool
	chosen     string // by the controller
}

func keyOf(o *v1alpha1.AddressPool) poolKey {
	k := poolKey{uid: o.UID, generation: o.Generation, inForce: kube.InForce(o)}
	if k.inForce {
		k.chosen = fmt.Sprint(*o.Status.BlockSize, o.Status.Gateways)
	}
	return k
}

func readOf(o *v1alpha1.AddressPool) readPool {
	r := readPool{key: keyOf(o)}
	var errs [3]error
	r.namespaces, errs[0] = selector("namespaceSelector", o.Spec.NamespaceSelector)
	r.pods, errs[1] = selector("podSelector", o.Spec.PodSelector)
	r.nodes, errs[2] = selector("nodeSelector", o.Spec.NodeSelector)
	if r.errSelectors = errors.Join(errs[:]...); r.errSelectors != nil {
		// Nobody knows whom it serves: it is to serve nobody.
		r.namespaces = labels.Nothing()
	}
	if !r.key.inForce {
		return r
	}
	d, err := kube.Definition(o)
	if err == nil {
		r.pool, err = pools.New(d)
	}
	r.errDefinition = err
	return r
}

func selector(field string, s *metav1.LabelSelector) (labels.Selector, error) {
	if s == nil {
		return nil, nil
	}
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, fmt.Errorf("spec.%s: %w", field, err)
	}
	return out, nil
}

// review works out the pools anew. One that can't be used is left out, and
// logged once. The lock is held, or nobody else is there.
func (c *Cluster) review() {
	c.state.Seen = c.listed.pools && c.listed.node
	c.state.Machine, c.state.Addresses, c.state.Cordoned = c.node.UID, c.node.Addresses, c.node.Cordoned
	c.state.Pools = nil
	offers := make([]choice.Pool, 0, len(c.objects))
	readBefore, before := c.read, c.inForce
	c.read, c.inForce = make(map[string]readPool, len(c.objects)), make(map[string]inForce, len(c.objects))
	problems := map[string]string{}
	for i := range c.objects {
		o := &c.objects[i]
		r, known := readBefore[o.Name]
		if !known || r.key != keyOf(o) {
			r = readOf(o)
		}
		c.read[o.Name] = r
		offer := offer(o, r)
		if err := errors.Join(r.errSelectors, r.errDefinition); err == nil {
			c.use(o, r, &offer, before[o.Name])
		} else {
			problems[o.Name] = err.Error()
			if c.problems[o.Name] != err.Error() {
				c.Log.Error("a pool can't be used", "pool", o.Name, "err", err)
			}
			offer.State, offer.Why = choice.Refused, err.Error()
		}
		offers = append(offers, offer)
	}
	c.offers, c.problems = offers, problems
}

// offer is what decides which pods get the pool.
func offer(o *v1alpha1.AddressPool, r readPool) choice.Pool {
	p := choice.Pool{Name: o.Name, NamespaceSelector: r.namespaces, PodSelector: r.pods, NodeSelector: r.nodes}
	switch said := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionAccepted); {
	case r.key.inForce && o.Spec.State == v1alpha1.PoolDraining:
		p.State = choice.Draining
	case r.key.inForce:
		p.State = choice.Active
	case said != nil && said.Status == metav1.ConditionFalse && said.ObservedGeneration == o.Generation:
		p.State, p.Why = choice.Refused, said.Message
	}
	return p
}

// use adds the pool to those that this node may take blocks of. One that was
// changed, and that the controller has not looked at again, stays as it was.
// before is what it was, if it was in force.
func (c *Cluster) use(o *v1alpha1.AddressPool, r readPool, offer *choice.Pool, before inForce) {
	used := before
	switch {
	case r.pool != nil:
		used = inForce{o.UID, agent.Pool{Pool: r.pool, IdleAfter: idleAfter(o)}}
	case offer.State == choice.Pending && before.uid == o.UID && before.pool.Pool != nil:
		offer.State = choice.Active
		if before.pool.Draining {
			offer.State = choice.Draining
		}
	default:
		return
	}
	elsewhere := offer.NodeSelector != nil && c.listed.node && !offer.NodeSelector.Matches(labels.Set(c.node.Labels))
	used.pool.Draining = offer.State == choice.Draining || elsewhere
	c.inForce[o.Name] = used
	c.state.Pools = append(c.state.Pools, used.pool)
}

func idleAfter(o *v1alpha1.AddressPool) time.Duration {
	if o.Spec.IdleAfter == nil {
		return defaultIdleAfter
	}
	return o.Spec.IdleAfter.Duration
}
