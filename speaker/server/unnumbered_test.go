package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

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

// Two routers that are both fe80::1 are told other things, and their own sessions are
// theirs alone: other terms, another limit, one that is shut, one whose rules change.
func TestUnnumberedTwins(t *testing.T) {
	t.Parallel()
	one, two := climb(t, birdOn+birdAdvertises), climb(t, birdOn+birdAdvertises)
	s := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{one.peer("one"), two.peer("two")}, Terms: map[string]speaker.Terms{
		"both":   {"one": {MED: number(1), Communities: []speaker.Community{64512<<16 | 1}}, "two": {Prepend: 2}},
		"second": {"two": {}},
	}}
	d.Announcements = []speaker.Announcement{{Prefix: prefixes(ours4)[0], Terms: "both"}, {Prefix: prefixes(ours6)[0], Terms: "second"}}
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, 20*time.Second), d.Prefixes()))
	one.says(t, map[string]string{ours4: "[64512] [64512:1] [] 1"})
	two.says(t, map[string]string{ours4: "[64512 64512 64512] [] [] -", ours6: "[64512] [] [] -"})
	for _, name := range []string{"one", "two"} {
		eventually(t, "the router's prefixes are received", func() bool { return stateOf(t, s, name).Received == 2 })
	}
	if a, b := stateOf(t, s, "one").Advertised, stateOf(t, s, "two").Advertised; a != 1 || b != 2 {
		t.Errorf("%d and %d prefixes were advertised, want 1 and 2", a, b)
	}

	before := stateOf(t, s, "two")
	d.Terms = map[string]speaker.Terms{"both": {"two": {Prepend: 2}}, "second": {"one": {MED: number(3)}, "two": {}}}
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()))
	one.says(t, map[string]string{ours6: "[64512] [] [] 3"})
	two.says(t, map[string]string{ours4: "[64512 64512 64512] [] [] -", ours6: "[64512] [] [] -"})

	d.Peers[0].Accept.Max = 1 // and each family of the router has one more than that
	d.Announcements = append(d.Announcements, speaker.Announcement{Prefix: prefixes("10.2.0.0/24")[0], Terms: "both"})
	one.tor.Config.Originates = prefixes(theirs4, "10.9.1.0/24", theirs6)
	one.tor.Configure(t)
	one.tor.Do(t, "configure")
	must(t, s.Set(t.Context(), d))
	eventually(t, "the flood of the one is noticed", func() bool {
		p := stateOf(t, s, "one")
		return !p.Established() && strings.Contains(p.LastError, "prefixes")
	})
	two.tor.Has(t, ours4, ours6, "10.2.0.0/24")
	undisturbed(t, s, before)
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
