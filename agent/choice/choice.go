// Package choice says which pool serves a pod of a Kubernetes cluster. It is
// pure: what the cluster says comes in as values, and the same values always
// give the same decision.
package choice

import (
	"cmp"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
)

const (
	// PoolAnnotation on a pod or its namespace names the pod's pool.
	PoolAnnotation = "fairway.network/pool"
	// AddressesAnnotation on a pod asks for these very addresses: at most one of
	// each family, with a comma between them.
	AddressesAnnotation = "fairway.network/addresses"
	// DefaultPool is for pods that nothing else is said about.
	DefaultPool = "default"
)

// Pod is what decides about a pod.
type Pod struct {
	Namespace, Name     string
	Labels, Annotations map[string]string
	// NetworkPool is the pool that the CNI network configuration names
	// (ipam.pool), "" if it names none. It stands in for DefaultPool.
	NetworkPool string
}

// Namespace is the one of the pod.
type Namespace struct {
	Name                string
	Labels, Annotations map[string]string
}

// Node is where the pod runs.
type Node struct {
	Name   string
	Labels map[string]string
}

// State is what a pool is ready for. The zero State is Pending: a pool counts
// only once the controller has accepted it.
type State uint8

const (
	// Pending pools were not looked at by the controller yet.
	Pending State = iota
	// Refused pools were not accepted.
	Refused
	// Draining pools lease nothing new.
	Draining
	// Active pools serve pods.
	Active
)

// Pool is what decides about a pool. A nil selector is one that the pool does
// not have: it rules nothing out and chooses nothing. (The apimachinery makes
// a selector that matches nothing out of one that is not there.)
type Pool struct {
	Name                                         string
	NamespaceSelector, PodSelector, NodeSelector labels.Selector
	State                                        State
	// Why says, in a sentence, why a Refused pool is refused, and why a Draining
	// one drains if nobody wrote that it should.
	Why string
}

// Rule is what led to a pool. The lower one wins.
type Rule uint8

const (
	_ Rule = iota
	// ByPod: the pod's annotation names the pool.
	ByPod
	// ByNamespace: its namespace's annotation does.
	ByNamespace
	// BySelectors: all selectors that the pool has match, and it has some.
	BySelectors
	// ByNetwork: the network configuration names the pool.
	ByNetwork
	// ByDefault: the pool is named DefaultPool.
	ByDefault
)

// Decision is where the addresses of a pod come from.
type Decision struct {
	Pool string
	Rule Rule
	// Addresses were chosen for the pod, at most one of each family; a family
	// without one gets any. Whether the pool has them is not known here.
	Addresses []netip.Addr
}

// Choose says which of the pools serves a pod of namespace ns on node. The
// first rule that finds a pool decides, and none after it is tried, also when
// that pool then refuses:
//
//  1. the pod's PoolAnnotation names it;
//  2. the namespace's PoolAnnotation names it;
//  3. its own selectors match. Of several such pools the one with the most
//     selector terms is chosen (each label of matchLabels and each entry of
//     matchExpressions is one, over all its selectors), and it is ErrAmbiguous
//     if two have as many. Refused and Draining pools stand back here for
//     others that match; Pending ones do not, so that a pod made together with
//     its pool waits for it;
//  4. pod.NetworkPool, or else DefaultPool, is its name.
//
// A pool's selectors are the authority: whichever rule leads to it, a pool is
// returned only if it is Active and every selector that it has matches. All
// other cases are errors that wrap one of this package's, name pod, rule and
// pool, and say what would help.
func Choose(pod Pod, ns Namespace, node Node, pools []Pool) (Decision, error) {
	q := question{pod: pod, ns: ns, node: node, pools: pools}
	d, err := q.decide()
	if err != nil {
		return Decision{}, err
	}
	if text, ok := pod.Annotations[AddressesAnnotation]; ok {
		if d.Addresses, err = parseAddresses(text); err != nil {
			return Decision{}, q.unreadable("annotation "+AddressesAnnotation+": %v", err)
		}
	}
	return d, nil
}

// question is which of the pools serves the pod.
type question struct {
	pod   Pod
	ns    Namespace
	node  Node
	pools []Pool
}

func (q *question) decide() (Decision, error) {
	if name, ok := q.pod.Annotations[PoolAnnotation]; ok {
		return q.named(name, ByPod)
	}
	if name, ok := q.ns.Annotations[PoolAnnotation]; ok {
		return q.named(name, ByNamespace)
	}
	if p, err := q.selected(); err != nil {
		return Decision{}, err
	} else if p != nil {
		return q.take(p, BySelectors)
	}
	if q.pod.NetworkPool != "" {
		return q.named(q.pod.NetworkPool, ByNetwork)
	}
	return q.named(DefaultPool, ByDefault)
}

func (q *question) named(name string, by Rule) (Decision, error) {
	if name == "" {
		return Decision{}, q.nameless(by)
	}
	i := slices.IndexFunc(q.pools, func(p Pool) bool { return p.Name == name })
	if i < 0 {
		return Decision{}, q.unknown(name, by)
	}
	return q.take(&q.pools[i], by)
}

// take decides for p if p agrees. Whom a refused pool would serve does not matter, and
// may not be known.
func (q *question) take(p *Pool, by Rule) (Decision, error) {
	if p.State != Refused && !q.serves(p) {
		return Decision{}, q.notServed(p, by)
	}
	if p.State != Active {
		return Decision{}, q.notReady(p, by)
	}
	return Decision{Pool: p.Name, Rule: by}, nil
}

// selected is the pool whose selectors choose the pod, nil if none do.
func (q *question) selected() (*Pool, error) {
	var ready, resting []*Pool
	for i := range q.pools {
		switch p := &q.pools[i]; {
		case !p.selective() || !q.serves(p):
		case p.State == Refused || p.State == Draining:
			resting = append(resting, p)
		default:
			ready = append(ready, p)
		}
	}
	switch best := closest(ready); {
	case len(best) > 1:
		return nil, q.ambiguous(best)
	case len(best) == 1:
		return best[0], nil
	}
	if best := closest(resting); len(best) > 0 {
		return best[0], nil // any of them will do to say why
	}
	return nil, nil
}

// closest are the pools with the most terms, by name.
func closest(ps []*Pool) (best []*Pool) {
	slices.SortFunc(ps, func(a, b *Pool) int {
		return cmp.Or(cmp.Compare(b.terms(), a.terms()), cmp.Compare(a.Name, b.Name))
	})
	for _, p := range ps {
		if p.terms() == ps[0].terms() {
			best = append(best, p)
		}
	}
	return best
}
