package agent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/speaker"
)

// meshNode came so many minutes after the first.
func meshNode(name string, minutes int, asn uint32, addresses ...string) MeshNode {
	n := MeshNode{Name: name, Since: time.Unix(0, 0).Add(time.Duration(minutes) * time.Minute), ASN: asn, Port: bgpPort}
	for _, a := range addresses {
		n.Addresses = append(n.Addresses, netip.MustParseAddr(a))
	}
	return n
}

// said is a peer in a line.
func said(p speaker.Peer) string {
	way := "to"
	if p.Passive {
		way = "by"
	}
	return fmt.Sprintf("%s %s %s AS%d from %s %v %v", p.Name, way, netip.AddrPortFrom(p.Address, p.Port), p.ASN, p.LocalAddress, p.Families, p.Accept.Prefixes)
}

func TestMeshPeers(t *testing.T) {
	a := meshNode("a", 1, 64512, "192.0.2.1", "2001:db8::1")
	b := meshNode("b", 2, 64512, "192.0.2.2", "2001:db8::2")
	c := meshNode("c", 3, 64513, "192.0.2.3")
	c.Port = 1179
	six := meshNode("six", 4, 64512, "2001:db8::6")
	for _, test := range []struct {
		name  string
		mesh  Mesh
		self  MeshNode
		nodes []MeshNode
		want  []string
		err   string
	}{
		{name: "alone, and not known yet", self: a},
		{name: "alone", self: a, nodes: []MeshNode{a}},
		{name: "both families, by sessions of their own", self: a, nodes: []MeshNode{b, a}, want: []string{
			"mesh/b/ipv4 by 192.0.2.2:179 AS64512 from 192.0.2.1 [ipv4] []", "mesh/b/ipv6 by [2001:db8::2]:179 AS64512 from 2001:db8::1 [ipv6] []"}},
		{name: "one family", mesh: Mesh{Families: []speaker.Family{speaker.IPv6}}, self: a, nodes: []MeshNode{a, b, c}, want: []string{
			"mesh/b/ipv6 by [2001:db8::2]:179 AS64512 from 2001:db8::1 [ipv6] []"}},
		{name: "another port and ASN", self: b, nodes: []MeshNode{b, c}, want: []string{"mesh/c/ipv4 by 192.0.2.3:1179 AS64513 from 192.0.2.2 [ipv4] []"}},
		{name: "no family in common", self: c, nodes: []MeshNode{c, six}},
		{name: "prefixes of the family", mesh: Mesh{Learn: true}, self: a, nodes: []MeshNode{b}, want: []string{
			"mesh/b/ipv4 by 192.0.2.2:179 AS64512 from 192.0.2.1 [ipv4] [{10.0.0.0/8 8 32}]", "mesh/b/ipv6 by [2001:db8::2]:179 AS64512 from 2001:db8::1 [ipv6] [{fd00::/8 8 128}]"}},
		{name: "too many: the last stays out", mesh: Mesh{MaxNodes: 2}, self: a, nodes: []MeshNode{c, b, a}, want: []string{
			"mesh/b/ipv4 by 192.0.2.2:179 AS64512 from 192.0.2.1 [ipv4] []", "mesh/b/ipv6 by [2001:db8::2]:179 AS64512 from 2001:db8::1 [ipv6] []"},
			err: "mesh: 3 nodes, and bgp.mesh.maxNodes is 2: not in it are those that came last (c): raise maxNodes"},
		{name: "too many: this one stays out", mesh: Mesh{MaxNodes: 2}, self: c, nodes: []MeshNode{c, b, a}, err: "this node is not in the mesh: 3 nodes"},
		{name: "too many: one that nobody knows is the last", mesh: Mesh{MaxNodes: 2}, self: a, nodes: []MeshNode{b, c}, err: "this node is not in the mesh: 3 nodes"},
		{name: "as many as may be", mesh: Mesh{MaxNodes: 2}, self: c, nodes: []MeshNode{c, b}, want: []string{"mesh/b/ipv4 to 192.0.2.2:179 AS64512 from 192.0.2.3 [ipv4] []"}},
		{name: "the address of another", self: c, nodes: []MeshNode{b, c, meshNode("thief", 9, 64512, "192.0.2.2")}, want: []string{
			"mesh/b/ipv4 to 192.0.2.2:179 AS64512 from 192.0.2.3 [ipv4] []"}, err: "mesh: node thief says that its address is 192.0.2.2, which is that of node b"},
		{name: "this node's address", self: c, nodes: []MeshNode{meshNode("thief", 0, 64512, "192.0.2.3")}, err: "mesh: node thief says that its address is 192.0.2.3, which is that of node c"},
	} {
		t.Run(test.name, func(t *testing.T) {
			peers, err := test.mesh.peers(test.self, test.nodes, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")})
			var got []string
			for _, p := range peers {
				got = append(got, said(p))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("peers\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.HasPrefix(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
		})
	}
}

// Whatever nodes there are, two of them are peers of each other or neither is, at the
// same ends, and one of them connects.
func TestMeshIsMutual(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var nodes []MeshNode
		for i := range 2 + r.IntN(8) {
			var addresses []string
			for _, f := range []string{"192.0.2.%d", "2001:db8::%d"} {
				if r.IntN(4) > 0 {
					addresses = append(addresses, fmt.Sprintf(f, 1+i-r.IntN(2)*r.IntN(2)*r.IntN(2))) // some twice
				}
			}
			nodes = append(nodes, meshNode(fmt.Sprint("n", i), r.IntN(4), 64512, addresses...))
		}
		m := Mesh{MaxNodes: r.IntN(8)}
		ends := map[[2]netip.Addr]string{}
		passive := map[[2]netip.Addr]bool{}
		for _, self := range nodes {
			peers, _ := m.peers(self, nodes, nil)
			for _, p := range peers {
				e := [2]netip.Addr{p.LocalAddress, p.Address}
				ends[e], passive[e] = self.Name, p.Passive
			}
		}
		twice := map[netip.Addr]int{}
		for _, n := range nodes {
			for _, a := range n.Addresses {
				twice[a]++
			}
		}
		for e, name := range ends {
			if twice[e[0]] > 1 || twice[e[1]] > 1 {
				continue
			}
			back := [2]netip.Addr{e[1], e[0]}
			if _, mutual := ends[back]; !mutual {
				t.Errorf("seed %d: %s would speak from %s with %s, and not the other way round: %+v", seed, name, e[0], e[1], nodes)
			} else if passive[e] == passive[back] {
				t.Errorf("seed %d: %s and %s both wait, or both connect", seed, e[0], e[1])
			}
		}
	}
}

func TestMeshEndpoint(t *testing.T) {
	addresses := func(list ...string) []netip.Addr { return meshNode("", 0, 0, list...).Addresses }
	for _, test := range []struct {
		mesh  Mesh
		local speaker.Local
		has   []netip.Addr
		want  []netip.Addr // nil is no endpoint
	}{
		{local: speaker.Local{ASN: 1}},
		{has: addresses("192.0.2.1")},
		{local: speaker.Local{ASN: 1}, has: addresses("192.0.2.1", "192.0.2.2", "2001:db8::1"), want: addresses("192.0.2.1", "2001:db8::1")},
		{local: speaker.Local{ASN: 1}, has: addresses("127.0.0.1", "fe80::1", "2001:db8::1"), want: addresses("2001:db8::1")},
		{mesh: Mesh{Families: []speaker.Family{speaker.IPv4}}, local: speaker.Local{ASN: 1}, has: addresses("2001:db8::1")},
		{mesh: Mesh{Families: []speaker.Family{speaker.IPv4}}, local: speaker.Local{ASN: 1}, has: addresses("2001:db8::1", "192.0.2.1"), want: addresses("192.0.2.1")},
	} {
		got := test.mesh.endpoint("n", test.local, test.has)
		if (got == nil) != (test.want == nil) || got != nil && (!slices.Equal(got.Addresses, test.want) || got.Port != bgpPort) {
			t.Errorf("%v of %v: %+v, want %v", test.mesh.Families, test.has, got, test.want)
		}
	}
}

// What a node announces is inside of one of the ranges, also where blocks of two
// pools are joined.
func TestMeshRangesJoin(t *testing.T) {
	ps := []Pool{pool(t, "one", 4, "10.0.0.0/25", "fd00::/120"), pool(t, "two", 4, "10.0.0.128/25", "10.0.4.0/30"), pool(t, "quiet", 4, "10.9.0.0/24")}
	ps[2].Quiet = true
	if got := fmt.Sprint(ranges(ps)); got != "[10.0.0.0/24 10.0.4.0/30 fd00::/120]" {
		t.Errorf("ranges %s", got)
	}
}

// names are those of the peers that the speaker was given last.
func (w *world) names() string {
	var out []string
	for _, p := range w.desired.Peers {
		out = append(out, p.Name)
	}
	return strings.Join(out, " ")
}

// meshSettings have a mesh and no other peer.
func meshSettings(t *testing.T) Settings {
	s := settings(t)
	s.Peers, s.Mesh = nil, &Mesh{Learn: true, Families: []speaker.Family{speaker.IPv4}, MaxNodes: 3}
	return s
}

func TestMeshFollowsTheCluster(t *testing.T) {
	web := pool(t, "web", 4, "10.1.0.0/24")
	m := meshed{host: newHost(t), cluster: newCluster(web), settings: meshSettings(t)}
	c, h := m.cluster, m.host
	c.state.Addresses = meshNode("", 0, 0, "192.0.2.1").Addresses
	m.settings.Rules = []Rule{{Peers: []string{MeshPeers}, Attributes: speaker.Attributes{Communities: []speaker.Community{7}}}}
	m.agent = h.startInWith(c, never(), m.settings)
	m.waiting("mesh: the other nodes are not known yet")
	if m.agent.unready(t.Context()) == nil {
		t.Error("ready without a mesh")
	}
	eventually(t, "the others can find it", func() bool {
		return locked(c, func() bool {
			i := slices.IndexFunc(c.reports, func(r Report) bool { return r.Mesh != nil })
			return i >= 0 && c.reports[i].Mesh.ASN == 64512 && fmt.Sprint(c.reports[i].Mesh.Addresses) == "[192.0.2.1]"
		})
	})
	self, two, three := meshNode("n1", 1, 64512, "192.0.2.1"), meshNode("n2", 2, 64512, "192.0.2.2"), meshNode("n3", 3, 64512, "192.0.2.3")
	c.update(func() { c.mesh = []MeshNode{self, two} })
	h.await("n2 is a peer", func() bool { return h.names() == "mesh/n2/ipv4" })
	m.waiting("")
	h.await("what it tells of pools counts", func() bool {
		return fmt.Sprint(h.desired.Peers[0].Accept.Prefixes) == "[{10.1.0.0/24 24 32}]"
	})
	c.update(func() { c.mesh = []MeshNode{self, two, three} })
	h.await("n3 is one, too", func() bool { return h.names() == "mesh/n2/ipv4 mesh/n3/ipv4" })

	c.update(func() { c.placed["web-1"] = Placement{Pool: "web"} })
	if _, err := m.agent.leases().Lease(t.Context(), podRequest(1)); err != nil {
		t.Fatal(err)
	}
	h.await("the rule for the mesh counts for each of them", func() bool {
		terms := h.desired.Terms[h.desired.Announcements[0].Terms]
		return len(terms) == 2 && len(terms["mesh/n3/ipv4"].Communities) == 1
	})

	c.update(func() { c.state.Pools = []Pool{web, pool(t, "api", 4, "10.2.0.0/24", "fd00::/120")} })
	h.await("of a new pool, too", func() bool {
		return fmt.Sprint(h.desired.Peers[1].Accept.Prefixes) == "[{10.1.0.0/24 24 32} {10.2.0.0/24 24 32}]"
	})
	c.update(func() { c.mesh = []MeshNode{self, two, three, meshNode("n4", 4, 64512, "192.0.2.4")} })
	m.waiting("mesh: 4 nodes, and bgp.mesh.maxNodes is 3: not in it are those that came last (n4)")
	c.update(func() { c.state.Addresses = nil }) // the kubelet has its reasons
	c.update(func() { c.state.Machine = "" })    // the Node object goes, and may come back
	c.update(func() { c.mesh = []MeshNode{self, three} })
	h.await("n2 has left", func() bool { return h.names() == "mesh/n3/ipv4" })
	m.waiting("")
	m.followsItsSettings(self, two, three)
}

// meshed is an agent in a mesh.
type meshed struct {
	*host
	agent    running
	cluster  *fakeCluster
	settings Settings
}

// waiting waits until the agent says what it waits for; nothing, if that is "".
func (m *meshed) waiting(want string) {
	m.t.Helper()
	eventually(m.t, "the trouble is "+want, func() bool {
		state, err := m.agent.status(m.t.Context())
		return err == nil && (want == "") == (state.Trouble == "") && strings.Contains(state.Trouble, want)
	})
}

func (m *meshed) reload() {
	m.t.Helper()
	if err := m.agent.Reload(m.settings); err != nil {
		m.t.Fatal(err)
	}
}

// followsItsSettings goes on in a mesh of self and three.
func (m *meshed) followsItsSettings(self, two, three MeshNode) {
	t, c, s := m.t, m.cluster, &m.settings
	s.Local.ASN = 0 // as before the Node object has a label for it
	m.reload()
	m.waiting("this node is not in the mesh: its ASN is not known yet")
	if m.agent.unready(t.Context()) == nil {
		t.Error("ready without an ASN")
	}
	s.Local.ASN = 64512
	s.Peers = []speaker.Peer{{Name: "special", Address: three.Addresses[0], ASN: 64512, Session: speaker.Session{Families: []speaker.Family{speaker.IPv4}}}}
	m.reload()
	m.await("a configured peer stands for the node", func() bool { return m.names() == "special" })
	s.Mesh = nil
	m.reload()
	eventually(t, "the others are told to leave it out", func() bool {
		return locked(c, func() bool { return c.reports[len(c.reports)-1].Mesh == nil })
	})
	c.update(func() { c.mesh = []MeshNode{self, two, three} })
	s.Mesh, s.Peers = meshSettings(t).Mesh, nil
	m.reload()
	m.await("back in the mesh", func() bool { return m.names() == "mesh/n2/ipv4 mesh/n3/ipv4" })
}

// An agent that starts while the API server is away has the peers of the one before.
func TestMeshOutlivesTheAgent(t *testing.T) {
	c := newCluster(pool(t, "web", 4, "10.1.0.0/24"))
	c.state.Addresses = meshNode("", 0, 0, "192.0.2.1").Addresses
	c.mesh = []MeshNode{meshNode("n1", 1, 64512, "192.0.2.1"), meshNode("n2", 2, 64512, "192.0.2.2")}
	c.placed["web-1"] = Placement{Pool: "web"}
	h := newHost(t)
	a := h.startInWith(c, never(), meshSettings(t))
	if _, err := a.leases().Lease(t.Context(), podRequest(1)); err != nil {
		t.Fatal(err)
	}
	h.await("n2 is a peer", func() bool { return h.names() == "mesh/n2/ipv4" })
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	c.update(func() { c.mesh, c.state = nil, ClusterState{} })
	h.update(func() { h.desired = speaker.Desired{} })
	a = h.startInWith(c, never(), meshSettings(t))
	h.await("n2 is a peer at once", func() bool {
		return h.names() == "mesh/n2/ipv4" && h.desired.Peers[0].LocalAddress.String() == "192.0.2.1" && len(h.desired.Peers[0].Accept.Prefixes) == 1
	})
}

// The last node of a mesh serves pods: there is nobody to tell of their addresses.
func TestLastOfAMeshServes(t *testing.T) {
	c := newCluster(pool(t, "web", 4, "10.1.0.0/24"))
	c.state.Addresses = meshNode("", 0, 0, "192.0.2.1").Addresses
	c.mesh = []MeshNode{meshNode("n1", 1, 64512, "192.0.2.1"), meshNode("n2", 2, 64512, "192.0.2.2")}
	c.placed["web-1"] = Placement{Pool: "web"}
	h := newHost(t)
	h.established = false
	a := h.startInWith(c, never(), meshSettings(t))
	h.await("n2 is a peer", func() bool { return h.names() == "mesh/n2/ipv4" })
	if a.isSettled(time.Now()) {
		t.Error("n2 is not waited for")
	}
	a.servingSince.Store(time.Now().Add(-settleTime).UnixNano())
	a.mesh.woven.Store(time.Now().Add(-settleTime).UnixNano())
	if _, err := a.leases().Lease(t.Context(), podRequest(1)); err != nil {
		t.Errorf("without a session to anybody: %v", err)
	}
	if a.told.all().OverlapsPrefix(netip.MustParsePrefix("10.1.0.0/24")) {
		t.Error("it is remembered that somebody was told")
	}
	s := meshSettings(t)
	s.AnnounceTimeout = 200 * time.Millisecond
	s.Peers = settings(t).Peers
	if err := a.Reload(s); err != nil {
		t.Fatal(err)
	}
	h.await("there are a router and a mesh", func() bool { return h.names() == "tor mesh/n2/ipv4" })
	api := pool(t, "api", 4, "10.2.0.0/24")
	c.update(func() {
		c.state.Pools = append(c.state.Pools, api)
		c.placed["web-2"] = Placement{Pool: "api"}
	})
	if _, err := a.leases().Lease(t.Context(), podRequest(2)); err == nil {
		t.Error("with a router that is away a pod was served")
	}
}

// A mesh that comes to a node which has served for long is waited for like that of a
// node that has just started.
func TestAMeshThatComesIsWaitedFor(t *testing.T) {
	c := newCluster(pool(t, "web", 4, "10.1.0.0/24"))
	c.state.Addresses = meshNode("", 0, 0, "192.0.2.1").Addresses
	self, two, three := meshNode("n1", 1, 64512, "192.0.2.1"), meshNode("n2", 2, 64512, "192.0.2.2"), meshNode("n3", 3, 64512, "192.0.2.3")
	c.mesh = []MeshNode{self, two}
	h := newHost(t)
	s := meshSettings(t)
	s.Mesh = nil
	a := h.startInWith(c, never(), s)
	<-a.Started()
	long := func() int64 { return time.Now().Add(-2 * settleTime).UnixNano() }
	a.servingSince.Store(long())
	if !a.isSettled(time.Now()) {
		t.Error("there is no mesh to wait for")
	}
	if err := a.Reload(meshSettings(t)); err != nil {
		t.Fatal(err)
	}
	h.await("n2 is a peer", func() bool { return h.names() == "mesh/n2/ipv4" })
	if a.isSettled(time.Now()) {
		t.Error("n2 is not waited for")
	}
	a.mesh.woven.Store(long())
	c.update(func() { c.mesh = []MeshNode{self, two, three} })
	h.await("n3 is one, too", func() bool { return h.names() == "mesh/n2/ipv4 mesh/n3/ipv4" })
	if a.isSettled(time.Now()) {
		t.Error("n3 is not waited for")
	}
}

func TestConfiguredPeersAreReportedFirst(t *testing.T) {
	var got []string
	for _, p := range meshLast([]PeerStatus{{Name: "meshy"}, {Name: "mesh/b/ipv4"}, {Name: "mesh/a/ipv4"}, {Name: "tor-2"}, {Name: "tor-1"}}) {
		got = append(got, p.Name)
	}
	if text := strings.Join(got, " "); text != "meshy tor-2 tor-1 mesh/b/ipv4 mesh/a/ipv4" {
		t.Errorf("the order is %s", text)
	}
}

func TestMeshAlone(t *testing.T) {
	s := settings(t) // a router, for both families
	if s.meshAlone(pools.IPv4) {
		t.Error("there is a router")
	}
	s.Peers = []speaker.Peer{{Name: "mesh/n2/ipv4", Session: speaker.Session{Families: []speaker.Family{speaker.IPv4}}}}
	if !s.meshAlone(pools.IPv4) || s.meshAlone(pools.IPv6) {
		t.Error("the mesh carries IPv4 alone, and nobody IPv6")
	}
	s.Ranges = []speaker.Range{{Name: "lan", Session: s.Peers[0].Session}}
	if s.meshAlone(pools.IPv4) {
		t.Error("there are routers of a range")
	}
}
