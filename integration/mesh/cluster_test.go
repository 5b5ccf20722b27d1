package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/internal/namespace"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

const soon = 60 * time.Second

// cluster is a control plane in the test's own namespace, and a switch for the nodes.
type cluster struct {
	*kube.Cluster
	admin    kubernetes.Interface
	objects  dynamic.Interface
	programs string // of this tree
	password string // a file
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	namespace.Need(t)
	c := &cluster{programs: t.TempDir(), password: filepath.Join(t.TempDir(), "password")}
	for _, plugin := range []string{"ptp"} {
		if _, err := os.Stat(filepath.Join("../../bin/cni", plugin)); err != nil {
			t.Skipf("needs the CNI reference plugins (make setup): %v", err)
		}
	}
	build := exec.Command("go", "build", "-o", c.programs, "../../cmd/fairway", "../../cmd/fairway-ipam", "../../cmd/fairway-speaker")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if err := os.WriteFile(c.password, []byte("between nodes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Cluster = kube.Start(t, kube.Options{})
	if err := c.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.admin, err = kubernetes.NewForConfig(c.Config()); err != nil {
		t.Fatal(err)
	}
	if c.objects, err = dynamic.NewForConfig(c.Config()); err != nil {
		t.Fatal(err)
	}
	router.Namespace{}.Run(t, "ip", "link", "add", "switch", "up", "type", "bridge")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "switch").Run() })
	return c
}

func (c *cluster) resource(name string) dynamic.ResourceInterface {
	return c.objects.Resource(schema.GroupVersionResource{Group: "fairway.network", Version: "v1alpha1", Resource: name})
}

func (c *cluster) patch(t *testing.T, resource, name, patch string, subresource ...string) {
	t.Helper()
	if _, err := c.resource(resource).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, subresource...); err != nil {
		t.Fatal(err)
	}
}

// pool makes a pool, and accepts it as the controller would.
func (c *cluster) pool(t *testing.T, name string, addresses ...string) {
	t.Helper()
	list, err := json.Marshal(addresses)
	if err != nil {
		t.Fatal(err)
	}
	const gateways = `["10.244.255.1/16"]`
	manifest := fmt.Sprintf(`{"apiVersion":"fairway.network/v1alpha1","kind":"AddressPool","metadata":{"name":%q},"spec":{"addresses":%s,"blockSize":16,"gateways":%s}}`, name, list, gateways)
	if err := c.Apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	c.patch(t, "addresspools", name, fmt.Sprintf(`{"status":{"blockSize":16,"addresses":%s,"gateways":%s,"conditions":[{"type":"Accepted","status":"True",
		"reason":"Accepted","message":"","observedGeneration":1,"lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`, list, gateways), "status")
}

// node is one on the switch, with or without its agent.
type node struct {
	*cluster
	router.Namespace
	name, dir string
	agent     *exec.Cmd
	pods      int
}

// node makes a node of a number, and starts its agent, which has the rights of a
// DaemonSet's pod there and none besides.
func (c *cluster) node(t *testing.T, number int) *node {
	t.Helper()
	n := &node{cluster: c, Namespace: router.NewNamespace(t), name: fmt.Sprintf("node-%d", number), dir: t.TempDir()}
	v4, v6 := fmt.Sprintf("192.0.2.%d", number), fmt.Sprintf("2001:db8::%d", number)
	port := fmt.Sprintf("port%d", number)
	router.Connect(t, router.End{Interface: port}, router.End{Namespace: n.Namespace, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix(v4 + "/24"), netip.MustParsePrefix(v6 + "/64")}})
	router.Namespace{}.Run(t, "ip", "link", "set", port, "master", "switch")
	o, err := c.admin.CoreV1().Nodes().Create(t.Context(), &core.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o.Status.Addresses = []core.NodeAddress{{Type: core.NodeInternalIP, Address: v4}, {Type: core.NodeInternalIP, Address: v6}, {Type: core.NodeHostName, Address: n.name}}
	if _, err := c.admin.CoreV1().Nodes().UpdateStatus(t.Context(), o, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	config, err := c.NodeAgentConfig(t.Context(), kube.AgentAccount(), n.name)
	if err != nil {
		t.Fatal(err)
	}
	n.bridge(t, config)
	n.configure(t, config)
	n.start(t)
	return n
}

// bridge makes the API server's address one in the node's namespace, too: the server
// listens on the loopback interface of the test's.
func (n *node) bridge(t *testing.T, config *rest.Config) {
	t.Helper()
	server, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	err = namespace.Inside(fmt.Sprintf("/proc/%d/ns/net", n.PID()), func() (err error) {
		l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", server.Host)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go join(near, server.Host)
		}
	}()
}

// join is one connection with the API server, until either end has enough.
func join(near net.Conn, server string) {
	defer near.Close()
	far, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer far.Close()
	var once sync.Once
	ended := make(chan struct{})
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			once.Do(func() { close(ended) })
		}()
	}
	<-ended
}

func (n *node) configure(t *testing.T, config *rest.Config) {
	t.Helper()
	file := api.NewConfig()
	file.Clusters["c"] = &api.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	file.AuthInfos["a"] = &api.AuthInfo{Token: config.BearerToken}
	file.Contexts["x"] = &api.Context{Cluster: "c", AuthInfo: "a"}
	file.CurrentContext = "x"
	if err := clientcmd.WriteToFile(*file, filepath.Join(n.dir, "kubeconfig")); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`node: %s
store: kubernetes
kubernetes: {kubeconfig: %s/kubeconfig}
runDir: %s/run
bgp:
  asn: 64512
  mesh: {enabled: true, passwordFile: %s, template: nodes}
templates:
- {name: nodes, holdTime: 30s, connectRetryTime: 1s}
`, n.name, n.dir, n.dir, n.password)
	if err := os.WriteFile(filepath.Join(n.dir, "fairway.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start starts the agent, which the test kills when it ends.
func (n *node) start(t *testing.T) {
	t.Helper()
	n.agent = n.Command(context.Background(), filepath.Join(n.programs, "fairway"), "agent", "--config", filepath.Join(n.dir, "fairway.yaml"))
	log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
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
		if text, err := os.ReadFile(filepath.Join(n.dir, "log")); err == nil && t.Failed() {
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

// pod is one in a namespace of its own.
type pod struct {
	router.Namespace
	addresses []netip.Addr
}

// pod makes one of a pool by the ptp plugin, once the agent serves.
func (n *node) pod(t *testing.T, pool string) pod {
	t.Helper()
	p := pod{Namespace: router.NewNamespace(t)}
	p.Run(t, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0") // ptp would wait seconds for it
	n.pods++
	config := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"fairway","type":"ptp","ipam":{"type":"fairway-ipam","pool":%q,"socket":"%s/run/ipam.sock"}}`, pool, n.dir)
	plugins, err := filepath.Abs("../../bin/cni")
	if err != nil {
		t.Fatal(err)
	}
	await(t, "a pod on "+n.name, func() error {
		add := n.Command(t.Context(), filepath.Join(plugins, "ptp"))
		add.Stdin = strings.NewReader(config)
		add.Env = append(os.Environ(), "CNI_COMMAND=ADD", fmt.Sprintf("CNI_CONTAINERID=%s-pod-%d", n.name, n.pods), "CNI_IFNAME=eth0",
			fmt.Sprintf("CNI_NETNS=/proc/%d/ns/net", p.PID()), "CNI_PATH="+n.programs+":"+plugins)
		out, err := add.Output()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		var result struct {
			IPs []struct{ Address netip.Prefix }
		}
		if err := json.Unmarshal(out, &result); err != nil {
			return err
		}
		for _, ip := range result.IPs {
			p.addresses = append(p.addresses, ip.Address.Addr())
		}
		return nil
	})
	return p
}

// ping says whether each address of one pod can be reached from another.
func (p pod) ping(q pod) error {
	for _, a := range q.addresses {
		if out, err := p.Command(context.Background(), "ping", "-c", "1", "-W", "1", a.String()).CombinedOutput(); err != nil {
			return fmt.Errorf("ping %s: %w: %s", a, err, out)
		}
	}
	return nil
}

// stream pings each address of another pod until the function that it returns is
// called, which fails the test if an answer but the last is missing.
func (p pod) stream(t *testing.T, q pod) (end func(during string)) {
	t.Helper()
	type stream struct {
		ping *exec.Cmd
		said bytes.Buffer
	}
	var streams []*stream
	for _, a := range q.addresses {
		s := &stream{ping: p.Command(context.Background(), "ping", "-q", "-i", "0.05", a.String())}
		s.ping.Stdout, s.ping.Stderr = &s.said, &s.said
		if err := s.ping.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.ping.Process.Kill() })
		streams = append(streams, s)
	}
	return func(during string) {
		t.Helper()
		for _, s := range streams {
			_ = s.ping.Process.Signal(os.Interrupt)
			err := s.ping.Wait()
			_, counts, _ := strings.Cut(s.said.String(), "statistics ---\n")
			var sent, received int
			if _, bad := fmt.Sscanf(counts, "%d packets transmitted, %d received", &sent, &received); err != nil || bad != nil || sent-received > 1 { // the last is under way
				t.Errorf("%s: %v: %s", during, errors.Join(err, bad), s.said.String())
			}
		}
	}
}

func (n *node) status() (s agent.Status, err error) {
	cmd := n.Command(context.Background(), filepath.Join(n.programs, "fairway"), "status", "--json", "--run-dir", filepath.Join(n.dir, "run"))
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return s, fmt.Errorf("%w: %s", err, said.String())
	}
	return s, json.Unmarshal(out, &s)
}

// meets waits until the node has sessions with others and no other peers, and returns
// since when it has each.
func (n *node) meets(t *testing.T, others ...*node) map[string]time.Time {
	t.Helper()
	var want []string
	for _, o := range others {
		want = append(want, "mesh/"+o.name+"/ipv4", "mesh/"+o.name+"/ipv6")
	}
	slices.Sort(want)
	since := map[string]time.Time{}
	await(t, fmt.Sprintf("%s has sessions with %q alone", n.name, want), func() error {
		s, err := n.status()
		if err != nil {
			return err
		}
		var up, down []string
		clear(since)
		for _, p := range s.Peers {
			if p.Established() {
				up, since[p.Name] = append(up, p.Name), p.Since
			} else {
				down = append(down, p.Name+": "+p.LastError)
			}
		}
		slices.Sort(up)
		if !slices.Equal(up, want) || len(down) > 0 || s.Trouble != "" {
			return fmt.Errorf("up are %q, down %q, trouble %q", up, down, s.Trouble)
		}
		return nil
	})
	return since
}

// learned are the kernel's learned routes, as "prefix via".
func (n *node) learned() (out []string, err error) {
	for _, family := range []string{"-4", "-6"} {
		text, err := n.Command(context.Background(), "ip", "-j", family, "route", "show", "proto", "118").Output()
		if err != nil {
			return nil, err
		}
		var routes []struct{ Dst, Gateway string }
		if err := json.Unmarshal(text, &routes); err != nil {
			return nil, err
		}
		for _, r := range routes {
			out = append(out, r.Dst+" "+r.Gateway)
		}
	}
	return out, nil
}

func await(t *testing.T, what string, check func() error) {
	t.Helper()
	router.Await(t, what, soon, check)
}
