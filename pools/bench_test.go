package pools

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// fullLedger holds n blocks, in each of them one lease.
func fullLedger(b *testing.B, n int) *desk {
	p := mustNew(b, Definition{Name: "web", Ranges: ranges(b, "10.0.0.0/8"), ReuseAfter: time.Second, Gateways: []netip.Prefix{netip.MustParsePrefix("11.0.0.1/0")}})
	d := newDesk(b, p)
	cell := netip.MustParseAddr("10.0.0.0")
	for i := range n {
		block := netip.PrefixFrom(cell, p.BlockBits(IPv4))
		if err := d.Hold(Block{Prefix: block, Pool: "web", Node: "here", Created: day}); err != nil {
			b.Fatal(err)
		}
		d.lease("web", fmt.Sprint("standing", i), day, nth(block, 5).String())
		for range 64 {
			cell = cell.Next()
		}
	}
	return d
}

// sizes are how many blocks and leases are held while something is measured.
func sizes(b *testing.B, run func(b *testing.B, n int)) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { run(b, n) })
	}
}

// BenchmarkLeaseAndRelease is what one pod costs: its cost must not grow with
// the blocks and leases held.
func BenchmarkLeaseAndRelease(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		d := fullLedger(b, n)
		r := request("web", "pod")
		now := day
		b.ReportAllocs()
		for b.Loop() {
			now = now.Add(10 * time.Millisecond)
			rec, _, err := d.ProposeLease(r, now)
			if err == nil {
				err = d.Apply(rec)
			}
			if err != nil {
				b.Fatal(err)
			}
			if rec, _, err = d.ProposeRelease(r.Owner, now); err == nil {
				err = d.Apply(rec)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkRestart is what the ledger costs at a start: hold n blocks and
// restore a lease in each.
func BenchmarkRestart(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		old := fullLedger(b, n)
		blocks, history := old.Blocks(), old.History(day)
		pool, err := old.Pool("web")
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			d := newDesk(b, pool)
			for _, h := range blocks {
				if err := d.Hold(h.Block); err != nil {
					b.Fatal(err)
				}
			}
			folded, err := Fold(history)
			if err != nil {
				b.Fatal(err)
			}
			if lost, err := d.Restore(folded, day); err != nil || len(lost) > 0 {
				b.Fatal(lost, err)
			}
		}
	})
}

// BenchmarkReload is SetPools with an unchanged pool.
func BenchmarkReload(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		d := fullLedger(b, n)
		pool, err := d.Pool("web")
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := d.SetPools([]*Pool{pool}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkUsage looks at every address held.
func BenchmarkUsage(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		d := fullLedger(b, n)
		for b.Loop() {
			d.Usage(day)
		}
	})
}

// blocksOf are n blocks that lie next to each other, one of each node in turn.
func blocksOf(b *testing.B, n, nodes int) (out []Block) {
	for i, h := range fullLedger(b, n).Blocks() {
		out = append(out, h.Block)
		out[i].Node = fmt.Sprint("n", i%nodes)
	}
	return out
}

// BenchmarkNextCell is one choice among n blocks of 100 nodes.
func BenchmarkNextCell(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		have := blocksOf(b, n, 100)
		p := mustNew(b, Definition{Name: "web", Ranges: ranges(b, "10.0.0.0/8")})
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.NextCell(IPv4, "n7", have); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEffective is one node's effective set among n blocks of two nodes,
// which lie in turn: the worst case for a set.
func BenchmarkEffective(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		have := blocksOf(b, n, 2)
		p := mustNew(b, Definition{Name: "web", Ranges: ranges(b, "10.0.0.0/8")})
		for b.Loop() {
			Effective("n1", have, p.Addresses())
		}
	})
}
