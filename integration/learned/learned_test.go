package learned

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/interop"
	"github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/speaker"
)

const (
	soon    = 30 * time.Second
	nodeASN = 64512
)

func rules(list ...string) speaker.Accept {
	var a speaker.Accept
	for _, text := range list {
		var r speaker.PrefixRule
		words := strings.Fields(text)
		r.Network = netip.MustParsePrefix(words[0])
		if len(words) > 1 {
			if _, err := fmt.Sscan(words[1], &r.AtMost); err != nil {
				panic(err)
			}
		}
		a.Prefixes = append(a.Prefixes, r)
	}
	return a
}

func desired(peers ...[]speaker.Peer) speaker.Desired {
	return speaker.Desired{
		Local: speaker.Local{ASN: nodeASN, RouterID: netip.MustParseAddr("198.51.100.99"),
			GracefulRestart: speaker.GracefulRestart{Enabled: true, Time: 20 * time.Second, Deferral: 5 * time.Second}},
		Peers: slices.Concat(peers...),
	}
}

// startSpeaker runs a speaker until the test ends, which leaves no route behind.
func startSpeaker(t *testing.T, d speaker.Desired) *speaker.Child {
	t.Helper()
	c := speaker.NewChild(spawn(slog.New(slog.NewTextHandler(t.Output(), nil))))
	t.Cleanup(func() {
		// Not all routers are there to be told, which it waits for and says: well here.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx, speaker.Withdraw)
		if left := learned(t); len(left) > 0 {
			t.Errorf("routes are left: %v", left)
		}
	})
	set(t, c, d)
	return c
}

func set(t *testing.T, c *speaker.Child, d speaker.Desired) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	if err := c.Set(ctx, d); err != nil {
		t.Fatal(err)
	}
}

func each(t *testing.T, list []router.Implementation, test func(t *testing.T, i router.Implementation)) {
	for _, i := range list {
		t.Run(string(i), func(t *testing.T) {
			router.Need(t, i)
			test(t, i)
		})
	}
}

func TestRoutesOfTwoRouters(t *testing.T) {
	table := interop.Open(t)
	each(t, router.All(), func(t *testing.T, i router.Implementation) {
		table.Try(t, "learned routes", i, router.IPv4, router.IPv6)
		common := []string{"0.0.0.0/0", "::/0", "10.1.0.0/16", "2001:db8:9::/48"}
		one := startTor(t, i, 1, append(common, "10.1.1.0/24", "10.2.0.0/16", "10.64.0.128/25")...)
		two := startTor(t, i, 2, append(common, "10.64.0.0/24", "192.0.1.128/25")...)
		accept := rules("0.0.0.0/0", "::/0", "10.0.0.0/8 24", "10.64.0.0/16 32", "192.0.0.0/16 32", "2001:db8::/32 48")
		d := desired(one.peers(accept), two.peers(accept))
		d.Announcements = speaker.Plainly(netip.MustParsePrefix("10.64.0.0/24"))
		c := startSpeaker(t, d)
		const four, six = " 192.0.1.1 192.0.2.1", " 2001:db8:1::1 2001:db8:2::1"
		want := []string{"0.0.0.0/0" + four, "::/0" + six, "10.1.0.0/16" + four, "2001:db8:9::/48" + six, "10.1.1.0/24 192.0.1.1", "10.2.0.0/16 192.0.1.1"}
		expect(t, want...)

		// The way in by one router and out by the other does not exist.
		if routes := two.Routes(t); slices.ContainsFunc(routes, func(r router.Route) bool { return r.Prefix.String() == "10.2.0.0/16" }) {
			t.Errorf("the node told the one router what it learned from the other: %+v", routes)
		}

		// Rules change without a session's end.
		d.Peers = slices.Concat(one.peers(rules("10.1.0.0/16 24")), two.peers(accept))
		set(t, c, d)
		expect(t, "0.0.0.0/0 192.0.2.1", "::/0 2001:db8:2::1", "2001:db8:9::/48 2001:db8:2::1", "10.1.0.0/16"+four, "10.1.1.0/24 192.0.1.1")
		d.Peers = slices.Concat(one.peers(accept), two.peers(accept))
		set(t, c, d)
		expect(t, want...)

		// Withdrawn, and told again.
		one.tells(t, append(common, "10.1.1.0/24")...)
		two.tells(t, common[1:]...)
		expect(t, "0.0.0.0/0 192.0.1.1", "::/0"+six, "10.1.0.0/16"+four, "2001:db8:9::/48"+six, "10.1.1.0/24 192.0.1.1")
		one.tells(t, append(common, "10.1.1.0/24", "10.2.0.0/16")...)
		two.tells(t, common...)
		expect(t, want...)

		// What others take out comes back.
		ip(t, "route", "flush", "proto", "118")
		expect(t, want...)

		// A router that tells too much tells nothing, and the other goes on.
		few := accept
		few.Max = 3
		d.Peers = slices.Concat(one.peers(few), two.peers(accept))
		set(t, c, d)
		expect(t, "0.0.0.0/0 192.0.2.1", "::/0"+six, "10.1.0.0/16 192.0.2.1", "2001:db8:9::/48"+six)
	})
}

// A router that sends back what it has from the node, as FRR does, does not tell too
// much with that.
func TestSentBack(t *testing.T) {
	router.Need(t, router.FRR)
	one := startTor(t, router.FRR, 1, "10.1.0.0/16")
	accept := rules("10.0.0.0/8 24")
	accept.Max = 2
	d := desired(one.peers(accept))
	var own []netip.Prefix
	for i := range 5 {
		own = append(own, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64, byte(2 * i), 0}), 24))
	}
	d.Announcements = speaker.Plainly(own...)
	c := startSpeaker(t, d)
	expect(t, "10.1.0.0/16 192.0.1.1")
	peer := func() speaker.PeerState {
		st, err := c.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.Peers[0]
	}
	router.Await(t, "all is sent back", soon, func() error {
		if p := peer(); p.Received < len(own)+1 {
			return fmt.Errorf("the router has told %d prefixes", p.Received)
		}
		return nil
	})
	one.tells(t, "10.1.0.0/16", "10.2.0.0/16")
	expect(t, "10.1.0.0/16 192.0.1.1", "10.2.0.0/16 192.0.1.1")
	if p := peer(); !p.Established() || p.Flaps > 0 {
		t.Errorf("%+v", p)
	}
	one.tells(t, "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16")
	expect(t)
}

func TestRouterRestarts(t *testing.T) {
	table := interop.Open(t)
	table.Lacks(t, "graceful restart of the router", router.OpenBGPD, "of RFC 4724 it has the End-of-RIB alone for itself")
	each(t, []router.Implementation{router.FRR, router.BIRD, router.GoBGP}, func(t *testing.T, i router.Implementation) {
		table.Try(t, "graceful restart of the router", i, router.IPv4, router.IPv6)
		prefixes := []string{"10.1.0.0/16", "10.2.0.0/16", "2001:db8:9::/48"}
		one := startTor(t, i, 1, prefixes...)
		startSpeaker(t, desired(one.peers(rules("10.0.0.0/8 24", "2001:db8::/32 48"))))
		want := []string{"10.1.0.0/16 192.0.1.1", "10.2.0.0/16 192.0.1.1", "2001:db8:9::/48 2001:db8:1::1"}
		expect(t, want...)
		m := startMonitor(t)
		one.Kill()
		one.Again(t)
		one.established(t)
		// One more shows that the session tells something again.
		one.tells(t, append(prefixes, "10.3.0.0/16")...)
		expect(t, append(want, "10.3.0.0/16 192.0.1.1")...)
		if events := m.events(t); len(events) != 1 || !strings.Contains(events[0], "10.3.0.0/16") {
			t.Errorf("the router's restart was noticed: %q", events)
		}
		// What it does not tell any more goes, and all when it stays away.
		one.Kill()
		one.Config.Originates = one.Config.Originates[:1]
		one.Again(t)
		expect(t, want[0])
		one.Kill()
		expect(t)
	})
}

func TestSpeakerAndAgentDie(t *testing.T) {
	each(t, router.All(), func(t *testing.T, i router.Implementation) {
		prefixes := []string{"10.1.0.0/16", "10.2.0.0/16", "2001:db8:9::/48"}
		one := startTor(t, i, 1, prefixes...)
		two := startTor(t, i, 2, prefixes...)
		d := desired(one.peers(rules("10.0.0.0/8 24", "2001:db8::/32 48")), two.peers(rules("10.0.0.0/8 24", "2001:db8::/32 48")))
		// A GoBGP rests for five seconds and more after a session was lost, some sessions longer
		// than others: all are to be waited for.
		d.Local.GracefulRestart.Time, d.Local.GracefulRestart.Deferral = 25*time.Second, 24*time.Second
		agent := startAgent(t, d)
		want := []string{"10.1.0.0/16 192.0.1.1 192.0.2.1", "10.2.0.0/16 192.0.1.1 192.0.2.1", "2001:db8:9::/48 2001:db8:1::1 2001:db8:2::1"}
		expect(t, want...)
		m := startMonitor(t)
		agent.killChild(t)
		two.tells(t, append(prefixes, "10.3.0.0/16")...)
		expect(t, append(want, "10.3.0.0/16 192.0.2.1")...)
		one.established(t)
		if events := m.events(t); len(events) != 1 || !strings.Contains(events[0], "10.3.0.0/16") {
			t.Errorf("the death of the speaker was noticed: %q", events)
		}
		agent.kill()
		if got := learned(t); len(got) != 4 {
			t.Errorf("with the agent dead the kernel has %q", got)
		}
		two.tells(t, prefixes...)
		one.tells(t, prefixes[1:]...)
		m.quiet(t, "without an agent")
		startSpeaker(t, d)
		expect(t, "10.1.0.0/16 192.0.2.1", want[1], want[2])
		if events := m.events(t); len(events) != 2 {
			t.Errorf("more than what had changed was touched: %q", events)
		}
	})
}

// A speaker that learns nothing any more removes what one before it learned, and
// nothing else.
func TestLearningNoMore(t *testing.T) {
	router.Need(t, router.BIRD)
	one := startTor(t, router.BIRD, 1, "10.1.0.0/16")
	ip(t, "route", "add", "10.9.0.0/16", "via", "192.0.1.1", "proto", "118", "metric", "4096")
	ip(t, "route", "add", "10.8.0.0/16", "via", "192.0.1.1", "proto", "static", "metric", "4096")
	c := startSpeaker(t, desired(one.peers(speaker.Accept{})))
	expect(t)
	one.established(t)
	set(t, c, desired(one.peers(rules("10.0.0.0/8 16"))))
	expect(t, "10.1.0.0/16 192.0.1.1")
	set(t, c, desired(one.peers(speaker.Accept{})))
	expect(t)
	if out, err := exec.Command("ip", "route", "show", "10.8.0.0/16").Output(); err != nil || len(out) == 0 {
		t.Errorf("another's route is gone: %v", err)
	}
}

// Sessions over IPv6 carry IPv4 prefixes with IPv6 next hops (RFC 8950): with BIRD
// between link-local addresses, which FRR's bgpd knows none of without zebra.
func TestIPv4OverIPv6(t *testing.T) {
	table := interop.Open(t)
	table.Lacks(t, "IPv4 prefixes with IPv6 next hops", router.OpenBGPD, "does not know RFC 8950")
	each(t, []router.Implementation{router.FRR, router.BIRD, router.GoBGP}, func(t *testing.T, i router.Implementation) {
		table.Try(t, "IPv4 prefixes with IPv6 next hops", i, router.IPv6)
		var peers []speaker.Peer
		format, hops := "2001:db8:%d::", " 2001:db8:1::1 2001:db8:2::1"
		if i == router.BIRD {
			format, hops = "fe80::%d:", " fe80%up1 fe80%up2"
		}
		for number := 1; number <= 2; number++ {
			host, up := router.NewNamespace(t), fmt.Sprintf("up%d", number)
			self, far := netip.MustParseAddr(fmt.Sprintf(format, number)+"2"), netip.MustParseAddr(fmt.Sprintf(format, number)+"1")
			connect(t, host, number, nil, []netip.Prefix{netip.PrefixFrom(far, 64)})
			// In place of the address that the kernel makes, which the router could not know.
			ip(t, "-6", "addr", "flush", "dev", up)
			ip(t, "addr", "add", self.String()+"/64", "dev", up, "nodad")
			c := router.Config{Addresses: []netip.Addr{netip.IPv6Unspecified()}, ASN: uint32(65000 + number), RouterID: netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", number)),
				Originates: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8:9::/48")}}
			peer := speaker.Peer{Name: up, Address: far, ASN: c.ASN, Accept: rules("10.0.0.0/8 16", "2001:db8::/32 48"),
				Session: speaker.Session{Families: []speaker.Family{speaker.IPv4, speaker.IPv6}, HoldTime: 9 * time.Second, ConnectRetry: time.Second}}
			both := router.Neighbor{Address: self, ASN: nodeASN, Families: []router.Family{router.IPv4, router.IPv6}}
			switch i {
			case router.BIRD:
				peer.Address = far.WithZone(up)
				c.Extra = fmt.Sprintf(overLinkLocal, c.ASN, self, nodeASN)
			case router.FRR:
				both.Extra = []string{"capability extended-nexthop"}
				c.Neighbors = []router.Neighbor{both}
			case router.GoBGP: // which offers it of its own accord
				c.Addresses, both.GracefulRestart = []netip.Addr{far}, 8*time.Second
				c.Neighbors = []router.Neighbor{both}
			}
			router.Start(t, i, host, c)
			peers = append(peers, peer)
		}
		startSpeaker(t, desired(peers))
		expect(t, "10.1.0.0/16"+hops, "2001:db8:9::/48"+hops)
	})
}

// overLinkLocal is BIRD's configuration of a session with a link-local neighbor.
const overLinkLocal = `protocol bgp unnumbered {
  local as %d;
  neighbor %s as %d;
  interface "node0";
  direct;
  passive on;
  ipv4 { import all; export all; extended next hop on; };
  ipv6 { import all; export all; };
}`
