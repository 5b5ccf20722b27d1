package pools

import (
	"fmt"
	"hash/fnv"
	"net/netip"

	"go4.org/netipx"
)

// NextCell chooses the cell of family f that node should claim next. blocks
// are all of the pool's blocks that the caller knows of, in any order. A view
// that is out of date does no harm: the claim itself fails then.
//
// A node that holds blocks gets the free cell that joins them into the
// shortest prefix, as long as nobody else's block lies in between. Otherwise
// it gets the start of a large free part, so that it has room to grow into one
// prefix; which part the node's name decides, to keep nodes that start together
// apart.
//
// The error wraps ErrExhausted when no cell is free.
func (p *Pool) NextCell(f Family, node string, blocks []Block) (netip.Prefix, error) {
	own, foreign := p.split(f, node, blocks)
	free := p.freeCells(f, own, foreign)
	if len(free.Ranges()) == 0 {
		return netip.Prefix{}, fmt.Errorf("%w: no free block of %v in pool %q (%d addresses, %d blocks of %d held)",
			ErrExhausted, f, p.def.Name, p.Size(f), len(own)+len(foreign), p.def.BlockSize)
	}
	if around, ok := joinable(own, foreign, free); ok {
		return p.firstCell(free, around), nil
	}
	h := fnv.New64a()
	h.Write([]byte(node))
	starts := p.starts(free.Prefixes())
	return p.Cell(starts[h.Sum64()%uint64(len(starts))].Addr()), nil
}

// starts are the parts of free stretches that are the largest of one length of which
// there are many; none of fewer than four cells, unless all stretches are smaller than
// that: then they are all free cells.
func (p *Pool) starts(stretches []netip.Prefix) (parts []netip.Prefix) {
	const many, room = 64, 2
	cell := p.BlockBits(FamilyOf(stretches[0].Addr()))
	bits := largest(stretches)
	if bits > cell-room {
		return partsOf(stretches, cell)
	}
	for ; ; bits++ {
		if parts = partsOf(stretches, bits); len(parts) >= many || bits == cell-room {
			return parts
		}
	}
}

// partsOf cuts stretches into parts of a length. Those that are smaller are left out.
func partsOf(stretches []netip.Prefix, bits int) (parts []netip.Prefix) {
	for _, s := range stretches {
		if s.Bits() > bits {
			continue
		}
		part := netip.PrefixFrom(s.Addr(), bits)
		for n := 1 << (bits - s.Bits()); n > 0; n-- {
			parts = append(parts, part)
			part = netip.PrefixFrom(netipx.PrefixLastIP(part).Next(), bits)
		}
	}
	return parts
}

// split gives the blocks of family f by whose they are. A block of another
// pool is foreign whoever holds it: a cell at the border of two pools can be
// claimed for one of them only.
func (p *Pool) split(f Family, node string, blocks []Block) (own, foreign []netip.Prefix) {
	for _, b := range blocks {
		switch {
		case FamilyOf(b.Prefix.Addr()) != f:
		case b.Node == node && b.Pool == p.def.Name:
			own = append(own, b.Prefix)
		default:
			foreign = append(foreign, b.Prefix)
		}
	}
	return own, foreign
}

// cells builds the set of all whole cells that hold an address of the pool.
func (p *Pool) cells(f Family) *netipx.IPSetBuilder {
	b := new(netipx.IPSetBuilder)
	for _, r := range p.ranges(f) {
		b.AddRange(netipx.IPRangeFrom(p.Cell(r.From()).Addr(), netipx.PrefixLastIP(p.Cell(r.To()))))
	}
	return b
}

// freeCells are the whole cells that hold an address which can be leased and
// that no block overlaps.
func (p *Pool) freeCells(f Family, own, foreign []netip.Prefix) *netipx.IPSet {
	b := p.cells(f)
	if gw := p.gateways[f].Addr(); p.Contains(gw) && countAll(p.in(p.Cell(gw)).Ranges()) == 1 {
		b.RemovePrefix(p.Cell(gw))
	}
	for _, blocks := range [][]netip.Prefix{own, foreign} {
		for _, block := range blocks {
			if block.Bits() > p.BlockBits(f) {
				block = p.Cell(block.Addr())
			}
			b.RemovePrefix(block)
		}
	}
	return mustSet(b)
}

// in gives the pool's addresses within block.
func (p *Pool) in(block netip.Prefix) *netipx.IPSet {
	var b netipx.IPSetBuilder
	b.AddPrefix(block)
	b.Intersect(p.addrs)
	return mustSet(&b)
}

// joinable returns the smallest prefix that holds an own block and a free
// cell and nothing of others; of equally small ones the lowest.
func joinable(own, foreign []netip.Prefix, free *netipx.IPSet) (best netip.Prefix, ok bool) {
	var b netipx.IPSetBuilder
	for _, p := range foreign {
		b.AddPrefix(p)
	}
	others := mustSet(&b)
	for _, p := range own {
		for n := p.Bits() - 1; n >= 0; n-- {
			around := netip.PrefixFrom(p.Addr(), n).Masked()
			if others.OverlapsPrefix(around) {
				break
			}
			if !free.OverlapsPrefix(around) {
				continue
			}
			if !ok || n > best.Bits() || n == best.Bits() && around.Addr().Less(best.Addr()) {
				best, ok = around, true
			}
			break
		}
	}
	return best, ok
}

// firstCell is the lowest free cell within around.
func (p *Pool) firstCell(free *netipx.IPSet, around netip.Prefix) netip.Prefix {
	var b netipx.IPSetBuilder
	b.AddPrefix(around)
	b.Intersect(free)
	return p.Cell(mustSet(&b).Ranges()[0].From())
}

// largest is the length of the shortest prefix.
func largest(prefixes []netip.Prefix) int {
	bits := prefixes[0].Bits()
	for _, p := range prefixes {
		bits = min(bits, p.Bits())
	}
	return bits
}
