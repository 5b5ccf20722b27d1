// Package unnumbered tests sessions over link-local addresses: a node whose links
// have no addresses but those, two routers that are both fe80::1, and packets from a
// client behind each.
package unnumbered

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/lab"
	"github.com/fairway-network/fairway/integration/lab/labtest"
)

const (
	block = "10.244.120.0/28"
	pod   = "10.244.120.2"
)

const agentFile = `node: node1
bgp: {asn: 64512, routerID: 10.0.0.1}
peers:
- {name: tor1, interface: eth1}
- {name: tor2, interface: eth2, asn: 65002}
pools:
- {name: web, addresses: [10.244.120.0/24], blockSize: 16}
`

const frrFile = `frr defaults datacenter
router bgp 65001
 bgp router-id 10.0.1.1
 no bgp ebgp-requires-policy
 neighbor eth2 interface remote-as external
 address-family ipv6 unicast
  neighbor eth2 activate
`

const birdFile = `router id 10.0.2.1;
log "/var/log/bird.log" all;
protocol device {}
protocol kernel { ipv4 { export all; }; }
protocol radv { interface "eth2" { min ra interval 3; max ra interval 5; default lifetime 0; }; }
protocol bgp node {
  local as 65002;
  neighbor range fe80::/10 as 64512;
  interface "eth2";
  dynamic name "node";
  graceful restart on;
  ipv4 { import all; export none; extended next hop on; };
  ipv6 { import all; export none; };
}
`

// rack is a node between two routers, with a client behind each:
//
//	client1 ── tor1 (FRR) ──┐
//	                        ├── node1, pod 10.244.120.2
//	client2 ── tor2 (BIRD) ─┘
type rack struct {
	t          *testing.T
	node       *lab.Node
	tors, ends [2]*lab.Node
}

// torLink makes a router's link to the node one without addresses but fe80::1.
func torLink() []string {
	return []string{"ip -6 addr flush dev eth2 scope link", "ip addr add fe80::1/64 dev eth2 nodad"}
}

func newRack(t *testing.T) *rack {
	t.Helper()
	labtest.Need(t, "/usr/lib/frr/bgpd", "/usr/lib/frr/zebra", "vtysh", "bird", "birdc", "ping")
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "../../cmd/fairway", "../../cmd/fairway-speaker", "../../cmd/fairway-ipam")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for name, text := range map[string]string{"etc/fairway.yaml": agentFile, "bgpd.conf": frrFile, "bird.conf": birdFile} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := labtest.Up(t, topology(dir))
	r := &rack{t: t, node: labtest.Node(t, l, "node1")}
	for i := range r.tors {
		r.tors[i], r.ends[i] = labtest.Node(t, l, fmt.Sprintf("tor%d", i+1)), labtest.Node(t, l, fmt.Sprintf("client%d", i+1))
	}
	return r
}

func topology(dir string) *lab.Topology {
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
	tor := func(i int, b lab.Bind, more ...string) lab.NodeSpec {
		run := append(torLink(), fmt.Sprintf("ip addr add 192.0.2.%d/30 dev eth1", 10*i+1), fmt.Sprintf("ip route add 192.0.2.%d/32 dev eth1", 10*i+2))
		return lab.NodeSpec{Name: fmt.Sprintf("tor%d", i), Sysctls: forwarding, Binds: []lab.Bind{b}, Exec: append(run, more...)}
	}
	return &lab.Topology{
		Name: "unnumbered",
		Nodes: []lab.NodeSpec{
			client(1), client(2),
			tor(1, bind("bgpd.conf", "/etc/frr/bgpd.conf"), "install -d -o frr -g frr -m 755 /run/frr /var/log/frr",
				"/usr/lib/frr/zebra -d -A 127.0.0.1", "/usr/lib/frr/bgpd -d -A 127.0.0.1 -f /etc/frr/bgpd.conf"),
			tor(2, bind("bird.conf", "/etc/bird.conf"), "bird -c /etc/bird.conf -s /run/bird.ctl -P /run/bird.pid"),
			{Name: "node1", Sysctls: forwarding, Binds: []lab.Bind{
				bind("fairway", "/usr/local/bin/fairway"), bind("fairway-speaker", "/usr/local/bin/fairway-speaker"), bind("fairway-ipam", "/usr/local/bin/fairway-ipam"), bind("etc", "/etc/fairway"),
			}, Exec: []string{
				"ip addr add " + pod + "/32 dev lo",
				// An address that says nothing of the interface's hardware address.
				"ip -6 addr flush dev eth1 scope link", "ip addr add fe80::77/64 dev eth1 nodad",
				"ip route add 192.0.2.12/32 via inet6 fe80::1 dev eth1", "ip route add 192.0.2.22/32 via inet6 fe80::1 dev eth2"}},
		},
		Links: []lab.Link{
			{A: "client1:eth1", B: "tor1:eth1"}, {A: "client2:eth1", B: "tor2:eth1"},
			{A: "tor1:eth2", B: "node1:eth1"}, {A: "tor2:eth2", B: "node1:eth2"},
		},
	}
}

func (r *rack) await(what string, check func() error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 40*time.Second)
	defer cancel()
	if err := lab.Await(ctx, what, check); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rack) start() lab.Process {
	r.t.Helper()
	p, err := r.node.Start(r.t.Context(), "fairway", "fairway", "agent", "--config", "/etc/fairway/fairway.yaml")
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// lease gives the pod its address.
func (r *rack) lease() {
	r.t.Helper()
	const script = `printf '%s' '{"cniVersion":"1.1.0","name":"n","type":"ptp","ipam":{"type":"fairway-ipam","pool":"web"}}' | ` +
		`CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_IFNAME=eth0 CNI_NETNS=/run/netns/x CNI_PATH=/x fairway-ipam`
	r.await("the pod has its address", func() error {
		out, err := r.node.Exec(r.t.Context(), "sh", "-c", script)
		if err == nil && !strings.Contains(out, pod+"/") {
			err = fmt.Errorf("another one: %s", out)
		}
		return err
	})
}

// peer is what the agent says of a session.
type peer struct {
	Name, Session, Address, LastError string
	ASN                               uint32
	Since                             time.Time
}

func (r *rack) peers() (map[string]peer, error) {
	out, err := r.node.Exec(r.t.Context(), "fairway", "status", "--json")
	if err != nil {
		return nil, err
	}
	var status struct{ Peers []peer }
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		return nil, err
	}
	peers := make(map[string]peer)
	for _, p := range status.Peers {
		peers[p.Name] = p
	}
	return peers, nil
}

// up waits until both sessions are established, and gives them.
func (r *rack) up() map[string]peer {
	r.t.Helper()
	var peers map[string]peer
	r.await("both sessions are established", func() (err error) {
		peers, err = r.peers()
		for _, p := range peers {
			if p.Session != "Established" {
				err = fmt.Errorf("the agent says %+v", p)
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

// stream is packets from both clients.
type stream [2]lab.Process

func (r *rack) stream() (s stream) {
	r.t.Helper()
	for i, c := range r.ends {
		_ = os.Remove(c.LogFile("ping"))
		var err error
		if s[i], err = c.Start(r.t.Context(), "ping", "ping", "-q", "-i", "0.02", "-W", "2", pod); err != nil {
			r.t.Fatal(err)
		}
	}
	return s
}

// lost ends a stream and says how many packets of each client had no answer.
func (r *rack) lost(s stream) (lost [2]string) {
	r.t.Helper()
	count := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received.* (\d+(?:\.\d+)?)% packet loss`)
	for i, p := range s {
		if err := p.Signal(syscall.SIGINT); err != nil {
			r.t.Fatal(err)
		}
		r.await("the count of packets", func() error {
			said, err := os.ReadFile(r.ends[i].LogFile("ping"))
			if m := count.FindStringSubmatch(string(said)); m != nil {
				lost[i] = m[3]
				r.t.Logf("client%d: %s", i+1, m[0])
				return nil
			}
			return fmt.Errorf("%q, %w", said, err)
		})
	}
	return lost
}

// Routers that a node finds by itself: one by ASN and one by "any", both fe80::1. The
// agent is killed and comes back, and stops and comes back: no packet is lost. A link
// that goes down and up has its session back, and the other one does not notice.
func TestUnnumbered(t *testing.T) {
	r := newRack(t)
	agent := r.start()
	r.lease()
	for name, p := range r.up() {
		if asn := map[string]uint32{"tor1": 65001, "tor2": 65002}[name]; p.ASN != asn || !strings.HasPrefix(p.Address, "fe80::1%eth") {
			t.Errorf("%+v", p)
		}
	}
	r.reaches(0)
	r.reaches(1)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		s := r.stream()
		r.kill(agent, sig)
		agent = r.start()
		r.up()
		r.fresh()
		if lost := r.lost(s); lost != [2]string{"0", "0"} {
			t.Errorf("after signal %v the clients lost %v %% of their packets", sig, lost)
		}
	}
	r.flap()
}

// kill ends the agent and its speaker.
func (r *rack) kill(agent lab.Process, sig syscall.Signal) {
	r.t.Helper()
	all, err := r.node.Processes()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := agent.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
	r.await("the agent and its speaker are gone", func() error {
		for _, p := range all {
			if strings.HasPrefix(p.Comm, "fairway") && p.Alive() {
				return fmt.Errorf("process %d runs", p.PID)
			}
		}
		return nil
	})
}

// fresh waits until both routers have the block from the session that is.
func (r *rack) fresh() {
	r.t.Helper()
	r.await("both routers have the block afresh", func() error {
		frr, err := r.tors[0].Exec(r.t.Context(), "vtysh", "-d", "bgpd", "-c", "show bgp ipv4 unicast "+block+" json")
		if err != nil {
			return err
		}
		bird, err := r.tors[1].Exec(r.t.Context(), "birdc", "-s", "/run/bird.ctl", "show", "route", block)
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
			now, err := r.peers()
			if p := now[name]; err == nil && (p.Session == "Established" || !strings.Contains(p.LastError, "eth")) {
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
		if before[other].Since != after[other].Since {
			r.t.Errorf("the session with %s was disturbed: %+v, before %+v", other, after[other], before[other])
		}
	}
}
