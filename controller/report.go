package controller

import (
	"fmt"
	"math"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/kube"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// findings are all that a pool's status is made of, beside the pool.
type findings struct {
	verdict
	census
	use use
	// waits is for how long the oldest request of the pool that would take any
	// address has been open, and waiting which node made it; 0 if there is none.
	waits   time.Duration
	waiting string
}

// longWait is when a request that nobody answers says that no node has an
// address to spare. Nodes answer in milliseconds.
const longWait = 10 * time.Second

// report is the status of a pool. Nothing in it changes as time goes by: two
// reports of the same findings are the same.
func report(o *v1alpha1.AddressPool, f findings, now time.Time) v1alpha1.AddressPoolStatus {
	s := *o.Status.DeepCopy()
	s.ObservedGeneration = o.Generation
	if f.accepted {
		kube.Accept(o, &s, f.pool)
	}
	count(&s, f)
	set := func(kind string, is bool, reason, message string) {
		c := metav1.Condition{
			Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: clip(message),
			ObservedGeneration: o.Generation, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
		}
		if is {
			c.Status = metav1.ConditionTrue
		}
		apimeta.SetStatusCondition(&s.Conditions, c)
	}
	set(v1alpha1.ConditionAccepted, f.accepted, f.reason, f.message)
	if why := f.exhausted(s.Families); why != "" {
		set(v1alpha1.ConditionExhausted, true, v1alpha1.ReasonNoFreeAddress, why)
	} else {
		set(v1alpha1.ConditionExhausted, false, v1alpha1.ReasonFreeAddresses, "no pod lacks an address of the pool")
	}
	drain(&s, o, f, now, set)
	s.State = state(o, f, s)
	return s
}

// clip keeps a condition's message within what the API server takes.
func clip(message string) string {
	const most, cut = 32768, " ..."
	if len(message) <= most {
		return message
	}
	return message[:most-len(cut)] + cut
}

// count fills in the numbers. Of a pool that can't be read there is none.
func count(s *v1alpha1.AddressPoolStatus, f findings) {
	s.Total, s.Used, s.Free, s.Families = 0, 0, 0, nil
	s.Blocks, s.Nodes, s.Routes = int32(f.blocks), int32(f.nodes), int32(f.routes)
	if f.pool == nil {
		return
	}
	for _, family := range f.pool.Families() {
		total := f.pool.Size(family)
		n := v1alpha1.FamilyUse{
			Family: v1alpha1.Family(family.String()),
			Total:  many(total), Used: many(f.use[family]), Free: many(total - min(total, f.use[family])),
		}
		if s.Families = append(s.Families, n); len(s.Families) == 1 || n.Total < s.Total {
			s.Total, s.Used, s.Free = n.Total, n.Used, n.Free
		}
	}
}

func many(n uint64) int64 { return int64(min(n, v1alpha1.ManyAddresses, math.MaxInt64)) }

// exhausted says why a new pod would get no address, "" if it would get one.
func (f findings) exhausted(families []v1alpha1.FamilyUse) string {
	for _, n := range families {
		if n.Free == 0 {
			return fmt.Sprintf("pods have all %d %s addresses of the pool: add addresses to it", n.Total, n.Family)
		}
	}
	if f.waits >= longWait && f.pool != nil {
		return fmt.Sprintf("no node has an address to spare for node %s: those that no pod has rest (reuseAfter) or are held by nodes that do not answer; add addresses to the pool",
			f.waiting)
	}
	return ""
}

// leaves says whether the pool serves no new pods, and is to be empty one day.
func leaves(o *v1alpha1.AddressPool) bool {
	return o.Spec.State == v1alpha1.PoolDraining || o.DeletionTimestamp != nil
}

// drain fills in how far a pool is that leaves, and takes that away from others.
func drain(s *v1alpha1.AddressPoolStatus, o *v1alpha1.AddressPool, f findings, now time.Time, set func(kind string, is bool, reason, message string)) {
	if !leaves(o) {
		s.Drain = nil
		apimeta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionDrained)
		return
	}
	since := metav1.NewTime(now.Truncate(time.Second))
	if s.Drain != nil {
		since = s.Drain.Since
	}
	leases := f.leases()
	s.Drain = &v1alpha1.DrainProgress{Since: since, Leases: leases, Blocks: s.Blocks, Nodes: s.Nodes}
	if leases == 0 && f.blocks+f.vacant == 0 {
		then := "it can be deleted"
		if o.DeletionTimestamp != nil {
			then = "it goes within the minute"
		}
		set(v1alpha1.ConditionDrained, true, v1alpha1.ReasonEmpty, "no pod has an address of the pool and no node a block: "+then)
		return
	}
	set(v1alpha1.ConditionDrained, false, v1alpha1.ReasonInUse,
		fmt.Sprintf("pods have %d addresses of the pool, nodes hold %d blocks", leases, f.blocks+f.vacant))
}

// state is the pool in a word.
func state(o *v1alpha1.AddressPool, f findings, s v1alpha1.AddressPoolStatus) string {
	switch draining := o.Spec.State == v1alpha1.PoolDraining; {
	case o.DeletionTimestamp != nil:
		return v1alpha1.PoolIsTerminating
	case !f.accepted && !f.serves && (f.standing == applying || !draining):
		return v1alpha1.PoolIsRefused
	case draining && apimeta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionDrained):
		return v1alpha1.PoolIsDrained
	case draining:
		return v1alpha1.PoolIsDraining
	case !f.accepted:
		return v1alpha1.PoolIsChangeRefused
	case apimeta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionExhausted):
		return v1alpha1.PoolIsExhausted
	}
	return v1alpha1.PoolIsActive
}
