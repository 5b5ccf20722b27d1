package pools

import (
	"bytes"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"time"
)

// SetAside takes prefix, a part of one open block held here, out of the
// effective set: its addresses are of node from now on, or of nobody while node
// is "" or this ledger's, which does not hold it, until TakeBack. Setting the same
// aside again changes nothing but the node. The error wraps ErrOutside when no block held has all of prefix and
// more, and ErrTaken when the block is closed, or an address of it is leased,
// cools down, or is set aside in another prefix that does not have all of this
// one. A smaller block held here that lies in prefix was borrowed back, and is
// not concerned.
func (l *Ledger) SetAside(pool string, prefix netip.Prefix, node string) error {
	s := l.shares[pool]
	if s == nil {
		return fmt.Errorf("set %s aside: %w %q", prefix, ErrUnknownPool, pool)
	}
	if node == l.node {
		node = ""
	}
	if err := s.lot(FamilyOf(prefix.Addr())).setAside(prefix, node); err != nil {
		return fmt.Errorf("set %s of pool %q aside: %w", prefix, pool, err)
	}
	return nil
}

// TakeBack ends SetAside: what of prefix is an address for pods is free. It
// says whether prefix was set aside.
func (l *Ledger) TakeBack(prefix netip.Prefix) bool {
	for _, s := range l.shares {
		if s.lot(FamilyOf(prefix.Addr())).takeBack(prefix) {
			return true
		}
	}
	return false
}

// Asides are what is set aside, as blocks of the nodes that have them.
func (l *Ledger) Asides() []Block {
	var out []Block
	for name, s := range l.shares {
		for _, lot := range s.lots {
			out = append(out, lot.foreign(name)...)
		}
	}
	return sorted(out)
}

// Spare chooses what could be set aside for a node that lacks count addresses
// of a family, or the address want if that is valid: the largest part of a
// block, no more than half of it, of which all addresses are free, and no
// larger than count asks for. ok is false if there is none.
func (l *Ledger) Spare(pool string, f Family, want netip.Addr, count int, now time.Time) (p netip.Prefix, ok bool) {
	s := l.shares[pool]
	if s == nil {
		return p, false
	}
	lot := s.lot(f)
	lot.advance(now)
	if want.IsValid() {
		b := lot.blockOf(want)
		ok = b != nil && !b.closed && b.uses[b.offset(want)] == free && len(b.uses) > 1
		return netip.PrefixFrom(want, f.Bits()), ok
	}
	// From the youngest block: the older ones are the fuller ones.
	young := slices.SortedFunc(slices.Values(lot.ready), func(a, b *block) int { return b.Created.Compare(a.Created) })
	size := 1 << bits.Len(uint(max(count, 1)-1))
	for ; size >= 1; size /= 2 {
		for _, b := range young {
			if p, ok = b.spare(size); ok {
				return p, true
			}
		}
	}
	return p, false
}

// Free counts the addresses of a family of a pool that could be leased at now.
func (l *Ledger) Free(pool string, f Family, now time.Time) (n int) {
	if s := l.shares[pool]; s != nil {
		lot := s.lot(f)
		lot.advance(now)
		for _, b := range lot.ready {
			n += len(b.queue)
		}
	}
	return n
}

// NextFree is when the next address of a family of a pool has rested that rests
// now; zero if none does.
func (l *Ledger) NextFree(pool string, f Family, now time.Time) time.Time {
	s := l.shares[pool]
	if s == nil {
		return time.Time{}
	}
	lot := s.lot(f)
	lot.advance(now)
	if len(lot.cooling) == 0 {
		return time.Time{}
	}
	return lot.cooling[0].since.Add(lot.pool.ReuseAfter())
}

// Offers says whether a block held, closed or not, has a free address for pods;
// want, if that is valid.
func (l *Ledger) Offers(prefix netip.Prefix, want netip.Addr) bool {
	b := l.find(prefix)
	switch {
	case b == nil:
		return false
	case want.IsValid():
		return prefix.Contains(want) && b.uses[b.offset(want)] == free
	}
	return b.count(free) > 0
}

// spare is the last aligned part of b of that size of which each address is
// free, or is none for pods, and one at least is free.
func (b *block) spare(size int) (netip.Prefix, bool) {
	if size > len(b.uses)/2 {
		return netip.Prefix{}, false
	}
	for at := len(b.uses) - size; at >= 0; at -= size {
		part := b.uses[at : at+size]
		n := bytes.Count(part, []byte{free})
		if n > 0 && n+bytes.Count(part, []byte{outside}) == size && b.alone(uint32(at), size) {
			first := b.addr(uint32(at))
			return netip.PrefixFrom(first, first.BitLen()-bits.Len(uint(size-1))), true
		}
	}
	return netip.Prefix{}, false
}

// alone says whether no smaller block is held in a part of b.
func (b *block) alone(at uint32, size int) bool {
	if len(b.lot.lengths) == 1 {
		return true
	}
	for o := at; o < at+uint32(size); o++ {
		if b.lot.blockOf(b.addr(o)) != b {
			return false
		}
	}
	return true
}

func (l *lot) setAside(p netip.Prefix, node string) error {
	if _, again := l.asides[p]; again {
		l.asides[p] = node
		return nil
	}
	b := l.around(p)
	if b == nil || p != p.Masked() {
		return fmt.Errorf("%w: no block held here has it and more", ErrOutside)
	}
	at, size := b.offset(p.Addr()), 1<<(l.family.Bits()-p.Bits())
	if b.closed {
		return fmt.Errorf("%w: block %s is being returned", ErrTaken, b.Prefix)
	}
	within := l.lentIn(b, p)
	for o := at; o < at+uint32(size); o++ {
		inner := l.blockOf(b.addr(o))
		borrowed := inner != b && inner.Prefix.Bits() > p.Bits()
		if u := b.uses[o]; u != free && u != outside && !within || inner != b && !borrowed {
			return fmt.Errorf("%w: %s is in use", ErrTaken, b.addr(o))
		}
	}
	for o := at; o < at+uint32(size); o++ {
		b.uses[o] = lent
	}
	l.asides[p] = node
	b.line()
	l.settle(b)
	return nil
}

func (l *lot) takeBack(p netip.Prefix) bool {
	if _, is := l.asides[p]; !is {
		return false
	}
	delete(l.asides, p)
	for b := range l.overlapping(p) {
		// Of a block around a smaller one, too, which was borrowed back.
		for a := p.Addr(); p.Contains(a); a = a.Next() {
			if b.Prefix.Contains(a) && b.uses[b.offset(a)] == lent && !l.lentIn(b, netip.PrefixFrom(a, a.BitLen())) {
				b.uses[b.offset(a)] = outside
			}
		}
		l.review(b)
	}
	return true
}

// lentIn says whether p lies in a part of b that is set aside.
func (l *lot) lentIn(b *block, p netip.Prefix) bool {
	for n := b.Prefix.Bits() + 1; n <= p.Bits(); n++ {
		if _, is := l.asides[netip.PrefixFrom(p.Addr(), n).Masked()]; is {
			return true
		}
	}
	return false
}

// overlapping are the blocks that p lies in or that lie in p.
func (l *lot) overlapping(p netip.Prefix) func(yield func(*block) bool) {
	return func(yield func(*block) bool) {
		for _, b := range l.blocks {
			if b.Prefix.Overlaps(p) && !yield(b) {
				return
			}
		}
	}
}

// foreign are the asides as blocks.
func (l *lot) foreign(pool string) (out []Block) {
	for p, node := range l.asides {
		out = append(out, Block{Prefix: p, Pool: pool, Node: node})
	}
	return out
}

// GrantsIn are the standing records with an address whose smallest block held
// is prefix.
func (l *Ledger) GrantsIn(prefix netip.Prefix) (out []Record) {
	for _, g := range l.grants {
		for _, a := range g.Addrs {
			if prefix.Contains(a) && l.BlockOf(g.Pool, a) == prefix {
				out = append(out, g.clone())
				break
			}
		}
	}
	return inOrder(out)
}

// Forfeit forgets a block in which nothing is leased, closed or not, with what
// rests in it and what of it was set aside: it has another owner. It says
// whether there was one.
func (l *Ledger) Forfeit(prefix netip.Prefix) bool {
	b := l.find(prefix)
	if b == nil || b.leased() > 0 {
		return false
	}
	lot := b.lot
	lot.cooling = slices.DeleteFunc(lot.cooling, func(r rest) bool { return lot.blockOf(r.addr) == b })
	for p := range lot.asides {
		if lot.around(p) == b {
			delete(lot.asides, p)
		}
	}
	for o := range b.uses {
		b.uses[o] = outside
	}
	b.ended = nil
	b.line()
	lot.close(b)
	lot.drop(b)
	if outer := lot.around(prefix); outer != nil {
		lot.review(outer) // its own part of the prefix: set it aside first if it is another's
	}
	if s := l.shares[b.Pool]; s.retired() && s.empty() {
		delete(l.shares, b.Pool)
	}
	return true
}

// Low says whether no more than limit addresses of a family of a pool are free,
// not counting those that have rested since somebody last asked.
func (l *Ledger) Low(pool string, f Family, limit int) bool {
	s := l.shares[pool]
	if s == nil {
		return false
	}
	n := 0
	for _, b := range s.lot(f).ready {
		if n += len(b.queue); n > limit {
			return false
		}
	}
	return true
}

// Untouched says whether nothing was leased in a block since it is held, as far
// as anybody remembers.
func (l *Ledger) Untouched(prefix netip.Prefix) bool {
	b := l.find(prefix)
	return b != nil && b.ended == nil && b.leased() == 0
}
