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

// review works out the pools anew. One that can't be used is left out, and
// logged once. The lock is held, or nobody else is there.
func (c *Cluster) review() {
	c.state.Seen = c.listed.pools && c.listed.node
	c.state.Machine, c.state.Cordoned = c.node.UID, c.node.Cordoned
	c.state.Pools = nil
	offers := make([]choice.Pool, 0, len(c.objects))
	before := c.inForce
	c.inForce = make(map[string]inForce, len(c.objects))
	problems := map[string]string{}
	for i := range c.objects {
		o := &c.objects[i]
		offer, err := c.offer(o)
		if err == nil {
			err = c.use(o, &offer, before[o.Name])
		}
		if err != nil {
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
func (c *Cluster) offer(o *v1alpha1.AddressPool) (choice.Pool, error) {
	p := choice.Pool{Name: o.Name}
	var errs [3]error
	p.NamespaceSelector, errs[0] = selector("namespaceSelector", o.Spec.NamespaceSelector)
	p.PodSelector, errs[1] = selector("podSelector", o.Spec.PodSelector)
	p.NodeSelector, errs[2] = selector("nodeSelector", o.Spec.NodeSelector)
	if err := errors.Join(errs[:]...); err != nil {
		// Nobody knows whom it serves: it is to serve nobody.
		p.NamespaceSelector = labels.Nothing()
		return p, err
	}
	switch said := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionAccepted); {
	case kube.InForce(o) && o.Spec.State == v1alpha1.PoolDraining:
		p.State = choice.Draining
	case kube.InForce(o):
		p.State = choice.Active
	case said != nil && said.Status == metav1.ConditionFalse && said.ObservedGeneration == o.Generation:
		p.State, p.Why = choice.Refused, said.Message
	}
	return p, nil
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

// use adds the pool to those that this node may take blocks of. One that was
// changed, and that the controller has not looked at again, stays as it was.
// before is what it was, if it was in force.
func (c *Cluster) use(o *v1alpha1.AddressPool, offer *choice.Pool, before inForce) error {
	used := before
	switch {
	case kube.InForce(o):
		d, err := kube.Definition(o)
		if err != nil {
			return err
		}
		p, err := pools.New(d)
		if err != nil {
			return err
		}
		used = inForce{o.UID, agent.Pool{Pool: p, IdleAfter: idleAfter(o)}}
	case offer.State == choice.Pending && before.uid == o.UID && before.pool.Pool != nil:
		offer.State = choice.Active
		if before.pool.Draining {
			offer.State = choice.Draining
		}
	default:
		return nil
	}
	elsewhere := offer.NodeSelector != nil && c.listed.node && !offer.NodeSelector.Matches(labels.Set(c.node.Labels))
	used.pool.Draining = offer.State == choice.Draining || elsewhere
	c.inForce[o.Name] = used
	c.state.Pools = append(c.state.Pools, used.pool)
	return nil
}

func idleAfter(o *v1alpha1.AddressPool) time.Duration {
	if o.Spec.IdleAfter == nil {
		return defaultIdleAfter
	}
	return o.Spec.IdleAfter.Duration
}
