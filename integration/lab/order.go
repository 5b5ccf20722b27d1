package lab

import (
	"fmt"
	"slices"
)

// milestone is a stage of a node, to be reached.
type milestone struct {
	node  string
	stage Stage
}

func (m milestone) String() string { return m.node + " " + string(m.stage) }

// before returns what has to be reached before a node enters a stage. Of a
// link's two nodes the one that the topology names first makes it, so that both
// agree and the order of links has no cycle of its own.
func (t *Topology) before(m milestone) []milestone {
	var out []milestone
	if i := slices.Index(stages(), m.stage); i > 0 {
		out = append(out, milestone{m.node, stages()[i-1]})
	}
	for _, w := range t.Nodes[t.index(m.node)].WaitFor {
		if w.Stage == m.stage {
			out = append(out, milestone{w.Node, w.Until})
		}
	}
	if m.stage != CreateLinks {
		return out
	}
	for _, link := range t.Links {
		maker, other := t.maker(link)
		switch m.node {
		case maker:
			out = append(out, milestone{other, Create})
		case other:
			out = append(out, milestone{maker, CreateLinks})
		}
	}
	return out
}

// maker returns the names of the node that makes a link and of the other one.
func (t *Topology) maker(link Link) (maker, other string) {
	a, b := link.A.Node(), link.B.Node()
	if t.index(a) <= t.index(b) {
		return a, b
	}
	return b, a
}

// validateOrder refuses an order in which some stage can never be entered.
func (t *Topology) validateOrder() error {
	for _, n := range t.Nodes {
		for _, w := range n.WaitFor {
			if t.index(w.Node) < 0 {
				return fmt.Errorf("node %q: waits for %q, which is not a node", n.Name, w.Node)
			}
			if !slices.Contains(stages(), w.Stage) || !slices.Contains(stages(), w.Until) {
				return fmt.Errorf("node %q: waits in stage %q for stage %q of %q: known are %v", n.Name, w.Stage, w.Until, w.Node, stages())
			}
		}
	}
	settled := map[milestone]bool{}
	for _, n := range t.Nodes {
		for _, s := range stages() {
			if err := t.settle(milestone{n.Name, s}, nil, settled); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle walks back from m; path is how it came there.
func (t *Topology) settle(m milestone, path []milestone, settled map[milestone]bool) error {
	if settled[m] {
		return nil
	}
	path = append(path, m)
	if i := slices.Index(path, m); i < len(path)-1 {
		return fmt.Errorf("nodes wait for each other in a circle: %v: take one of the wait-for out", path[i:])
	}
	for _, b := range t.before(m) {
		// A node linked to itself needs nobody else for that link.
		if b == m {
			continue
		}
		if err := t.settle(b, path, settled); err != nil {
			return err
		}
	}
	settled[m] = true
	return nil
}
