package choice

import "k8s.io/apimachinery/pkg/labels"

// condition is one selector of a pool beside what it looks at.
type condition struct {
	field    string // of the pool's spec
	selector labels.Selector
	object   string // whose labels they are
	labels   labels.Set
}

// conditions are all that the pool has, in the order in which they are told.
func (q *question) conditions(p *Pool) []condition {
	all := [...]condition{
		{"namespaceSelector", p.NamespaceSelector, "namespace " + q.ns.Name, q.ns.Labels},
		{"podSelector", p.PodSelector, "the pod", q.pod.Labels},
		{"nodeSelector", p.NodeSelector, "node " + q.node.Name, q.node.Labels},
	}
	var out []condition
	for _, c := range all {
		if c.selector != nil {
			out = append(out, c)
		}
	}
	return out
}

// serves says whether all selectors of the pool match: its state is another
// matter.
func (q *question) serves(p *Pool) bool {
	return matches(p.NamespaceSelector, q.ns.Labels) && matches(p.PodSelector, q.pod.Labels) && matches(p.NodeSelector, q.node.Labels)
}

func matches(s labels.Selector, l labels.Set) bool { return s == nil || s.Matches(l) }

// selective says whether the pool chooses pods itself.
func (p *Pool) selective() bool {
	return p.NamespaceSelector != nil || p.PodSelector != nil || p.NodeSelector != nil
}

// terms is how closely the pool describes its pods.
func (p *Pool) terms() (n int) {
	for _, s := range []labels.Selector{p.NamespaceSelector, p.PodSelector, p.NodeSelector} {
		if s != nil {
			all, _ := s.Requirements()
			n += len(all)
		}
	}
	return n
}
