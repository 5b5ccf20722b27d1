package speaker

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	routers "github.com/fairway-network/fairway/integration/router"
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
	if os.Getenv(inNamespace) == "" {
		t.Skip("needs root: routers run in namespaces of the test")
	}
	routers.Need(t, routers.BIRD)
	there := routers.NewNamespace(t)
	there.Run(t, "sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.forwarding=1")
	r := &rung{there: there, name: fmt.Sprintf("up%d", there.PID())}
	routers.Connect(t, routers.End{Interface: r.name}, routers.End{Namespace: there, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix(torAddress + "/64")}})
	r.tor = routers.Start(t, routers.BIRD, there, routers.Config{ASN: routerASN, Originates: prefixes(theirs4, theirs6), Extra: extra})
	return r
}

// peer is this node's.
func (r *rung) peer(name string) Peer {
	return Peer{Name: name, Interface: r.name, ASN: routerASN}
}

// Two routers that are both fe80::1 on different interfaces have a session each, with
// IPv4 prefixes by IPv6 next hops, whether they advertise themselves or not.
func TestUnnumbered(t *testing.T) {
	t.Parallel()
	one, two := climb(t, birdOn), climb(t, birdOn+birdAdvertises)
	s := newTestChild(t)
	any := two.peer("two")
	any.ASN = 0
	d := Desired{Local: local(), Peers: []Peer{one.peer("one"), any}, Announcements: announce(ours4, ours6)}
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
