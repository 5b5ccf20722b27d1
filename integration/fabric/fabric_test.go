// Package fabric tests an agent behind a top-of-rack router with a real
// forwarding table: what a client on the other side of the router notices of it.
package fabric

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/integration/lab"
	"github.com/fairway-network/fairway/integration/lab/labtest"
)

// soon bounds what takes seconds at most on a machine with nothing else to do.
const soon = 60 * time.Second

// The pool's addresses, as they stand in what the kernel says of routes.
const pool4, pool6 = "10.244.120.", "fd00:244:120::"

const agentConfig = `node: node1
bgp:
  asn: 64512
  routerID: 10.0.1.2
  gracefulRestart: {restartTime: 60s, deferralTime: 2s}
peers:
- {name: tor4, address: 10.0.1.1, asn: 65000, holdTime: 9s}
- {name: tor6, address: "fd00:0:1::1", asn: 65000, holdTime: 9s}
pools:
- {name: web, addresses: [10.244.120.0/24, "fd00:244:120::/120"], blockSize: 16}
`

// spare is a peer on the same link that nobody is.
const spare = `- {name: spare, address: 10.0.1.9, asn: 65001}
`

// fabric is a client, a router and a node with an agent and a pod.
type fabric struct {
	t                 *testing.T
	client, tor, node *lab.Node
	router            router
	config            string // of the agent, as a file of the host
	bin               string // what /opt/fairway is to the node
	pod               []netip.Addr
}

// newFabric is up with the pod announced to the router.
func newFabric(t *testing.T, r router) *fabric {
	t.Helper()
	labtest.Need(t, r.programs...)
	dir := t.TempDir()
	f := &fabric{t: t, router: r, config: filepath.Join(dir, "etc", "fairway.yaml"), bin: filepath.Join(dir, "bin")}
	for _, d := range []string{f.bin, filepath.Dir(f.config)} {
		must(t, os.MkdirAll(d, 0o755))
	}
	f.build()
	f.configure(agentConfig)
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
			{Name: "node1", Sysctls: forwarding, Binds: []lab.Bind{
				{Source: f.bin, Target: "/opt/fairway", ReadOnly: true},
				{Source: filepath.Dir(f.config), Target: "/etc/fairway", ReadOnly: true},
			}, Exec: []string{
				"ip addr add 10.0.1.2/24 dev eth1", "ip addr add fd00:0:1::2/64 dev eth1 nodad",
				"ip route add default via 10.0.1.1", "ip -6 route add default via fd00:0:1::1",
			}},
		},
		Links: []lab.Link{{A: "tor:eth1", B: "client:eth1"}, {A: "tor:eth2", B: "node1:eth1"}},
	})
	f.client, f.tor, f.node = labtest.Node(t, l, "client"), labtest.Node(t, l, "tor"), labtest.Node(t, l, "node1")
	f.start()
	f.addPod()
	f.fresh()
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fabric) build() {
	f.t.Helper()
	out, err := exec.Command("go", "build", "-o", f.bin, "../../cmd/fairway", "../../cmd/fairway-speaker", "../../cmd/fairway-ipam").CombinedOutput()
	if err != nil {
		f.t.Fatalf("build: %v\n%s", err, out)
	}
}

// upgrade puts another file in the place of the program, under the agent that runs.
func (f *fabric) upgrade() {
	f.t.Helper()
	program := filepath.Join(f.bin, "fairway")
	data, err := os.ReadFile(program)
	must(f.t, err)
	must(f.t, os.WriteFile(program+".new", data, 0o755))
	must(f.t, os.Rename(program+".new", program))
}

// configure replaces the agent's file in one step.
func (f *fabric) configure(text string) {
	f.t.Helper()
	must(f.t, os.WriteFile(f.config+".new", []byte(text), 0o644))
	must(f.t, os.Rename(f.config+".new", f.config))
}

func (f *fabric) await(what string, check func() error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), soon)
	defer cancel()
	must(f.t, lab.Await(ctx, what, check))
}

// start starts an agent.
func (f *fabric) start() {
	f.t.Helper()
	_, err := f.node.Start(f.t.Context(), "fairway", "/opt/fairway/fairway", "agent", "--config", "/etc/fairway/fairway.yaml")
	must(f.t, err)
}

// process is the agent, or its speaker.
func (f *fabric) process(command string) lab.Process {
	f.t.Helper()
	all, err := f.node.Processes()
	must(f.t, err)
	for _, p := range all {
		words := strings.Join(p.Args, " ") + " "
		if strings.HasPrefix(words, "/opt/fairway/fairway "+command+" ") || strings.HasPrefix(words, "/opt/fairway/fairway-"+command+" ") {
			return p
		}
	}
	f.t.Fatalf("no fairway %s runs: %+v", command, all)
	return lab.Process{}
}

// end sends a signal to a process and waits until it has gone, and an agent's
// speaker with it.
func (f *fabric) end(command string, sig syscall.Signal) {
	f.t.Helper()
	p, speaker := f.process(command), f.process("speaker")
	must(f.t, p.Signal(sig))
	ctx, cancel := context.WithTimeout(f.t.Context(), soon)
	defer cancel()
	must(f.t, p.Gone(ctx))
	must(f.t, speaker.Gone(ctx))
}

// run runs fairway in the node.
func (f *fabric) run(args ...string) string {
	f.t.Helper()
	return labtest.Exec(f.t, f.node, append([]string{"/opt/fairway/fairway"}, args...)...)
}

// status is what the agent says of itself.
func (f *fabric) status() (s agent.Status, err error) {
	out, err := f.node.Exec(f.t.Context(), "/opt/fairway/fairway", "status", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	return s, err
}

// cni runs the plugin in the node for a container.
func (f *fabric) cni(command, container string) (string, error) {
	const conf = `{"cniVersion":"1.1.0","name":"n","type":"ptp","ipam":{"type":"fairway-ipam","pool":"web"}}`
	script := fmt.Sprintf(`printf '%%s' '%s' | CNI_COMMAND=%s CNI_CONTAINERID=%s CNI_IFNAME=eth0 CNI_NETNS=/run/netns/x CNI_PATH=/x /opt/fairway/fairway-ipam`, conf, command, container)
	return f.node.Exec(f.t.Context(), "sh", "-c", script)
}

// addPod leases addresses and gives them to the node itself, which stands in for
// a pod.
func (f *fabric) addPod() {
	f.t.Helper()
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	f.await("the pod has addresses", func() error {
		out, err := f.cni("ADD", "c1")
		if err == nil {
			err = json.Unmarshal([]byte(out), &result)
		}
		return err
	})
	for _, ip := range result.IPs {
		a := ip.Address.Addr()
		f.pod = append(f.pod, a)
		labtest.Exec(f.t, f.node, "ip", "addr", "add", netip.PrefixFrom(a, a.BitLen()).String(), "dev", "lo")
	}
	if len(f.pod) != 2 {
		f.t.Fatalf("the pod's addresses are %v, want one of each family", f.pod)
	}
}

// fresh waits until both sessions are up and the router holds nothing that is stale.
func (f *fabric) fresh() {
	f.t.Helper()
	f.await("the sessions are up", func() error {
		s, err := f.status()
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
}

// agentLog is what all agents so far have logged.
func (f *fabric) agentLog() string {
	f.t.Helper()
	data, err := os.ReadFile(f.node.LogFile("fairway"))
	must(f.t, err)
	return string(data)
}
