package controller

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"unique"

	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
)

// lies is a block of a pool.
func lies(pool, node, prefix, lender string) placed {
	return placed{netip.MustParsePrefix(prefix), block{
		pool: unique.Make(pool), node: unique.Make(node), machine: unique.Make("machine-" + node), lender: unique.Make(lender), version: 1,
	}}
}

// The walk counts what Effective says of each node.
func TestRoutesAreThoseOfTheEffectiveSets(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		base := []string{"10.0.0.0/24", "fd00::/120", "255.255.255.0/24"}[seed%3]
		var b netipx.IPSetBuilder
		around := netip.MustParsePrefix(base)
		b.AddPrefix(around)
		for range r.IntN(3) {
			b.Remove(randomAddr(r, around))
		}
		addrs, err := b.IPSet()
		if err != nil {
			t.Fatal(err)
		}
		held := blocks{}
		for range r.IntN(60) {
			p, err := randomAddr(r, around).Prefix(around.Bits() + 1 + r.IntN(8))
			if err != nil {
				t.Fatal(err)
			}
			node := fmt.Sprint("n", r.IntN(5))
			if node == "n4" {
				node = "" // vacant
			}
			held.put(lies("web", node, p.String(), ""))
		}
		got, want := countBlocks(held.of("web"), addrs), slowCount(held, addrs)
		if got != want {
			t.Fatalf("seed %d: %+v, want %+v", seed, got, want)
		}
	}
}

func randomAddr(r *rand.Rand, p netip.Prefix) netip.Addr {
	a := p.Addr().AsSlice()
	a[len(a)-1] = byte(r.IntN(256))
	out, _ := netip.AddrFromSlice(a)
	return out
}

// slowCount is countBlocks by the definition.
func slowCount(t blocks, addrs *netipx.IPSet) (c census) {
	nodes := map[string]bool{}
	var all []pools.Block
	for _, b := range t.of("web") {
		all = append(all, b.stored(b.Prefix).Block)
		if b.vacant() {
			c.vacant++
			continue
		}
		c.blocks++
		nodes[b.node.Value()] = true
	}
	for node := range nodes {
		c.routes += len(pools.Effective(node, all, addrs).Prefixes())
	}
	c.nodes = len(nodes)
	return c
}

func TestUseIsThatOfPods(t *testing.T) {
	web, db := mustPool(t, "10.0.0.0/28", "fd00::/124"), mustPool(t, "10.0.0.64/28")
	all := pods{}
	all.put(aPod(1, "10.0.0.2", "fd00::2"))
	all.put(aPod(2, "10.0.0.3"))
	all.put(aPod(3, "10.0.0.3"))    // a moment ago it was the other one's
	all.put(aPod(4, "192.168.0.1")) // of no pool
	all.put(aPod(5, "10.0.0.65"))
	all.put(aPod(6, "10.0.0.66"))
	all.drop(aPod(6, "10.0.0.66"))
	all.put(aPod(7, "10.0.0.67"))
	all.put(aPod(7)) // it has ended
	all.put(aPod(8, web.Gateway(pools.IPv4).Addr().String()))
	got := map[*pools.Pool]use{web: countUse(web, all.addresses()), db: countUse(db, all.addresses())}
	for _, c := range []struct {
		what string
		n    uint64
		want uint64
	}{
		{"web, IPv4", got[web][pools.IPv4], 2}, {"web, IPv6", got[web][pools.IPv6], 1}, {"db", got[db][pools.IPv4], 1},
	} {
		if c.n != c.want {
			t.Errorf("%s: %d addresses are used, want %d", c.what, c.n, c.want)
		}
	}
}

func aPod(id int, addrs ...string) pod {
	p := pod{uid: aUID(id)}
	for i, a := range addrs {
		p.addrs[i] = netip.MustParseAddr(a)
	}
	return p
}

func mustPool(t testing.TB, ranges ...string) *pools.Pool {
	t.Helper()
	d := pools.Definition{Name: "web", BlockSize: 4}
	for _, s := range ranges {
		r, err := pools.ParseRange(s)
		if err != nil {
			t.Fatal(err)
		}
		d.Ranges = append(d.Ranges, r)
	}
	p, err := pools.New(d)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSuspectsComeWithWhatLiesInThem(t *testing.T) {
	all := blocks{}
	for _, b := range []placed{
		lies("web", "dead", "10.0.0.0/26", ""), lies("web", "alive", "10.0.0.16/30", "dead"),
		lies("web", "alive", "10.0.0.64/26", ""), lies("web", "dead", "10.0.0.72/32", "alive"),
		lies("db", "", "10.1.0.0/28", ""), lies("db", "alive", "10.1.0.16/28", ""),
	} {
		all.put(b)
	}
	var got []string
	found, unknown := all.suspects(func(node, _ string) bool { return node == "dead" })
	for _, b := range found {
		got = append(got, b.Prefix.String())
	}
	if len(unknown) != 0 {
		t.Errorf("unknown are %v", unknown)
	}
	slices.Sort(got)
	if want := []string{"10.0.0.0/26", "10.0.0.16/30", "10.0.0.72/32", "10.1.0.0/28"}; !slices.Equal(got, want) {
		t.Errorf("suspects %v, want %v", got, want)
	}
}
