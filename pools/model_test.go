package pools

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"
)

// model is the ledger done the dumb way: it remembers facts and works all
// else out from them by looking at every address of a small universe.
type model struct {
	pools   map[string]*Pool
	last    map[string]*Pool // as each was last defined, retired ones too
	blocks  map[netip.Prefix]*modelBlock
	grants  map[Attachment]Record
	freed   map[netip.Addr]time.Time // last release of what is not leased now
	history map[netip.Addr]time.Time // the same, but of the kept records alone
}

type modelBlock struct {
	Block
	closed bool
}

func newModel() *model {
	return &model{
		pools: map[string]*Pool{}, last: map[string]*Pool{}, blocks: map[netip.Prefix]*modelBlock{},
		grants: map[Attachment]Record{}, freed: map[netip.Addr]time.Time{}, history: map[netip.Addr]time.Time{},
	}
}

// blockOf is the longest match.
func (m *model) blockOf(pool string, a netip.Addr) (best *modelBlock) {
	for p, b := range m.blocks {
		if b.Pool == pool && p.Contains(a) && (best == nil || p.Bits() > best.Prefix.Bits()) {
			best = b
		}
	}
	return best
}

func (m *model) leased(a netip.Addr) bool {
	for _, g := range m.grants {
		if slices.Contains(g.Addrs, a) {
			return true
		}
	}
	return false
}

func (m *model) cools(p *Pool, a netip.Addr, now time.Time) bool {
	at, was := m.freed[a]
	return was && now.Before(at.Add(p.ReuseAfter()))
}

// wantOffer is the address that anybody would get: of the longest held open
// block, the least recently used, else the lowest address that is not avoided.
func (m *model) wantOffer(p *Pool, f Family, now time.Time) (best netip.Addr) {
	better := func(a, b netip.Addr) bool {
		x, y := m.blockOf(p.Name(), a), m.blockOf(p.Name(), b)
		return cmp.Or(x.Created.Compare(y.Created), netipx.ComparePrefix(x.Prefix, y.Prefix),
			m.freed[a].Compare(m.freed[b]), compareBool(avoided(p, a), avoided(p, b)), a.Compare(b)) < 0
	}
	for a := range universe(f) {
		b := m.blockOf(p.Name(), a)
		if b == nil || b.closed || !p.Contains(a) || p.Reserved(a) || m.leased(a) || m.cools(p, a, now) {
			continue
		}
		if !best.IsValid() || better(a, best) {
			best = a
		}
	}
	return best
}

// avoided is what ends in a zero byte, or begins the network of the pods' gateway.
func avoided(p *Pool, a netip.Addr) bool {
	return a.AsSlice()[a.BitLen()/8-1] == 0 || a == p.gateways[FamilyOf(a)].Masked().Addr()
}

// wantLease is what ProposeLease should say.
func (m *model) wantLease(r Request, now time.Time) (addrs []netip.Addr, fresh bool, err error) {
	if g, ok := m.grants[r.Owner.Attachment]; ok {
		switch {
		case g.Owner.PodUID != "" && r.Owner.PodUID != "" && g.Owner.PodUID != r.Owner.PodUID:
			return nil, false, ErrNotOwner
		case g.Pool != r.Pool || slices.ContainsFunc(r.Want, func(a netip.Addr) bool { return !slices.Contains(g.Addrs, a) }):
			return nil, false, ErrMismatch
		}
		return g.Addrs, false, nil
	}
	p := m.pools[r.Pool]
	if p == nil {
		return nil, false, ErrUnknownPool
	}
	want := map[Family]netip.Addr{}
	for _, a := range r.Want {
		switch {
		case want[FamilyOf(a)].IsValid(), p.Contains(a) && p.Reserved(a):
			return nil, false, ErrMismatch
		case !p.Contains(a):
			return nil, false, ErrOutside
		}
		want[FamilyOf(a)] = a
	}
	var lacks []Family
	addrs, lacks, err = m.wantAddrs(p, want, now)
	if err == nil && len(lacks) > 0 {
		err = ErrNoFree
	}
	return addrs, err == nil, err
}

// wantAddrs are the addresses that a request should get, and the families in
// which a block should be lacking.
func (m *model) wantAddrs(p *Pool, want map[Family]netip.Addr, now time.Time) (addrs []netip.Addr, lacks []Family, err error) {
	for _, f := range p.Families() {
		a := want[f]
		switch b := m.blockOf(p.Name(), a); {
		case !a.IsValid():
			if a = m.wantOffer(p, f, now); !a.IsValid() {
				lacks = append(lacks, f)
			}
		case b == nil || b.closed:
			lacks = append(lacks, f)
		case m.leased(a) || m.cools(p, a, now):
			return nil, nil, ErrTaken
		}
		addrs = append(addrs, a)
	}
	return addrs, lacks, nil
}

// wantLacks is what Lacks should say of a request without a wish.
func (m *model) wantLacks(pool string, now time.Time) []Family {
	p := m.pools[pool]
	if p == nil {
		return nil
	}
	_, lacks, _ := m.wantAddrs(p, nil, now)
	return lacks
}

func (m *model) lease(rec Record) {
	m.grants[rec.Owner.Attachment] = rec
	for _, a := range rec.Addrs {
		delete(m.freed, a)
		delete(m.history, a)
	}
}

func (m *model) release(rec Record) {
	delete(m.grants, rec.Owner.Attachment)
	for _, a := range rec.Addrs {
		m.freed[a], m.history[a] = rec.At, rec.At
	}
}

// mayBecome says whether ps may replace the pools.
func (m *model) mayBecome(ps []*Pool) bool {
	next := map[string]*Pool{}
	for _, p := range ps {
		next[p.Name()] = p
	}
	for _, g := range m.grants {
		for _, a := range g.Addrs {
			if p := next[g.Pool]; p == nil || !p.Contains(a) || p.Reserved(a) {
				return false
			}
		}
	}
	for _, b := range m.blocks {
		if p := next[b.Pool]; p != nil && p.BlockSize() != m.last[b.Pool].BlockSize() {
			return false
		}
	}
	return true
}

func (m *model) setPools(ps []*Pool) {
	clear(m.pools)
	for _, p := range ps {
		m.pools[p.Name()] = p
		m.last[p.Name()] = p
	}
}

// drop forgets a block, and what its addresses were, unless they fall back
// to a block around it.
func (m *model) drop(prefix netip.Prefix) {
	b := m.blocks[prefix]
	delete(m.blocks, prefix)
	for a := range universe(FamilyOf(prefix.Addr())) {
		if prefix.Contains(a) && m.blockOf(b.Pool, a) == nil {
			delete(m.freed, a)
		}
	}
}

// leases counts those whose smallest block is b.
func (m *model) leases(b *modelBlock) (n int) {
	for _, g := range m.grants {
		for _, a := range g.Addrs {
			if m.blockOf(g.Pool, a) == b {
				n++
			}
		}
	}
	return n
}

// rests says whether an address whose smallest block is b cools down.
func (m *model) rests(b *modelBlock, now time.Time) bool {
	for a := range universe(FamilyOf(b.Prefix.Addr())) {
		if m.blockOf(b.Pool, a) == b && m.cools(m.last[b.Pool], a, now) {
			return true
		}
	}
	return false
}

// crash is what a ledger knows after it was rebuilt of its blocks and the
// records kept: closed blocks are open again, and nothing was given back later
// than now.
func (m *model) crash(now time.Time) {
	clear(m.freed)
	for a, at := range m.history {
		for _, b := range m.blocks {
			if b.Prefix.Contains(a) {
				m.freed[a] = at
				if at.After(now) {
					m.freed[a] = now
				}
			}
		}
	}
	for _, b := range m.blocks {
		b.closed = false
	}
}
