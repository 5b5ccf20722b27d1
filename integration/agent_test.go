package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/lab"
	"github.com/fairway-network/fairway/integration/lab/labtest"
)

const routerConfig = `frr defaults datacenter
router bgp 65000
 bgp router-id 10.0.1.1
 no bgp ebgp-requires-policy
 neighbor 10.0.1.2 remote-as 64512
 neighbor 10.0.1.2 passive
 neighbor 10.0.2.2 remote-as 64512
 neighbor 10.0.2.2 passive
`

const agentConfig = `node: node1
bgp:
  asn: 64512
  routerID: 10.0.1.2
  api: {address: 127.0.0.1:50051}
peers:
- {name: tor, address: 10.0.1.1, asn: 65000}
pools:
- {name: web, addresses: [10.244.120.0/24], blockSize: 16}
`

const moreConfig = "- {name: db, addresses: [10.244.121.0/24], blockSize: 16}\n"

// road is a router and a node with the programs of this tree.
type road struct {
	t         *testing.T
	tor, node *lab.Node
	config    string // of the agent, as a file of the host
}

func newRoad(t *testing.T) *road {
	t.Helper()
	labtest.Need(t, "/usr/lib/frr/bgpd", "/usr/lib/frr/zebra", "vtysh", "gobgp")
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "../cmd/fairway", "../cmd/fairway-speaker", "../cmd/fairway-ipam")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	r := &road{t: t, config: filepath.Join(dir, "etc", "fairway.yaml")}
	router := filepath.Join(dir, "bgpd.conf")
	if err := os.MkdirAll(filepath.Dir(r.config), 0o755); err != nil {
		t.Fatal(err)
	}
	r.configure(agentConfig)
	if err := os.WriteFile(router, []byte(routerConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	l := labtest.Up(t, &lab.Topology{
		Name: "agent",
		Nodes: []lab.NodeSpec{
			{Name: "tor", Binds: []lab.Bind{{Source: router, Target: "/etc/frr/bgpd.conf", ReadOnly: true}}, Exec: []string{
				"ip addr add 10.0.1.1/24 dev eth1",
				"install -d -o frr -g frr -m 755 /run/frr /var/log/frr",
				"/usr/lib/frr/zebra -d -A 127.0.0.1",
				"/usr/lib/frr/bgpd -d -A 127.0.0.1 -f /etc/frr/bgpd.conf",
			}},
			{Name: "node1", Binds: []lab.Bind{
				{Source: filepath.Join(dir, "fairway"), Target: "/usr/local/bin/fairway", ReadOnly: true},
				{Source: filepath.Join(dir, "fairway-speaker"), Target: "/usr/local/bin/fairway-speaker", ReadOnly: true},
				{Source: filepath.Join(dir, "fairway-ipam"), Target: "/usr/local/bin/fairway-ipam", ReadOnly: true},
				{Source: filepath.Dir(r.config), Target: "/etc/fairway", ReadOnly: true},
			}, Exec: []string{"ip addr add 10.0.1.2/24 dev eth1"}},
		},
		Links: []lab.Link{{A: "tor:eth1", B: "node1:eth1"}},
	})
	r.tor, r.node = labtest.Node(t, l, "tor"), labtest.Node(t, l, "node1")
	return r
}

// configure replaces the agent's file in one step.
func (r *road) configure(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.config+".new", []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(r.config+".new", r.config); err != nil {
		r.t.Fatal(err)
	}
}

func (r *road) start() lab.Process {
	r.t.Helper()
	p, err := r.node.Start(r.t.Context(), "fairway", "fairway", "agent", "--config", "/etc/fairway/fairway.yaml")
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *road) await(what string, check func() error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	if err := lab.Await(ctx, what, check); err != nil {
		r.t.Fatal(err)
	}
}

// cni runs the plugin in the node.
func (r *road) cni(command, container, pool string) (string, error) {
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"n","type":"ptp","ipam":{"type":"fairway-ipam","pool":%q}}`, pool)
	script := fmt.Sprintf(`printf '%%s' '%s' | CNI_COMMAND=%s CNI_CONTAINERID=%s CNI_IFNAME=eth0 CNI_NETNS=/run/netns/x CNI_PATH=/x fairway-ipam`, conf, command, container)
	return r.node.Exec(r.t.Context(), "sh", "-c", script)
}

// routes are the prefixes in the router's BGP table.
func (r *road) routes() (string, error) {
	out, err := r.tor.Exec(r.t.Context(), "vtysh", "-c", "show bgp ipv4 unicast json")
	if err != nil {
		return "", err
	}
	var table struct {
		Routes map[string]any `json:"routes"`
	}
	if err := json.Unmarshal([]byte(out), &table); err != nil {
		return "", err
	}
	prefixes := make([]string, 0, len(table.Routes))
	for p := range table.Routes {
		prefixes = append(prefixes, p)
	}
	return strings.Join(prefixes, " "), nil
}

func (r *road) awaitRoutes(what string, has func(routes string) bool) {
	r.t.Helper()
	r.await(what, func() error {
		routes, err := r.routes()
		if err == nil && !has(routes) {
			err = fmt.Errorf("the router has %q", routes)
		}
		return err
	})
}

// sessions is how often the router's session was established.
func (r *road) sessions() int {
	r.t.Helper()
	var neighbors map[string]struct {
		Established int `json:"connectionsEstablished"`
	}
	out := labtest.Exec(r.t, r.tor, "vtysh", "-c", "show bgp neighbors 10.0.1.2 json")
	if err := json.Unmarshal([]byte(out), &neighbors); err != nil {
		r.t.Fatal(err)
	}
	return neighbors["10.0.1.2"].Established
}

func (r *road) awaitLog(text string) {
	r.t.Helper()
	r.await("the agent's log has "+text, func() error {
		log, err := os.ReadFile(r.node.LogFile("fairway"))
		if err == nil && !strings.Contains(string(log), text) {
			err = fmt.Errorf("not in %d bytes", len(log))
		}
		return err
	})
}

// One agent, as a person has it: announced, looked into, reconfigured well and
// badly, doubled, stopped, started and drained.
func TestAgent(t *testing.T) {
	r := newRoad(t)
	agent := r.start()
	r.await("the first pod has an address", func() error {
		_, err := r.cni("ADD", "c1", "web")
		return err
	})
	r.awaitRoutes("the block is announced", func(routes string) bool { return routes == "10.244.120.0/28" })
	r.lookInto()
	r.reconfigure()
	r.startTwice(agent)
	r.stopAndDrain(agent)
}

// lookInto asks the speaker with the gobgp command, which may not change it.
func (r *road) lookInto() {
	r.t.Helper()
	for _, c := range []struct{ command, want string }{
		{"gobgp global rib", "10.244.120.0/28"},
		{"gobgp --target unix:///run/fairway/gobgp.sock global rib", "10.244.120.0/28"},
		{"gobgp neighbor", "Establ"},
		{"gobgp neighbor 10.0.1.1 adj-out", "10.0.1.2"},
		{"ip route show proto 117", "blackhole 10.244.120.0/28"},
	} {
		if out := labtest.Exec(r.t, r.node, strings.Fields(c.command)...); !strings.Contains(out, c.want) {
			r.t.Errorf("%s: %q is not in\n%s", c.command, c.want, out)
		}
	}
	if out, err := r.node.Exec(r.t.Context(), "gobgp", "global", "rib", "add", "192.0.2.0/24"); err == nil {
		r.t.Errorf("gobgp added a route: %s", out)
	}
}

// reconfigure takes up a new pool and peer, and refuses what is wrong, with
// the session as it was.
func (r *road) reconfigure() {
	r.t.Helper()
	before := r.sessions()
	r.configure(strings.ReplaceAll(agentConfig, "blockSize: 16", "blockSize: 26"))
	r.awaitLog("the changed configuration is refused")
	r.awaitLog("fairway.yaml:9")
	if _, err := r.cni("ADD", "c2", "web"); err != nil {
		r.t.Errorf("after a refused change: %v", err)
	}
	r.configure(strings.Replace(agentConfig, "pools:", "- {name: other, address: 10.0.1.9, asn: 65000}\npools:", 1) + moreConfig)
	r.await("the new pool serves", func() error {
		_, err := r.cni("ADD", "c3", "db")
		return err
	})
	r.awaitRoutes("the new pool is announced", func(routes string) bool { return strings.Contains(routes, "10.244.121.0/28") })
	// A drain that follows a restart would wait for a peer that nobody is.
	r.configure(agentConfig + moreConfig)
	r.await("the other peer is gone again", func() error {
		if out := labtest.Exec(r.t, r.node, "fairway", "status"); strings.Contains(out, "10.0.1.9") {
			return fmt.Errorf("status:\n%s", out)
		}
		return nil
	})
	if after := r.sessions(); after != before || before == 0 {
		r.t.Errorf("the session was established %d times before the changes and %d after", before, after)
	}
}

// startTwice is told who runs already.
func (r *road) startTwice(agent lab.Process) {
	r.t.Helper()
	_, err := r.node.Exec(r.t.Context(), "fairway", "agent", "--config", "/etc/fairway/fairway.yaml")
	if err == nil || !strings.Contains(err.Error(), "already in use by the process with ID") {
		r.t.Errorf("a second agent: %v", err)
	}
	if !agent.Alive() {
		r.t.Error("the first agent is gone")
	}
}

// stopAndDrain holds that a stop keeps forwarding and a drain does not.
func (r *road) stopAndDrain(agent lab.Process) {
	r.t.Helper()
	sh := func(command string) string { return labtest.Exec(r.t, r.node, "sh", "-c", command) }
	if err := agent.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	r.await("the agent has ended", func() error {
		if agent.Alive() {
			return fmt.Errorf("process %d runs", agent.PID)
		}
		return nil
	})
	if routes, err := r.routes(); err != nil || !strings.Contains(routes, "10.244.120.0/28") {
		r.t.Errorf("after a stop the router has %q, %v", routes, err)
	}
	if out := sh("ip route show proto 117"); !strings.Contains(out, "10.244.120.0/28") {
		r.t.Errorf("after a stop the kernel has %q", out)
	}
	r.start()
	r.await("the lease is still there", func() error {
		out, err := r.cni("ADD", "c1", "web")
		if err == nil && !strings.Contains(out, "10.244.120.2/") {
			err = fmt.Errorf("another one: %s", out)
		}
		return err
	})
	r.await("the session is back", func() error {
		if out := labtest.Exec(r.t, r.node, "fairway", "status"); !strings.Contains(out, "Established") {
			return fmt.Errorf("status:\n%s", out)
		}
		return nil
	})
	sh("fairway agent drain")
	r.awaitRoutes("everything is withdrawn", func(routes string) bool { return routes == "" })
	if out := sh("ip route show proto 117"); out != "" {
		r.t.Errorf("after a drain the kernel has %q", out)
	}
}
