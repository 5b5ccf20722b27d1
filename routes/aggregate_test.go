package routes_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairway-network/fairway/routes"
)

// universe is a prefix small enough to look at each of its addresses.
type universe struct{ netip.Prefix }

// universes are one of each family, which share no address.
func universes() []universe {
	return []universe{
		{netip.MustParsePrefix("10.1.255.192/26")},
		{netip.MustParsePrefix("2001:db8::ffc0/122")},
	}
}

// inside makes a prefix of u out of two bytes, host bits and all.
func (u universe) inside(offset, bits byte) netip.Prefix {
	a := u.Addr()
	for range int(offset) % 64 {
		a = a.Next()
	}
	return netip.PrefixFrom(a, u.Bits()+int(bits)%7)
}

// cover is the dumb Aggregate: it looks at every address of p, and halves p
// until all or none are in.
func cover(p netip.Prefix, prefixes []netip.Prefix) []netip.Prefix {
	in, total := 0, 0
	for a := p.Addr(); p.Contains(a); a = a.Next() {
		total++
		if slices.ContainsFunc(prefixes, func(q netip.Prefix) bool { return q.Contains(a) }) {
			in++
		}
	}
	switch in {
	case 0:
		return nil
	case total:
		return []netip.Prefix{p}
	}
	upper := p.Addr()
	for range total / 2 {
		upper = upper.Next()
	}
	return append(cover(netip.PrefixFrom(p.Addr(), p.Bits()+1), prefixes),
		cover(netip.PrefixFrom(upper, p.Bits()+1), prefixes)...)
}

// holdAggregate holds Aggregate against cover.
func holdAggregate(t *testing.T, prefixes []netip.Prefix) {
	t.Helper()
	before := slices.Clone(prefixes)
	var want []netip.Prefix
	for _, u := range universes() {
		want = append(want, cover(u.Prefix, prefixes)...)
	}
	if got := routes.Aggregate(prefixes); !slices.Equal(got, want) {
		t.Fatalf("Aggregate(%v)\n got %v\nwant %v", prefixes, got, want)
	}
	if !slices.Equal(prefixes, before) {
		t.Fatalf("Aggregate changed its argument from %v to %v", before, prefixes)
	}
}

func TestAggregateAgainstEveryAddress(t *testing.T) {
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 0))
		var prefixes []netip.Prefix
		for range r.IntN(30) {
			u := universes()[r.IntN(2)]
			prefixes = append(prefixes, u.inside(byte(r.Uint32()), byte(r.Uint32())))
		}
		holdAggregate(t, prefixes)
	}
}

// naiveTo joins two halves of a prefix until there are none, as far as it may.
func naiveTo(list []netip.Prefix, shortest int) []netip.Prefix {
	for again := true; again; {
		again = false
		for _, p := range list {
			whole := netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked()
			halves := func(q netip.Prefix) bool { return q.Bits() == p.Bits() && whole.Contains(q.Addr()) }
			if n := len(slices.DeleteFunc(slices.Clone(list), func(q netip.Prefix) bool { return !halves(q) })); n == 2 && p.Bits() > shortest {
				list, again = append(slices.DeleteFunc(list, halves), whole), true
				break
			}
		}
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return list
}

func TestAggregateTo(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		var disjoint []netip.Prefix
		for range r.IntN(30) {
			p := universes()[0].inside(byte(r.Uint32()), byte(r.Uint32())).Masked()
			if !slices.ContainsFunc(disjoint, p.Overlaps) {
				disjoint = append(disjoint, p)
			}
		}
		shortest := 25 + r.IntN(8)
		got := routes.AggregateTo(disjoint, shortest, 0)
		if want := naiveTo(slices.Clone(disjoint), shortest); !slices.Equal(got, want) {
			t.Fatalf("AggregateTo(%v, %d)\n got %v\nwant %v", disjoint, shortest, got, want)
		}
	}
}

func FuzzAggregate(f *testing.F) {
	f.Add([]byte{0, 6, 1, 6, 2, 5, 4, 4, 64, 0, 130, 3, 200, 6})
	f.Add([]byte{255, 255, 63, 6, 62, 6})
	f.Fuzz(func(t *testing.T, data []byte) {
		var prefixes []netip.Prefix
		for pair := range slices.Chunk(data[:min(len(data), 64)], 2) {
			if len(pair) < 2 {
				prefixes = append(prefixes, netip.Prefix{})
				continue
			}
			prefixes = append(prefixes, universes()[pair[0]>>7].inside(pair[0], pair[1]))
		}
		holdAggregate(t, prefixes)
	})
}

func TestAggregateWholeFamilies(t *testing.T) {
	p := netip.MustParsePrefix
	got := routes.Aggregate([]netip.Prefix{
		p("8000::/1"), p("128.0.0.0/1"), {}, p("0.0.0.0/1"), p("::/1"), p("10.0.0.0/8"),
	})
	if want := []netip.Prefix{p("0.0.0.0/0"), p("::/0")}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := routes.Aggregate(nil); len(got) != 0 {
		t.Errorf("nothing aggregates to %v", got)
	}
}
