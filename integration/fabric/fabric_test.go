// Package fabric tests an agent behind a top-of-rack router with a real
// forwarding table: what a client on the other side of the router notices of it.
package fabric

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/integration/lab"
	"github.com/fairway-network/fairway/integration/lab/labtest"
)

// The pool's addresses, as they stand in what the kernel says of routes.
const pool4, pool6 = "10.244.120.", "fd00:244:120::"

// blockSize is that of the pool.
const blockSize = 4

const agentConfig = `node: node1
bgp:
  asn: 64512
  routerID: 10.0.1.2
  gracefulRestart: {restartTime: 60s, deferralTime: 2s}
peers:
- {name: tor4, address: 10.0.1.1, asn: 65000, holdTime: 9s}
- {name: tor6, address: "fd00:0:1::1", asn: 65000, holdTime: 9s}
pools:
- {name: web, addresses: [10.244.120.0/24, "fd00:244:120::/120"], blockSize: 4}
`

// spare is a peer on the same link that nobody is.
const spare = `- {name: spare, address: 10.0.1.9, asn: 65001}
`

// fabric is a client, a router and a node with an agent and a pod.
type fabric struct {
	*labtest.Fairway
	t           *testing.T
	client, tor *lab.Node
	router      router
	pod         []netip.Addr
}

// newFabric is up with the pod announced to the router.
func newFabric(t *testing.T, r router) *fabric {
	t.Helper()
	labtest.Need(t, r.programs...)
	dir := t.TempDir()
	f := &fabric{Fairway: labtest.NewFairway(t, agentConfig), t: t, router: r}
	torBinds := []lab.Bind{}
	for name, text := range r.files {
		file := filepath.Join(dir, filepath.Base(name))
		must(t, os.WriteFile(file, []byte(text), 0o644))
		torBinds = append(torBinds, lab.Bind{Source: file, Target: name, ReadOnly: true})
	}
	forwarding := map[string]string{"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}
	l := labtest.Up(t, &lab.Topology{
		Name: "fabric",
		Nodes: []lab.NodeSpec{
			{Name: "client", Exec: []string{
				"ip addr add 192.0.2.10/24 dev eth1", "ip addr add 2001:db8:c::10/64 dev eth1 nodad",
				"ip route add default via 192.0.2.1", "ip -6 route add default via 2001:db8:c::1",
			}},
			{Name: "tor", Sysctls: forwarding, Binds: torBinds, Exec: slices.Concat([]string{
				"ip addr add 192.0.2.1/24 dev eth1", "ip addr add 2001:db8:c::1/64 dev eth1 nodad",
				"ip addr add 10.0.1.1/24 dev eth2", "ip addr add fd00:0:1::1/64 dev eth2 nodad",
			}, r.start)},
			f.Spec(lab.NodeSpec{Name: "node1", Sysctls: forwarding, Exec: []string{
				"ip addr add 10.0.1.2/24 dev eth1", "ip addr add fd00:0:1::2/64 dev eth1 nodad",
				"ip route add default via 10.0.1.1", "ip -6 route add default via fd00:0:1::1",
			}}),
		},
		Links: []lab.Link{{A: "tor:eth1", B: "client:eth1"}, {A: "tor:eth2", B: "node1:eth1"}},
	})
	f.client, f.tor, f.Node = labtest.Node(t, l, "client"), labtest.Node(t, l, "tor"), labtest.Node(t, l, "node1")
	f.Start(t)
	if f.pod = f.Pod(t, "c1", "web"); len(f.pod) != 2 {
		t.Fatalf("the pod's addresses are %v, want one of each family", f.pod)
	}
	f.fresh()
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fabric) await(what string, check func() error) {
	f.t.Helper()
	labtest.Await(f.t, what, check)
}

// fresh waits until both sessions are up, and the router holds nothing that is stale and
// forwards.
func (f *fabric) fresh() {
	f.t.Helper()
	f.await("the sessions are up", func() error {
		s, err := f.Status(f.t)
		for _, p := range s.Peers {
			if strings.HasPrefix(p.Name, "tor") && (!p.Established() || p.Advertised == 0) {
				err = fmt.Errorf("%+v", p)
			}
		}
		if err == nil && len(s.Peers) < 2 {
			err = fmt.Errorf("peers %+v", s.Peers)
		}
		return err
	})
	f.await("the router's routes are fresh", func() error { return f.router.holds(f.tor, false) })
	f.await("the router forwards", func() error {
		for i, a := range f.pod {
			if out, err := f.tor.Exec(f.t.Context(), "ip", []string{"-4", "-6"}[i], "route", "show", "match", a.String()); err != nil || !strings.Contains(out, " via ") {
				return fmt.Errorf("to %s: %q, %w", a, out, err)
			}
		}
		return nil
	})
}
