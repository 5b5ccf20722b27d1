package pools

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"
)

const (
	// DefaultBlockSize is a /26 or a /122.
	DefaultBlockSize = 64
	// MaxBlockSize bounds what one block costs a node's memory.
	MaxBlockSize = 1 << 16
)

// Definition is what a person decides about a pool.
type Definition struct {
	Name string
	// Ranges less Exclude are the pool's addresses, of one family or both.
	Ranges  []netipx.IPRange
	Exclude []netipx.IPRange
	// BlockSize is the number of addresses in a block, a power of two; 0 is
	// DefaultBlockSize. It counts the same in both families.
	BlockSize int
	// Gateways are the next hops that pods are given, at most one for each
	// family, each with the prefix length of the pods' interfaces. The prefix
	// holds the pool's addresses of the family, but that of a link-local IPv6
	// gateway need not. See Pool.Gateway for what holds without one.
	Gateways []netip.Prefix
	// ReuseAfter is how long an address rests between two leases.
	ReuseAfter time.Duration
}

// Pool is a checked definition. It never changes.
type Pool struct {
	def      Definition
	addrs    *netipx.IPSet
	families []Family
	gateways map[Family]netip.Prefix
}

// New checks d. The error joins all that is wrong with it. It takes gateways
// that earlier versions took: see CheckGateways.
func New(d Definition) (*Pool, error) {
	p := &Pool{def: d}
	if d.BlockSize == 0 {
		p.def.BlockSize = DefaultBlockSize
	}
	err := errors.Join(checkName(d.Name), checkBlockSize(p.def.BlockSize), p.setAddresses())
	if err == nil {
		err = p.setGateways()
	}
	if err != nil {
		return nil, fmt.Errorf("pool %q: %w", d.Name, err)
	}
	return p, nil
}

// checkName asks for a DNS label (RFC 1123), which every store can keep.
func checkName(name string) error {
	ok := len(name) >= 1 && len(name) <= 63 && name[0] != '-' && name[len(name)-1] != '-'
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("name %q: use 1 to 63 lower-case letters, digits and inner hyphens", name)
	}
	return nil
}

func checkBlockSize(n int) error {
	if n < 1 || n > MaxBlockSize || bits.OnesCount(uint(n)) != 1 {
		return fmt.Errorf("blockSize %d: it counts addresses, a power of two from 1 to %d (64 is a /26 or a /122)", n, MaxBlockSize)
	}
	return nil
}

func (p *Pool) setAddresses() error {
	var b netipx.IPSetBuilder
	var errs []error
	for _, r := range p.def.Ranges {
		if !r.IsValid() {
			errs = append(errs, fmt.Errorf("addresses: invalid range %v", r))
			continue
		}
		if what := special(r); what != "" {
			errs = append(errs, fmt.Errorf("addresses: %s has %s, which no pod can have: leave it out", words(r), what))
			continue
		}
		b.AddRange(r)
	}
	whole, err := b.IPSet()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, r := range p.def.Exclude {
		if !r.IsValid() || !whole.OverlapsRange(r) {
			errs = append(errs, fmt.Errorf("exclude: %s has no address of the pool: remove it", words(r)))
			continue
		}
		b.RemoveRange(r)
	}
	if p.addrs, err = b.IPSet(); err != nil {
		errs = append(errs, err)
	} else if p.families = familiesOf(p.addrs); len(p.families) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("it has no address: give it addresses that exclude leaves over"))
	}
	return errors.Join(errs...)
}

// special names the addresses in r that are not for hosts (RFC 6890), "" if
// there are none.
func special(r netipx.IPRange) string {
	for _, reserved := range []struct{ prefix, what string }{
		{"0.0.0.0/8", "addresses of \"this network\" (0.0.0.0/8)"},
		{"127.0.0.0/8", "loopback addresses (127.0.0.0/8)"},
		{"169.254.0.0/16", "link-local addresses (169.254.0.0/16)"},
		{"224.0.0.0/4", "multicast addresses (224.0.0.0/4)"},
		{"255.255.255.255/32", "the broadcast address"},
		{"::/127", "the unspecified or the loopback address (::, ::1)"},
		{"::ffff:0:0/96", "IPv4-mapped addresses (::ffff:0:0/96)"},
		{"fe80::/10", "link-local addresses (fe80::/10)"},
		{"ff00::/8", "multicast addresses (ff00::/8)"},
	} {
		if r.Overlaps(netipx.RangeOfPrefix(netip.MustParsePrefix(reserved.prefix))) {
			return reserved.what
		}
	}
	return ""
}

// setGateways keeps the given gateways and finds one for IPv4 where none is
// given: the lowest address of the pool that is not the all-zeros host of its
// own /24, as people number their gateways. IPv6 pods use fe80::1.
func (p *Pool) setGateways() error {
	p.gateways = make(map[Family]netip.Prefix, 2)
	for _, g := range p.def.Gateways {
		if err := p.checkGateway(g); err != nil {
			return fmt.Errorf("gateways: %w", err)
		}
		p.gateways[FamilyOf(g.Addr())] = g
	}
	if _, given := p.gateways[IPv4]; !given && len(p.ranges(IPv4)) > 0 {
		p.gateways[IPv4] = p.defaultGateway()
	}
	if _, given := p.gateways[IPv6]; !given && len(p.ranges(IPv6)) > 0 {
		p.gateways[IPv6] = netip.PrefixFrom(netip.MustParseAddr("fe80::1"), 128)
	}
	for _, f := range p.Families() {
		if p.Size(f) == 0 {
			return fmt.Errorf("its only %v address %s is the pods' gateway: set gateways to an address outside of the pool", f, p.gateways[f].Addr())
		}
	}
	return nil
}

func (p *Pool) checkGateway(g netip.Prefix) error {
	f := FamilyOf(g.Addr())
	switch _, twice := p.gateways[f]; {
	case !g.IsValid():
		return errors.New("one is invalid: write an address and a prefix length, 10.0.0.1/24")
	case twice:
		return fmt.Errorf("%s is the second one of %v: give one for each family", g, f)
	case len(p.ranges(f)) == 0:
		return fmt.Errorf("%s is for no address, the pool has no %v address: remove it", g, f)
	}
	if linkLocal6(g.Addr()) {
		return nil // it is on the link whatever the prefix holds
	}
	for _, r := range p.ranges(f) {
		switch {
		case g.Masked().Contains(r.From()) && g.Masked().Contains(r.To()):
		case f == IPv6:
			return fmt.Errorf("%s does not hold %v: shorten its prefix, or write fe80::1/128", g, r)
		default:
			return fmt.Errorf("%s does not hold %v: shorten its prefix", g, r)
		}
	}
	return nil
}

func linkLocal6(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

// CheckGateways says why pods would not start with the gateways of p, given or
// not. It is for pools that are to be made: New takes those that were in use
// before anybody asked, so that they stay in use.
func (p *Pool) CheckGateways() error {
	var errs []error
	if rs := p.ranges(IPv4); len(rs) > 0 && p.defaultGateway().Bits() == 0 {
		errs = append(errs, fmt.Errorf("addresses: %s and %s have no prefix in common that the pods' interfaces could have: make a pool of the IPv4 addresses below 128.0.0.0, and one of the others",
			words(rs[0]), words(rs[len(rs)-1])))
	} else {
		for _, g := range p.def.Gateways {
			errs = append(errs, checkNextHop(g))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("pool %q: %w", p.Name(), err)
	}
	return nil
}

func checkNextHop(g netip.Prefix) error {
	a, all := g.Addr(), netipx.RangeOfPrefix(g)
	ends := a.Is4() && g.Bits() < 31
	switch what := special(netipx.IPRangeFrom(a, a)); {
	case what != "" && !linkLocal6(a):
		return fmt.Errorf("gateways: %s: no gateway can have %s: write the address of the pods' next hop", g, what)
	case g.Bits() == 0 && linkLocal6(a):
		return fmt.Errorf("gateways: %s has prefix length 0, with which ptp can't start a pod: write %s/128", g, a)
	case g.Bits() == 0:
		return fmt.Errorf("gateways: %s has prefix length 0, with which ptp can't start a pod: write the longest one that holds the pool's addresses", g)
	case ends && a == all.From():
		return fmt.Errorf("gateways: %s is the network address of its own prefix: write another address of it, such as %s/%d", g, a.Next(), g.Bits())
	case ends && a == all.To():
		return fmt.Errorf("gateways: %s is the broadcast address of its own prefix: write another address of it, such as %s/%d", g, all.From().Next(), g.Bits())
	}
	return nil
}

// defaultGateway pairs the gateway with the longest prefix in which no
// address of the pool is the last one, so that the kernel of a pod takes none
// of them, .255 of a /24 included, for a broadcast address.
func (p *Pool) defaultGateway() netip.Prefix {
	rs := p.ranges(IPv4)
	low, high := rs[0].From(), rs[len(rs)-1].To()
	gw := low
	if low.As4()[3] == 0 && p.addrs.Contains(low.Next()) {
		gw = low.Next()
	}
	for n := 30; n > 0; n-- {
		wide := netipx.RangeOfPrefix(netip.PrefixFrom(low, n).Masked())
		if high.Less(wide.To()) {
			return netip.PrefixFrom(gw, n)
		}
	}
	return netip.PrefixFrom(gw, 0)
}

// Definition is what the pool was made of. It is shared: change nothing in it.
func (p *Pool) Definition() Definition { return p.def }

// Name of the pool.
func (p *Pool) Name() string { return p.def.Name }

// BlockSize is the number of addresses in a block.
func (p *Pool) BlockSize() int { return p.def.BlockSize }

// ReuseAfter is how long an address rests between two leases.
func (p *Pool) ReuseAfter() time.Duration { return p.def.ReuseAfter }

// Contains says whether a is an address of the pool, reserved ones included.
func (p *Pool) Contains(a netip.Addr) bool { return p.addrs.Contains(a) }

// Addresses of the pool, reserved ones included.
func (p *Pool) Addresses() *netipx.IPSet { return p.addrs }

// Families that the pool has addresses of, IPv4 first.
func (p *Pool) Families() []Family { return slices.Clone(p.families) }

func familiesOf(s *netipx.IPSet) (out []Family) {
	for _, r := range s.Ranges() {
		if f := FamilyOf(r.From()); !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}

func (p *Pool) ranges(f Family) []netipx.IPRange {
	return slices.DeleteFunc(p.addrs.Ranges(), func(r netipx.IPRange) bool { return FamilyOf(r.From()) != f })
}

// Reserved says whether a is kept for the network and never leased: it is
// the pods' gateway. A reserved address is part of its block all the same.
func (p *Pool) Reserved(a netip.Addr) bool { return p.gateways[FamilyOf(a)].Addr() == a }

// Gateway is the next hop of a pod with an address of family f, together
// with the prefix length of the pod's interface. In a family without a given
// gateway it is fe80::1/128 for IPv6 and, for IPv4, an address of the pool
// that is reserved for it: the reference plugins want a gateway that the pod's
// own prefix holds.
func (p *Pool) Gateway(f Family) netip.Prefix { return p.gateways[f] }

// Size is how many addresses of family f can be leased; math.MaxUint64 stands
// for any larger number.
func (p *Pool) Size(f Family) uint64 {
	n := countAll(p.ranges(f))
	if gw, ok := p.gateways[f]; ok && n != math.MaxUint64 && p.addrs.Contains(gw.Addr()) {
		n--
	}
	return n
}

// BlockBits is the prefix length of a whole cell.
func (p *Pool) BlockBits(f Family) int {
	return f.Bits() - bits.TrailingZeros(uint(p.def.BlockSize))
}

// Cell is the one that a lies in, whether a is of the pool or not.
func (p *Pool) Cell(a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, p.BlockBits(FamilyOf(a))).Masked()
}

// Overlap returns the first range that both pools have, if there is one.
func (p *Pool) Overlap(other *Pool) (netipx.IPRange, bool) {
	var b netipx.IPSetBuilder
	b.AddSet(p.addrs)
	b.Intersect(other.addrs)
	if both := mustSet(&b).Ranges(); len(both) > 0 {
		return both[0], true
	}
	return netipx.IPRange{}, false
}

// countAll adds up the addresses of disjoint ranges, saturating.
func countAll(rs []netipx.IPRange) uint64 {
	var sum uint64
	for _, r := range rs {
		next := sum + count(r)
		if next < sum {
			return math.MaxUint64
		}
		sum = next
	}
	return sum
}

// count is the number of addresses in r, saturating.
func count(r netipx.IPRange) uint64 {
	from, to := r.From().As16(), r.To().As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(to[8:]), binary.BigEndian.Uint64(from[8:]), 0)
	high, _ := bits.Sub64(binary.BigEndian.Uint64(to[:8]), binary.BigEndian.Uint64(from[:8]), borrow)
	if high != 0 || low == math.MaxUint64 {
		return math.MaxUint64
	}
	return low + 1
}

// FittingBlockSize is the block size for a pool of these addresses where
// nobody chose one: small enough that the pool has some thirty blocks for its
// nodes, 24 to 47 of the family that has fewer, and no larger than DefaultBlockSize.
func FittingBlockSize(addrs *netipx.IPSet) int {
	const blocks = 24
	size := DefaultBlockSize
	for _, f := range familiesOf(addrs) {
		var sum uint64
		for _, r := range addrs.Ranges() {
			if FamilyOf(r.From()) == f {
				sum += min(count(r), math.MaxUint32)
			}
		}
		for size > 1 && uint64(size)*blocks > sum {
			size /= 2
		}
	}
	return size
}
