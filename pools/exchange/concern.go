package exchange

import (
	"maps"
	"slices"
)

// Concerns are the pools, by name, of which requests concern this node: it holds or
// wants something of them, or has something to clear up. all says that others may, too,
// since it has blocks of pools that it does not know. Of what is no concern it needs not
// be told, but for some requests of its own: those that an earlier life has made, or a
// call without an answer, and that come to count up to Settle later.
func (n *Node) Concerns() (pools []string, all bool) {
	names := map[string]bool{}
	for _, h := range n.held {
		names[h.Pool] = true
	}
	for lack := range n.wants {
		names[lack.Pool] = true
	}
	for _, w := range n.helpers {
		names[w.Pool] = true
	}
	for _, l := range n.loans {
		names[l.Pool] = true
	}
	for _, a := range n.answers {
		names[a.request.Pool] = true
	}
	for _, s := range n.strays {
		names[s.Pool] = true
	}
	for _, o := range n.orphans {
		names[o.request.Pool] = true
	}
	for _, rec := range n.asleep {
		names[rec.Pool] = true
	}
	return slices.Sorted(maps.Keys(names)), len(n.unfit) > 0 || names[""]
}
