package fence

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/integration/nodes"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd/api"
)

// node is one that announces to the router.
type node struct {
	*nodes.Node
	in        *cluster
	addresses []netip.Prefix // on the switch
}

// node makes the next node, and starts its agent, which has the rights of a DaemonSet's
// pod there and none besides.
func (c *cluster) node(t *testing.T) *node {
	t.Helper()
	c.made++
	addresses := onSwitch(c.made)
	n := &node{Node: c.Node(t, c.made, addresses...), in: c, addresses: addresses}
	n.register(t)
	n.Configure(t, &api.AuthInfo{TokenFile: n.File("token")}, fmt.Sprintf(`bgp: {asn: %d, routerID: %s}
peers:
- {name: tor-v4, address: %s, asn: %d, connectRetryTime: 1s}
- {name: tor-v6, address: %q, asn: %d, connectRetryTime: 1s}
`, nodeASN, addresses[0].Addr(), c.tor.Config.Addresses[0], torASN, c.tor.Config.Addresses[1], torASN))
	n.Start(t)
	return n
}

// end is the node's end of the session that tells the router of an address's family.
func (n *node) end(of netip.Addr) netip.Addr {
	for _, p := range n.addresses {
		if p.Addr().Is4() == of.Is4() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// register makes the Node object, and a token for the agent, which ends with it.
func (n *node) register(t *testing.T) {
	t.Helper()
	if _, err := n.Admin.CoreV1().Nodes().Create(t.Context(), &core.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	config, err := n.NodeAgentConfig(t.Context(), kube.AgentAccount(), n.Name)
	if err != nil {
		t.Fatal(err)
	}
	fresh := n.File("token.new") // as the kubelet does: never half a token
	if err := errors.Join(os.WriteFile(fresh, []byte(config.BearerToken), 0o600), os.Rename(fresh, n.File("token"))); err != nil {
		t.Fatal(err)
	}
}

// unregister deletes the Node object.
func (n *node) unregister(t *testing.T) {
	t.Helper()
	if err := n.Admin.CoreV1().Nodes().Delete(t.Context(), n.Name, metav1.DeleteOptions{}); err != nil {
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
	if _, err := n.Admin.CoreV1().Nodes().Patch(t.Context(), n.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// forget is what a reboot does to what the agent has kept.
func (n *node) forget(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(n.File("run")); err != nil {
		t.Fatal(err)
	}
}

// pod is a Pod object on a node, and its addresses once it has them: of IPv4, then of IPv6.
type pod struct {
	*core.Pod
	addresses []netip.Addr
}

// pod makes a Pod object on the node, of a pool, and of chosen addresses if there are any.
func (n *node) pod(t *testing.T, name, pool string, want ...netip.Addr) *pod {
	t.Helper()
	annotations := map[string]string{"fairway.network/pool": pool}
	if len(want) > 0 {
		annotations["fairway.network/addresses"] = strings.ReplaceAll(strings.Trim(fmt.Sprint(want), "[]"), " ", ",")
	}
	made, err := n.Admin.CoreV1().Pods(shop).Create(t.Context(), &core.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec:       core.PodSpec{NodeName: n.Name, Containers: []core.Container{{Name: "web", Image: "web"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &pod{Pod: made}
}

// cni runs the plugin as a runtime does.
func (n *node) cni(command string, p *pod) error {
	addresses, err := n.CNI(nodes.Invocation{
		Command: command, Plugin: filepath.Join(n.Built, "fairway-ipam"), Path: n.Built,
		Config:    fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net","ipam":{"type":"fairway-ipam","socket":%q}}`, n.File("run/ipam.sock")),
		Container: "c-" + string(p.UID), Netns: "/run/netns/none", Args: nodes.ArgsOf(p.Pod),
	})
	if err != nil || command != "ADD" {
		return err
	}
	if len(addresses) != 2 || !addresses[0].Is4() || !addresses[1].Is6() {
		return fmt.Errorf("not an address of each family: %s", addresses)
	}
	p.addresses = addresses
	return nil
}

// serves gives a pod its addresses, as a kubelet tries.
func (n *node) serves(t *testing.T, p *pod) {
	t.Helper()
	nodes.Await(t, fmt.Sprintf("%s serves pod %s", n.Name, p.Name), func() error { return n.cni("ADD", p) })
}

// has says why the node takes one of some addresses for its own, or leases it; "" if it
// does neither.
func (n *node) has(t *testing.T, addresses []netip.Addr) string {
	t.Helper()
	s, err := n.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if why := holds(s, a); why != "" {
			return fmt.Sprintf("%s: %s", a, why)
		}
	}
	return ""
}

// holds is has of one address, by the status of a node.
func holds(s agent.Status, a netip.Addr) string {
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
