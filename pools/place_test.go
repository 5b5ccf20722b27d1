package pools

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"go4.org/netipx"
)

// each yields the addresses of r, which must be few.
func each(r netipx.IPRange) func(func(netip.Addr) bool) {
	return func(yield func(netip.Addr) bool) {
		for a := r.From(); yield(a) && a != r.To(); {
			a = a.Next()
		}
	}
}

// longestMatch is the ownership rule done the dumb way, for one address.
func longestMatch(blocks []Block, a netip.Addr) (node string) {
	best := -1
	for _, b := range blocks {
		if b.Prefix.Contains(a) && b.Prefix.Bits() > best {
			node, best = b.Node, b.Prefix.Bits()
		}
	}
	return node
}

func TestEffectiveIsLongestMatch(t *testing.T) {
	rnd := seeded(t)
	nodes := []string{"n1", "n2", "n3"}
	for _, whole := range []string{"10.0.0.0/24", "fd00::/120"} {
		outer := netip.MustParsePrefix(whole)
		size := outer.Addr().BitLen() - outer.Bits()
		for range 60 {
			var blocks []Block
			seen := map[netip.Prefix]bool{}
			for range rnd.IntN(24) {
				p := netip.PrefixFrom(nth(outer, rnd.IntN(1<<size)), outer.Bits()+rnd.IntN(size+1)).Masked()
				if !seen[p] {
					seen[p] = true
					blocks = append(blocks, Block{Prefix: p, Node: nodes[rnd.IntN(3)]})
				}
			}
			from, to := rnd.IntN(1<<size), rnd.IntN(1<<size)
			var b netipx.IPSetBuilder
			b.AddRange(netipx.IPRangeFrom(nth(outer, min(from, to)), nth(outer, max(from, to))))
			addrs := mustSet(&b)
			for _, node := range nodes {
				got := Effective(node, blocks, addrs)
				for a := range each(netipx.RangeOfPrefix(outer)) {
					if want := addrs.Contains(a) && longestMatch(blocks, a) == node; got.Contains(a) != want {
						t.Fatalf("%s is effective of %s: %v, want %v, with %v", a, node, !want, want, blocks)
					}
				}
			}
		}
	}
}

// nth address of p, of which there must be few.
func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// freeByHand lists the free cells by looking at every address of the pool.
func freeByHand(p *Pool, f Family, blocks []Block) (out []netip.Prefix) {
	for _, r := range p.ranges(f) {
		for a := range each(r) {
			cell := p.Cell(a)
			taken := slices.ContainsFunc(blocks, func(b Block) bool { return b.Prefix.Overlaps(cell) })
			if !taken && !p.Reserved(a) && !slices.Contains(out, cell) {
				out = append(out, cell)
			}
		}
	}
	return out
}

// joins is the length of the shortest prefix that holds the cell, a block of
// node, and nothing of others; 0 if there is none but the whole space.
func joins(cell netip.Prefix, node string, blocks []Block) int {
	for n := cell.Bits() - 1; n > 0; n-- {
		around := netip.PrefixFrom(cell.Addr(), n).Masked()
		own := false
		for _, b := range blocks {
			if !b.Prefix.Overlaps(around) {
				continue
			}
			if b.Node != node {
				return 0
			}
			own = true
		}
		if own {
			return n
		}
	}
	return 0
}

func randomPool(t *testing.T, rnd *rand.Rand) *Pool {
	for {
		var d Definition
		d.Name, d.BlockSize = "web", 1<<rnd.IntN(5)
		for range 1 + rnd.IntN(3) {
			for _, base := range []string{"10.0.0.0/24", "fd00::/120"} {
				from, to := rnd.IntN(256), rnd.IntN(256)
				outer := netip.MustParsePrefix(base)
				d.Ranges = append(d.Ranges, netipx.IPRangeFrom(nth(outer, min(from, to)), nth(outer, max(from, to))))
			}
		}
		d.Exclude = []netipx.IPRange{netipx.IPRangeFrom(d.Ranges[0].From(), d.Ranges[0].From())}
		if rnd.IntN(2) == 0 {
			inside := d.Ranges[rnd.IntN(len(d.Ranges))].To()
			bits := 16
			d.Gateways = []netip.Prefix{netip.PrefixFrom(inside, bits)}
		}
		p, err := New(d)
		if err == nil {
			return p
		}
	}
}

// TestNextCellByHand claims whole pools, node by node in random order, and
// looks at each choice: the cell is free, joins a block of the node as closely
// as any free cell could, and there is one until none is left.
func TestNextCellByHand(t *testing.T) {
	rnd := seeded(t)
	for range 12 {
		p := randomPool(t, rnd)
		var blocks []Block
		for _, f := range p.Families() {
			for {
				node := fmt.Sprint("n", rnd.IntN(4))
				free := freeByHand(p, f, blocks)
				cell, err := p.NextCell(f, node, blocks)
				if len(free) == 0 {
					if !errors.Is(err, ErrExhausted) {
						t.Fatalf("NextCell of a full pool = %v, %v", cell, err)
					}
					break
				}
				if err != nil || !slices.Contains(free, cell) {
					t.Fatalf("NextCell = %v, %v; free are %v", cell, err, free)
				}
				best := 0
				for _, c := range free {
					best = max(best, joins(c, node, blocks))
				}
				if got := joins(cell, node, blocks); got != best {
					t.Fatalf("NextCell for %s = %v, joined as a /%d; a /%d was possible; blocks %v", node, cell, got, best, blocks)
				}
				blocks = append(blocks, Block{Prefix: cell, Pool: "web", Node: node})
				if rnd.IntN(8) == 0 { // somebody lends a part, or returns a block
					i := rnd.IntN(len(blocks))
					if rnd.IntN(2) == 0 {
						blocks = slices.Delete(blocks, i, i+1)
					} else if whole := blocks[i].Prefix; whole.Bits() < f.Bits() && FamilyOf(whole.Addr()) == f {
						blocks[i].Prefix = netip.PrefixFrom(whole.Addr(), whole.Bits()+1)
					}
				}
			}
			for _, r := range p.ranges(f) {
				for a := range each(r) {
					if !p.Reserved(a) && longestMatchCell(p, blocks, a) == "" {
						t.Fatalf("pool is exhausted, but nobody holds the cell of %s", a)
					}
				}
			}
		}
	}
}

func longestMatchCell(p *Pool, blocks []Block, a netip.Addr) string {
	for _, b := range blocks {
		if b.Prefix.Overlaps(p.Cell(a)) {
			return b.Node
		}
	}
	return ""
}

// TestAnnouncementsStayFew claims four blocks for each of 100 nodes in several
// orders: few prefixes are announced.
func TestAnnouncementsStayFew(t *testing.T) {
	const nodes, each = 100, 4
	rnd := seeded(t)
	inTurn, rounds := make([]int, 0, nodes*each), make([]int, 0, nodes*each)
	for i := range nodes * each {
		inTurn, rounds = append(inTurn, i/each), append(rounds, i%nodes)
	}
	random := slices.Clone(inTurn)
	rnd.Shuffle(len(random), func(i, j int) { random[i], random[j] = random[j], random[i] })
	for name, order := range map[string][]int{"each node in turn": inTurn, "in rounds": rounds, "random": random} {
		for _, family := range []string{"10.0.0.0/16", "fd00::/112"} {
			p := mustNew(t, Definition{Name: "web", Ranges: ranges(t, family)})
			f := p.Families()[0]
			var blocks []Block
			for _, n := range order {
				node := fmt.Sprint("node-", n)
				cell, err := p.NextCell(f, node, blocks)
				if err != nil {
					t.Fatal(err)
				}
				blocks = append(blocks, Block{Prefix: cell, Pool: "web", Node: node})
			}
			announced := 0
			for n := range nodes {
				announced += len(Effective(fmt.Sprint("node-", n), blocks, p.Addresses()).Prefixes())
			}
			if announced > 110 {
				t.Errorf("%s, %s: %d prefixes announced, want at most 110", name, family, announced)
			}
		}
	}
}

// TestNodesStartApart has nodes choose that know nothing of each other: hardly any
// two choose the same cell.
func TestNodesStartApart(t *testing.T) {
	const nodes = 10
	for _, d := range []Definition{
		{Name: "large", Ranges: ranges(t, "10.0.0.0/16")},
		{Name: "small", Ranges: ranges(t, "10.2.0.0-10.2.3.231"), BlockSize: 16},
		{Name: "v6", Ranges: ranges(t, "fd00::/64")},
	} {
		p := mustNew(t, d)
		cells := map[netip.Prefix]bool{}
		for n := range nodes {
			cell, err := p.NextCell(p.Families()[0], fmt.Sprint("node-", n), nil)
			if err != nil {
				t.Fatal(err)
			}
			cells[cell] = true
		}
		if len(cells) < nodes*2/3 {
			t.Errorf("%s: %d nodes choose %d cells", d.Name, nodes, len(cells))
		}
	}
}

func TestNextCell(t *testing.T) {
	gw := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	block := func(s, pool, node string) Block {
		return Block{Prefix: netip.MustParsePrefix(s), Pool: pool, Node: node}
	}
	for _, c := range []struct {
		name   string
		d      Definition
		f      Family
		blocks []Block
		want   string // empty for ErrExhausted
	}{
		{"partial cell", Definition{Ranges: ranges(t, "10.0.0.10-10.0.0.20")}, IPv4, nil, "10.0.0.0/26"},
		{"partial cell is taken", Definition{Ranges: ranges(t, "10.0.0.10-10.0.0.20")}, IPv4, []Block{block("10.0.0.0/26", "web", "n2")}, ""},
		{"a part of the cell is another's", Definition{Ranges: ranges(t, "10.0.0.0/25")}, IPv4, []Block{block("10.0.0.7/32", "web", "n2")}, "10.0.0.64/26"},
		{"a block of a former, larger size", Definition{Ranges: ranges(t, "10.0.0.0/25"), BlockSize: 4}, IPv4, []Block{block("10.0.0.0/26", "web", "n2")}, "10.0.0.64/30"},
		{"the cell at the border is another pool's", Definition{Ranges: ranges(t, "10.0.0.32-10.0.0.127")}, IPv4, []Block{block("10.0.0.0/26", "db", "n1")}, "10.0.0.64/26"},
		{"only the gateway in the first cell", Definition{Ranges: ranges(t, "10.0.0.63-10.0.0.127")}, IPv4, nil, "10.0.0.64/26"},
		{"only the gateway is free", Definition{Ranges: ranges(t, "10.0.0.63-10.0.0.127")}, IPv4, []Block{block("10.0.0.64/26", "web", "n2")}, ""},
		{"no room beside its own block", Definition{Ranges: ranges(t, "10.0.0.0/23")}, IPv4, []Block{block("10.0.0.0/26", "web", "n1"), block("10.0.0.64/26", "web", "n2")}, "10.0.1.0/26"},
		{"excluded cell", Definition{Ranges: ranges(t, "10.0.0.0/24"), Exclude: ranges(t, "10.0.0.0/25"), Gateways: gw("10.0.0.1/23")}, IPv4, nil, "10.0.0.128/26"},
		{"last of all", Definition{Ranges: ranges(t, "255.255.255.192-255.255.255.254")}, IPv4, nil, "255.255.255.192/26"},
		{"v6 /64", Definition{Ranges: ranges(t, "fd00::/64")}, IPv6, nil, "fd00::/122"},
		{"v6 /64 far from another's", Definition{Ranges: ranges(t, "fd00::/64")}, IPv6, []Block{block("fd00::/122", "web", "n2")}, "fd00::2c00:0:0:0/122"},
		{"v6 /64 next to its own", Definition{Ranges: ranges(t, "fd00::/64")}, IPv6, []Block{block("fd00::/122", "web", "n1")}, "fd00::40/122"},
		{"v6 /64 of single addresses", Definition{Ranges: ranges(t, "fd00::/64"), BlockSize: 1}, IPv6, []Block{block("fd00::/128", "web", "n1")}, "fd00::1/128"},
		{"the whole of global v6", Definition{Ranges: ranges(t, "2000::/3")}, IPv6, nil, "2000::/122"},
		{"no address of the family", Definition{Ranges: ranges(t, "10.0.0.0/24")}, IPv6, nil, ""},
	} {
		c.d.Name = "web"
		got, err := mustNew(t, c.d).NextCell(c.f, "n1", c.blocks)
		if c.want == "" {
			if !errors.Is(err, ErrExhausted) {
				t.Errorf("%s: %v, %v, want ErrExhausted", c.name, got, err)
			}
			continue
		}
		if err != nil || got != netip.MustParsePrefix(c.want) {
			t.Errorf("%s: %v, %v, want %s", c.name, got, err, c.want)
		}
	}
}
