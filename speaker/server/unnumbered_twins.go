package server

import (
	"hash/fnv"
	"net"
	"net/netip"
)

// Two routers on two links may both be fe80::1. GoBGP tells them apart by their
// addresses with the links' names in all but one place: its policy knows a router by its
// address alone. Each session over link-local addresses is therefore a session with a
// stand-in as far as the policy is concerned.

// standIn is an address that no router has, one for each text.
func standIn(text string) netip.Addr {
	a := netip.MustParseAddr("fe80:0:0:ffff::").As16()
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	copy(a[8:], h.Sum(nil))
	return netip.AddrFrom16(a)
}

// whereabouts is the prefix that GoBGP's policy knows a peer of an address by, and no
// other peer.
func whereabouts(a netip.Addr) netip.Prefix {
	if a.Zone() != "" {
		a = standIn(a.String())
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// calledAs is the stand-in that is to be the address of a router with a session over
// link-local addresses; the zero address for any other, and for those of ranges, which
// the policy knows by the range.
func (l *ledger) calledAs(address string) netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil || s.within != "" || s.peer.Address.Zone() == "" {
		return netip.Addr{}
	}
	return s.at.Addr()
}

// call makes a stand-in, if it is one, what GoBGP's policy takes for the address of a
// router. It is called like put, and changes nothing from the second session on: what
// came in the first refers to the record.
func (gs *guards) call(address string, as netip.Addr) {
	machine, ok := gs.machine(address)
	if !ok || !as.IsValid() {
		return
	}
	known := (*net.IP)(machine.FieldByName(fieldInfo).Elem().FieldByName(fieldAddress).Addr().UnsafePointer())
	if is, _ := netip.AddrFromSlice(*known); is != as {
		*known = as.AsSlice()
	}
}
