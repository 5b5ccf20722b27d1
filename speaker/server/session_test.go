package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/interop"
	routers "github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/internal/namespace"
	"github.com/fairway-network/fairway/speaker"
)

// A fabric is a router on a link of its own with the node: TTLs, subnets and
// passwords are those of a network.
type fabric struct {
	tor         *routers.Router
	node4, tor4 netip.Addr
	node6, tor6 netip.Addr
	here        routers.Namespace
	link        string // to the router
}

// join starts a router of an implementation, with a session for each family that
// neighbor completes.
func join(t *testing.T, i routers.Implementation, change func(c *routers.Config, v4, v6 *routers.Neighbor)) *fabric {
	t.Helper()
	namespace.Need(t)
	routers.Need(t, i)
	there := routers.NewNamespace(t)
	n := there.PID() // it is nobody else's meanwhile, and has 15 bits
	at4 := func(host int) netip.Prefix {
		return netip.MustParsePrefix(fmt.Sprintf("100.%d.%d.%d/24", 64+(n>>8)&63, n&255, host))
	}
	at6 := func(host int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::%x/64", n, host)) }
	node4, tor4, node6, tor6 := at4(1), at4(2), at6(1), at6(2)
	link := fmt.Sprintf("tor%d", n)
	routers.Connect(t,
		routers.End{Interface: link, Addresses: []netip.Prefix{node4, node6}},
		routers.End{Namespace: there, Interface: "eth0", Addresses: []netip.Prefix{tor4, tor6}})
	c := routers.Config{Addresses: []netip.Addr{tor4.Addr(), tor6.Addr()}, ASN: routerASN}
	v4 := routers.Neighbor{Address: node4.Addr(), ASN: nodeASN}
	v6 := routers.Neighbor{Address: node6.Addr(), ASN: nodeASN}
	if change != nil {
		change(&c, &v4, &v6)
	}
	c.Neighbors = []routers.Neighbor{v4, v6}
	return &fabric{tor: routers.Start(t, i, there, c), node4: node4.Addr(), tor4: tor4.Addr(), node6: node6.Addr(), tor6: tor6.Addr(), link: link}
}

// peers are this node's two peers for the router, with one Session.
func (f *fabric) peers(asn uint32, s speaker.Session) []speaker.Peer {
	return []speaker.Peer{{Name: "tor4", Address: f.tor4, ASN: asn, Session: s}, {Name: "tor6", Address: f.tor6, ASN: asn, Session: s}}
}

// The prefix of each family that is announced, and that a router announces.
const (
	ours4, ours6     = "10.1.0.0/26", "2001:db8:1::/64"
	theirs4, theirs6 = "10.9.0.0/24", "2001:db8:9::/64"
)

// both are the families of the sessions of join.
func both() []routers.Family { return []routers.Family{routers.IPv4, routers.IPv6} }

// option is one option of a session, on both sides.
type option struct {
	name   string
	not    map[routers.Implementation]string // and why
	router func(c *routers.Config, n *routers.Neighbor)
	node   func(d *speaker.Desired, s *speaker.Session)
	asn    uint32 // of the router, if not routerASN
	path   string // AS path at the router, if not nodeASN alone
	// holds looks at one session once its route has arrived.
	holds func(t *testing.T, f *fabric, near, far netip.Addr, state speaker.PeerState)
}

func sessionOptions() []option {
	none := func(*routers.Config, *routers.Neighbor) {}
	return []option{
		{name: "eBGP", router: none, node: func(*speaker.Desired, *speaker.Session) {}},
		{name: "iBGP", asn: nodeASN, path: "[]", router: func(c *routers.Config, _ *routers.Neighbor) { c.ASN = nodeASN }, node: func(*speaker.Desired, *speaker.Session) {}},
		{name: "four-octet ASNs", asn: 4200000001, path: "[4200000002]",
			router: func(c *routers.Config, n *routers.Neighbor) { c.ASN, n.ASN = 4200000001, 4200000002 },
			node:   func(d *speaker.Desired, _ *speaker.Session) { d.Local.ASN = 4200000002 }},
		{name: "local ASN", path: "[64999]",
			router: func(_ *routers.Config, n *routers.Neighbor) { n.ASN = 64999 },
			node:   func(_ *speaker.Desired, s *speaker.Session) { s.LocalASN = 64999 }},
		{name: "password", not: map[routers.Implementation]string{routers.OpenBGPD: "takes no TCP MD5 on Linux"},
			router: func(_ *routers.Config, n *routers.Neighbor) { n.Password = "swordfish" },
			node:   func(_ *speaker.Desired, s *speaker.Session) { s.Password = "swordfish" }},
		{name: "TTL security",
			router: func(_ *routers.Config, n *routers.Neighbor) { n.TTLSecurity = 1 },
			node:   func(_ *speaker.Desired, s *speaker.Session) { s.TTLSecurity = 1 }},
		{name: "multihop",
			router: func(_ *routers.Config, n *routers.Neighbor) { n.Multihop = 3 },
			node:   func(_ *speaker.Desired, s *speaker.Session) { s.Multihop = 3 }},
		{name: "timers", router: none,
			node: func(_ *speaker.Desired, s *speaker.Session) {
				s.HoldTime, s.Keepalive, s.ConnectRetry = 12*time.Second, 2*time.Second, time.Second
			},
			holds: func(t *testing.T, f *fabric, near, _ netip.Addr, _ speaker.PeerState) {
				if got := f.tor.Neighbor(t, near).HoldTime; got != 12*time.Second {
					t.Errorf("the router holds for %v", got)
				}
			}},
		{name: "passive",
			router: func(_ *routers.Config, n *routers.Neighbor) { n.Dials = true },
			node: func(d *speaker.Desired, s *speaker.Session) {
				d.Local.Listen, s.Passive = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, true
			}},
		{name: "port",
			router: func(c *routers.Config, _ *routers.Neighbor) { c.Port = routerPort },
			node:   func(_ *speaker.Desired, s *speaker.Session) { s.Port = routerPort }},
		{name: "route reflector client", asn: nodeASN, path: "[]",
			router: func(c *routers.Config, _ *routers.Neighbor) { c.ASN = nodeASN },
			node:   func(_ *speaker.Desired, s *speaker.Session) { s.RouteReflectorClient = true }},
		{name: "ADD-PATH",
			router: func(_ *routers.Config, n *routers.Neighbor) { n.SendPaths, n.ReceivePaths = true, true },
			node:   func(_ *speaker.Desired, s *speaker.Session) { s.ReceivePaths = true },
			holds:  takesPaths},
	}
}

// takesPaths looks whether the router has heard that it may send several paths of a
// prefix, and nothing of being sent them.
func takesPaths(t *testing.T, f *fabric, near, _ netip.Addr, _ speaker.PeerState) {
	t.Helper()
	number, capability := "4", "CggKBAgBEAEQAQ==" // of GoBGP's API: the family, and the mode
	if near.Is6() {
		number, capability = "6", "CggKBAgCEAEQAQ=="
	}
	words := map[routers.Implementation]string{
		routers.FRR:      `"ipv` + number + `Unicast":{ "txAdvertised":true, "rxAdvertisedAndReceived":true }`,
		routers.BIRD:     "ADD-PATH RX: ipv" + number + " TX: Hostname",
		routers.OpenBGPD: `"add-path": [ { "family": "IPv` + number + ` unicast", "mode": "recv" } ]`,
		routers.GoBGP:    `AddPathCapability","value":"` + capability + `"`,
	}[f.tor.Implementation]
	if said := f.tor.Neighbor(t, near).Said; !strings.Contains(strings.Join(strings.Fields(said), " "), words) {
		t.Errorf("%s says nothing of %q: %s", f.tor.Implementation, words, said)
	}
}

// Every option of a session, with every implementation, over IPv4 and IPv6: routes
// arrive, with the AS path and next hop that they should have.
func TestSessionOptions(t *testing.T) {
	t.Parallel()
	table := interop.Open(t)
	for _, o := range sessionOptions() {
		for _, i := range routers.All() {
			t.Run(o.name+"/"+string(i), func(t *testing.T) {
				if why := o.not[i]; why != "" {
					table.Lacks(t, o.name, i, why)
					return // no skip: the page says so
				}
				table.Try(t, o.name, i, both()...)
				t.Parallel()
				o.try(t, i)
			})
		}
	}
}

func (o option) try(t *testing.T, i routers.Implementation) {
	f := join(t, i, func(c *routers.Config, v4, v6 *routers.Neighbor) {
		c.Originates = prefixes(theirs4, theirs6)
		o.router(c, v4)
		o.router(c, v6)
	})
	asn := o.asn
	if asn == 0 {
		asn = routerASN
	}
	d := speaker.Desired{Local: local(), Announcements: announce(ours4, ours6)}
	var s speaker.Session
	o.node(&d, &s)
	d.Local.Port = nodePort
	if len(d.Local.Listen) > 0 {
		d.Local.Port, d.Local.Listen = 179, []netip.Addr{f.node4, f.node6}
	}
	d.Peers = f.peers(asn, s)
	c := newTestChild(t)
	must(t, c.Set(t.Context(), d))
	f.tor.Has(t, ours4, ours6)
	path := o.path
	if path == "" {
		path = fmt.Sprint([]uint32{nodeASN})
	}
	for _, x := range []struct {
		prefix, peer string
		near, far    netip.Addr
	}{{ours4, "tor4", f.node4, f.tor4}, {ours6, "tor6", f.node6, f.tor6}} {
		route, _ := f.tor.Route(t, x.prefix)
		if route.NextHop != x.near || fmt.Sprint(route.ASPath) != path {
			t.Errorf("%s has next hop %s and AS path %v, want %s and %s", x.prefix, route.NextHop, route.ASPath, x.near, path)
		}
		eventually(t, "the router's own prefix is received", func() bool { return stateOf(t, c, x.peer).Received >= 1 })
		state := stateOf(t, c, x.peer)
		if !state.Established() {
			t.Errorf("state %+v", state)
		}
		if o.holds != nil {
			o.holds(t, f, x.near, x.far, state)
		}
	}
}

// With TTL security a router whose packets come with too low a TTL has no session,
// whoever dials; and a router that is two hops away has one with multihop alone.
func TestTTLs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		node   speaker.Session
		dials  bool
		router func(n *routers.Neighbor)
		up     bool
	}{
		"node checks and dials":   {speaker.Session{TTLSecurity: 1}, false, func(*routers.Neighbor) {}, false},
		"node checks and listens": {speaker.Session{TTLSecurity: 1, Passive: true}, true, func(*routers.Neighbor) {}, false},
		"router checks":           {speaker.Session{}, false, func(n *routers.Neighbor) { n.TTLSecurity = 1 }, false},
		"far and multihop":        {speaker.Session{Multihop: 2}, false, func(n *routers.Neighbor) { n.Multihop = 2 }, true},
		"far and two hops":        {speaker.Session{TTLSecurity: 2}, false, func(n *routers.Neighbor) { n.TTLSecurity = 2 }, true},
		"far and direct":          {speaker.Session{}, false, func(n *routers.Neighbor) { n.Multihop = 2 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var f *fabric
			if strings.HasPrefix(name, "far") {
				f = joinFar(t, c.router)
			} else {
				f = join(t, routers.BIRD, func(_ *routers.Config, v4, v6 *routers.Neighbor) {
					v4.Dials, v6.Dials = c.dials, c.dials
					c.router(v4)
					c.router(v6)
				})
			}
			d := speaker.Desired{Local: local(), Peers: f.peers(routerASN, c.node), Announcements: announce(ours4, ours6)}
			if c.dials {
				d.Local.Listen = []netip.Addr{f.node4, f.node6}
			}
			s := newTestChild(t)
			must(t, s.Set(t.Context(), d))
			if c.up {
				f.tor.Has(t, ours4, ours6)
				return
			}
			// Long enough for a session that there should not be. A router that is slow takes an
			// OPEN before it has told its socket what to check, and answers; then it hears no more.
			err := s.Flush(within(t, 8*time.Second), d.Prefixes())
			if !errors.Is(err, speaker.ErrNoPeer) && (err != nil || name != "router checks") {
				t.Errorf("Flush: %v", err)
			}
			f.tor.Has(t)
		})
	}
}

// joinFar starts BIRD behind a router that only forwards.
func joinFar(t *testing.T, change func(n *routers.Neighbor)) *fabric {
	t.Helper()
	namespace.Need(t)
	routers.Need(t, routers.BIRD)
	middle, there := routers.NewNamespace(t), routers.NewNamespace(t)
	n, m := middle.PID(), there.PID()
	at4 := func(net, host int) netip.Prefix {
		return netip.MustParsePrefix(fmt.Sprintf("100.%d.%d.%d/24", 64+(net>>8)&63, net&255, host))
	}
	at6 := func(net, host int) netip.Prefix {
		return netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::%x/64", net, host))
	}
	routers.Connect(t, routers.End{Interface: fmt.Sprintf("tor%d", n), Addresses: []netip.Prefix{at4(n, 1), at6(n, 1)}},
		routers.End{Namespace: middle, Interface: "eth0", Addresses: []netip.Prefix{at4(n, 2), at6(n, 2)}})
	routers.Connect(t, routers.End{Namespace: middle, Interface: "eth1", Addresses: []netip.Prefix{at4(m, 1), at6(m, 1)}},
		routers.End{Namespace: there, Interface: "eth0", Addresses: []netip.Prefix{at4(m, 2), at6(m, 2)}})
	middle.Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	here := routers.Namespace{}
	here.Run(t, "ip", "route", "add", at4(m, 0).String(), "via", at4(n, 2).Addr().String())
	here.Run(t, "ip", "route", "add", at6(m, 0).String(), "via", at6(n, 2).Addr().String())
	there.Run(t, "ip", "route", "add", "default", "via", at4(m, 1).Addr().String())
	there.Run(t, "ip", "route", "add", "default", "via", at6(m, 1).Addr().String())
	f := &fabric{node4: at4(n, 1).Addr(), tor4: at4(m, 2).Addr(), node6: at6(n, 1).Addr(), tor6: at6(m, 2).Addr()}
	v4, v6 := routers.Neighbor{Address: f.node4, ASN: nodeASN}, routers.Neighbor{Address: f.node6, ASN: nodeASN}
	change(&v4)
	change(&v6)
	f.tor = routers.Start(t, routers.BIRD, there, routers.Config{
		Addresses: []netip.Addr{f.tor4, f.tor6}, ASN: routerASN, Neighbors: []routers.Neighbor{v4, v6}})
	return f
}

// Options that contradict each other, or the rest, are refused in words.
func TestRefusedSessions(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]struct {
		change func(*speaker.Session)
		asn    uint32
	}{
		"set one of them":                  {func(s *speaker.Session) { s.Multihop, s.TTLSecurity = 2, 1 }, routerASN},
		"of another family":                {func(s *speaker.Session) { s.LocalAddress = netip.MustParseAddr("fd00::1") }, routerASN},
		"an address of this node":          {func(s *speaker.Session) { s.LocalAddress = netip.IPv4Unspecified() }, routerASN},
		"less than the hold time":          {func(s *speaker.Session) { s.HoldTime, s.Keepalive = 9*time.Second, 9*time.Second }, routerASN},
		"less than the hold time of 1m30s": {func(s *speaker.Session) { s.Keepalive = 2 * time.Minute }, routerASN},
		"keepalive time 500ms":             {func(s *speaker.Session) { s.Keepalive = 500 * time.Millisecond }, routerASN},
		"connect retry time 2h0m0s":        {func(s *speaker.Session) { s.ConnectRetry = 2 * time.Hour }, routerASN},
		"nobody would open":                {func(s *speaker.Session) { s.Passive = true }, routerASN},
		"is an iBGP peer":                  {func(s *speaker.Session) { s.RouteReflectorClient = true }, routerASN},
		"AS_TRANS":                         {func(s *speaker.Session) { s.LocalASN = 23456 }, routerASN},
		"shutdown message of 256":          {func(s *speaker.Session) { s.DownMessage = strings.Repeat("x", 256) }, routerASN},
		"shutdown message of 2 bytes":      {func(s *speaker.Session) { s.DownMessage = "\xff\xff" }, routerASN},
		"password of 81 bytes":             {func(s *speaker.Session) { s.Password = speaker.Secret(strings.Repeat("x", 81)) }, routerASN},
	} {
		p := nobody("127.0.0.9")
		p.ASN = c.asn
		c.change(&p.Session)
		if err := checkPeer(p, local()); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "peer nobody") {
			t.Errorf("%v: want %q in it", err, want)
		}
	}
	p := nobody("127.0.0.9")
	p.LocalASN, p.RouteReflectorClient = p.ASN, true
	if err := checkPeer(p, local()); err != nil {
		t.Errorf("a client that is iBGP by the local ASN: %v", err)
	}
	p.Accept.Max = -1
	if err := checkPeer(p, local()); err == nil || !strings.Contains(err.Error(), "-1 prefixes") {
		t.Errorf("a negative number of prefixes: %v", err)
	}
}

// GoBGP is never asked to change the TTL of a connection, in whose place it would find
// the guard: another one takes a new session, and other timers leave it as it is.
func TestTTLOfLiveSession(t *testing.T) {
	t.Parallel()
	for n, sessions := range [][2]speaker.Session{
		{{}, {Multihop: 3}},
		{{Multihop: 3}, {Multihop: 4}},
		{{TTLSecurity: 1}, {TTLSecurity: 2}},
		{{TTLSecurity: 1}, {}},
	} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			r := newRaw(t, "tor", fmt.Sprintf("127.0.9.%d", 50+n))
			r.door.Control = func(_, _ string, c syscall.RawConn) error {
				var failed error
				err := c.Control(func(fd uintptr) { failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TTL, 255) })
				return errors.Join(err, failed)
			}
			close(r.gate)
			r.listen(t)
			s := newTestServer(t)
			d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}}
			set := func(to speaker.Session, hold time.Duration) {
				t.Helper()
				to.Port, to.HoldTime = r.peer.Port, hold
				d.Peers = slices.Clone(d.Peers)
				d.Peers[0].Session = to
				must(t, s.Set(t.Context(), d))
			}
			set(sessions[0], time.Minute)
			comesUp(t, s, "tor")
			before := stateOf(t, s, "tor")
			set(sessions[0], time.Hour)
			undisturbed(t, s, before)
			set(sessions[1], time.Hour)
			eventually(t, "there is a new session", func() bool {
				p := stateOf(t, s, "tor")
				return p.Established() && p.Since != before.Since
			})
		})
	}
}
