package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/lab"
	"github.com/fairway-network/fairway/integration/lab/labtest"
)

// chain is a node with a router next to it and one behind that:
//
//	node1 ──(IPv6)── tor (FRR)
//	  └────(multihop, IPv4 and IPv6)──── far (BIRD), by way of tor
type chain struct {
	*labtest.Fairway
	t        *testing.T
	tor, far *lab.Node
}

const chainAgent = `node: node1
bgp: {asn: 64512, routerID: 10.0.1.2}
templates:
- {name: watched, bfd: {enabled: true, interval: 200ms, receiveInterval: 200ms, multiplier: 5}}
peers:
- {name: tor, template: watched, address: "fd00:0:1::1", asn: 65001}
- {name: far4, template: watched, address: 10.0.2.1, asn: 65002, ebgpMultihop: 2}
- {name: far6, template: watched, address: "fd00:0:2::1", asn: 65002, ebgpMultihop: 2}
pools:
- {name: web, addresses: [10.244.120.0/24, "fd00:244:120::/120"], blockSize: 16}
`

const chainBGP = `frr defaults datacenter
router bgp 65001
 bgp router-id 10.0.1.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor fd00:0:1::2 remote-as 64512
 neighbor fd00:0:1::2 bfd
 neighbor fd00:0:1::2 bfd profile node
 address-family ipv6 unicast
  neighbor fd00:0:1::2 activate
`

const chainBIRD = `router id 10.0.2.1;
protocol device {}
protocol bfd { multihop { interval 200 ms; multiplier 5; }; }
protocol bgp far4 { local 10.0.2.1 as 65002; neighbor 10.0.1.2 as 64512; multihop 2; bfd; connect retry time 1; error wait time 1, 2; ipv4 { import all; export none; }; }
protocol bgp far6 { local fd00:0:2::1 as 65002; neighbor fd00:0:1::2 as 64512; multihop 2; bfd; connect retry time 1; error wait time 1, 2; ipv6 { import all; export none; }; }
`

func newChain(t *testing.T) *chain {
	t.Helper()
	labtest.Need(t, "/usr/lib/frr/bgpd", "/usr/lib/frr/bfdd", "/usr/lib/frr/zebra", "bird", "nft")
	dir := t.TempDir()
	for name, text := range map[string]string{"bgpd.conf": chainBGP, "bfdd.conf": tor1BFD, "bird.conf": chainBIRD} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bind := func(source, target string) lab.Bind {
		return lab.Bind{Source: filepath.Join(dir, source), Target: target, ReadOnly: true}
	}
	f := &chain{Fairway: labtest.NewFairway(t, chainAgent), t: t}
	l := labtest.Up(t, &lab.Topology{
		Name: "chain",
		Nodes: []lab.NodeSpec{
			f.Spec(lab.NodeSpec{Name: "node1", Exec: []string{
				"ip addr add 10.0.1.2/24 dev eth1", "ip addr add fd00:0:1::2/64 dev eth1 nodad",
				"ip route add default via 10.0.1.1", "ip -6 route add default via fd00:0:1::1"}}),
			{Name: "tor", Sysctls: map[string]string{"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"},
				Binds: []lab.Bind{bind("bgpd.conf", "/etc/frr/bgpd.conf"), bind("bfdd.conf", "/etc/frr/bfdd.conf")}, Exec: []string{
					"ip addr add 10.0.1.1/24 dev eth1", "ip addr add fd00:0:1::1/64 dev eth1 nodad",
					"ip addr add 10.0.2.254/24 dev eth2", "ip addr add fd00:0:2::fe/64 dev eth2 nodad",
					"install -d -o frr -g frr -m 755 /run/frr /var/log/frr", "/usr/lib/frr/zebra -d -A 127.0.0.1",
					"/usr/lib/frr/bfdd -d -A 127.0.0.1 -f /etc/frr/bfdd.conf", "/usr/lib/frr/bgpd -d -A 127.0.0.1 -f /etc/frr/bgpd.conf"}},
			{Name: "far", Binds: []lab.Bind{bind("bird.conf", "/etc/bird.conf")}, Exec: []string{
				"ip addr add 10.0.2.1/24 dev eth1", "ip addr add fd00:0:2::1/64 dev eth1 nodad",
				"ip route add default via 10.0.2.254", "ip -6 route add default via fd00:0:2::fe",
				"bird -c /etc/bird.conf -s /run/bird.ctl -P /run/bird.pid"}},
		},
		Links: []lab.Link{{A: "tor:eth1", B: "node1:eth1"}, {A: "tor:eth2", B: "far:eth1"}},
	})
	f.Node, f.tor, f.far = labtest.Node(t, l, "node1"), labtest.Node(t, l, "tor"), labtest.Node(t, l, "far")
	f.Start(t)
	return f
}

// whole waits until all sessions are up, and BFD with them, over as many hops as there are
// and as fast as it is to be.
func (f *chain) whole() {
	f.t.Helper()
	labtest.Await(f.t, "all sessions are up", func() error {
		peers, err := f.Peers(f.t)
		for name, multihop := range map[string]bool{"tor": false, "far4": true, "far6": true} {
			if p := peers[name]; err == nil && (!up(p) || p.BFD.Multihop != multihop || p.BFD.Detection != bfdDetection) {
				err = fmt.Errorf("%+v, BFD %+v", p, p.BFD)
			}
		}
		return err
	})
}

// BFD ends IPv6 and multihop sessions whose path is lost, and those alone.
func TestBFDPaths(t *testing.T) {
	t.Parallel()
	f := newChain(t)
	f.whole()
	for _, c := range []struct {
		cut          string // what the router in between drops, in the words of nft
		lost, stayed []string
	}{
		{"add chain inet cut f { type filter hook forward priority 0; policy drop; }", []string{"far4", "far6"}, []string{"tor"}},
		{"add chain inet cut in { type filter hook input priority 0; }; add rule inet cut in ip6 saddr fd00:0:1::2 drop; " +
			"add chain inet cut out { type filter hook output priority 0; }; add rule inet cut out ip6 daddr fd00:0:1::2 drop", []string{"tor"}, []string{"far4"}},
	} {
		before, err := f.Peers(t)
		if err != nil {
			t.Fatal(err)
		}
		labtest.Exec(t, f.tor, "nft", "add table inet cut; "+c.cut)
		cut := time.Now()
		for _, name := range c.lost {
			if took := f.LostByBFD(t, before[name]).Sub(cut); took > bfdDetection+processing {
				t.Errorf("%s: the session was ended %s after its path was lost, want %s + %s at most", name, took, bfdDetection, processing)
			}
		}
		labtest.Exec(t, f.tor, "nft", "delete table inet cut")
		f.whole()
		after, err := f.Peers(t)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range c.stayed {
			labtest.Undisturbed(t, before[name], after[name])
		}
	}
}
