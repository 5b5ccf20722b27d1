package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/interop"
	routers "github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/internal/namespace"
	"github.com/fairway-network/fairway/speaker"
)

// torAddress is that of all routers on interfaces: what tells them apart is the
// interface alone.
const torAddress = "fe80::1"

// rung is a link with a router that has no addresses but a link-local one.
type rung struct {
	tor   *routers.Router
	there routers.Namespace
	name  string // of the interface here
}

// birdOn is BIRD's side of a session with whoever is on its eth0.
const birdOn = `protocol bgp node {
  local as 64513;
  neighbor range fe80::/10 as 64512;
  interface "eth0";
  dynamic name "node";
  graceful restart on;
  ipv4 { import all; export all; extended next hop on; };
  ipv6 { import all; export all; };
}
`

const birdAdvertises = `protocol radv { interface "eth0" { min ra interval 3; max ra interval 5; default lifetime 0; }; }
`

// climb starts BIRD on a link of its own.
func climb(t *testing.T, extra string) *rung {
	t.Helper()
	r := far(t, extra)
	r.connect(t, torAddress)
	return r
}

// far starts BIRD without a link.
func far(t *testing.T, extra string) *rung {
	t.Helper()
	namespace.Need(t)
	routers.Need(t, routers.BIRD)
	there := routers.NewNamespace(t)
	there.Run(t, "sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.forwarding=1")
	r := &rung{there: there, name: fmt.Sprintf("up%d", there.PID())}
	r.tor = routers.Start(t, routers.BIRD, there, routers.Config{ASN: routerASN, Originates: prefixes(theirs4, theirs6), Extra: extra})
	return r
}

// connect makes the link, with an address at the router's end.
func (r *rung) connect(t *testing.T, address string) {
	t.Helper()
	routers.Connect(t, routers.End{Interface: r.name},
		routers.End{Namespace: r.there, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix(address + "/64")}})
}

// peer is this node's.
func (r *rung) peer(name string) speaker.Peer {
	return speaker.Peer{Name: name, Interface: r.name, ASN: routerASN}
}

// Two routers that are both fe80::1 on different interfaces have a session each, with
// IPv4 prefixes by IPv6 next hops, whether they advertise themselves or not.
func TestUnnumbered(t *testing.T) {
	t.Parallel()
	one, two := climb(t, birdOn), climb(t, birdOn+birdAdvertises)
	s := newTestChild(t)
	any := two.peer("two")
	any.ASN = 0
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{one.peer("one"), any}, Announcements: announce(ours4, ours6)}
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, 20*time.Second), d.Prefixes()))
	for name, r := range map[string]*rung{"one": one, "two": two} {
		r.tor.Has(t, ours4, ours6)
		for _, p := range []string{ours4, ours6} {
			route, _ := r.tor.Route(t, p)
			if !route.From.IsLinkLocalUnicast() || fmt.Sprint(route.ASPath) != fmt.Sprint([]uint32{nodeASN}) {
				t.Errorf("%s has %+v", name, route)
			}
		}
		state := stateOf(t, s, name)
		if !state.Established() || state.Interface != r.name || state.Address.String() != torAddress+"%"+r.name || state.ASN != routerASN {
			t.Errorf("%s: %+v", name, state)
		}
		eventually(t, "the router's prefixes are received", func() bool { return stateOf(t, s, name).Received == 2 })
	}
}

// A peer whose interface is not there yet holds up what waits for it, and says why;
// the interface comes, goes, and comes back with another router.
func TestUnnumberedComesAndGoes(t *testing.T) {
	t.Parallel()
	r := far(t, birdOn+birdAdvertises)
	s := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer("tor")}, Announcements: announce(ours4)}
	must(t, s.Set(t.Context(), d))
	if err := s.Flush(within(t, time.Second), d.Prefixes()); !errors.Is(err, speaker.ErrNoPeer) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Flush: %v", err)
	}
	if p := stateOf(t, s, "tor"); p.Session != "Idle" || p.Address.IsValid() || p.Interface != r.name || p.LastError != "interface "+r.name+" is not there" {
		t.Errorf("%+v", p)
	}
	for _, address := range []string{"fe80::1", "fe80::2"} {
		r.connect(t, address)
		must(t, s.Flush(within(t, 30*time.Second), d.Prefixes()))
		eventually(t, "the session is with "+address, func() bool {
			p := stateOf(t, s, "tor")
			return p.Established() && p.Address.String() == address+"%"+r.name
		})
		r.tor.Has(t, ours4)
		r.there.Run(t, "ip", "link", "del", "eth0")
		eventually(t, "the loss is noticed", func() bool {
			return stateOf(t, s, "tor").LastError == "the link "+r.name+" was lost; since then: interface "+r.name+" is not there"
		})
	}
}

// A router with this node's ASN is refused where any other is taken, and one that
// takes no IPv6 next hops is told no IPv4 prefixes that anybody could count on.
func TestUnnumberedMisfits(t *testing.T) {
	t.Parallel()
	own := climb(t, strings.Replace(birdOn, "local as 64513", "local as 64512; direct", 1))
	plain := climb(t, strings.Replace(birdOn, "extended next hop on; ", "", 1))
	s := newTestChild(t)
	any := own.peer("own")
	any.ASN = 0
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{any, plain.peer("plain")}, Announcements: announce(ours4, ours6)}
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, 20*time.Second), prefixes(ours6)))
	if err := s.Flush(within(t, 2*time.Second), prefixes(ours4)); !errors.Is(err, speaker.ErrNoPeer) {
		t.Errorf("Flush: %v", err)
	}
	plain.tor.Has(t, ours6)
	eventually(t, "the ASN is refused", func() bool {
		return strings.Contains(stateOf(t, s, "own").LastError, "ASN 64512 is this node's own")
	})
	own.tor.Has(t)
}

func TestRefusedUnnumbered(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*speaker.Peer){
		"give it one of them":         func(p *speaker.Peer) { p.Address = netip.MustParseAddr("192.0.2.1") },
		"between link-local":          func(p *speaker.Peer) { p.LocalAddress = netip.MustParseAddr("fd00::1") },
		"no hop away":                 func(p *speaker.Peer) { p.Multihop = 2 },
		"at most 15":                  func(p *speaker.Peer) { p.Interface = "an-interface-of-many-letters" },
		"TCP MD5 does not work":       func(p *speaker.Peer) { p.Password = "swordfish" },
		"a route reflector client is": func(p *speaker.Peer) { p.RouteReflectorClient = true },
	} {
		p := speaker.Peer{Name: "tor", Interface: "eth0", Address: nowhere("eth0")}
		if err := checkPeer(p, local()); err != nil {
			t.Fatal(err)
		}
		change(&p)
		if err := checkPeer(p, local()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %q in it", err, want)
		}
	}
	if nowhere("eth0") == nowhere("eth1") || nowhere("eth0").WithZone("") == nowhere("eth1").WithZone("") {
		t.Error("two interfaces stand for one")
	}
	two := []speaker.Peer{{Name: "a", Interface: "eth0", Address: nowhere("eth0")}, {Name: "b", Interface: "eth0", Address: nowhere("eth0")}}
	if good, err := checkPeers(two, local()); err == nil || !strings.Contains(err.Error(), "peer b: eth0 is where peer a is already") || len(good) != 1 {
		t.Errorf("two peers on one interface: %v", err)
	}
}

// links starts two routers of an implementation, both fe80::1, each on a link of its own.
func links(t *testing.T, i routers.Implementation) (pair [2]*rung) {
	t.Helper()
	namespace.Need(t)
	routers.Need(t, i)
	for n := range pair {
		there := routers.NewNamespace(t)
		there.Run(t, "sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.forwarding=1")
		r := &rung{there: there, name: fmt.Sprintf("up%d", there.PID())}
		r.connect(t, torAddress)
		here := routers.Namespace{}
		here.Run(t, "ip", "-6", "addr", "flush", "dev", r.name, "scope", "link")
		here.Run(t, "ip", "addr", "add", "fe80::77/64", "dev", r.name, "nodad")
		c := routers.Config{
			Addresses: []netip.Addr{netip.MustParseAddr(torAddress + "%eth0")}, ASN: routerASN, RouterID: netip.AddrFrom4([4]byte{192, 0, 2, byte(n + 1)}),
			Originates: prefixes(theirs4, theirs6),
			Neighbors:  []routers.Neighbor{{Address: netip.MustParseAddr("fe80::77%eth0"), ASN: nodeASN, Families: both()}},
		}
		r.tor = routers.Start(t, i, there, c)
		pair[n] = r
	}
	return pair
}

// Two routers that are both fe80::1 are told different things, which change for each
// without a new session of either; and what becomes of the one is nothing to the other.
// A router that takes no IPv6 next hops for IPv4 is told of the IPv6 prefixes.
func TestUnnumberedTwins(t *testing.T) {
	t.Parallel()
	table := interop.Open(t)
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			if i == routers.OpenBGPD {
				table.Partly(t, "unnumbered", i, "IPv6 prefixes alone: it does not know RFC 8950", routers.IPv6)
			} else {
				table.Try(t, "unnumbered", i, routers.IPv6)
			}
			t.Parallel()
			pair := links(t, i)
			s := newTestChild(t)
			d := speaker.Desired{Local: local(), Peers: []speaker.Peer{pair[0].peer("one"), pair[1].peer("two")}, Terms: map[string]speaker.Terms{
				"both":   {"one": {MED: number(1), Communities: []speaker.Community{64512<<16 | 1}}, "two": {Prepend: 2}},
				"second": {"two": {}},
			}}
			more, is4 := ours4, i != routers.OpenBGPD
			if !is4 {
				more = "2001:db8:2::/64"
			}
			d.Announcements = []speaker.Announcement{{Prefix: prefixes(more)[0], Terms: "second"}, {Prefix: prefixes(ours6)[0], Terms: "both"}}
			must(t, s.Set(t.Context(), d))
			must(t, s.Flush(within(t, soon), d.Prefixes()))
			const plain, long = "[64512] [] [] -", "[64512 64512 64512] [] [] -"
			pair[0].says(t, map[string]string{ours6: "[64512] [64512:1] [] 1"})
			pair[1].says(t, map[string]string{ours6: long, more: plain})
			var states [2]speaker.PeerState
			for n, name := range []string{"one", "two"} {
				eventually(t, "what the router tells is received", func() bool { return stateOf(t, s, name).Received >= 1 })
				states[n] = stateOf(t, s, name)
				if states[n].Interface != pair[n].name || states[n].Address.String() != torAddress+"%"+pair[n].name || states[n].Advertised != n+1 {
					t.Errorf("%+v", states[n])
				}
			}
			d.Terms = map[string]speaker.Terms{"both": {"two": {Prepend: 2}}, "second": {"one": {MED: number(3)}, "two": {}}}
			must(t, s.Set(t.Context(), d))
			must(t, s.Flush(within(t, soon), d.Prefixes()))
			pair[0].says(t, map[string]string{more: "[64512] [] [] 3"})
			pair[1].says(t, map[string]string{ours6: long, more: plain})
			undisturbed(t, s, states[0])
			undisturbed(t, s, states[1])
			pair[0].flap(t, s, "one")
			pair[0].says(t, map[string]string{more: "[64512] [] [] 3"})
			undisturbed(t, s, states[1])
			d.Peers[0].Down = true
			must(t, s.Set(t.Context(), d))
			pair[0].says(t, map[string]string{})
			pair[1].says(t, map[string]string{ours6: long, more: plain})
			undisturbed(t, s, states[1])
		})
	}
}

// flap takes the router's end of the link down until the speaker has noticed.
func (r *rung) flap(t *testing.T, s speaker.Speaker, name string) {
	t.Helper()
	r.there.Run(t, "ip", "link", "set", "eth0", "down")
	eventually(t, "the loss is noticed", func() bool { return !stateOf(t, s, name).Established() })
	r.there.Run(t, "ip", "link", "set", "eth0", "up")
	r.there.Run(t, "ip", "addr", "replace", torAddress+"/64", "dev", "eth0", "nodad")
	eventually(t, "the session is back", func() bool { return stateOf(t, s, name).Established() })
}

// A session over IPv6 tells a router that takes no IPv6 next hops for IPv4 of those IPv4
// prefixes alone that are given an IPv4 one, takes them back when they have none any more,
// and does not call told what was not.
func TestWithoutIPv6Hops(t *testing.T) {
	t.Parallel()
	for _, i := range []routers.Implementation{routers.BIRD, routers.OpenBGPD} {
		t.Run(string(i), func(t *testing.T) {
			t.Parallel()
			f := join(t, i, func(_ *routers.Config, _, v6 *routers.Neighbor) { v6.Families = both() })
			d := speaker.Desired{Local: local(), Peers: f.peers(routerASN, speaker.Session{})[1:], Announcements: announce(ours6)}
			d.Peers[0].Families = []speaker.Family{speaker.IPv4, speaker.IPv6}
			d.Announcements = append(d.Announcements, speaker.Announcement{Prefix: prefixes(ours4)[0], Terms: "given"})
			d.Terms = map[string]speaker.Terms{"given": {"tor6": {NextHops: []netip.Addr{f.node4}}}}
			s := newTestChild(t)
			must(t, s.Set(t.Context(), d))
			must(t, s.Flush(within(t, soon), d.Prefixes()))
			f.tor.Has(t, ours4, ours6)
			before := stateOf(t, s, "tor6")
			d.Announcements[1].Terms = ""
			must(t, s.Set(t.Context(), d))
			f.tor.Has(t, ours6)
			if err := s.Flush(within(t, 200*time.Millisecond), prefixes(ours4)); !errors.Is(err, speaker.ErrNoPeer) || !strings.Contains(err.Error(), "peer tor6") || !strings.Contains(err.Error(), "RFC 8950") {
				t.Errorf("Flush: %v", err)
			}
			must(t, s.Flush(within(t, soon), prefixes(ours6)))
			d.Announcements[1].Terms = "given"
			must(t, s.Set(t.Context(), d))
			must(t, s.Flush(within(t, soon), d.Prefixes()))
			f.tor.Has(t, ours4, ours6)
			undisturbed(t, s, before)
			if n := stateOf(t, s, "tor6").Advertised; n != 2 {
				t.Errorf("%d prefixes were advertised", n)
			}
		})
	}
}

// says waits until the router has exactly these routes in these words.
func (r *rung) says(t *testing.T, want map[string]string) {
	t.Helper()
	routers.Await(t, fmt.Sprintf("the router has %v", want), soon, func() error {
		got := make(map[string]string)
		for _, route := range r.tor.Routes(t) {
			if route.From.IsValid() {
				words := shown(route)
				got[route.Prefix.String()] = words[:strings.LastIndex(words, " ")] // less the next hop
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("it has %v", got)
		}
		return nil
	})
}
