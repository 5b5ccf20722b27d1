package learned

import (
	"fmt"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/interop"
	"github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/speaker"
)

// lan is a segment with the node on it: the addresses of a host on it, of both families.
type lan struct{ name string }

func newLAN(t *testing.T) lan {
	t.Helper()
	l := lan{"lan0"}
	ip(t, "link", "add", l.name, "type", "bridge")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", l.name).Run() })
	for _, p := range l.at(9) {
		ip(t, "addr", "add", p.String(), "dev", l.name, "nodad")
	}
	ip(t, "link", "set", l.name, "up")
	return l
}

func (lan) at(host int) []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/24", host)), netip.MustParsePrefix(fmt.Sprintf("2001:db8:2::%d/64", host))}
}

// join starts a router on the segment, with the sessions that neighbor says of each
// family.
func (l lan) join(t *testing.T, i router.Implementation, host int, c router.Config, neighbors ...func(family int) router.Neighbor) *router.Router {
	t.Helper()
	there, port := router.NewNamespace(t), fmt.Sprintf("port%d", host)
	_ = exec.Command("ip", "link", "del", port).Run() // that of an earlier test goes sooner or later
	router.Connect(t, router.End{Interface: port}, router.End{Namespace: there, Interface: "eth0", Addresses: l.at(host)})
	ip(t, "link", "set", port, "master", l.name)
	c.RouterID = l.at(host)[0].Addr()
	for family, p := range l.at(host) {
		c.Addresses = append(c.Addresses, p.Addr())
		for _, n := range neighbors {
			c.Neighbors = append(c.Neighbors, n(family))
		}
	}
	return router.Start(t, i, there, c)
}

// A router sends two paths of a prefix, each with the next hop of another router, and
// both are in the kernel; one goes and comes back. The node's own prefixes go to that
// router, which would take several paths of them, as to any other.
func TestSeveralPaths(t *testing.T) {
	table := interop.Open(t)
	router.Need(t, router.GoBGP)
	each(t, router.All(), func(t *testing.T, i router.Implementation) {
		table.Try(t, "several paths of a prefix", i, router.IPv4, router.IPv6)
		l := newLAN(t)
		with := func(host int, n router.Neighbor) func(int) router.Neighbor {
			return func(family int) router.Neighbor {
				n.Address, n.HoldTime = l.at(host)[family].Addr(), 9*time.Second
				return n
			}
		}
		tor := l.join(t, i, 1, router.Config{ASN: nodeASN}, with(9, router.Neighbor{ASN: nodeASN, SendPaths: true, ReceivePaths: true}),
			with(11, router.Neighbor{ASN: 65011}), with(12, router.Neighbor{ASN: 65012}))
		both := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8:9::/48")}
		var second *router.Router
		for _, host := range []int{11, 12} {
			second = l.join(t, router.GoBGP, host, router.Config{ASN: uint32(65000 + host), Originates: both}, with(1, router.Neighbor{ASN: nodeASN, Dials: true}))
		}
		var peers []speaker.Peer
		for _, p := range l.at(1) {
			peers = append(peers, speaker.Peer{Name: p.Addr().String(), Address: p.Addr(), ASN: nodeASN, Accept: rules("10.0.0.0/8 16", "2001:db8::/32 48"),
				Session: speaker.Session{HoldTime: 9 * time.Second, ConnectRetry: time.Second, ReceivePaths: true}})
		}
		d := desired(peers)
		d.Announcements = speaker.Plainly(netip.MustParsePrefix("10.64.0.0/24"), netip.MustParsePrefix("2001:db8:64::/64"))
		c := startSpeaker(t, d)
		expect(t, "10.1.0.0/16 192.0.2.11 192.0.2.12", "2001:db8:9::/48 2001:db8:2::11 2001:db8:2::12")
		tor.Has(t, "10.1.0.0/16", "10.64.0.0/24", "2001:db8:64::/64", "2001:db8:9::/48")
		turn := func(how string) {
			second.Do(t, "global", "rib", how, "10.1.0.0/16", "-a", "ipv4")
			second.Do(t, "global", "rib", how, "2001:db8:9::/48", "-a", "ipv6")
		}
		turn("del")
		expect(t, "10.1.0.0/16 192.0.2.11", "2001:db8:9::/48 2001:db8:2::11")
		turn("add")
		expect(t, "10.1.0.0/16 192.0.2.11 192.0.2.12", "2001:db8:9::/48 2001:db8:2::11 2001:db8:2::12")
		d.Announcements = d.Announcements[:1]
		set(t, c, d)
		tor.Has(t, "10.1.0.0/16", "10.64.0.0/24", "2001:db8:9::/48")
	})
}
