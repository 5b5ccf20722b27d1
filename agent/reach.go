package agent

import (
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
)

// reach is to what of the blocks held the network leads, as far as this node
// knows: the addresses that the kernel delivers and of which peers were told,
// where there is anybody to tell. It is not the same as the blocks: of one that
// has long been announced, a part comes back from a loan, or a pool gets more
// addresses. It never has more than the newest plan wants announced; what a plan
// leaves out has to be announced anew.
type reach struct {
	set *netipx.IPSet
	// known is what peers were told of before a restart, and have kept forwarding
	// since.
	known *netipx.IPSet
	grown chan struct{} // closed and replaced when set gets more
	// wanted is what the newest plan wants announced, number counts the plans, and
	// shrunk is the last one that left out something that the one before wanted.
	wanted         []netip.Prefix
	number, shrunk int
}

func newReach(known *netipx.IPSet) reach {
	return reach{set: &netipx.IPSet{}, known: known, grown: make(chan struct{})}
}

// narrow begins a plan that wants these prefixes announced.
func (r *reach) narrow(wanted []netip.Prefix) {
	r.number++
	if slices.Equal(wanted, r.wanted) {
		return
	}
	all := setOf(wanted)
	if before := setOf(r.wanted); !common(before, all).Equal(before) {
		r.shrunk = r.number
	}
	r.wanted, r.set, r.known = wanted, common(r.set, all), common(r.known, all)
}

// grow adds what plan number has brought about, unless a later one has left
// something out: whatever is missing then, that one or the next will add.
func (r *reach) grow(news *netipx.IPSet, number int) {
	if number < r.shrunk || len(news.Ranges()) == 0 {
		return
	}
	var b netipx.IPSetBuilder
	b.AddSet(r.set)
	b.AddSet(news)
	r.set = built(&b)
	close(r.grown)
	r.grown = make(chan struct{})
}

// reachable says whether the network leads to all addresses of rec. Nobody leads
// to those of quiet pools. The lock is held.
func (d *desk) reachable(rec pools.Record) bool {
	for _, a := range rec.Addrs {
		if !d.reach.set.Contains(a) && !d.quiet[rec.Pool] {
			return false
		}
	}
	return true
}

// grow adds news of plan number to what is reached.
func (d *desk) grow(news *netipx.IPSet, number int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reach.grow(news, number)
}

// ofFamily is what of s is of family f.
func ofFamily(s *netipx.IPSet, f pools.Family) *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, r := range s.Ranges() {
		if pools.FamilyOf(r.From()) == f {
			b.AddRange(r)
		}
	}
	return built(&b)
}

// common is what is in both.
func common(a, b *netipx.IPSet) *netipx.IPSet {
	var out netipx.IPSetBuilder
	out.AddSet(a)
	out.Intersect(b)
	return built(&out)
}

// without is what of a is not in b.
func without(a, b *netipx.IPSet) *netipx.IPSet {
	var out netipx.IPSetBuilder
	out.AddSet(a)
	out.RemoveSet(b)
	return built(&out)
}

// setOf the addresses of some prefixes.
func setOf(prefixes ...[]netip.Prefix) *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, ps := range prefixes {
		for _, p := range ps {
			b.AddPrefix(p)
		}
	}
	return built(&b)
}

// within is what of prefixes lies in set, as the fewest prefixes.
func within(prefixes []netip.Prefix, set *netipx.IPSet) []netip.Prefix {
	return common(setOf(prefixes), set).Prefixes()
}

// built is the set of a builder that got nothing but prefixes of a ledger, which
// are valid.
func built(b *netipx.IPSetBuilder) *netipx.IPSet {
	s, err := b.IPSet()
	if err != nil {
		panic("agent: invalid prefix: " + err.Error())
	}
	return s
}
