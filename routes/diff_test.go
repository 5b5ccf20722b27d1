package routes_test

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairway-network/fairway/routes"
)

// table is the dumb route table: what Diff says is done to it step by step.
type table map[netip.Prefix]routes.Route

func fill(list []routes.Route) table {
	t := table{}
	for _, r := range list {
		t[r.Prefix] = r
	}
	return t
}

// apply refuses steps that are wrong or needless.
func (tb table) apply(t *testing.T, c routes.Change) {
	t.Helper()
	for _, r := range c.Add {
		if old, ok := tb[r.Prefix]; ok {
			t.Fatalf("added %v over %v", r, old)
		}
		tb[r.Prefix] = r
	}
	for _, r := range c.Replace {
		if old, ok := tb[r.Prefix]; !ok || old.Equal(r) {
			t.Fatalf("replaced %v (there: %v) by %v", old, ok, r)
		}
		tb[r.Prefix] = r
	}
	for _, r := range c.Delete {
		if old, ok := tb[r.Prefix]; !ok || !old.Equal(r) {
			t.Fatalf("deleted %v where %v was (there: %v)", r, old, ok)
		}
		delete(tb, r.Prefix)
	}
}

func holdDiff(t *testing.T, have, want []routes.Route) {
	t.Helper()
	c := routes.Diff(have, want)
	tb, wanted := fill(have), fill(want)
	tb.apply(t, c)
	if !maps.EqualFunc(tb, wanted, routes.Route.Equal) {
		t.Fatalf("from %v the change %+v makes %v, not %v", have, c, tb, wanted)
	}
	for _, list := range [][]routes.Route{c.Add, c.Replace, c.Delete} {
		if !slices.IsSortedFunc(list, func(a, b routes.Route) int { return a.Prefix.Compare(b.Prefix) }) {
			t.Fatalf("not in order: %v", list)
		}
	}
	if again := routes.Diff(slices.Collect(maps.Values(tb)), want); !again.Empty() {
		t.Fatalf("a second change is left: %+v", again)
	}
}

// routeOf makes one of few routes out of two bytes, so that random tables meet.
func routeOf(where, how byte) routes.Route {
	r := routes.Route{Prefix: universes()[where>>7].inside(where, 6+where>>6).Masked()}
	hops := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	if where>>7 == 1 {
		hops = []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
	}
	for i, hop := range hops {
		if how&(1<<i) != 0 {
			r.Via = append(r.Via, hop)
		}
	}
	return r
}

func TestDiffAgainstTable(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		lists := make([][]routes.Route, 2)
		for i := range lists {
			for range r.IntN(40) {
				lists[i] = append(lists[i], routeOf(byte(r.Uint32()), byte(r.Uint32())))
			}
		}
		holdDiff(t, lists[0], lists[1])
	}
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte{1, 0, 2, 1, 200, 3}, []byte{1, 1, 3, 1, 200, 3})
	f.Add([]byte{}, []byte{9, 0})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		lists := make([][]routes.Route, 2)
		for i, data := range [][]byte{a, b} {
			for pair := range slices.Chunk(data[:len(data)&^1], 2) {
				lists[i] = append(lists[i], routeOf(pair[0], pair[1]))
			}
		}
		holdDiff(t, lists[0], lists[1])
	})
}

func TestDiffOfNextHops(t *testing.T) {
	p := netip.MustParsePrefix("10.0.0.0/26")
	hop := netip.MustParseAddr("192.0.2.1")
	blackhole, via := routes.Route{Prefix: p}, routes.Route{Prefix: p, Via: []netip.Addr{hop}}
	c := routes.Diff([]routes.Route{blackhole}, []routes.Route{via})
	if len(c.Add) != 0 || len(c.Delete) != 0 || len(c.Replace) != 1 || !c.Replace[0].Equal(via) {
		t.Errorf("a changed next hop is not one replacement but %+v", c)
	}
	if got := via.String() + ", " + blackhole.String(); got != "10.0.0.0/26 via [192.0.2.1], 10.0.0.0/26 blackhole" {
		t.Errorf("routes print as %s", got)
	}
}
