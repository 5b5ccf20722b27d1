package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/integration/lab"
	"github.com/fairway-network/fairway/integration/lab/labtest"
)

// dual is a node with two routers, and a client behind both:
//
//	                ┌── tor1 (FRR)  ── br1 ──┐
//	client (FRR) ───┤                        ├─── node1, pod 10.244.120.2
//	                └── tor2 (BIRD) ── br2 ──┘
//
// The bridges are in a node of their own, sw: a port that is taken out of one cuts
// a path while the links at both ends stay up.
type dual struct {
	road
	client, tor1, tor2, sw *lab.Node
	preferred              string // by the client
	bfd                    bool
}

const (
	podBlock   = "10.244.120.0/28"
	podAddress = "10.244.120.2"
	clientAt   = "192.0.2.10"
)

// BFD of all three: how long a path is silent before it is down.
const (
	bfdInterval   = 200 * time.Millisecond
	bfdMultiplier = 5
	bfdDetection  = bfdMultiplier * bfdInterval
)

// errNotYet is of a condition that says enough by what is waited for.
var errNotYet = errors.New("not yet")

const dualAgent = `node: node1
bgp: {asn: 64512, routerID: 10.0.1.2}
peers:
- {name: tor1, address: 10.0.1.1, asn: 65001, bfd: {enabled: true, interval: 200ms, receiveInterval: 200ms, multiplier: 5}}
- {name: tor2, address: 10.0.2.1, asn: 65002, bfd: {enabled: true, interval: 200ms, receiveInterval: 200ms, multiplier: 5}}
pools:
- {name: web, addresses: [10.244.120.0/24], blockSize: 16}
`

// clientBGP has the client avoid what is asked to be avoided (RFC 8326).
const clientBGP = `frr defaults datacenter
bgp community-list standard shutdown permit graceful-shutdown
route-map avoid permit 10
 match community shutdown
 set weight 0
route-map avoid permit 20
router bgp 65100
 bgp router-id 192.0.2.10
 no bgp ebgp-requires-policy
 neighbor 10.1.1.1 remote-as 65001
 neighbor 10.1.1.1 weight 100
 neighbor 10.1.2.1 remote-as 65002
 neighbor 10.1.2.1 weight 50
 address-family ipv4 unicast
  network 192.0.2.10/32
  neighbor 10.1.1.1 route-map avoid in
  neighbor 10.1.2.1 route-map avoid in
`

const tor1BFD = `bfd
 profile node
  transmit-interval 200
  receive-interval 200
  detect-multiplier 5
`

const tor1BGP = `frr defaults datacenter
router bgp 65001
 bgp router-id 10.0.1.1
 no bgp ebgp-requires-policy
 neighbor 10.1.1.2 remote-as 65100
 neighbor 10.0.1.2 remote-as 64512
 neighbor 10.0.1.2 bfd
 neighbor 10.0.1.2 bfd profile node
`

// tor2File is BIRD's, with its word for BFD in the session with the node.
func tor2File(bfd string) string {
	return `router id 10.0.2.1;
log "/var/log/bird.log" all;
protocol device {}
protocol kernel { ipv4 { export all; }; }
protocol bfd { interface "eth2" { interval 200 ms; multiplier 5; }; }
protocol bgp clients { local 10.1.2.1 as 65002; neighbor 10.1.2.2 as 65100; ipv4 { import all; export all; }; }
protocol bgp node {
  local 10.0.2.1 as 65002;
  neighbor 10.0.2.2 as 64512;
  connect retry time 1; error wait time 1, 2;
  ` + bfd + `;
  ipv4 { import all; export none; };
}
`
}

// newDual brings it up with the agent running and the pod reachable by both
// routers, with BFD if that is configured. The client prefers tor1.
func newDual(t *testing.T, config string) *dual {
	t.Helper()
	labtest.Need(t, "/usr/lib/frr/bgpd", "/usr/lib/frr/zebra", "/usr/lib/frr/bfdd", "vtysh", "bird", "birdc")
	dir := t.TempDir()
	f := &dual{road: road{Fairway: labtest.NewFairway(t, config), t: t}, preferred: "tor1", bfd: strings.Contains(config, "bfd")}
	for name, text := range map[string]string{"client.bgp": clientBGP, "tor1.bgp": tor1BGP, "tor1.bfd": tor1BFD, "tor2.conf": tor2File("bfd")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := labtest.Up(t, f.topology(dir))
	f.client, f.tor1, f.tor2, f.sw, f.Node = labtest.Node(t, l, "client"), labtest.Node(t, l, "tor1"), labtest.Node(t, l, "tor2"), labtest.Node(t, l, "sw"), labtest.Node(t, l, "node1")
	f.tor = f.tor1
	f.Start(t)
	if pod := f.Pod(t, "c1", "web"); len(pod) != 1 || pod[0].String() != podAddress {
		t.Fatalf("the pod's addresses are %v, want %s", pod, podAddress)
	}
	f.whole()
	return f
}

func (f *dual) topology(dir string) *lab.Topology {
	forwarding := map[string]string{"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0"}
	bind := func(source, target string) lab.Bind {
		return lab.Bind{Source: filepath.Join(dir, source), Target: target, ReadOnly: true}
	}
	frr := []string{"install -d -o frr -g frr -m 755 /run/frr /var/log/frr", "/usr/lib/frr/zebra -d -A 127.0.0.1"}
	bgpd := "/usr/lib/frr/bgpd -d -A 127.0.0.1 -f /etc/frr/bgpd.conf"
	return &lab.Topology{
		Name: "dual",
		Nodes: []lab.NodeSpec{
			{Name: "client", Sysctls: forwarding, Binds: []lab.Bind{bind("client.bgp", "/etc/frr/bgpd.conf")}, Exec: append([]string{
				"ip addr add 192.0.2.10/32 dev lo", "ip addr add 10.1.1.2/30 dev eth1", "ip addr add 10.1.2.2/30 dev eth2"}, append(frr, bgpd)...)},
			{Name: "tor1", Sysctls: forwarding, Binds: []lab.Bind{bind("tor1.bgp", "/etc/frr/bgpd.conf"), bind("tor1.bfd", "/etc/frr/bfdd.conf")}, Exec: append([]string{
				"ip addr add 10.1.1.1/30 dev eth1", "ip addr add 10.0.1.1/24 dev eth2"},
				append(frr, "/usr/lib/frr/bfdd -d -A 127.0.0.1 -f /etc/frr/bfdd.conf", bgpd)...)},
			{Name: "tor2", Sysctls: forwarding, Binds: []lab.Bind{bind("tor2.conf", "/etc/bird.conf")}, Exec: []string{
				"ip addr add 10.1.2.1/30 dev eth1", "ip addr add 10.0.2.1/24 dev eth2", "bird -c /etc/bird.conf -s /run/bird.ctl -P /run/bird.pid"}},
			{Name: "sw", Exec: []string{
				"ip link add br1 type bridge", "ip link add br2 type bridge", "ip link set br1 up", "ip link set br2 up",
				"ip link set eth1 master br1", "ip link set eth2 master br1", "ip link set eth3 master br2", "ip link set eth4 master br2"}},
			f.Spec(lab.NodeSpec{Name: "node1", Sysctls: forwarding, Exec: []string{
				"ip addr add 10.0.1.2/24 dev eth1", "ip addr add 10.0.2.2/24 dev eth2",
				"ip route add 192.0.2.10/32 nexthop via 10.0.1.1 nexthop via 10.0.2.1"}}),
		},
		Links: []lab.Link{
			{A: "client:eth1", B: "tor1:eth1"}, {A: "client:eth2", B: "tor2:eth1"},
			{A: "tor1:eth2", B: "sw:eth1"}, {A: "sw:eth2", B: "node1:eth1"},
			{A: "tor2:eth2", B: "sw:eth3"}, {A: "sw:eth4", B: "node1:eth2"},
		},
	}
}

// up says whether a session and its BFD are up.
func up(p agent.PeerStatus) bool { return p.Established() && p.BFD != nil && p.BFD.State == "Up" }

// stream is packets from the client to the pod. None of them comes back: it would go
// by either router.
func (f *dual) stream() *labtest.Stream {
	f.t.Helper()
	return labtest.StartOneWay(f.t, labtest.End{Node: f.client, Address: netip.MustParseAddr(clientAt)}, labtest.End{Node: f.Node, Address: netip.MustParseAddr(podAddress)})
}

func (f *dual) mustPeers() map[string]agent.PeerStatus {
	f.t.Helper()
	peers, err := f.Peers(f.t)
	if err != nil {
		f.t.Fatal(err)
	}
	return peers
}

// whole waits until both routers have the block afresh, BFD up at both ends if there is
// BFD, and the client goes by the one that it prefers.
func (f *dual) whole() {
	f.t.Helper()
	f.await("sessions are up at both ends", func() error {
		peers, err := f.Peers(f.t)
		for _, name := range []string{"tor1", "tor2"} {
			if p := peers[name]; err == nil && (!p.Established() || f.bfd && !up(p)) {
				err = fmt.Errorf("the agent has %+v", p)
			}
		}
		if one, two := f.bfdAtTor1(), f.bfdAtTor2(); err == nil && f.bfd && (one != "up" || two != "Up") {
			err = fmt.Errorf("BFD is %q at tor1, %q at tor2", one, two)
		}
		return err
	})
	f.await("both routers have the block afresh", func() error {
		if !f.fresh() {
			return fmt.Errorf("tor1: %s; tor2: %s", f.atTor1(), f.atTor2())
		}
		return nil
	})
	f.goesBy(f.preferred)
}

// goesBy waits until the client's kernel sends to the pod by one of the routers.
func (f *dual) goesBy(name string) {
	f.t.Helper()
	via := map[string]string{"tor1": "via 10.1.1.1 ", "tor2": "via 10.1.2.1 "}[name]
	f.await("the client goes by "+name, func() error {
		out, err := f.client.Exec(f.t.Context(), "ip", "route", "get", podAddress)
		if err == nil && !strings.Contains(out, via) {
			err = fmt.Errorf("it goes %s", out)
		}
		return err
	})
}

func (f *dual) other(name string) string {
	return map[string]string{"tor1": "tor2", "tor2": "tor1"}[name]
}

// prefer makes a router the client's first choice.
func (f *dual) prefer(name string) {
	f.t.Helper()
	weight := map[string]string{"tor1": "10", "tor2": "200"}[name]
	labtest.Exec(f.t, f.client, "vtysh", "-d", "bgpd", "-c", "configure terminal", "-c", "router bgp 65100", "-c", "neighbor 10.1.2.1 weight "+weight)
	labtest.Exec(f.t, f.client, "vtysh", "-d", "bgpd", "-c", "clear bgp ipv4 unicast 10.1.2.1 soft in")
	f.preferred = name
	f.goesBy(name)
}

func (f *dual) say(n *lab.Node, argv ...string) string {
	out, err := n.Exec(f.t.Context(), argv...)
	if err != nil {
		return "error: " + err.Error()
	}
	return out
}

// bfdAtTor1 is FRR's word for its session with the node.
func (f *dual) bfdAtTor1() string {
	var peers []struct{ Status string }
	if err := json.Unmarshal([]byte(f.say(f.tor1, "vtysh", "-d", "bfdd", "-c", "show bfd peers json")), &peers); err != nil || len(peers) != 1 {
		return ""
	}
	return peers[0].Status
}

// bfdAtTor2 is BIRD's.
func (f *dual) bfdAtTor2() string {
	for line := range strings.Lines(f.bird("show", "bfd", "sessions")) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "10.0.2.2" {
			return fields[2]
		}
	}
	return ""
}

// configureTor1 gives FRR's BGP a line.
func (f *dual) configureTor1(line string) {
	f.t.Helper()
	labtest.Exec(f.t, f.tor1, "vtysh", "-d", "bgpd", "-c", "configure terminal", "-c", "router bgp 65001", "-c", line)
}

// configureBIRD gives tor2 another word for BFD, by which the session with the node
// begins anew.
func (f *dual) configureBIRD(bfd string) {
	f.t.Helper()
	cmd := f.tor2.Command(f.t.Context(), "sh", "-c", "cat >/run/bird.conf")
	cmd.Stdin = strings.NewReader(tor2File(bfd))
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("%v: %s", err, out)
	}
	f.bird("configure", `"/run/bird.conf"`)
}

func (f *dual) bird(words ...string) string {
	return f.say(f.tor2, append([]string{"birdc", "-s", "/run/bird.ctl"}, words...)...)
}

// atTor1 is FRR's path to the block by the node: "none", "fresh" or "stale".
func (f *dual) atTor1() string {
	var route struct {
		Paths []struct {
			Stale bool
			Peer  struct{ PeerID string }
		}
	}
	if err := json.Unmarshal([]byte(f.say(f.tor1, "vtysh", "-d", "bgpd", "-c", "show bgp ipv4 unicast "+podBlock+" json")), &route); err != nil {
		return err.Error()
	}
	for _, p := range route.Paths {
		switch {
		case p.Peer.PeerID != "10.0.1.2":
		case p.Stale:
			return "stale"
		default:
			return "fresh"
		}
	}
	return "none"
}

// atTor2 is BIRD's, which says of the session and not of the path that it is kept
// for a graceful restart.
func (f *dual) atTor2() string {
	switch {
	case !strings.Contains(f.bird("show", "route", "protocol", "node"), podBlock):
		return "none"
	case strings.Contains(f.bird("show", "protocols", "all", "node"), "Neighbor graceful restart active"):
		return "stale"
	}
	return "fresh"
}

func (f *dual) fresh() bool { return f.atTor1() == "fresh" && f.atTor2() == "fresh" }

// cut takes the path to a router apart where neither end sees it, and says when.
func (f *dual) cut(name string) time.Time {
	f.t.Helper()
	at := time.Now()
	labtest.Exec(f.t, f.sw, "ip", "link", "set", map[string]string{"tor1": "eth2", "tor2": "eth4"}[name], "nomaster")
	return at
}

func (f *dual) mend(name string) {
	f.t.Helper()
	port := map[string][2]string{"tor1": {"eth2", "br1"}, "tor2": {"eth4", "br2"}}[name]
	labtest.Exec(f.t, f.sw, "ip", "link", "set", port[0], "master", port[1])
}
