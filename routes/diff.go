package routes

import (
	"net/netip"
	"slices"
)

// Change is what turns one table into another. Whoever applies it adds, then
// replaces, then deletes: a prefix that is split or joined is then never
// without a route. A change of next hops is a replacement in place, which the
// kernel and the clouds do in one step. Each list is sorted by prefix, IPv4
// first, and no prefix is in two of them.
type Change struct {
	Add     []Route
	Replace []Route // as they should become
	Delete  []Route // as they are
}

// Empty says that there is nothing to do.
func (c Change) Empty() bool { return len(c.Add)+len(c.Replace)+len(c.Delete) == 0 }

// Diff returns the change that makes a table that holds have hold want. The
// order of the two does not matter; of several routes to one prefix the last
// counts. A nil want deletes everything.
func Diff(have, want []Route) Change {
	var c Change
	old, wanted := byPrefix(have), byPrefix(want)
	for _, w := range wanted {
		h, ok := old[w.Prefix]
		switch {
		case !ok:
			c.Add = append(c.Add, w)
		case !w.Equal(h):
			c.Replace = append(c.Replace, w)
		}
	}
	for _, h := range old {
		if _, ok := wanted[h.Prefix]; !ok {
			c.Delete = append(c.Delete, h)
		}
	}
	for _, list := range [][]Route{c.Add, c.Replace, c.Delete} {
		slices.SortFunc(list, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	}
	return c
}

func byPrefix(list []Route) map[netip.Prefix]Route {
	m := make(map[netip.Prefix]Route, len(list))
	for _, r := range list {
		m[r.Prefix] = r
	}
	return m
}
