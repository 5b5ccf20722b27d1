package pools

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"
)

// check holds all that can be seen of the ledger against the model.
func (tr *trial) check() {
	tr.checkGrants()
	for _, name := range slices.Sorted(maps.Keys(tr.ledger.shares)) {
		for _, f := range []Family{IPv4, IPv6} {
			if err := tr.ledger.shares[name].lots[f].consistent(); err != nil {
				tr.fatalf("pool %q %v: %v", name, f, err)
			}
		}
	}
	for _, p := range tr.model.pools {
		tr.checkAddresses(p)
	}
	if got, want := len(tr.ledger.Blocks()), len(tr.model.blocks); got != want {
		tr.fatalf("%d blocks, want %d", got, want)
	}
	for _, h := range tr.ledger.Blocks() {
		b := tr.model.blocks[h.Prefix]
		if b == nil || b.Block != h.Block || b.closed != h.Closed || h.Leases != tr.model.leases(b) {
			tr.fatalf("block %+v, want %+v with %d leases", h, b, tr.model.leases(b))
		}
	}
	tr.checkSums()
	tr.checkOrphans()
}

func (tr *trial) checkOrphans() {
	var want, got []netip.Prefix
	for prefix, b := range tr.model.blocks {
		if tr.model.pools[b.Pool] == nil && !tr.model.rests(b, tr.now) {
			want = append(want, prefix)
		}
	}
	for _, b := range tr.ledger.Orphans(tr.now) {
		got = append(got, b.Prefix)
	}
	slices.SortFunc(want, netipx.ComparePrefix)
	if !slices.Equal(got, want) {
		tr.fatalf("orphans %v, want %v", got, want)
	}
}

// idleAfter is less than the pools' ReuseAfter, so that an idle block can
// have addresses that rest.
const idleAfter = 5 * time.Second

// checkSums holds Usage, Idle and Effective against the state of each address,
// which check has compared already.
func (tr *trial) checkSums() {
	want := map[string]Usage{}
	var wantIdle []netip.Prefix
	var held netipx.IPSetBuilder
	for prefix, b := range tr.model.blocks {
		p := tr.model.pools[b.Pool]
		if p == nil {
			continue
		}
		held.AddPrefix(prefix)
		sum, since := Usage{Pool: b.Pool, Blocks: 1}, b.Created
		lot := tr.ledger.shares[b.Pool].lots[FamilyOf(prefix.Addr())]
		for a := range universe(FamilyOf(prefix.Addr())) {
			if tr.model.blockOf(b.Pool, a) != b {
				continue
			}
			sum.count(lot.use(a))
			if end := tr.model.freed[a]; end.After(since) {
				since = end
			}
		}
		if !b.closed {
			have := want[b.Pool]
			want[b.Pool] = Usage{b.Pool, have.Leased + sum.Leased, have.Free + sum.Free, have.Cooling + sum.Cooling, 0, have.Blocks + 1}
			if sum.Leased+sum.Cooling == 0 && tr.now.Sub(since) >= idleAfter {
				wantIdle = append(wantIdle, prefix)
			}
		}
	}
	for name := range tr.model.pools {
		n := 0
		for _, f := range []Family{IPv4, IPv6} {
			n += tr.ledger.Leases(name, f)
		}
		if n != want[name].Leased {
			tr.fatalf("%d leases in pool %q, want %d", n, name, want[name].Leased)
		}
	}
	for _, u := range tr.ledger.Usage(tr.now) {
		if w := want[u.Pool]; tr.model.pools[u.Pool] != nil && u != w && w.Blocks > 0 {
			tr.fatalf("usage %+v, want %+v", u, w)
		}
	}
	var idle []netip.Prefix
	for _, b := range tr.ledger.Idle(tr.now, func(string) time.Duration { return idleAfter }) {
		idle = append(idle, b.Prefix)
	}
	slices.SortFunc(wantIdle, netipx.ComparePrefix)
	if !slices.Equal(idle, wantIdle) {
		tr.fatalf("idle %v, want %v", idle, wantIdle)
	}
	tr.checkEffective(&held)
}

// checkEffective wants each address of the blocks held and of the pools.
func (tr *trial) checkEffective(held *netipx.IPSetBuilder) {
	var all netipx.IPSetBuilder
	for name := range tr.model.pools {
		all.AddSet(tr.ledger.Effective(name, func(Held) bool { return true }))
	}
	got := mustSet(&all)
	covered := mustSet(held)
	for _, f := range []Family{IPv4, IPv6} {
		for a := range universe(f) {
			inPool := false
			for _, p := range tr.model.pools {
				inPool = inPool || p.Contains(a)
			}
			if want := inPool && covered.Contains(a); got.Contains(a) != want {
				tr.fatalf("%s is effective: %v, want %v", a, !want, want)
			}
		}
	}
}

func (u *Usage) count(state use) {
	switch state {
	case leased:
		u.Leased++
	case free:
		u.Free++
	case cooling:
		u.Cooling++
	}
}

func (tr *trial) checkGrants() {
	seen := map[netip.Addr]Owner{}
	grants := tr.ledger.Grants()
	for _, g := range grants {
		want := tr.model.grants[g.Owner.Attachment]
		if g.Op != Leased || g.Owner != want.Owner || !slices.Equal(g.Addrs, want.Addrs) || !g.At.Equal(want.At) {
			tr.fatalf("grant %v, want %v", g, want)
		}
		p := tr.model.pools[g.Pool]
		for _, a := range g.Addrs {
			if other, twice := seen[a]; twice {
				tr.fatalf("%s is leased to %s and %s", a, other, g.Owner)
			}
			seen[a] = g.Owner
			b := tr.model.blockOf(g.Pool, a)
			if p == nil || !p.Contains(a) || p.Reserved(a) || b == nil || b.closed {
				tr.fatalf("%s is leased by %s, in pool %v, block %v", a, g.Owner, p, b)
			}
		}
	}
	if len(grants) != len(tr.model.grants) {
		tr.fatalf("%d grants, want %d", len(grants), len(tr.model.grants))
	}
}

// checkAddresses asks for each address of the universe whether it could be
// had, and for the one that anybody would get.
func (tr *trial) checkAddresses(p *Pool) {
	lots := tr.ledger.shares[p.Name()].lots
	for _, f := range []Family{IPv4, IPv6} {
		got, err := lots[f].offer(netip.Addr{}, tr.now)
		if want := tr.model.wantOffer(p, f, tr.now); got != want || (err == nil) != want.IsValid() {
			tr.fatalf("pool %q: next %v address %v (%v), want %v", p.Name(), f, got, err, want)
		}
		for a := range universe(f) {
			b := tr.model.blockOf(p.Name(), a)
			want := outside
			switch {
			case b == nil:
			case tr.model.leased(a):
				want = leased
			case tr.model.cools(p, a, tr.now):
				want = cooling
			case p.Contains(a) && !p.Reserved(a):
				want = free
			}
			if have := lots[f].use(a); have != want {
				tr.fatalf("pool %q: %s is %d, want %d", p.Name(), a, have, want)
			}
		}
	}
}

// consistent says where the parts of a lot contradict each other.
func (l *lot) consistent() error {
	resting := map[netip.Addr]int{}
	for i, r := range l.cooling {
		resting[r.addr]++
		if l.use(r.addr) != cooling {
			return fmt.Errorf("%s is in cooling, but %d", r.addr, l.use(r.addr))
		}
		if i > 0 && r.since.Before(l.cooling[i-1].since) {
			return fmt.Errorf("cooling is out of order at %s", r.addr)
		}
	}
	inReady := 0
	lengths := map[int]int{}
	for p := range l.blocks {
		lengths[p.Bits()]++
	}
	if !maps.Equal(lengths, l.ofLength) || len(lengths) != len(l.lengths) {
		return fmt.Errorf("lengths %v and %v, want %v", l.lengths, l.ofLength, lengths)
	}
	for _, b := range l.blocks {
		queued := slices.Clone(b.queue)
		slices.Sort(queued)
		for o, u := range b.uses {
			_, inQueue := slices.BinarySearch(queued, uint32(o))
			a := b.addr(uint32(o))
			switch {
			case inQueue != (u == free):
				return fmt.Errorf("%s is %d, in queue %v", a, u, inQueue)
			case u != outside && l.blockOf(a) != b:
				return fmt.Errorf("%s is %d in %s, which is not its smallest block", a, u, b.Prefix)
			case l.blockOf(a) == b && (resting[a] == 1) != (u == cooling):
				return fmt.Errorf("%s is %d, cooling %d times", a, u, resting[a])
			}
		}
		if !slices.IsSortedFunc(b.queue, b.order) || len(slices.Compact(queued)) != len(b.queue) {
			return fmt.Errorf("the queue of %s is out of order: %v", b.Prefix, b.queue)
		}
		if b.closed && b.count(leased)+b.count(cooling) > 0 {
			return fmt.Errorf("%s is closed, but %d are leased and %d cool down", b.Prefix, b.count(leased), b.count(cooling))
		}
		if want := !b.closed && len(b.queue) > 0; want != (b.inHeap >= 0) || want && l.ready[b.inHeap] != b {
			return fmt.Errorf("%s is in ready at %d, should be in: %v", b.Prefix, b.inHeap, want)
		} else if want {
			inReady++
		}
	}
	if inReady != len(l.ready) {
		return fmt.Errorf("%d blocks in ready, want %d", len(l.ready), inReady)
	}
	return nil
}

// snapshot prints all that a ledger promises to keep when a call fails.
func snapshot(l *Ledger) string {
	var out bytes.Buffer
	fmt.Fprintln(&out, l.Grants(), l.Blocks())
	for _, name := range slices.Sorted(maps.Keys(l.shares)) {
		s := l.shares[name]
		fmt.Fprintln(&out, name, s.gone, s.pool.Addresses().Ranges(), s.pool.def)
	}
	return out.String()
}
