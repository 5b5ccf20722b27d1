package fence

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/integration/router"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// node is one on the switch, with or without its agent.
type node struct {
	*cluster
	router.Namespace
	*gate
	name, dir string
	address   netip.Addr
	agent     *exec.Cmd
}

// node makes the next node, and starts its agent, which has the rights of a DaemonSet's
// pod there and none besides.
func (c *cluster) node(t *testing.T) *node {
	t.Helper()
	c.nodes++
	dir, err := os.MkdirTemp("", "node") // short enough for unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n := &node{cluster: c, Namespace: router.NewNamespace(t), name: fmt.Sprintf("node-%d", c.nodes), dir: dir, address: addressOf(c.nodes)}
	port := fmt.Sprintf("port%d", c.nodes)
	router.Connect(t, router.End{Interface: port}, router.End{Namespace: n.Namespace, Interface: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(n.address, 24)}})
	router.Namespace{}.Run(t, "ip", "link", "set", port, "master", "switch")
	n.gate = newGate(t, n.Namespace, c.Config().Host)
	n.register(t)
	n.configure(t)
	n.start(t)
	return n
}

// register makes the Node object, and a token for the agent, which ends with it.
func (n *node) register(t *testing.T) {
	t.Helper()
	if _, err := n.admin.CoreV1().Nodes().Create(t.Context(), &core.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	config, err := n.NodeAgentConfig(t.Context(), kube.AgentAccount(), n.name)
	if err != nil {
		t.Fatal(err)
	}
	fresh := n.file("token.new") // as the kubelet does: never half a token
	if err := errors.Join(os.WriteFile(fresh, []byte(config.BearerToken), 0o600), os.Rename(fresh, n.file("token"))); err != nil {
		t.Fatal(err)
	}
}

// unregister deletes the Node object.
func (n *node) unregister(t *testing.T) {
	t.Helper()
	if err := n.admin.CoreV1().Nodes().Delete(t.Context(), n.name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// taint puts the node out of service, or back into it.
func (n *node) taint(t *testing.T, out bool) {
	t.Helper()
	taints := "null"
	if out {
		taints = fmt.Sprintf(`[{"key":%q,"value":"nodeshutdown","effect":"NoExecute"}]`, core.TaintNodeOutOfService)
	}
	patch := fmt.Appendf(nil, `{"spec":{"taints":%s}}`, taints)
	if _, err := n.admin.CoreV1().Nodes().Patch(t.Context(), n.name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (n *node) file(name string) string { return filepath.Join(n.dir, name) }

func (n *node) configure(t *testing.T) {
	t.Helper()
	server := n.Config()
	file := api.NewConfig()
	file.Clusters["c"] = &api.Cluster{Server: server.Host, CertificateAuthorityData: server.CAData}
	file.AuthInfos["a"] = &api.AuthInfo{TokenFile: n.file("token")}
	file.Contexts["x"] = &api.Context{Cluster: "c", AuthInfo: "a"}
	file.CurrentContext = "x"
	if err := clientcmd.WriteToFile(*file, n.file("kubeconfig")); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`node: %s
store: kubernetes
kubernetes: {kubeconfig: %s}
runDir: %s
bgp: {asn: %d, routerID: %s}
peers:
- {name: tor, address: %s, asn: %d, connectRetryTime: 1s}
`, n.name, n.file("kubeconfig"), n.file("run"), nodeASN, n.address, n.tor.Config.Addresses[0], torASN)
	if err := os.WriteFile(n.file("fairway.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start starts the agent, which the test kills when it ends.
func (n *node) start(t *testing.T) {
	t.Helper()
	n.agent = n.Command(context.Background(), filepath.Join(n.programs, "fairway"), "agent", "--config", n.file("fairway.yaml"))
	log, err := os.OpenFile(n.file("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	n.agent.Stdout, n.agent.Stderr = log, log
	if err := errors.Join(n.agent.Start(), log.Close()); err != nil {
		t.Fatal(err)
	}
	running := n.agent
	t.Cleanup(func() {
		_ = running.Process.Kill()
		_ = running.Wait()
		if text, err := os.ReadFile(n.file("log")); err == nil && t.Failed() {
			t.Logf("%s:\n%s", n.name, text)
		}
	})
}

// kill kills the agent; the speaker's process goes with it.
func (n *node) kill(t *testing.T) {
	t.Helper()
	if err := n.agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = n.agent.Wait()
}

// forget is what a reboot does to what the agent has kept.
func (n *node) forget(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(n.file("run")); err != nil {
		t.Fatal(err)
	}
}

// pod is a Pod object on a node, and its address once it has one.
type pod struct {
	*core.Pod
	address netip.Addr
}

// pod makes a Pod object on the node, of a pool, and of a chosen address if want is valid.
func (n *node) pod(t *testing.T, name, pool string, want netip.Addr) *pod {
	t.Helper()
	annotations := map[string]string{"fairway.network/pool": pool}
	if want.IsValid() {
		annotations["fairway.network/addresses"] = want.String()
	}
	made, err := n.admin.CoreV1().Pods(shop).Create(t.Context(), &core.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec:       core.PodSpec{NodeName: n.name, Containers: []core.Container{{Name: "web", Image: "web"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &pod{Pod: made}
}

// cni runs the plugin as a runtime does.
func (n *node) cni(command string, p *pod) error {
	plugin := n.Command(context.Background(), filepath.Join(n.programs, "fairway-ipam"))
	plugin.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net","ipam":{"type":"fairway-ipam","socket":%q}}`, n.file("run/ipam.sock")))
	plugin.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID=c-"+string(p.UID), "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/none", "CNI_PATH="+n.programs,
		fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s", p.Namespace, p.Name, p.UID))
	out, err := plugin.Output()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, out)
	}
	if command != "ADD" {
		return nil
	}
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return err
	}
	if len(result.IPs) != 1 {
		return fmt.Errorf("not one address: %s", out)
	}
	p.address = result.IPs[0].Address.Addr()
	return nil
}

// serves gives a pod its address, as a kubelet tries.
func (n *node) serves(t *testing.T, p *pod) {
	t.Helper()
	await(t, fmt.Sprintf("%s serves pod %s", n.name, p.Name), func() error { return n.cni("ADD", p) })
}

func (n *node) status() (s agent.Status, err error) {
	cmd := exec.Command(filepath.Join(n.programs, "fairway"), "status", "--json", "--run-dir", n.file("run"))
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return s, fmt.Errorf("%w: %s", err, said.String())
	}
	return s, json.Unmarshal(out, &s)
}

// has says why the node takes an address for its own, or leases it; "" if it does neither.
func (n *node) has(t *testing.T, a netip.Addr) string {
	t.Helper()
	s, err := n.status()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range s.Leases {
		if l.Address == a {
			return fmt.Sprintf("pod %s has it", l.Pod)
		}
	}
	lent := slices.ContainsFunc(s.Loans, func(l agent.LoanStatus) bool { return l.Prefix.Contains(a) })
	for _, b := range s.Blocks {
		if b.Prefix.Contains(a) && (!lent || b.Lender != "") {
			return fmt.Sprintf("it is of block %s", b.Prefix)
		}
	}
	return ""
}

// delivers says whether the node's kernel takes a prefix for the node's own.
func (n *node) delivers(t *testing.T, p netip.Prefix) bool {
	t.Helper()
	out, err := n.Command(t.Context(), "ip", "-j", "route", "show", "table", "all", "proto", "117").Output()
	if err != nil {
		t.Fatal(err)
	}
	var routes []struct{ Dst string }
	if err := json.Unmarshal(out, &routes); err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(routes, func(r struct{ Dst string }) bool { return r.Dst == p.String() })
}
