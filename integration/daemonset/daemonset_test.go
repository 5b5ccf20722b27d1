package daemonset

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/integration/nodes"
	"github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/internal/namespace"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	torASN  = 65000
	nodeASN = 64512
)

var (
	torAddress  = netip.MustParseAddr("192.0.2.254")
	nodeAddress = netip.MustParseAddr("192.0.2.1")
)

// What the manifests start accepts a pool, installs the plugin, serves a pod, announces
// its block, and does so still when the DaemonSet's pod was replaced.
func TestManifests(t *testing.T) {
	namespace.Need(t)
	router.Need(t, router.BIRD)
	cluster := nodes.NewCluster(t)
	tor := routes(t)
	if _, err := cluster.Admin.CoreV1().Nodes().Create(t.Context(), &core.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	k := newKubelet(t, cluster.Node(t, 1, netip.PrefixFrom(nodeAddress, 24)))
	var deployment apps.Deployment
	manifest(t, "controller.yaml", "Deployment", &deployment)
	pod := &deployment.Spec.Template.Spec
	k.runs(t, pod, &pod.Containers[0]).probed(t)

	network, err := os.ReadFile("../../deploy/examples/kubernetes/10-fairway.conflist")
	if err != nil {
		t.Fatal(err)
	}
	k.configMaps["fairway"] = k.File("config")
	k.write(t, k.File("config/10-fairway.conflist"), string(network))
	k.write(t, k.File("config/fairway.yaml"), fmt.Sprintf("bgp: {asn: %d, routerID: %s}\npeers:\n- {name: tor, address: %s, asn: %d, connectRetryTime: 1s}\n", nodeASN, nodeAddress, torAddress, torASN))
	var daemons apps.DaemonSet
	manifest(t, "agent.yaml", "DaemonSet", &daemons)
	pod = &daemons.Spec.Template.Spec
	k.completes(t, pod, &pod.InitContainers[0])
	if is, err := os.ReadFile(k.host("/etc/cni/net.d/10-fairway.conflist")); err != nil || string(is) != string(network) {
		t.Fatalf("the network configuration is %q, %v", is, err)
	}
	c := k.runs(t, pod, &pod.Containers[0])
	c.probed(t)

	if err := cluster.Apply(t.Context(), "apiVersion: fairway.network/v1alpha1\nkind: AddressPool\nmetadata: {name: default}\nspec: {addresses: [10.244.120.0/24]}"); err != nil {
		t.Fatal(err)
	}
	web, err := cluster.Admin.CoreV1().Pods("default").Create(t.Context(), &core.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       core.PodSpec{NodeName: k.Name, Containers: []core.Container{{Name: "web", Image: "web"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	nodes.Await(t, "the pod gets an address", func() error { return k.cni(network, "ADD", web) })
	s := k.status(t)
	if len(s.Leases) != 1 || s.Leases[0].Pod != "web" || len(s.Blocks) != 1 {
		t.Fatalf("its leases are %+v, its blocks %+v", s.Leases, s.Blocks)
	}
	announced(t, tor, s.Blocks[0].Prefix)

	c.stop(t)
	announced(t, tor, s.Blocks[0].Prefix)
	k.completes(t, pod, &pod.InitContainers[0])
	k.runs(t, pod, &pod.Containers[0]).probed(t)
	if after := k.status(t); len(after.Leases) != 1 || after.Leases[0].Address != s.Leases[0].Address {
		t.Errorf("its leases are %+v, want %+v", after.Leases, s.Leases)
	}
	announced(t, tor, s.Blocks[0].Prefix)
	if err := k.cni(network, "DEL", web); err != nil {
		t.Error(err)
	}
}

// routes puts a router on the switch that the node announces to.
func routes(t *testing.T) *router.Router {
	t.Helper()
	here := router.Namespace{}
	here.Run(t, "ip", "addr", "add", torAddress.String()+"/24", "dev", nodes.Switch)
	return router.Start(t, router.BIRD, here, router.Config{Addresses: []netip.Addr{torAddress}, ASN: torASN, RouterID: torAddress,
		Neighbors: []router.Neighbor{{Address: nodeAddress, ASN: nodeASN}}})
}

// announced waits until the router has a prefix from the node.
func announced(t *testing.T, tor *router.Router, p netip.Prefix) {
	t.Helper()
	nodes.Await(t, fmt.Sprintf("the router has %s", p), func() error {
		has := tor.Routes(t)
		for _, r := range has {
			if r.Prefix == p && r.From == nodeAddress {
				return nil
			}
		}
		return fmt.Errorf("it has %+v", has)
	})
}

// cni runs the installed plugin as the plugin that the installed configuration names
// would, with the agent's socket where this test has it.
func (k *kubelet) cni(network []byte, command string, pod *core.Pod) error {
	var list struct {
		CNIVersion, Name string
		Plugins          []map[string]any
	}
	if err := json.Unmarshal(network, &list); err != nil {
		return err
	}
	conf := list.Plugins[0]
	conf["cniVersion"], conf["name"] = list.CNIVersion, list.Name
	conf["ipam"].(map[string]any)["socket"] = k.host("/run/fairway/ipam.sock")
	text, err := json.Marshal(conf)
	if err != nil {
		return err
	}
	_, err = k.CNI(nodes.Invocation{
		Command: command, Plugin: filepath.Join(k.host("/opt/cni/bin"), "fairway-ipam"), Path: "/opt/cni/bin", Config: string(text),
		Container: "c1", Netns: "/var/run/netns/none", Args: nodes.ArgsOf(pod),
	})
	return err
}

// status is what a person on the node sees.
func (k *kubelet) status(t *testing.T) (s agent.Status) {
	t.Helper()
	s, err := k.StatusIn(k.host("/run/fairway"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
