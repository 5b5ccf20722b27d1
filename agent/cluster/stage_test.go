package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/agent/cluster"
	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/agent/wire/wiretest"
	controlplane "github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/pools/kube"
	"github.com/fairway-network/fairway/routes"
	"github.com/fairway-network/fairway/speaker"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// patience bounds how long something may take that comes late.
const patience = 30 * time.Second

// stage is a control plane, and the agents of its nodes on one network.
type stage struct {
	*controlplane.Cluster
	admin   kubernetes.Interface
	objects dynamic.Interface
	net     *network
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{Cluster: controlplane.Start(t, controlplane.Options{}), net: &network{announced: map[string][]netip.Prefix{}}}
	if err := s.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.admin, err = kubernetes.NewForConfig(s.Config()); err != nil {
		t.Fatal(err)
	}
	if s.objects, err = dynamic.NewForConfig(s.Config()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.admin.CoreV1().Namespaces().Create(t.Context(), &core.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stage) resource(name string) dynamic.NamespaceableResourceInterface {
	return s.objects.Resource(schema.GroupVersionResource{Group: "fairway.network", Version: "v1alpha1", Resource: name})
}

// pool makes a pool, and accepts it as the controller would.
func (s *stage) pool(t *testing.T, name string, blockSize int, spec string) {
	t.Helper()
	manifest := fmt.Sprintf("apiVersion: fairway.network/v1alpha1\nkind: AddressPool\nmetadata: {name: %s}\nspec: {gateways: [10.0.0.1/8], blockSize: %d, reuseAfter: 0s, %s}", name, blockSize, spec)
	if err := s.Apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	s.accept(t, name, blockSize)
}

func (s *stage) accept(t *testing.T, name string, blockSize int) {
	t.Helper()
	pool, err := s.resource("addresspools").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec := pool.Object["spec"].(map[string]any)
	addresses, err := json.Marshal(spec["addresses"])
	if err != nil {
		t.Fatal(err)
	}
	status := fmt.Sprintf(`{"status":{"blockSize":%d,"addresses":%s,"gateways":["10.0.0.1/8"],"conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"","observedGeneration":%d,"lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`,
		blockSize, addresses, pool.GetGeneration())
	if _, err := s.resource("addresspools").Patch(t.Context(), name, types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
}

// blocks of a pool, as "prefix node".
func (s *stage) blocks(t *testing.T, pool string) (out []string) {
	t.Helper()
	list, err := s.resource("addressblocks").List(t.Context(), metav1.ListOptions{LabelSelector: "fairway.network/pool=" + pool})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range list.Items {
		spec := b.Object["spec"].(map[string]any)
		out = append(out, fmt.Sprintf("%s %s", spec["prefix"], spec["node"]))
	}
	return out
}

// pod makes a pod on a node.
func (s *stage) pod(t *testing.T, node, name string, annotations map[string]string) *core.Pod {
	t.Helper()
	p, err := s.admin.CoreV1().Pods("shop").Create(t.Context(), &core.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec:       core.PodSpec{NodeName: node, Containers: []core.Container{{Name: "web", Image: "web"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func inPool(name string) map[string]string { return map[string]string{"fairway.network/pool": name} }

// node is where agents run one after the other.
type node struct {
	*stage
	name, dir string
	config    *rest.Config
	calls     atomic.Int64 // of the API server, but for watches
	running   *agent.Agent
	cluster   *cluster.Cluster
	stop      func() error
}

// node makes a Node object, and starts its agent, which has no right but those
// that a user gives it.
func (s *stage) node(t *testing.T, name string) *node {
	t.Helper()
	config, err := s.NodeAgentConfig(t.Context(), controlplane.AgentAccount(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.nodeAs(t, name, config)
}

// nodeAs starts the agent of a Node object that there is.
func (s *stage) nodeAs(t *testing.T, name string, config *rest.Config) *node {
	t.Helper()
	n := &node{stage: s, name: name, dir: t.TempDir(), config: config}
	n.start(t)
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("node %s: %v", name, err)
		}
	})
	return n
}

func (s *stage) makeNode(t *testing.T, name string) types.UID {
	t.Helper()
	o, err := s.admin.CoreV1().Nodes().Create(t.Context(), &core.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return o.UID
}

// counted counts the calls that go through it.
type counted struct {
	http.RoundTripper
	calls *atomic.Int64
}

func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Query().Get("watch") == "" {
		c.calls.Add(1)
	}
	return c.RoundTripper.RoundTrip(r)
}

// start runs an agent until n.stop, which may be called more than once.
func (n *node) start(t *testing.T) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", n.name)
	config := rest.CopyConfig(n.config)
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return counted{rt, &n.calls} })
	client, err := kube.NewClient(config, kube.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cluster = cluster.New(cluster.Config{Client: client, Node: n.name, RunDir: n.dir, Boot: "boot-1", Version: "test", Log: log})
	var running sync.WaitGroup
	running.Go(func() { _ = n.cluster.Run(ctx) })
	starting, started := context.WithTimeout(ctx, patience)
	defer started()
	n.running, err = agent.New(starting, agent.Parts{
		Node: n.name, RunDir: n.dir, Socket: filepath.Join(n.dir, "ipam.sock"), Boot: "boot-1", Cluster: n.cluster, Store: n.cluster.Store(),
		Kernel: quietKernel{}, Speaker: &endpoint{network: n.net, name: n.name}, Log: log,
	}, agent.Settings{})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	var ended error
	running.Go(func() { ended = n.running.Run(ctx) })
	select {
	case <-n.running.Started():
	case <-starting.Done():
		t.Errorf("node %s: the agent has not started", n.name)
	}
	n.stop = sync.OnceValue(func() error {
		cancel()
		running.Wait()
		return ended
	})
}

// quietKernel is one that does as it is told.
type quietKernel struct{}

func (quietKernel) Sync(context.Context, []routes.Route) error { return nil }

func (quietKernel) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}

// network knows what each node announces.
type network struct {
	mu        sync.Mutex
	announced map[string][]netip.Prefix
	clashes   []string
}

// endpoint is a node's speaker.
type endpoint struct {
	*network
	name string
}

func (e *endpoint) Set(_ context.Context, d speaker.Desired) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for other, ps := range e.announced {
		for _, p := range d.Prefixes() {
			if other != e.name && slices.ContainsFunc(ps, p.Overlaps) {
				e.clashes = append(e.clashes, fmt.Sprintf("%s of %s, while %s announces %v", p, e.name, other, ps))
			}
		}
	}
	e.announced[e.name] = d.Prefixes()
	return nil
}

func (e *endpoint) Flush(context.Context, []netip.Prefix) error { return nil }
func (e *endpoint) State(context.Context) (speaker.State, error) {
	return speaker.State{Peers: []speaker.PeerState{{Name: "tor", Session: "Established"}}}, nil
}
func (e *endpoint) Fail(context.Context, string) error        { return nil }
func (e *endpoint) Close(context.Context, speaker.Stop) error { return nil }

// cni has the node's agent do what a plugin asks. The result is the address of
// an ADD.
func (n *node) cni(command string, p *core.Pod) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	env := []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=c-" + string(p.UID), "CNI_NETNS=/run/netns/x", "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin",
		fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s", p.Namespace, p.Name, p.UID),
	}
	text, err := wiretest.Ask(ctx, filepath.Join(n.dir, "ipam.sock"), env, `{"cniVersion":"1.1.0","name":"net","ipam":{"type":"fairway-ipam"}}`)
	if err != nil || command == "DEL" {
		return netip.Addr{}, err
	}
	var said struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return netip.Addr{}, err
	}
	if len(said.IPs) != 1 {
		return netip.Addr{}, errors.New("not one address: " + string(text))
	}
	return said.IPs[0].Address.Addr(), nil
}

// refusedWith says whether an agent answered with an error of that code.
func refusedWith(code wire.Code, err error) bool {
	fault, refused := errors.AsType[*wire.Fault](err)
	return refused && fault.Code == code
}

func (n *node) add(t *testing.T, p *core.Pod) netip.Addr {
	t.Helper()
	a, err := n.cni("ADD", p)
	if err != nil {
		t.Fatalf("node %s, pod %s: %v", n.name, p.Name, err)
	}
	return a
}

func (n *node) del(t *testing.T, p *core.Pod) {
	t.Helper()
	if _, err := n.cni("DEL", p); err != nil {
		t.Fatalf("node %s, pod %s: %v", n.name, p.Name, err)
	}
}

// status is what the agent tells a person.
func (n *node) status(t *testing.T) (s agent.Status) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(n.dir, agent.ControlSocket))
	}}}
	resp, err := client.Get("http://agent/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// knows waits until the agent has the pool.
func (n *node) knows(t *testing.T, pool string) {
	t.Helper()
	await(t, fmt.Sprintf("node %s knows pool %s", n.name, pool), func() bool {
		return slices.ContainsFunc(n.status(t).Pools, func(p agent.PoolStatus) bool { return p.Name == pool })
	})
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); !done(); <-look.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// sound says that no two nodes announce one address.
func (s *stage) sound(t *testing.T) {
	t.Helper()
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if len(s.net.clashes) > 0 {
		t.Errorf("announced twice: %s", strings.Join(s.net.clashes, "\n"))
	}
}
