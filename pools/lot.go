package pools

import (
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
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
	// that the block of an address is found in as many look-ups. ofLength
	// counts the blocks of each.
	lengths  []int
	ofLength map[int]int
	// ready holds the open blocks with a free address, the longest held
	// first: younger blocks run empty and can be returned.
	ready readyHeap
	// cooling is in the order of release times, which is the order in which
	// the addresses become free: reuseAfter is the same for all of them.
	cooling []rest
	// asides are the parts of blocks that other nodes have, and which node.
	asides map[netip.Prefix]string
}

type rest struct {
	addr  netip.Addr
	since time.Time
}

// use of one address of a block. Being a byte, many are counted fast.
type use = byte

const (
	outside use = iota // not of the pool, reserved, or in a smaller block held
	free
	leased
	cooling
	lent // set aside for another node
)

// noOffset is one that no block has.
const noOffset = math.MaxUint32

// block is one held block. Addresses are offsets from its first one.
type block struct {
	Block
	lot     *lot
	closed  bool
	uses    []use
	queue   []uint32    // the free offsets, next one first: see order
	ended   []time.Time // when each was last given back; nil while none was
	inHeap  int         // index in ready, or -1
	low     byte        // the last one of the first address
	network uint32      // the lowest address of the network of the pods' gateway, or noOffset
}

func newLot(p *Pool, f Family) *lot {
	return &lot{pool: p, family: f, blocks: map[netip.Prefix]*block{}, ofLength: map[int]int{}, asides: map[netip.Prefix]string{}}
}

// add takes a new block in. Its addresses are free, unless it lies in a larger
// one held here: then it takes them over from there as they are.
func (l *lot) add(b Block) error {
	if l.blocks[b.Prefix] != nil {
		return nil
	}
	if n := l.pool.BlockBits(l.family); b.Prefix.Bits() < n || b.Prefix != b.Prefix.Masked() {
		return fmt.Errorf("block %s: %w: the pool's blocks are /%d", b.Prefix, ErrOutside, n)
	}
	first := b.Prefix.Addr().As16()
	nb := &block{Block: b, lot: l, inHeap: -1, low: first[15], network: noOffset}
	nb.uses = make([]use, 1<<(l.family.Bits()-b.Prefix.Bits()))
	l.blocks[b.Prefix] = nb
	l.countLength(b.Prefix.Bits(), +1)
	if outer := l.around(b.Prefix); outer != nil {
		l.move(outer, nb)
	} else {
		l.review(nb)
	}
	return nil
}

// review holds the addresses of b against the pool: those that are new in it
// are free, free ones that left it are no longer leased. What is leased or
// cools down is left alone until it is given back or has rested.
func (l *lot) review(b *block) {
	whole := l.hasWhole(b)
	for o, u := range b.uses {
		in := whole || l.has(b, b.addr(uint32(o)))
		switch {
		case in && u == outside:
			b.uses[o] = free
		case !in && u == free:
			b.uses[o] = outside
		}
	}
	b.line()
	l.settle(b)
}

// has says whether a is an address for pods whose smallest block is b.
func (l *lot) has(b *block, a netip.Addr) bool { return l.mayLease(a) && l.blockOf(a) == b }

// hasWhole spares most blocks the question for each address.
func (l *lot) hasWhole(b *block) bool {
	return len(l.lengths) == 1 && l.pool.addrs.ContainsPrefix(b.Prefix) && !b.Prefix.Contains(l.pool.gateways[l.family].Addr())
}

// move hands what from holds of the addresses that both blocks have over to
// the other block, one of which lies in the other.
func (l *lot) move(from, to *block) {
	inner := to
	if from.Prefix.Bits() > to.Prefix.Bits() {
		inner = from
	}
	for i := range inner.uses {
		a := inner.addr(uint32(i))
		have, get := from.offset(a), to.offset(a)
		if ended := from.lastEnd(have); !ended.IsZero() {
			// Also of an address that is out of the pool: it may come back.
			to.end(get, ended)
			from.end(have, time.Time{})
		}
		switch {
		case to == inner && from.uses[have] == lent:
			to.uses[get] = l.borrowed(to, a) // and stays lent there
		case to != inner && to.uses[get] == lent:
		case from.uses[have] != outside:
			to.uses[get], from.uses[have] = from.uses[have], outside
		}
	}
	for _, b := range []*block{from, to} {
		b.line()
		l.settle(b)
	}
}

// borrowed is what an address becomes that is lent out of a block held here, and
// comes back in the smaller block b.
func (l *lot) borrowed(b *block, a netip.Addr) use {
	switch {
	case l.lentIn(b, netip.PrefixFrom(a, a.BitLen())):
		return lent
	case l.mayLease(a):
		return free
	}
	return outside
}

// mayLease says whether a is an address for pods.
func (l *lot) mayLease(a netip.Addr) bool { return l.pool.Contains(a) && !l.pool.Reserved(a) }

// use of a, which is outside if no block has it.
func (l *lot) use(a netip.Addr) use {
	if b := l.blockOf(a); b != nil {
		return b.uses[b.offset(a)]
	}
	return outside
}

func (l *lot) countLength(n, by int) {
	l.ofLength[n] += by
	switch l.ofLength[n] {
	case 0:
		delete(l.ofLength, n)
	case by: // the first one
	default:
		return
	}
	l.lengths = slices.SortedFunc(maps.Keys(l.ofLength), func(a, b int) int { return b - a })
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

// drop forgets b, in which nothing is leased or cools down. Its addresses fall
// back to the block around it, if one is held.
func (l *lot) drop(b *block) {
	delete(l.blocks, b.Prefix)
	l.countLength(b.Prefix.Bits(), -1)
	if outer := l.around(b.Prefix); outer != nil {
		l.move(b, outer)
	}
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

// around returns the smallest block that p is a part of.
func (l *lot) around(p netip.Prefix) *block {
	for _, n := range l.lengths {
		if n >= p.Bits() {
			continue
		}
		if b := l.blocks[netip.PrefixFrom(p.Addr(), n).Masked()]; b != nil {
			return b
		}
	}
	return nil
}

// advance frees what has cooled down by now.
func (l *lot) advance(now time.Time) {
	n := 0
	for ; n < len(l.cooling) && !now.Before(l.cooling[n].since.Add(l.pool.ReuseAfter())); n++ {
		a := l.cooling[n].addr
		b := l.blockOf(a)
		if l.mayLease(a) {
			b.free(b.offset(a))
		} else {
			b.uses[b.offset(a)] = outside
		}
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
		if b == nil || b.closed || b.uses[b.offset(want)] == lent {
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
	if b.closed {
		return fmt.Errorf("%w: %s is in block %s, which is being returned", ErrTaken, a, b.Prefix)
	}
	switch b.uses[b.offset(a)] {
	case free:
		return nil
	case leased:
		return fmt.Errorf("%w: %s is leased", ErrTaken, a)
	case cooling:
		return fmt.Errorf("%w: %s was given back a moment ago and cools down for %s", ErrTaken, a, l.pool.ReuseAfter())
	case lent:
		return fmt.Errorf("%w: %s is lent to another node", ErrTaken, a)
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

// release lets a cool down from now on. Times of one lot may be out of order,
// as the clock was set or the caller's lock was taken.
func (l *lot) release(a netip.Addr, now time.Time) {
	b := l.blockOf(a)
	o := b.offset(a)
	b.uses[o] = cooling
	b.end(o, now)
	at := len(l.cooling)
	for at > 0 && l.cooling[at-1].since.After(now) {
		at--
	}
	l.cooling = slices.Insert(l.cooling, at, rest{a, now})
}

// rest makes an address cool down from since. One that is leased, cools down
// already, or is in no block, is left as it is.
func (l *lot) rest(a netip.Addr, since time.Time) {
	switch l.use(a) {
	case free:
		l.lease(a)
	case outside:
		if l.blockOf(a) == nil {
			return
		}
	default:
		return
	}
	l.release(a, since)
}

// leased counts the leases in b.
func (b *block) leased() int { return b.count(leased) }

func (b *block) count(u use) int { return bytes.Count(b.uses, []byte{u}) }

// free puts o in the queue: at its back, as long as time runs forward.
func (b *block) free(o uint32) {
	b.uses[o] = free
	at := len(b.queue)
	for at > 0 && b.order(o, b.queue[at-1]) < 0 {
		at--
	}
	b.queue = slices.Insert(b.queue, at, o)
}

// line makes the queue anew.
func (b *block) line() {
	b.network = noOffset
	if net := b.lot.pool.gateways[b.lot.family].Masked().Addr(); b.Prefix.Contains(net) {
		b.network = b.offset(net)
	}
	b.queue = slices.Grow(b.queue[:0], len(b.uses))
	var last, used []uint32
	for i, u := range b.uses {
		switch o := uint32(i); {
		case u != free:
		case !b.lastEnd(o).IsZero():
			used = append(used, o)
		case b.avoided(o):
			last = append(last, o)
		default:
			b.queue = append(b.queue, o)
		}
	}
	slices.SortFunc(used, b.order)
	b.queue = append(append(b.queue, last...), used...)
}

// order of leasing: the least recently used first, never used ones before all
// others. Where that is equal, by address, so that what is left is in one piece and
// can be lent in few; but those that are avoided last.
func (b *block) order(o, p uint32) int {
	if c := b.lastEnd(o).Compare(b.lastEnd(p)); c != 0 {
		return c
	}
	if c := compareBool(b.avoided(o), b.avoided(p)); c != 0 {
		return c
	}
	return cmp.Compare(o, p)
}

// avoided says whether an address is the lowest of the network of the pods' gateway, or
// its last byte is 0, as of most networks' lowest: routers of an IPv6 subnet answer for
// that (RFC 4291, section 2.6.1), and some hosts and firewalls take an IPv4 .0 for a
// network's.
func (b *block) avoided(o uint32) bool {
	return o == b.network || (b.low == 0 && byte(o) == 0)
}

// lastEnd is when o was last given back; zero for never.
func (b *block) lastEnd(o uint32) time.Time {
	if b.ended == nil {
		return time.Time{}
	}
	return b.ended[o]
}

func (b *block) end(o uint32, t time.Time) {
	if b.ended == nil {
		if t.IsZero() {
			return
		}
		b.ended = make([]time.Time, len(b.uses))
	}
	b.ended[o] = t
}

// idleSince is when the last lease ended, or the block began.
func (b *block) idleSince() time.Time {
	since := b.Created
	for _, t := range b.ended {
		if t.After(since) {
			since = t
		}
	}
	return since
}

func (b *block) offset(a netip.Addr) uint32 {
	b16 := a.As16()
	host := binary.BigEndian.Uint32(b16[12:])
	return host & uint32(len(b.uses)-1)
}

func (b *block) addr(offset uint32) netip.Addr {
	b16 := b.Prefix.Addr().As16()
	host := b16[12:]
	binary.BigEndian.PutUint32(host, binary.BigEndian.Uint32(host)|offset)
	if b.lot.family == IPv4 {
		return netip.AddrFrom16(b16).Unmap()
	}
	return netip.AddrFrom16(b16)
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
