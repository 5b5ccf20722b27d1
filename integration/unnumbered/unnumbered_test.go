// Package unnumbered tests sessions over link-local addresses: a node whose links
// have no addresses but those, two routers that are both fe80::1, and packets from a
// client behind each.
package unnumbered

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/integration/interop"
	"github.com/fairway-network/fairway/integration/lab"
	"github.com/fairway-network/fairway/integration/lab/labtest"
	routers "github.com/fairway-network/fairway/integration/router"
)

const (
	block = "10.244.120.0/28"
	pod   = "10.244.120.2"
)

const agentFile = `node: node1
bgp: {asn: 64512, routerID: 10.0.0.1}
metrics: {address: "127.0.0.1:9479"}
templates:
- name: tor
  bfd: {enabled: true, interval: 200ms, receiveInterval: 200ms, multiplier: 5}
  accept: {prefixes: [{prefix: 192.0.2.0/24, ge: 32}, {prefix: "2001:db8::/32", ge: 64, le: 64}]}
peers:
- {name: tor1, template: tor, interface: eth1}
- {name: tor2, template: tor, interface: eth2, asn: 65002}
announcements:
- {peers: [tor1], communities: ["64512:1"], med: 11}
- {peers: [tor2], largeCommunities: ["64512:1:2"], prepend: 1}
pools:
- {name: web, addresses: [10.244.120.0/24], blockSize: 16}
`

// detection is what BFD takes at both ends, and processing what programs may take
// beyond that on a busy machine. Without BFD the sessions would last for 90 s.
const (
	detection  = 5 * 200 * time.Millisecond
	processing = 5 * time.Second
)

const frrFile = `frr defaults datacenter
router bgp 65001
 bgp router-id 10.0.1.1
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor eth2 interface remote-as external
 neighbor eth2 bfd
 neighbor eth2 bfd profile node
 address-family ipv4 unicast
  network 192.0.2.12/32
 exit-address-family
 address-family ipv6 unicast
  network 2001:db8:1::/64
  network 2001:db8:9::/64
  neighbor eth2 activate
`

const frrBFD = `bfd
 profile node
  transmit-interval 200
  receive-interval 200
  detect-multiplier 5
`

// birdFile keeps the routes when BFD is down, as an agent that restarts asks for.
const birdFile = `router id 10.0.2.1;
log "/var/log/bird.log" all;
protocol device {}
protocol kernel { ipv4 { export all; }; }
protocol static { ipv4; route 192.0.2.22/32 via "eth1"; }
protocol static { ipv6; route 2001:db8:2::/64 blackhole; route 2001:db8:9::/64 blackhole; }
protocol radv { interface "eth2" { min ra interval 3; max ra interval 5; default lifetime 0; }; }
protocol bfd { interface "eth2" { interval 200 ms; multiplier 5; }; }
protocol bgp node {
  local as 65002;
  neighbor range fe80::/10 as 64512;
  interface "eth2";
  dynamic name "node";
  graceful restart on;
  bfd graceful;
  ipv4 { import all; export where source = RTS_STATIC; extended next hop on; };
  ipv6 { import all; export where source = RTS_STATIC; };
}
`

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the rows of docs/interop.md that the tests fill")
	os.Exit(m.Run())
}

// rack is a node between two routers, with a client behind each:
//
//	client1 ── tor1 (FRR) ──┐
//	                        ├── node1, pod 10.244.120.2
//	client2 ── tor2 (BIRD) ─┘
//
// The node's routes to the clients are those that it learns.
type rack struct {
	*labtest.Fairway
	t          *testing.T
	tors, ends [2]*lab.Node
}

// torLink makes a router's link to the node one without addresses but fe80::1.
func torLink() []string {
	return []string{"ip -6 addr flush dev eth2 scope link", "ip addr add fe80::1/64 dev eth2 nodad"}
}

func newRack(t *testing.T) *rack {
	t.Helper()
	labtest.Need(t, "/usr/lib/frr/bgpd", "/usr/lib/frr/bfdd", "/usr/lib/frr/zebra", "vtysh", "bird", "birdc", "ping", "nft")
	dir := t.TempDir()
	for name, text := range map[string]string{"bgpd.conf": frrFile, "bfdd.conf": frrBFD, "bird.conf": birdFile} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := &rack{Fairway: labtest.NewFairway(t, agentFile), t: t}
	l := labtest.Up(t, r.topology(dir))
	r.Node = labtest.Node(t, l, "node1")
	for i := range r.tors {
		r.tors[i], r.ends[i] = labtest.Node(t, l, fmt.Sprintf("tor%d", i+1)), labtest.Node(t, l, fmt.Sprintf("client%d", i+1))
	}
	return r
}

func (r *rack) topology(dir string) *lab.Topology {
	forwarding := map[string]string{
		"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0", "net.ipv6.conf.all.forwarding": "1",
	}
	bind := func(source, target string) lab.Bind {
		return lab.Bind{Source: filepath.Join(dir, source), Target: target, ReadOnly: true}
	}
	client := func(i int) lab.NodeSpec {
		return lab.NodeSpec{Name: fmt.Sprintf("client%d", i), Exec: []string{
			fmt.Sprintf("ip addr add 192.0.2.%d/24 dev eth1", 10*i+2), fmt.Sprintf("ip route add default via 192.0.2.%d", 10*i+1)}}
	}
	tor := func(i int, b []lab.Bind, more ...string) lab.NodeSpec {
		run := append(torLink(), fmt.Sprintf("ip addr add 192.0.2.%d/30 dev eth1", 10*i+1), fmt.Sprintf("ip route add 192.0.2.%d/32 dev eth1", 10*i+2))
		return lab.NodeSpec{Name: fmt.Sprintf("tor%d", i), Sysctls: forwarding, Binds: b, Exec: append(run, more...)}
	}
	return &lab.Topology{
		Name: "unnumbered",
		Nodes: []lab.NodeSpec{
			client(1), client(2),
			tor(1, []lab.Bind{bind("bgpd.conf", "/etc/frr/bgpd.conf"), bind("bfdd.conf", "/etc/frr/bfdd.conf")}, "install -d -o frr -g frr -m 755 /run/frr /var/log/frr",
				"/usr/lib/frr/zebra -d -A 127.0.0.1",
				"/usr/lib/frr/bfdd -d -A 127.0.0.1 -f /etc/frr/bfdd.conf", "/usr/lib/frr/bgpd -d -A 127.0.0.1 -f /etc/frr/bgpd.conf"),
			tor(2, []lab.Bind{bind("bird.conf", "/etc/bird.conf")}, "bird -c /etc/bird.conf -s /run/bird.ctl -P /run/bird.pid"),
			r.Spec(lab.NodeSpec{Name: "node1", Sysctls: forwarding, Exec: []string{
				// An address that says nothing of the interface's hardware address.
				"ip -6 addr flush dev eth1 scope link", "ip addr add fe80::77/64 dev eth1 nodad"}}),
		},
		Links: []lab.Link{
			{A: "client1:eth1", B: "tor1:eth1"}, {A: "client2:eth1", B: "tor2:eth1"},
			{A: "tor1:eth2", B: "node1:eth1"}, {A: "tor2:eth2", B: "node1:eth2"},
		},
	}
}

func (r *rack) await(what string, check func() error) {
	r.t.Helper()
	labtest.Await(r.t, what, check)
}

// up waits until both sessions and their BFD are up, and gives them.
func (r *rack) up() map[string]agent.PeerStatus {
	r.t.Helper()
	var peers map[string]agent.PeerStatus
	r.await("both sessions are up", func() (err error) {
		peers, err = r.Peers(r.t)
		for _, p := range peers {
			if !p.Established() || p.BFD == nil || p.BFD.State != "Up" {
				err = fmt.Errorf("the agent says %+v, BFD %+v", p, p.BFD)
			}
		}
		if err == nil && len(peers) != 2 {
			err = fmt.Errorf("%d peers", len(peers))
		}
		return err
	})
	return peers
}

// reaches waits until a client reaches the pod.
func (r *rack) reaches(client int) {
	r.t.Helper()
	r.await(fmt.Sprintf("client%d reaches the pod", client+1), func() error {
		_, err := r.ends[client].Exec(r.t.Context(), "ping", "-c1", "-W1", pod)
		return err
	})
}

// streams are packets from both clients to the pod and back.
func (r *rack) streams() (s [2]*labtest.Stream) {
	r.t.Helper()
	for i, c := range r.ends {
		s[i] = labtest.StartStream(r.t, labtest.End{Node: c}, labtest.End{Node: r.Node, Address: netip.MustParseAddr(pod)})
	}
	return s
}

// Routers that a node finds by itself: one by ASN and one by "any", both fe80::1, which
// tell it the way to the clients. The agent is killed and comes back, and stops and
// comes back: no packet is lost. A link that goes down and up, and a path that is lost
// while the link is up, have their session back, and the other one does not notice.
func TestUnnumbered(t *testing.T) {
	table := interop.Open(t)
	table.Try(t, "unnumbered, with packets", routers.FRR, routers.IPv6)
	table.Try(t, "unnumbered, with packets", routers.BIRD, routers.IPv6)
	for _, i := range []routers.Implementation{routers.OpenBGPD, routers.GoBGP} {
		table.Lacks(t, "unnumbered, with packets", i, "has no BFD, and by itself no routes in Linux's kernel")
	}
	r := newRack(t)
	r.Start(t)
	if got := r.Pod(t, "c1", "web"); len(got) != 1 || got[0].String() != pod {
		t.Fatalf("the pod's addresses are %v, want %s", got, pod)
	}
	for name, p := range r.up() {
		if asn := map[string]uint32{"tor1": 65001, "tor2": 65002}[name]; p.ASN != asn || !strings.HasPrefix(p.Address.String(), "fe80::1%eth") {
			t.Errorf("%+v", p)
		}
	}
	r.learns(0, true)
	r.learns(1, true)
	r.keepsApart()
	r.reaches(0)
	r.reaches(1)
	w := labtest.WatchRoutes(t, r.Node)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		streams := r.streams()
		streams[0].Flows()
		r.End(t, "agent", sig)
		r.Start(t)
		r.up()
		r.fresh()
		for i, s := range streams {
			s.Flows()
			if count := s.End(); len(count.Lost) > 0 {
				t.Errorf("after signal %v client%d: %s: %v", sig, i+1, count, count.Lost)
			}
		}
	}
	if events := w.Section("192.0.2.", "2001:db8:"); len(events) > 0 {
		t.Errorf("the learned routes were touched: %q", events)
	}
	r.keepsApart()
	r.flap()
	r.losePaths()
}

// keepsApart waits until each router was told in its own words, and what both tell leads
// to both; and looks at what a person and a program see of the two.
func (r *rack) keepsApart() {
	r.t.Helper()
	r.await("each router was told in its own words", func() error {
		frr, bird, err := r.told("all")
		if err == nil && (!strings.Contains(frr, `"string":"64512:1"`) || !strings.Contains(frr, `"metric":11`) || strings.Contains(frr, "largeCommunity") ||
			!strings.Contains(bird, "(64512, 1, 2)") || !strings.Contains(bird, "as_path: 64512 64512\n") || strings.Contains(bird, "(64512,1)")) {
			err = fmt.Errorf("FRR: %s; BIRD: %s", frr, bird)
		}
		return err
	})
	r.await("what both routers tell leads to both", func() error {
		out, err := r.Node.Exec(r.t.Context(), "ip", "-6", "route", "show", "2001:db8:9::/64", "proto", "118")
		if err == nil && (!strings.Contains(out, "via fe80::1 dev eth1 ") || !strings.Contains(out, "via fe80::1 dev eth2 ")) {
			err = fmt.Errorf("the node has %q", out)
		}
		return err
	})
	const ask = `exec 3<>/dev/tcp/127.0.0.1/9479; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3`
	peers, numbers := r.Run(r.t, "get", "peers"), labtest.Exec(r.t, r.Node, "bash", "-c", ask)
	for i := range r.tors {
		address := fmt.Sprintf("fe80::1%%eth%d", i+1)
		if !strings.Contains(peers, address) || !strings.Contains(numbers, fmt.Sprintf("fairway_bgp_session_up{address=%q,peer=\"tor%d\"} 1", address, i+1)) {
			r.t.Errorf("nothing of %s in %s\n%s", address, peers, numbers)
		}
	}
}

// learns waits until the node's kernel has the routes of a router, or has none.
func (r *rack) learns(i int, wants bool) {
	r.t.Helper()
	via := fmt.Sprintf("fe80::1 dev eth%d ", i+1)
	for family, want := range map[string]string{"-4": fmt.Sprintf("192.0.2.%d via inet6 %s", 10*i+12, via), "-6": fmt.Sprintf("2001:db8:%d::/64 via %s", i+1, via)} {
		r.await(fmt.Sprintf("the node has learned %q: %v", want, wants), func() error {
			out, err := r.Node.Exec(r.t.Context(), "ip", family, "route", "show", "proto", "118")
			if err == nil && strings.Contains(out, want) != wants {
				err = fmt.Errorf("it has %q", out)
			}
			return err
		})
	}
}

// told is what the routers have of the block, as they print it.
func (r *rack) told(how ...string) (frr, bird string, err error) {
	frr, err = r.tors[0].Exec(r.t.Context(), "vtysh", "-d", "bgpd", "-c", "show bgp ipv4 unicast "+block+" json")
	if err != nil {
		return "", "", err
	}
	ask := append([]string{"birdc", "-s", "/run/bird.ctl", "show", "route"}, how...)
	bird, err = r.tors[1].Exec(r.t.Context(), append(ask, block)...)
	return frr, bird, err
}

// fresh waits until both routers have the block from the session that is.
func (r *rack) fresh() {
	r.t.Helper()
	r.await("both routers have the block afresh", func() error {
		frr, bird, err := r.told()
		if err == nil && (!strings.Contains(frr, `"valid":true`) || strings.Contains(frr, `"stale":true`) || !strings.Contains(bird, block) || strings.Contains(bird, "(100s)")) {
			err = fmt.Errorf("FRR: %s; BIRD: %s", frr, bird)
		}
		return err
	})
}

// flap takes the link to each router down for a moment, at the router's end.
func (r *rack) flap() {
	r.t.Helper()
	for i, tor := range r.tors {
		name, other := fmt.Sprintf("tor%d", i+1), fmt.Sprintf("tor%d", 2-i)
		before := r.up()
		labtest.Exec(r.t, tor, "ip", "link", "set", "eth2", "down")
		r.await("the agent notices", func() error {
			now, err := r.Peers(r.t)
			if p := now[name]; err == nil && (p.Established() || !strings.Contains(p.LastError, "eth")) {
				err = fmt.Errorf("%+v", p)
			}
			return err
		})
		labtest.Exec(r.t, tor, "ip", "link", "set", "eth2", "up")
		for _, c := range torLink() {
			labtest.Exec(r.t, tor, strings.Fields(c)...)
		}
		at := time.Now()
		after := r.up()
		r.reaches(i)
		r.t.Logf("%s: reached again %s after its link was up", name, time.Since(at).Round(time.Millisecond))
		labtest.Undisturbed(r.t, before[other], after[other])
	}
}

// losePaths has each router hear and say nothing for a while, with the link up: BFD ends
// the session, and the routes that were learned by it go.
func (r *rack) losePaths() {
	r.t.Helper()
	for i, tor := range r.tors {
		name, other := fmt.Sprintf("tor%d", i+1), fmt.Sprintf("tor%d", 2-i)
		before := r.up()
		r.learns(i, true)
		labtest.Exec(r.t, tor, "nft", "add table netdev cut; add chain netdev cut in { type filter hook ingress device eth2 priority 0; policy drop; }; "+
			"add chain netdev cut out { type filter hook egress device eth2 priority 0; policy drop; }")
		cut := time.Now()
		took := r.LostByBFD(r.t, before[name]).Sub(cut)
		r.t.Logf("%s: the session was ended %s after its path was lost", name, took.Round(time.Millisecond))
		if took > detection+processing {
			r.t.Errorf("%s: the session was ended after %s, want %s + %s at most", name, took, detection, processing)
		}
		r.learns(i, false)
		r.learns(1-i, true)
		labtest.Exec(r.t, tor, "nft", "delete table netdev cut")
		after := r.up()
		r.learns(i, true)
		r.reaches(i)
		labtest.Undisturbed(r.t, before[other], after[other])
	}
}
