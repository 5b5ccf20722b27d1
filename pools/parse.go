package pools

import (
	"fmt"
	"net/netip"
	"strings"

	"go4.org/netipx"
)

// ParseRange reads what a person writes for a set of adjacent addresses: a
// CIDR ("10.0.0.0/24"), a range with both ends in it ("10.0.0.10-10.0.0.20")
// or one address. Host bits in a CIDR, ends of different families, a
// backwards range, zones and IPv4-mapped IPv6 addresses are errors that name
// the way out.
func ParseRange(s string) (netipx.IPRange, error) {
	if s != strings.TrimSpace(s) || s == "" {
		return netipx.IPRange{}, fmt.Errorf("%q is not an address range: write 10.0.0.0/24, 10.0.0.10-10.0.0.20 or 10.0.0.7", s)
	}
	if strings.Contains(s, "/") {
		p, err := ParsePrefix(s)
		if err != nil {
			return netipx.IPRange{}, err
		}
		return netipx.RangeOfPrefix(p), nil
	}
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	from, err := ParseAddr(strings.TrimSpace(first))
	if err != nil {
		return netipx.IPRange{}, fmt.Errorf("range %q: %w", s, err)
	}
	to, err := ParseAddr(strings.TrimSpace(last))
	switch {
	case err != nil:
		return netipx.IPRange{}, fmt.Errorf("range %q: %w", s, err)
	case from.Is4() != to.Is4():
		return netipx.IPRange{}, fmt.Errorf("range %q mixes IPv4 and IPv6: write one range for each", s)
	case to.Less(from):
		return netipx.IPRange{}, fmt.Errorf("range %q runs backwards: write %s-%s", s, to, from)
	}
	return netipx.IPRangeFrom(from, to), nil
}

// ParseAddr reads a plain unicast address: no zone, not IPv4-mapped IPv6.
func ParseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	case a.Zone() != "":
		return netip.Addr{}, fmt.Errorf("address %q has a zone: write %s", s, a.WithZone(""))
	case a.Is4In6():
		return netip.Addr{}, fmt.Errorf("address %q is IPv4-mapped IPv6: write %s", s, a.Unmap())
	}
	return a, nil
}

// ParsePrefix reads a CIDR without host bits.
func ParsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is not a CIDR such as 10.0.0.0/24 or fd00::/64", s)
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("CIDR %q is IPv4-mapped IPv6: write it as IPv4", s)
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("CIDR %q has host bits set: write %s for the whole network, or %s for the one address", s, p.Masked(), p.Addr())
	}
	return p, nil
}
