package server

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/fairway-network/fairway/speaker"
)

// errAPINotLoopback: the API has no authentication, so it is never served on
// an address that another machine can reach.
var errAPINotLoopback = errors.New("the BGP API is served on loopback addresses and unix sockets only")

const (
	defaultPort    = 179
	minHoldTime    = 3 * time.Second           // RFC 4271 section 4.2
	maxHoldTime    = 65535 * time.Second       // two octets in the OPEN message
	maxRestartTime = 4095 * time.Second        // twelve bits, RFC 4724 section 3
	maxLongLived   = (1<<24 - 1) * time.Second // RFC 9494 section 3.1
)

// checkLocal says what is wrong with this node's side.
func checkLocal(l speaker.Local) error {
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
			checkSeconds("graceful restart deferral", l.Deferral, time.Second, maxRestartTime),
			checkSeconds("long-lived graceful restart time", l.LongLived, 0, maxLongLived))
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

// checkPeer says what is wrong with a peer as seen from local.
func checkPeer(p speaker.Peer, local speaker.Local) error {
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
	if p.ASN == 0 && p.Interface == "" {
		fail("ASN 0 is reserved (RFC 7607): set the router's ASN")
	}
	checkInterface(p, fail)
	checkSession(p.Session, fail, p.Address, p.ASN, local)
	checkAccept(p.Accept, fail)
	return errors.Join(errs...)
}

func checkAccept(a speaker.Accept, fail func(format string, args ...any)) {
	if a.Max < 0 || a.Max > math.MaxInt32 {
		fail("%d prefixes at most: want from 1 to %d, or 0 for %d", a.Max, math.MaxInt32, defaultMaxPrefixes)
	}
	for _, rule := range a.Prefixes {
		if err := checkRule(rule); err != nil {
			fail("%w", err)
		}
	}
}

// checkPeers splits peers into those to have and what is wrong with the others.
func checkPeers(peers []speaker.Peer, local speaker.Local) (map[netip.Addr]speaker.Peer, error) {
	var errs []error
	good := make(map[netip.Addr]speaker.Peer, len(peers))
	names := make(map[string]bool, len(peers))
	for _, p := range peers {
		if err := checkPeer(p, local); err != nil {
			errs = append(errs, err)
			continue
		}
		if other, twice := good[p.Address]; twice {
			errs = append(errs, fmt.Errorf("peer %s: %s is where peer %s is already", p.Name, placeOf(p), other.Name))
			continue
		}
		if names[p.Name] {
			errs = append(errs, fmt.Errorf("peer %s: two peers have this name", p.Name))
			continue
		}
		names[p.Name] = true
		good[p.Address] = peerWithDefaults(p)
	}
	return good, errors.Join(errs...)
}

// peerWithDefaults fills in what zero values stand for.
func peerWithDefaults(p speaker.Peer) speaker.Peer {
	if len(p.Families) == 0 && p.Interface != "" {
		p.Families = []speaker.Family{speaker.IPv4, speaker.IPv6}
	}
	p.Session = sessionWithDefaults(p.Session, p.Address)
	return p
}

// sameLocal says whether a running speaker serves m as well as l. Restarting speaks
// of a start alone.
func sameLocal(l, m speaker.Local) bool {
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

func familyOf(a netip.Addr) speaker.Family {
	if a.Is4() {
		return speaker.IPv4
	}
	return speaker.IPv6
}
