package pools

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"
)

// Op is what a Record did.
type Op uint8

const (
	Leased Op = iota + 1
	Released
	// Rested stands in a shortened history for a lease and its release: the
	// address was given back at that time. It has no owner.
	Rested
	// Claimed and Returned begin and end the holding of a Block; Lent and
	// Regained do so for a part of one that another node has.
	Claimed
	Returned
	Lent
	Regained
)

// OfLease says whether op is about leases, and not about blocks.
func (op Op) OfLease() bool { return op >= Leased && op <= Rested }

// Record is one change of what a ledger keeps: all addresses of one attachment,
// granted or given back together, or one block. Of an attachment that has lost
// the block of one address that one alone is given back: the other one, of the
// other family, stays leased.
type Record struct {
	Op    Op
	Pool  string
	Owner Owner
	Addrs []netip.Addr
	At    time.Time
	// Netns, of a record Leased, is where the sandbox was.
	Netns Netns
	// Block, of a record that is about one, shares the Pool; of one Lent its
	// Node is the one that has it. Ref is what it was set aside for.
	Block *Block
	Ref   string
}

// check says what no record can be: without an address, or with two of one
// family; or without a block.
func (r Record) check() error {
	if r.Op < Leased || r.Op > Regained {
		return fmt.Errorf("record of %v: unknown operation %d", r.Addrs, r.Op)
	}
	if !r.Op.OfLease() {
		if r.Block == nil || !r.Block.Prefix.IsValid() || r.Block.Prefix != r.Block.Prefix.Masked() {
			return fmt.Errorf("record of a block in pool %q: no block", r.Pool)
		}
		return nil
	}
	if len(r.Addrs) == 0 {
		return fmt.Errorf("record of %s in pool %q: no address", r.Owner, r.Pool)
	}
	for i, a := range r.Addrs {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			return fmt.Errorf("record of %s in pool %q: %q is not a plain address", r.Owner, r.Pool, a)
		}
		if slices.ContainsFunc(r.Addrs[:i], func(b netip.Addr) bool { return FamilyOf(a) == FamilyOf(b) }) {
			return fmt.Errorf("record of %s in pool %q: %v has two addresses of one family", r.Owner, r.Pool, r.Addrs)
		}
	}
	return nil
}

// clone shares no memory with r.
func (r Record) clone() Record {
	r.Addrs = slices.Clone(r.Addrs)
	return r
}

// ends says whether r is the release of what the record lease granted, or of a
// part of it.
func (r Record) ends(lease Record) bool {
	return r.Op == Released && r.Pool == lease.Pool && r.Owner == lease.Owner && len(r.without(lease.Addrs)) == 0
}

// without are the addresses of r that are not among addrs.
func (r Record) without(addrs []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(r.Addrs), func(a netip.Addr) bool { return slices.Contains(addrs, a) })
}

// Ledger is what one node knows to be its own: pools, the blocks held in
// them, and the leases in the blocks. It is a state machine: Propose methods
// work out a Record without changing a lease, Apply carries it out, and a
// caller that keeps the record in between can rebuild the ledger after a
// crash. It is not safe for concurrent use.
type Ledger struct {
	node   string
	shares map[string]*share
	grants map[Attachment]*Record // the standing Leased records
}

// NewLedger returns the empty ledger of node.
func NewLedger(node string) *Ledger {
	return &Ledger{node: node, shares: map[string]*share{}, grants: map[Attachment]*Record{}}
}

// NoFreeError says what a request lacked: a free address of Family, or the
// chosen address Want if that is valid. It wraps ErrNoFree.
type NoFreeError struct {
	Pool   string
	Family Family
	Want   netip.Addr
	// Cooling is how many addresses of the blocks held rest until they may
	// be leased again, Next when the first one may.
	Cooling int
	Next    time.Time
}

func (e *NoFreeError) Error() string {
	if e.Want.IsValid() {
		return fmt.Sprintf("pool %q: %s is in no block held here", e.Pool, e.Want)
	}
	if e.Cooling > 0 {
		return fmt.Sprintf("pool %q: no free %v address in the blocks held, %d cooling down, the first until %s",
			e.Pool, e.Family, e.Cooling, e.Next.Format(time.RFC3339))
	}
	return fmt.Sprintf("pool %q: no free %v address in the blocks held", e.Pool, e.Family)
}

func (e *NoFreeError) Unwrap() error { return ErrNoFree }

// SetPools makes ps the pools of the ledger. Their names and addresses must be
// distinct, a standing lease must stay inside of its pool, and a pool in which
// blocks are held keeps its block size; otherwise nothing changes and the error
// names what stands in the way. A pool without leases may go: its blocks then
// show up in Orphans once their addresses have rested.
func (l *Ledger) SetPools(ps []*Pool) error {
	next := make(map[string]*Pool, len(ps))
	for _, p := range ps {
		if next[p.Name()] != nil {
			return fmt.Errorf("pool %q is defined twice: give the second one another name", p.Name())
		}
		next[p.Name()] = p
	}
	if err := errors.Join(disjoint(ps), l.keepsLeases(next), l.keepsBlockSizes(next)); err != nil {
		return err
	}
	for name, s := range l.shares {
		if p := next[name]; p != nil {
			s.become(p)
		} else if s.empty() {
			delete(l.shares, name)
		} else {
			s.retire()
		}
	}
	for name, p := range next {
		if l.shares[name] == nil {
			l.shares[name] = newShare(p)
		}
	}
	return nil
}

// disjoint says which pools clash.
func disjoint(ps []*Pool) error {
	var errs []error
	for _, c := range Clashes(ps) {
		errs = append(errs, errors.New(c.Describe(ps[c.A].Name(), ps[c.B].Name())))
	}
	return errors.Join(errs...)
}

// keepsLeases names, for each pool, the oldest lease that next has no room for.
func (l *Ledger) keepsLeases(next map[string]*Pool) error {
	var errs []error
	named := map[string]bool{}
	for _, g := range l.Grants() {
		p := next[g.Pool]
		for _, a := range g.Addrs {
			if named[g.Pool] || p != nil && p.Contains(a) && !p.Reserved(a) {
				continue
			}
			named[g.Pool] = true
			errs = append(errs, fmt.Errorf("pool %q: %s is leased by %s: keep it in the pool until that pod is gone", g.Pool, a, g.Owner))
		}
	}
	return errors.Join(errs...)
}

func (l *Ledger) keepsBlockSizes(next map[string]*Pool) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(l.shares)) {
		s, p := l.shares[name], next[name]
		if p != nil && !s.empty() && p.BlockSize() != s.pool.BlockSize() {
			errs = append(errs, fmt.Errorf("pool %q: blockSize %d can't become %d while blocks are held: make a new pool, or wait until its last lease ends and its blocks are returned", name, s.pool.BlockSize(), p.BlockSize()))
		}
	}
	return errors.Join(errs...)
}

// Pool returns the pool of that name, or an error that wraps ErrUnknownPool
// and names those that there are.
func (l *Ledger) Pool(name string) (*Pool, error) {
	s, err := l.share(name)
	if err != nil {
		return nil, err
	}
	return s.pool, nil
}

func (l *Ledger) share(name string) (*share, error) {
	if s := l.shares[name]; s != nil && !s.retired() {
		return s, nil
	}
	known := slices.DeleteFunc(slices.Sorted(maps.Keys(l.shares)), func(n string) bool { return l.shares[n].retired() })
	return nil, fmt.Errorf("%w %q: the pools here are %q", ErrUnknownPool, name, known)
}

// Hold adds a block of this node. Holding it again changes nothing. The error
// wraps ErrUnknownPool, ErrNotOwner (it is another node's), ErrOutside (it is
// larger than the pool's blocks, or no masked prefix), or ErrBlockExists (it is
// held for another pool).
func (l *Ledger) Hold(b Block) error {
	s, err := l.share(b.Pool)
	if err != nil {
		return err
	}
	if b.Node != l.node {
		return fmt.Errorf("block %s: %w: it is of node %q, this is %q", b.Prefix, ErrNotOwner, b.Node, l.node)
	}
	if have := l.find(b.Prefix); have != nil && have.Pool != b.Pool {
		return fmt.Errorf("%w: %s is held for pool %q, it can't be for %q as well: return it first", ErrBlockExists, b.Prefix, have.Pool, b.Pool)
	}
	return s.hold(b)
}

// Orphans are the blocks of pools that SetPools took away in which no address
// is cooling down: to be returned. Until then they are held, so that nobody has
// the addresses too early, should the pool come back or another one get them.
func (l *Ledger) Orphans(now time.Time) []Block {
	var out []Block
	for _, s := range l.shares {
		if s.retired() {
			out = append(out, s.rested(now)...)
		}
	}
	return sorted(out)
}

// Idle are the open blocks that nothing has been leased in for at least
// after, and in which no address is cooling down.
func (l *Ledger) Idle(now time.Time, after func(pool string) time.Duration) []Block {
	var out []Block
	for name, s := range l.shares {
		if !s.retired() {
			out = append(out, s.idle(now, after(name))...)
		}
	}
	return sorted(out)
}

// Close stops leases from a block that holds none, so that it can be
// withdrawn and dropped; Reopen takes that back. The error wraps ErrOutside
// when the block is not held, and ErrTaken when a lease stands in it, an
// address of it is cooling down, which whoever claims the block next would not
// know, or a part of it is set aside.
func (l *Ledger) Close(prefix netip.Prefix, now time.Time) error {
	b := l.find(prefix)
	if b == nil {
		return fmt.Errorf("block %s: %w", prefix, ErrOutside)
	}
	b.lot.advance(now)
	if n := b.leased(); n > 0 {
		return fmt.Errorf("block %s: %w: %d leases stand in it", prefix, ErrTaken, n)
	}
	if n := b.count(cooling); n > 0 {
		return fmt.Errorf("block %s: %w: %d addresses of it are cooling down", prefix, ErrTaken, n)
	}
	if n := b.count(lent); n > 0 {
		return fmt.Errorf("block %s: %w: %d addresses of it are lent to other nodes", prefix, ErrTaken, n)
	}
	b.lot.close(b)
	return nil
}

// Reopen lets a closed block lease again. It says whether there was one.
func (l *Ledger) Reopen(prefix netip.Prefix) bool {
	b := l.find(prefix)
	if b == nil || !b.closed {
		return false
	}
	b.lot.reopen(b)
	return true
}

// Drop forgets a closed block, and with it when its addresses were given back.
// One that is not held is forgotten already; the error wraps ErrTaken for an
// open one.
func (l *Ledger) Drop(prefix netip.Prefix) error {
	b := l.find(prefix)
	if b == nil {
		return nil
	}
	if !b.closed {
		return fmt.Errorf("block %s: %w: close it first", prefix, ErrTaken)
	}
	b.lot.drop(b)
	if s := l.shares[b.Pool]; s.retired() && s.empty() {
		delete(l.shares, b.Pool)
	}
	return nil
}

// Held is one block of this node and what is in it.
type Held struct {
	Block
	Closed bool
	Leases int
}

// Blocks of this node, by prefix.
func (l *Ledger) Blocks() []Held {
	all := make([]*block, 0, l.BlockCount())
	for _, s := range l.shares {
		for _, lot := range s.lots {
			all = slices.AppendSeq(all, maps.Values(lot.blocks))
		}
	}
	slices.SortFunc(all, func(a, b *block) int { return netipx.ComparePrefix(a.Prefix, b.Prefix) })
	out := make([]Held, len(all))
	for i, b := range all {
		out[i] = Held{b.Block, b.closed, b.leased()}
	}
	return out
}

// BlockCount is how many Blocks there are.
func (l *Ledger) BlockCount() (n int) {
	for _, s := range l.shares {
		for _, lot := range s.lots {
			n += len(lot.blocks)
		}
	}
	return n
}

// Effective is the effective set in one pool of the blocks that keep says yes
// to: without what is set aside.
func (l *Ledger) Effective(pool string, keep func(Held) bool) *netipx.IPSet {
	s := l.shares[pool]
	if s == nil {
		return &netipx.IPSet{}
	}
	blocks := make([]Block, 0, len(s.lots[IPv4].blocks)+len(s.lots[IPv6].blocks))
	for _, lot := range s.lots {
		for _, b := range lot.blocks {
			if keep(Held{b.Block, b.closed, b.leased()}) {
				blocks = append(blocks, b.Block)
			}
		}
	}
	for _, lot := range s.lots {
		blocks = append(blocks, lot.foreign(pool)...)
	}
	return Effective(l.node, blocks, s.pool.Addresses())
}

// Usage of one pool on this node: addresses in open blocks by what they are.
type Usage struct {
	Pool                                string
	Leased, Free, Cooling, Lent, Blocks int
}

// Usage of every pool at now, by name.
func (l *Ledger) Usage(now time.Time) []Usage {
	var out []Usage
	for _, name := range slices.Sorted(maps.Keys(l.shares)) {
		out = append(out, l.shares[name].usage(now))
	}
	return out
}

// Leases counts the addresses of a family of a pool that are leased here; 0 if
// there is no such pool.
func (l *Ledger) Leases(pool string, f Family) (n int) {
	if s := l.shares[pool]; s != nil {
		for _, b := range s.lot(f).blocks {
			n += b.leased()
		}
	}
	return n
}

// BlockOf is the prefix of the smallest block held of a pool around a, the
// zero prefix if there is none.
func (l *Ledger) BlockOf(pool string, a netip.Addr) netip.Prefix {
	if s := l.shares[pool]; s != nil {
		if b := s.lot(FamilyOf(a)).blockOf(a); b != nil {
			return b.Prefix
		}
	}
	return netip.Prefix{}
}

// BlockAround is the prefix of the smallest block held of a pool that p is a part of,
// the zero prefix if there is none. What was borrowed back of p is not around it.
func (l *Ledger) BlockAround(pool string, p netip.Prefix) netip.Prefix {
	if s := l.shares[pool]; s != nil {
		if b := s.lot(FamilyOf(p.Addr())).around(p); b != nil {
			return b.Prefix
		}
	}
	return netip.Prefix{}
}

func (l *Ledger) find(prefix netip.Prefix) *block {
	for _, s := range l.shares {
		if b := s.lot(FamilyOf(prefix.Addr())).blocks[prefix]; b != nil {
			return b
		}
	}
	return nil
}

func sorted(bs []Block) []Block {
	slices.SortFunc(bs, func(a, b Block) int { return netipx.ComparePrefix(a.Prefix, b.Prefix) })
	return bs
}
