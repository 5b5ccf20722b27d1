package bfd

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// ErrPeer: a desired peer is impossible; the error names what and how to put
// it right.
var ErrPeer = errors.New("bad BFD peer")

// What a peer gets that asks for nothing, and the limits of what it may ask
// for. They are those of FRR.
const (
	DefaultInterval   = 300 * time.Millisecond
	DefaultMultiplier = 3
	LeastInterval     = 10 * time.Millisecond
	GreatestInterval  = 60 * time.Second
)

// Endpoint is what makes a session the one it is: a change of it is another
// session.
type Endpoint struct {
	// Address of the peer. An IPv6 link-local one needs the interface, as its
	// zone or as Interface.
	Address netip.Addr
	// Local is the address to send from and to be addressed by; the zero Addr
	// leaves it to the kernel.
	Local netip.Addr
	// Interface that the peer is on; empty for any. Single hop only.
	Interface string
	// Multihop is for a peer that is not on a link of this node (RFC 5883).
	Multihop bool
}

// Peer is one that there should be a session with.
type Peer struct {
	Name string // for messages
	Endpoint
	// MinTTL is the least TTL or hop limit that a multihop packet may have
	// left on arrival; 0 is any. A single hop wants 255 (RFC 5881 section 5).
	MinTTL uint8
	Timers // what is 0 gets its default
	// ControlPlaneIndependent sets the C bit: it promises that forwarding and
	// this program don't share their fate, as a program may that restarts so
	// quickly that no peer's Detection Time runs out.
	ControlPlaneIndependent bool
}

func (p Peer) door() door { return door{v6: p.Address.Is6(), multihop: p.Multihop} }

// normal gives the peer with its defaults, the zone as its interface and no
// zones, or what is wrong with it.
func (p Peer) normal() (Peer, error) {
	bad := func(format string, a ...any) (Peer, error) {
		return p, fmt.Errorf("%w %s (%s): %w", ErrPeer, p.Name, p.Address, fmt.Errorf(format, a...))
	}
	zone := p.Address.Zone()
	if zone != "" && p.Interface != "" && zone != p.Interface {
		return bad("zone %s and interface %s: name one", zone, p.Interface)
	}
	if zone != "" {
		p.Interface = zone
	}
	p.Address, p.Local = p.Address.WithZone(""), p.Local.WithZone("")
	switch {
	case !p.Address.IsValid() || p.Address.IsUnspecified() || p.Address.IsMulticast() || p.Address.Is4In6():
		return bad("give a plain unicast address")
	case p.Local.IsValid() && (p.Local.Is6() != p.Address.Is6() || p.Local.Is4In6()):
		return bad("local address %s is of the other family", p.Local)
	case p.Multihop && p.Interface != "":
		return bad("interface %s: a multihop peer has none", p.Interface)
	case p.Address.Is6() && p.Address.IsLinkLocalUnicast() && p.Interface == "":
		return bad("a link-local address needs its interface")
	case p.MinTTL != 0 && !p.Multihop:
		return bad("least TTL %d: it is 255 for a single hop, set it for multihop peers only", p.MinTTL)
	}
	var err error
	if p.Timers, err = p.Timers.normal(); err != nil {
		return bad("%w", err)
	}
	return p, nil
}

func (t Timers) normal() (Timers, error) {
	for _, d := range []*time.Duration{&t.MinTx, &t.MinRx} {
		if *d == 0 {
			*d = DefaultInterval
		}
		if *d < LeastInterval || *d > GreatestInterval || *d%time.Microsecond != 0 {
			return t, fmt.Errorf("interval %s: use %s to %s in whole microseconds", *d, LeastInterval, GreatestInterval)
		}
	}
	if t.Multiplier == 0 {
		t.Multiplier = DefaultMultiplier
	}
	return t, nil
}

// normalPeers gives the peers that can be had, and what is wrong with the others.
func normalPeers(peers []Peer) ([]Peer, error) {
	var errs []error
	out := make([]Peer, 0, len(peers))
	seen := map[netip.Addr][]Peer{}
	for _, p := range peers {
		n, err := p.normal()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		same := slices.IndexFunc(seen[n.Address], func(o Peer) bool { return n.overlaps(o.Endpoint) })
		if same >= 0 {
			errs = append(errs, fmt.Errorf("%w %s (%s): its packets can't be told from those of %s: give both a local address or an interface, or take one away",
				ErrPeer, n.Name, n.Address, seen[n.Address][same].Name))
			continue
		}
		seen[n.Address] = append(seen[n.Address], n)
		out = append(out, n)
	}
	return out, errors.Join(errs...)
}

// overlaps says whether a packet may belong to both of two endpoints with one
// address.
func (e Endpoint) overlaps(o Endpoint) bool {
	sameInterface := e.Interface == o.Interface || e.Interface == "" || o.Interface == ""
	sameLocal := e.Local == o.Local || !e.Local.IsValid() || !o.Local.IsValid()
	return e.Multihop == o.Multihop && sameInterface && sameLocal
}
