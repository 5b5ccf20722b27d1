package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
	*labtest.Fairway
	t   *testing.T
	tor *lab.Node
}

func newRoad(t *testing.T) *road {
	t.Helper()
	labtest.Need(t, "/usr/lib/frr/bgpd", "/usr/lib/frr/zebra", "vtysh", "gobgp")
	r := &road{Fairway: labtest.NewFairway(t, agentConfig), t: t}
	router := filepath.Join(t.TempDir(), "bgpd.conf")
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
			r.Spec(lab.NodeSpec{Name: "node1", Exec: []string{"ip addr add 10.0.1.2/24 dev eth1"}}),
		},
		Links: []lab.Link{{A: "tor:eth1", B: "node1:eth1"}},
	})
	r.tor, r.Node = labtest.Node(t, l, "tor"), labtest.Node(t, l, "node1")
	return r
}

func (r *road) await(what string, check func() error) {
	r.t.Helper()
	labtest.Await(r.t, what, check)
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
		if log := r.Log(r.t); !strings.Contains(log, text) {
			return fmt.Errorf("not in %d bytes", len(log))
		}
		return nil
	})
}

// One agent, as a person has it: announced, looked into, reconfigured well and
// badly, doubled, stopped, started and drained.
func TestAgent(t *testing.T) {
	t.Parallel()
	r := newRoad(t)
	agent := r.Start(r.t)
	r.await("the first pod has an address", func() error {
		_, err := r.CNI(r.t, "ADD", "c1", "web")
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
		if out := labtest.Exec(r.t, r.Node, strings.Fields(c.command)...); !strings.Contains(out, c.want) {
			r.t.Errorf("%s: %q is not in\n%s", c.command, c.want, out)
		}
	}
	if out, err := r.Node.Exec(r.t.Context(), "gobgp", "global", "rib", "add", "192.0.2.0/24"); err == nil {
		r.t.Errorf("gobgp added a route: %s", out)
	}
}

// reconfigure takes up a new pool and peer, and refuses what is wrong, with
// the session as it was.
func (r *road) reconfigure() {
	r.t.Helper()
	before := r.sessions()
	r.Configure(r.t, strings.ReplaceAll(agentConfig, "blockSize: 16", "blockSize: 26"))
	r.awaitLog("the changed configuration is refused")
	r.awaitLog("fairway.yaml:9")
	if _, err := r.CNI(r.t, "ADD", "c2", "web"); err != nil {
		r.t.Errorf("after a refused change: %v", err)
	}
	r.Configure(r.t, strings.Replace(agentConfig, "pools:", "- {name: other, address: 10.0.1.9, asn: 65000}\npools:", 1)+moreConfig)
	r.await("the new pool serves", func() error {
		_, err := r.CNI(r.t, "ADD", "c3", "db")
		return err
	})
	r.awaitRoutes("the new pool is announced", func(routes string) bool { return strings.Contains(routes, "10.244.121.0/28") })
	// A drain that follows a restart would wait for a peer that nobody is.
	r.Configure(r.t, agentConfig+moreConfig)
	r.await("the other peer is gone again", func() error {
		if out := labtest.Exec(r.t, r.Node, "fairway", "status"); strings.Contains(out, "10.0.1.9") {
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
	_, err := r.Node.Exec(r.t.Context(), "fairway", "agent", "--config", "/etc/fairway/fairway.yaml")
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
	sh := func(command string) string { return labtest.Exec(r.t, r.Node, "sh", "-c", command) }
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
	r.Start(r.t)
	r.await("the lease is still there", func() error {
		out, err := r.CNI(r.t, "ADD", "c1", "web")
		if err == nil && !strings.Contains(out, "10.244.120.2/") {
			err = fmt.Errorf("another one: %s", out)
		}
		return err
	})
	r.await("the session is back", func() error {
		if out := labtest.Exec(r.t, r.Node, "fairway", "status"); !strings.Contains(out, "Established") {
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
