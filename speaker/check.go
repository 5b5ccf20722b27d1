package speaker

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// errAPINotLoopback: the API has no authentication, so it is never served on
// an address that another machine can reach.
var errAPINotLoopback = errors.New("the BGP API is served on loopback addresses and unix sockets only")

const (
	defaultPort    = 179
	minHoldTime    = 3 * time.Second     // RFC 4271 section 4.2
	maxHoldTime    = 65535 * time.Second // two octets in the OPEN message
	maxRestartTime = 4095 * time.Second  // twelve bits, RFC 4724 section 3
)

// check says what is wrong with this node's side.
func (l Local) check() error {
	var errs []error
	if l.ASN == 0 {
		errs = append(errs, errors.New("local ASN 0 is reserved (RFC 7607): set this node's ASN"))
	}
	if id := l.RouterID; !id.Is4() || id.IsUnspecified() || id.IsMulticast() || id == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		errs = append(errs, fmt.Errorf("router ID %q: want an IPv4 address of this node, or any unique number written as one", id))
	}
	for _, a := range l.Listen {
		if !a.IsValid() || a.Is4In6() {
			errs = append(errs, fmt.Errorf("listen address %q: want an IPv4 or an IPv6 address", a))
		}
	}
	if err := checkAPIAddress(l.APIAddress); err != nil {
		errs = append(errs, err)
	}
	if l.Enabled {
		errs = append(errs, checkSeconds("graceful restart time", l.Time, time.Second, maxRestartTime),
			checkSeconds("graceful restart deferral", l.Deferral, time.Second, maxRestartTime))
	}
	return errors.Join(errs...)
}

func checkSeconds(what string, d, low, high time.Duration) error {
	if d < low || d > high || d%time.Second != 0 {
		return fmt.Errorf("%s %v: want whole seconds from %v to %v", what, d, low, high)
	}
	return nil
}

func checkAPIAddress(address string) error {
	if address == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("BGP API address %q: want host:port: %w", address, err)
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return fmt.Errorf("BGP API address %q: %w: use 127.0.0.1 or [::1]", address, errAPINotLoopback)
	}
	return nil
}

// check says what is wrong with a peer as seen from local.
func (p Peer) check(local Local) error {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("peer %s: "+format, append([]any{p.Name}, args...)...))
	}
	if p.Name == "" {
		fail("address %s has no name", p.Address)
	}
	if !p.Address.IsValid() || p.Address.IsUnspecified() || p.Address.IsMulticast() || p.Address.Is4In6() {
		fail("address %q: want the IPv4 or IPv6 address of the router", p.Address)
	}
	if p.ASN == 0 {
		fail("ASN 0 is reserved (RFC 7607): set the router's ASN")
	}
	if p.HoldTime != 0 {
		if err := checkSeconds("hold time", p.HoldTime, minHoldTime, maxHoldTime); err != nil {
			fail("%w", err)
		}
	}
	if p.Password != "" && p.Address.Zone() != "" {
		fail("TCP MD5 does not work with the link-local address %s: use a global address or no password", p.Address)
	}
	if len(p.Password) > 80 {
		fail("password of %d bytes: TCP MD5 takes at most 80", len(p.Password))
	}
	if p.Password != "" && len(local.Listen) > 0 && new(net.ListenConfig).MultipathTCP() {
		fail("a password needs listeners without multipath TCP: run with GODEBUG=multipathtcp=0 or put //go:debug multipathtcp=0 in package main")
	}
	if err := p.checkFamilies(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (p Peer) checkFamilies() error {
	for i, f := range p.Families {
		switch {
		case f != IPv4 && f != IPv6:
			return fmt.Errorf("peer %s: family %q: want %s or %s", p.Name, f, IPv4, IPv6)
		case i > 0 && f == p.Families[0]:
			return fmt.Errorf("peer %s: family %s is listed twice", p.Name, f)
		case f == IPv6 && p.Address.Is4():
			return fmt.Errorf("peer %s: %s prefixes over the IPv4 session with %s would have an IPv4-mapped next hop, which routers drop: "+
				"add a peer with the router's IPv6 address for them", p.Name, f, p.Address)
		}
	}
	return nil
}

// checkPeers splits peers into those to have and what is wrong with the others.
func checkPeers(peers []Peer, local Local) (map[netip.Addr]Peer, error) {
	var errs []error
	good := make(map[netip.Addr]Peer, len(peers))
	names := make(map[string]bool, len(peers))
	for _, p := range peers {
		if err := p.check(local); err != nil {
			errs = append(errs, err)
			continue
		}
		if other, twice := good[p.Address]; twice {
			errs = append(errs, fmt.Errorf("peer %s: address %s is that of peer %s already", p.Name, p.Address, other.Name))
			continue
		}
		if names[p.Name] {
			errs = append(errs, fmt.Errorf("peer %s: two peers have this name", p.Name))
			continue
		}
		names[p.Name] = true
		good[p.Address] = p.withDefaults()
	}
	return good, errors.Join(errs...)
}

// withDefaults fills in what zero values stand for, so that a default that is
// written out is not taken for a change.
func (p Peer) withDefaults() Peer {
	if p.Port == 0 {
		p.Port = defaultPort
	}
	if p.HoldTime == 0 {
		p.HoldTime = DefaultHoldTime
	}
	if len(p.Families) == 0 {
		p.Families = []Family{familyOf(p.Address)}
	}
	return p
}

// sameSession says whether p and q differ in nothing that a session depends on.
func (p Peer) sameSession(q Peer) bool {
	return p.Address == q.Address && p.ASN == q.ASN && p.Port == q.Port && p.Password == q.Password &&
		p.Multihop == q.Multihop && p.HoldTime == q.HoldTime && sameSet(p.Families, q.Families)
}

// same says whether a running speaker serves m as well as l. Restarting speaks
// of a start alone.
func (l Local) same(m Local) bool {
	gr, other := l.GracefulRestart, m.GracefulRestart
	gr.Restarting, other.Restarting = false, false
	return l.ASN == m.ASN && l.RouterID == m.RouterID && l.Port == m.Port && gr == other &&
		l.APISocket == m.APISocket && l.APIAddress == m.APIAddress && sameSet(l.Listen, m.Listen)
}

func sameSet[T comparable](a, b []T) bool {
	in := make(map[T]bool, len(a))
	for _, x := range a {
		in[x] = true
	}
	seen := make(map[T]bool, len(b))
	for _, x := range b {
		if !in[x] {
			return false
		}
		seen[x] = true
	}
	return len(seen) == len(in)
}

// checkPrefixes gives the set that prefixes are.
func checkPrefixes(prefixes []netip.Prefix) (map[netip.Prefix]struct{}, error) {
	set := make(map[netip.Prefix]struct{}, len(prefixes))
	for _, p := range prefixes {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("prefix %q: want a network without host bits", p)
		}
		set[p] = struct{}{}
	}
	return set, nil
}

func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}
