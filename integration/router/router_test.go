package router

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// Each implementation, dialled by GoBGP over a link, tells and learns, and is
// read rightly: prefixes of both families, paths, neighbors.
func TestEachSpeaks(t *testing.T) {
	for _, i := range All() {
		t.Run(string(i), func(t *testing.T) {
			t.Parallel()
			Need(t, i, GoBGP)
			password := "swordfish"
			if i == OpenBGPD {
				password = "" // it takes none on Linux
			}
			left, right := NewNamespace(t), NewNamespace(t)
			Connect(t,
				End{left, "eth0", []netip.Prefix{netip.MustParsePrefix("192.0.2.1/30"), netip.MustParsePrefix("2001:db8::1/64")}},
				End{right, "eth0", []netip.Prefix{netip.MustParsePrefix("192.0.2.2/30"), netip.MustParsePrefix("2001:db8::2/64")}})
			l4, l6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
			r4, r6 := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")
			tor := Start(t, i, right, Config{
				Addresses: []netip.Addr{r4, r6}, ASN: 4200000001, RouterID: netip.MustParseAddr("192.0.2.66"),
				Originates: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("2001:db8:9::/48")},
				Neighbors: []Neighbor{
					{Address: l4, ASN: 64512, HoldTime: 9 * time.Second},
					{Address: l6, ASN: 64512, Password: password, GracefulRestart: time.Minute},
				},
			})
			node := Start(t, GoBGP, left, Config{
				Addresses: []netip.Addr{l4, l6}, ASN: 64512, RouterID: netip.MustParseAddr("192.0.2.77"),
				Neighbors: []Neighbor{
					{Address: r4, ASN: 4200000001, Dials: true},
					{Address: r6, ASN: 4200000001, Dials: true, Password: password, GracefulRestart: time.Minute},
				},
			})
			node.Do(t, "global", "rib", "add", "10.1.0.0/24", "community", "64512:7,65535:0", "large-community", "64512:1:2", "med", "5")
			node.Do(t, "global", "rib", "add", "-a", "ipv6", "2001:db8:1::/48")
			tor.Has(t, "10.1.0.0/24", "2001:db8:1::/48")
			node.Has(t, "10.9.0.0/24", "2001:db8:9::/48")
			checkRoute(t, tor, r4)
			s := tor.Neighbor(t, l4)
			if !s.Established() || s.ASN != 64512 || s.RouterID.String() != "192.0.2.77" || s.HoldTime != 9*time.Second {
				t.Errorf("neighbor %+v", s)
			}
			if _, err := tor.driver.neighbor(tor.ask, netip.MustParseAddr("192.0.2.99")); err == nil {
				t.Error("a neighbor that is not configured was found")
			}
			if i == BIRD { // the others are started again in no other way
				tor.Kill()
				tor.Again(t)
				tor.Has(t, "10.1.0.0/24", "2001:db8:1::/48")
			}
		})
	}
}

func checkRoute(t *testing.T, tor *Router, self netip.Addr) {
	t.Helper()
	r, ok := tor.Route(t, "10.1.0.0/24")
	var med uint32
	if r.MED != nil {
		med = *r.MED
	}
	got := fmt.Sprint(ok, r.NextHop, r.ASPath, med, r.Communities, r.LargeCommunities, r.From, r.Best, r.Stale)
	if want := "true 192.0.2.1 [64512] 5 [64512:7 65535:0] [64512:1:2] 192.0.2.1 true false"; got != want {
		t.Errorf("route %s, want %s", got, want)
	}
	six, ok := tor.Route(t, "2001:db8:1::/48")
	if !ok || six.NextHop.String() != "2001:db8::1" || !slices.Equal(six.ASPath, []uint32{64512}) || six.From.String() != "2001:db8::1" {
		t.Errorf("route %+v", six)
	}
	if own, ok := tor.Route(t, "10.9.0.0/24"); !ok || own.From.IsValid() {
		t.Errorf("its own route %+v", own)
	}
}
