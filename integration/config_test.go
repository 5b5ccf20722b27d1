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

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/integration/lab"
	"github.com/fairway-network/fairway/integration/lab/labtest"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

const rackConfig = `node: node1
labels: {LABELS}
bgp:
  asn: 64512
  routerID: 10.0.1.2
templates:
- {name: tor, asnFrom: {label: example.com/tor-asn}, connectRetryTime: 1s, passwordFile: /etc/fairway/secret/password, accept: {prefixes: [ACCEPT]}}
peers:
- {name: tor-1, template: tor, address: 10.0.1.1}
- {name: tor-2, template: tor, addressFrom: {label: example.com/tor-2}, localAddress: 10.0.2.2, nodeSelector: {example.com/rack: r2}}
announcements:
- {peers: [tor-1], communities: ["64512:COMMUNITY", no-export], med: 50, nextHop: [10.0.1.9, "2001:db8::9"]}
pools:
- {name: web, addresses: [10.244.120.0/24], blockSize: 16}
`

// mountSecret makes text the password, as the kubelet mounts a Secret.
func (r *road) mountSecret(version, text string) {
	r.t.Helper()
	dir := filepath.Join(r.Config, "secret")
	for _, step := range []func() error{
		func() error { return os.MkdirAll(filepath.Join(dir, version), 0o700) },
		func() error { return os.WriteFile(filepath.Join(dir, version, "password"), []byte(text), 0o600) },
		func() error { return os.Symlink(version, filepath.Join(dir, "..data_tmp")) },
		func() error { return os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")) },
	} {
		if err := step(); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := os.Symlink("..data/password", filepath.Join(dir, "password")); err != nil && !os.IsExist(err) {
		r.t.Fatal(err)
	}
}

// vtysh runs commands in the router.
func (r *road) vtysh(commands ...string) {
	r.t.Helper()
	argv := []string{"vtysh"}
	for _, c := range commands {
		argv = append(argv, "-c", c)
	}
	labtest.Exec(r.t, r.tor, argv...)
}

// awaitPeers waits until the peers that are up are these, and the trouble has text.
func (r *road) awaitPeers(what, up, text string) {
	r.t.Helper()
	r.await(what, func() error {
		s, err := r.Status(r.t)
		if err != nil {
			return err
		}
		var names []string
		for _, p := range s.Peers {
			if p.Established() {
				names = append(names, p.Name)
			}
		}
		if got := strings.Join(names, " "); got != up || !strings.Contains(s.Trouble, text) || (text == "") != (s.Trouble == "") {
			return fmt.Errorf("up are %q, trouble %q", got, s.Trouble)
		}
		return nil
	})
}

func (r *road) awaitAttributes(what string, texts ...string) {
	r.t.Helper()
	r.await(what, func() error {
		out, err := r.tor.Exec(r.t.Context(), "vtysh", "-c", "show bgp ipv4 unicast 10.244.120.0/28")
		for _, text := range texts {
			if err == nil && !strings.Contains(out, text) {
				err = fmt.Errorf("no %q in\n%s", text, out)
			}
		}
		return err
	})
}

// TestConfiguration has one file for all racks, and changes it under an agent: no
// change of a peer, a label or a community ends another peer's session.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	r := newRoad(t)
	labtest.Exec(t, r.tor, "ip", "addr", "add", "10.0.2.1/24", "dev", "eth1")
	labtest.Exec(t, r.Node, "ip", "addr", "add", "10.0.2.2/24", "dev", "eth1")
	r.vtysh("configure terminal", "router bgp 65000", "neighbor 10.0.1.2 password one", "neighbor 10.0.2.2 password one")
	r.mountSecret("..1", "one\n")
	accept := ""
	configure := func(labels, community string) {
		t.Helper()
		r.Configure(r.t, strings.NewReplacer("LABELS", labels, "COMMUNITY", community, "ACCEPT", accept).Replace(rackConfig))
	}
	configure(`example.com/tor-asn: "65000", example.com/rack: r1`, "100")
	agent := r.Start(r.t)
	r.await("the first pod has an address", func() error {
		_, err := r.CNI(r.t, "ADD", "c1", "web")
		return err
	})
	r.awaitAttributes("the block is announced with its terms", "64512:100", "no-export", "metric 50", "10.0.1.9")
	r.awaitPeers("the peer of another rack is none here", "tor-1", "")

	configure(`example.com/tor-asn: "65000", example.com/rack: r1`, "200")
	r.awaitAttributes("the community is another one", "64512:200")
	configure(`example.com/tor-asn: "65000", example.com/rack: r2`, "200")
	r.awaitPeers("a missing label is told, and keeps no other peer", "tor-1", "peer tor-2: addressFrom label example.com/tor-2: node node1 has no such label")
	configure(`example.com/tor-asn: "65000", example.com/rack: r2, example.com/tor-2: 10.0.2.1`, "200")
	r.awaitPeers("the node is in the other rack", "tor-1 tor-2", "")
	r.vtysh("configure terminal", "router bgp 65000", "no bgp network import-check", "network 198.51.100.0/24", "network 192.0.2.0/24")
	accept = `{prefix: 198.51.100.0/22, ge: 24}`
	configure(`example.com/tor-asn: "65000", example.com/rack: r2, example.com/tor-2: 10.0.2.1`, "200")
	r.await("the routes that are accepted, and no others, are in the kernel", func() error {
		out, err := r.Node.Exec(t.Context(), "ip", "route", "show", "proto", "118")
		if err == nil && (!strings.Contains(out, "198.51.100.0/24") || strings.Contains(out, "192.0.2.0/24")) {
			err = fmt.Errorf("learned: %q", out)
		}
		return err
	})
	if n := r.sessions(); n != 1 {
		t.Errorf("the first session was established %d times, want 1", n)
	}

	r.vtysh("configure terminal", "router bgp 65000", "neighbor 10.0.1.2 password two", "neighbor 10.0.2.2 password two")
	r.mountSecret("..2", "two\n")
	r.await("the sessions are back with the new password", func() error {
		if n := r.sessions(); n < 2 {
			return fmt.Errorf("established %d times", n)
		}
		return nil
	})
	r.awaitPeers("both are up", "tor-1 tor-2", "")
	if err := agent.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.await("the agent has ended", func() error {
		if agent.Alive() {
			return fmt.Errorf("it runs")
		}
		return nil
	})
}

const clusterConfig = `store: kubernetes
node: n1
kubernetes: {kubeconfig: KUBECONFIG}
bgp: {asnFrom: {label: example.com/asn}, listen: {addresses: []}, api: {socket: ""}}
peers:
- {name: tor, address: 127.0.0.2, asnFrom: {annotation: example.com/tor-asn}}
- {name: rack-1, address: 127.0.0.3, asn: 65001, nodeSelector: {rack: r1}}
- {name: rack-2, address: 127.0.0.3, asn: 65002, nodeSelector: {rack: r2}}
runDir: DIR
routes: {kernel: {enabled: false, sysctls: "off"}}
`

// TestConfigurationFollowsTheNode changes labels and annotations of a Node object
// under an agent. Its peers are nobody.
func TestConfigurationFollowsTheNode(t *testing.T) {
	t.Parallel()
	cluster := kube.Start(t, kube.Options{})
	if err := cluster.InstallDefinitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	api, err := kubernetes.NewForConfig(cluster.Config())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.CoreV1().Nodes().Create(t.Context(), &core.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"rack": "r1"}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	n := &agentOfNode{t: t, dir: t.TempDir(), api: api}
	n.start(strings.NewReplacer("KUBECONFIG", cluster.Kubeconfig(), "DIR", n.dir).Replace(clusterConfig))
	n.await("without an ASN there are no peers", "", "bgp.asnFrom: label example.com/asn: node n1 has no such label")
	n.patch(`{"metadata":{"labels":{"example.com/asn":"64512"}}}`)
	n.await("with an ASN there is one", "rack-1 65001", "peer tor: asnFrom annotation example.com/tor-asn: node n1 has no such annotation")
	n.patch(`{"metadata":{"labels":{"rack":"r2"},"annotations":{"example.com/tor-asn":"65000"}}}`)
	n.await("in another rack", "rack-2 65002, tor 65000", "")
}

// agentOfNode is the program, run by hand for a Node object.
type agentOfNode struct {
	t    *testing.T
	dir  string
	api  kubernetes.Interface
	pods int
}

func (n *agentOfNode) start(config string) {
	n.t.Helper()
	program, file := filepath.Join(n.dir, "fairway"), filepath.Join(n.dir, "fairway.yaml")
	labtest.Build(n.t, n.dir)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		n.t.Fatal(err)
	}
	cmd := exec.Command(program, "agent", "--config", file)
	cmd.Stdout, cmd.Stderr = n.t.Output(), n.t.Output()
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			n.t.Errorf("the agent's end: %v", err)
		}
	})
}

// patch changes the Node, and makes a pod on it: the agent then looks at it, which
// it does every minute or so anyway.
func (n *agentOfNode) patch(change string) {
	n.t.Helper()
	if _, err := n.api.CoreV1().Nodes().Patch(n.t.Context(), "n1", types.MergePatchType, []byte(change), metav1.PatchOptions{}); err != nil {
		n.t.Fatal(err)
	}
	n.pods++
	pod := &core.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%d", n.pods), Namespace: "default"},
		Spec:       core.PodSpec{NodeName: "n1", Containers: []core.Container{{Name: "web", Image: "web"}}},
	}
	if _, err := n.api.CoreV1().Pods("default").Create(n.t.Context(), pod, metav1.CreateOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

// await waits until the agent has these peers, and trouble that has text.
func (n *agentOfNode) await(what, peers, text string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 30*time.Second)
	defer cancel()
	if err := lab.Await(ctx, what, func() error {
		out, err := exec.CommandContext(ctx, filepath.Join(n.dir, "fairway"), "status", "-o", "json", "--run-dir", n.dir).Output()
		if err != nil {
			return err
		}
		var s agent.Status
		if err := json.Unmarshal(out, &s); err != nil {
			return err
		}
		var has []string
		for _, p := range s.Peers {
			has = append(has, fmt.Sprintf("%s %d", p.Name, p.ASN))
		}
		if got := strings.Join(has, ", "); got != peers || !strings.Contains(s.Trouble, text) || (text == "") != (s.Trouble == "") {
			return fmt.Errorf("peers %q, trouble %q", got, s.Trouble)
		}
		return nil
	}); err != nil {
		n.t.Fatal(err)
	}
}
