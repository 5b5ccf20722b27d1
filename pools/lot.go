package pools

import (
	"container/heap"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"
)

// lot is the node's part of one family of one pool: its blocks, which of
// them can lease now, and what cools down.
type lot struct {
	pool   *Pool
	family Family
	blocks map[netip.Prefix]*block
	// lengths are the prefix lengths that occur in blocks, longest first, so
	// that the block of an address is found in as many look-ups.
	lengths []int
	// ready holds the open blocks with a free address, the longest held
	// first: younger blocks run empty and can be returned.
	ready readyHeap
	// cooling is in the order of release, which is the order in which the
	// addresses become free: reuseAfter is the same for all of them.
	cooling []rest
}

type rest struct {
	addr  netip.Addr
	since time.Time
}

// use of one address of a block.
type use uint8

const (
	outside use = iota // not of the pool, or reserved
	free
	leased
	cooling
)

// block is one held block. Addresses are offsets from its first one.
type block struct {
	Block
	lot    *lot
	closed bool
	uses   []use
	queue  []uint32  // the free offsets, next one first
	since  time.Time // of the last lease's end, or of the block's begin
	inHeap int       // index in ready, or -1
}

func newLot(p *Pool, f Family) *lot {
	return &lot{pool: p, family: f, blocks: map[netip.Prefix]*block{}}
}

// add takes a new block in, all of its addresses free.
func (l *lot) add(b Block) error {
	if l.blocks[b.Prefix] != nil {
		return nil
	}
	if n := l.pool.BlockBits(l.family); b.Prefix.Bits() < n || b.Prefix != b.Prefix.Masked() {
		return fmt.Errorf("block %s: %w: the pool's blocks are /%d", b.Prefix, ErrOutside, n)
	}
	nb := &block{Block: b, lot: l, since: b.Created, inHeap: -1}
	nb.uses = make([]use, 1<<(l.family.Bits()-b.Prefix.Bits()))
	l.blocks[b.Prefix] = nb
	l.setLengths()
	l.review(nb)
	return nil
}

// review holds the addresses of b against the pool: those that are new in it
// are free, those that left it are no longer leased. Leases are left alone.
func (l *lot) review(b *block) {
	for o := range b.uses {
		a := b.addr(uint32(o))
		in := l.pool.Contains(a) && !l.pool.Reserved(a)
		switch {
		case in && b.uses[o] == outside:
			b.free(a)
		case !in && b.uses[o] != leased:
			b.uses[o] = outside
		}
	}
	b.queue = slices.DeleteFunc(b.queue, func(o uint32) bool { return b.uses[o] != free })
	l.cooling = slices.DeleteFunc(l.cooling, func(r rest) bool { return l.use(r.addr) != cooling })
	l.settle(b)
}

// use of a, which is outside if no block has it.
func (l *lot) use(a netip.Addr) use {
	if b := l.blockOf(a); b != nil {
		return b.uses[b.offset(a)]
	}
	return outside
}

func (l *lot) setLengths() {
	l.lengths = l.lengths[:0]
	for p := range l.blocks {
		if !slices.Contains(l.lengths, p.Bits()) {
			l.lengths = append(l.lengths, p.Bits())
		}
	}
	slices.SortFunc(l.lengths, func(a, b int) int { return b - a })
}

// settle puts b in or out of ready, as it should be.
func (l *lot) settle(b *block) {
	want := !b.closed && len(b.queue) > 0
	switch {
	case want && b.inHeap < 0:
		heap.Push(&l.ready, b)
	case !want && b.inHeap >= 0:
		heap.Remove(&l.ready, b.inHeap)
	}
}

func (l *lot) close(b *block)  { b.closed = true; l.settle(b) }
func (l *lot) reopen(b *block) { b.closed = false; l.settle(b) }

func (l *lot) drop(b *block) {
	delete(l.blocks, b.Prefix)
	l.setLengths()
	l.cooling = slices.DeleteFunc(l.cooling, func(r rest) bool { return l.use(r.addr) != cooling })
}

// blockOf returns the smallest block around a.
func (l *lot) blockOf(a netip.Addr) *block {
	for _, n := range l.lengths {
		if b := l.blocks[netip.PrefixFrom(a, n).Masked()]; b != nil {
			return b
		}
	}
	return nil
}

// advance frees what has cooled down by now.
func (l *lot) advance(now time.Time) {
	n := 0
	for ; n < len(l.cooling) && !now.Before(l.cooling[n].since.Add(l.pool.ReuseAfter())); n++ {
		b := l.blockOf(l.cooling[n].addr)
		b.free(l.cooling[n].addr)
		l.settle(b)
	}
	l.cooling = l.cooling[n:]
}

// offer is the address that want, or anybody if want is not valid, would
// get. It leases nothing.
func (l *lot) offer(want netip.Addr, now time.Time) (netip.Addr, error) {
	l.advance(now)
	if want.IsValid() {
		b := l.blockOf(want)
		if b == nil || b.closed {
			return want, &NoFreeError{Pool: l.pool.Name(), Family: l.family, Want: want}
		}
		return want, l.leasable(want)
	}
	if len(l.ready) == 0 {
		e := &NoFreeError{Pool: l.pool.Name(), Family: l.family, Cooling: len(l.cooling)}
		if len(l.cooling) > 0 {
			e.Next = l.cooling[0].since.Add(l.pool.ReuseAfter())
		}
		return netip.Addr{}, e
	}
	b := l.ready[0]
	return b.addr(b.queue[0]), nil
}

// leasable says why a can't be leased.
func (l *lot) leasable(a netip.Addr) error {
	b := l.blockOf(a)
	if b == nil {
		return fmt.Errorf("%s: %w: no block held here has it", a, ErrOutside)
	}
	switch b.uses[b.offset(a)] {
	case free:
		return nil
	case leased:
		return fmt.Errorf("%w: %s is leased", ErrTaken, a)
	case cooling:
		return fmt.Errorf("%w: %s was given back a moment ago and cools down for %s", ErrTaken, a, l.pool.ReuseAfter())
	}
	return fmt.Errorf("%s: %w", a, ErrOutside)
}

func (l *lot) lease(a netip.Addr) {
	b := l.blockOf(a)
	o := b.offset(a)
	b.uses[o] = leased
	if b.queue[0] == o {
		b.queue = b.queue[1:]
	} else {
		b.queue = slices.DeleteFunc(b.queue, func(q uint32) bool { return q == o })
	}
	l.settle(b)
}

func (l *lot) release(a netip.Addr, now time.Time) {
	b := l.blockOf(a)
	b.uses[b.offset(a)] = cooling
	b.since = now
	l.cooling = append(l.cooling, rest{a, now})
}

// rest makes a free address cool down from since. An address that is not
// free, or in no block, is left as it is.
func (l *lot) rest(a netip.Addr, since time.Time) {
	if l.use(a) != free {
		return
	}
	l.lease(a)
	l.release(a, since)
}

// leased counts the leases in b.
func (b *block) leased() int { return b.count(leased) }

func (b *block) count(u use) (n int) {
	for _, have := range b.uses {
		if have == u {
			n++
		}
	}
	return n
}

// free puts a at the back of the queue.
func (b *block) free(a netip.Addr) {
	b.uses[b.offset(a)] = free
	b.queue = append(b.queue, b.offset(a))
}

func (b *block) offset(a netip.Addr) uint32 {
	bytes := a.As16()
	host := uint32(bytes[12])<<24 | uint32(bytes[13])<<16 | uint32(bytes[14])<<8 | uint32(bytes[15])
	return host & uint32(len(b.uses)-1)
}

func (b *block) addr(offset uint32) netip.Addr {
	bytes := b.Prefix.Addr().As16()
	for i := range 4 {
		bytes[15-i] |= byte(offset >> (8 * i))
	}
	if b.lot.family == IPv4 {
		return netip.AddrFrom16(bytes).Unmap()
	}
	return netip.AddrFrom16(bytes)
}

// readyHeap orders blocks by age.
type readyHeap []*block

func (h readyHeap) Len() int { return len(h) }
func (h readyHeap) Less(i, j int) bool {
	if c := h[i].Created.Compare(h[j].Created); c != 0 {
		return c < 0
	}
	return netipx.ComparePrefix(h[i].Prefix, h[j].Prefix) < 0
}
func (h readyHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].inHeap, h[j].inHeap = i, j
}
func (h *readyHeap) Push(x any) {
	b := x.(*block)
	b.inHeap = len(*h)
	*h = append(*h, b)
}
func (h *readyHeap) Pop() any {
	old := *h
	b := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	b.inHeap = -1
	return b
}
