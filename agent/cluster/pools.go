package cluster

import (
	"errors"
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

// readPool is what a pool says, read once: its status changes much more often.
type readPool struct {
	key                         poolKey
	selectors                   kube.Selectors
	pool                        *pools.Pool // as it was accepted; nil if it was not
	errSelectors, errDefinition error
}

// poolKey is another one when the pool is to be read again.
type poolKey struct {
	uid        types.UID
	generation int64
	accepted   bool
	acceptance kube.Acceptance
}

func keyOf(o *v1alpha1.AddressPool) poolKey {
	k := poolKey{uid: o.UID, generation: o.Generation}
	k.acceptance, k.accepted = kube.Accepted(o)
	return k
}

func (k poolKey) equal(other poolKey) bool {
	return k.uid == other.uid && k.generation == other.generation && k.accepted == other.accepted && k.acceptance.Equal(other.acceptance)
}

func readOf(o *v1alpha1.AddressPool) readPool {
	r := readPool{key: keyOf(o)}
	if r.selectors, r.errSelectors = kube.SelectorsOf(o); r.errSelectors != nil {
		// Nobody knows whom it serves: it is to serve nobody.
		r.selectors.Namespaces = labels.Nothing()
	}
	if !r.key.accepted {
		return r
	}
	d, err := kube.AcceptedDefinition(o, r.key.acceptance)
	if err == nil {
		r.pool, err = pools.New(d)
	}
	r.errDefinition = err
	return r
}

// review works out the pools anew. One that can't be used is left out, and
// logged once. The lock is held, or nobody else is there.
func (c *Cluster) review() {
	c.state.Seen = c.listed.pools && c.listed.node
	c.state.Machine, c.state.Addresses, c.state.Cordoned = c.node.UID, c.node.Addresses, c.node.Cordoned
	c.state.Labels, c.state.Annotations = c.node.Labels, c.node.Annotations
	c.state.Pools = nil
	offers := make([]choice.Pool, 0, len(c.objects))
	before := c.read
	c.read = make(map[string]readPool, len(c.objects))
	problems := map[string]string{}
	for i := range c.objects {
		o := &c.objects[i]
		r, known := before[o.Name]
		if !known || !r.key.equal(keyOf(o)) {
			r = readOf(o)
		}
		c.read[o.Name] = r
		offer := offer(o, r)
		if err := errors.Join(r.errSelectors, r.errDefinition); err == nil {
			c.use(o, r, offer)
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

// offer is what decides which pods get the pool. What was accepted of it serves
// them, whatever has become of its spec since.
func offer(o *v1alpha1.AddressPool, r readPool) choice.Pool {
	p := choice.Pool{Name: o.Name, NamespaceSelector: r.selectors.Namespaces, PodSelector: r.selectors.Pods, NodeSelector: r.selectors.Nodes}
	switch said := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionAccepted); {
	case o.DeletionTimestamp != nil:
		p.State, p.Why = choice.Draining, "it was deleted"
	case r.key.accepted && o.Spec.State == v1alpha1.PoolDraining:
		p.State = choice.Draining
	case r.key.accepted:
		p.State = choice.Active
	case said != nil && said.Status == metav1.ConditionFalse && said.ObservedGeneration == o.Generation:
		p.State, p.Why = choice.Refused, said.Message
	}
	return p
}

// use adds what was accepted of the pool to what this node may take blocks of.
func (c *Cluster) use(o *v1alpha1.AddressPool, r readPool, offer choice.Pool) {
	if r.pool == nil {
		return
	}
	elsewhere := offer.NodeSelector != nil && c.listed.node && !offer.NodeSelector.Matches(labels.Set(c.node.Labels))
	c.state.Pools = append(c.state.Pools, agent.Pool{
		Pool: r.pool, IdleAfter: idleAfter(o), Draining: offer.State == choice.Draining || elsewhere,
	})
}

func idleAfter(o *v1alpha1.AddressPool) time.Duration {
	if o.Spec.IdleAfter == nil {
		return defaultIdleAfter
	}
	return o.Spec.IdleAfter.Duration
}
