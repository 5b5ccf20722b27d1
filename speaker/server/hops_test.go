package server

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// reaching is an UPDATE that announces prefixes of a family with a next hop.
func reaching(t testing.TB, hop string, list ...string) []byte {
	t.Helper()
	var nlri []bgp.AddrPrefixInterface
	for _, p := range prefixes(list...) {
		if p.Addr().Is4() {
			nlri = append(nlri, bgp.NewIPAddrPrefix(uint8(p.Bits()), p.Addr().String()))
		} else {
			nlri = append(nlri, bgp.NewIPv6AddrPrefix(uint8(p.Bits()), p.Addr().String()))
		}
	}
	b, err := bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{
		bgp.NewPathAttributeOrigin(0), bgp.NewPathAttributeMpReachNLRI(hop, nlri)}, nil).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A router that takes no IPv6 next hops for IPv4 is sent a withdrawal in their place, and
// all else as it is.
func TestSayable(t *testing.T) {
	g := new(guard)
	withdraws, six := reaching(t, "fe80::1", "10.1.0.0/26", "10.2.0.0/15"), reaching(t, "fe80::1", "2001:db8::/64")
	m, err := bgp.ParseBGPMessage(g.sayable(withdraws))
	must(t, err)
	u := m.Body.(*bgp.BGPUpdate)
	var got []netip.Prefix
	for _, n := range u.WithdrawnRoutes {
		got = append(got, prefixOf(n))
	}
	if !slices.Equal(got, prefixes("10.1.0.0/26", "10.2.0.0/15")) || len(u.NLRI)+len(u.PathAttributes) > 0 {
		t.Errorf("it is sent %v", u)
	}
	end := framed(bgp.BGP_MSG_UPDATE, 0, 0, 0, 0)
	for _, b := range [][]byte{six, end, reaching(t, "192.0.2.1", "10.1.0.0/26")} {
		if !bytes.Equal(g.sayable(b), b) {
			t.Errorf("%x is sent as %x", b, g.sayable(b))
		}
	}
	open, err := bgp.NewBGPOpenMessage(64513, 90, "192.0.2.1", []bgp.OptionParameterInterface{bgp.NewOptionParameterCapability([]bgp.ParameterCapabilityInterface{
		bgp.NewCapExtendedNexthop([]*bgp.CapExtendedNexthopTuple{bgp.NewCapExtendedNexthopTuple(bgp.RF_IPv4_UC, bgp.AFI_IP6)}),
	})}).Serialize()
	must(t, err)
	g.takesHops.Store(offers(open, takesIPv4ByIPv6))
	if !bytes.Equal(g.sayable(withdraws), withdraws) {
		t.Error("a router that takes IPv6 next hops is not sent them")
	}
}

// Whatever GoBGP writes, what is sent is whole.
func FuzzSayable(f *testing.F) {
	f.Add(reaching(f, "fe80::1", "10.1.0.0/26"))
	f.Add(framed(bgp.BGP_MSG_UPDATE, 0, 0, 0, 6, 0x80, 14, 3, 0, 1, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < bgp.BGP_HEADER_LENGTH {
			return
		}
		got := new(guard).sayable(b)
		if !bytes.Equal(got, b) && (len(got) > len(b) || int(got[16])<<8+int(got[17]) != len(got)) {
			t.Errorf("%x is sent as %x", b, got)
		}
	})
}
