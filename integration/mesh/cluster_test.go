package mesh

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
	"time"

	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/integration/nodes"
	"github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/internal/namespace"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd/api"
)

// cluster is one whose nodes share a password.
type cluster struct {
	*nodes.Cluster
	password string // a file
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	namespace.Need(t)
	if _, err := os.Stat("../../bin/cni/ptp"); err != nil {
		t.Skipf("needs the CNI reference plugins (make setup): %v", err)
	}
	c := &cluster{password: filepath.Join(t.TempDir(), "password")}
	if err := os.WriteFile(c.password, []byte("between nodes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Cluster = nodes.NewCluster(t)
	return c
}

func (c *cluster) patch(t *testing.T, resource, name, patch string, subresource ...string) {
	t.Helper()
	if _, err := c.Resource(resource).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, subresource...); err != nil {
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

// node is one of the mesh.
type node struct {
	*nodes.Node
	pods int
}

// node makes a node of a number, and starts its agent, which has the rights of a
// DaemonSet's pod there and none besides.
func (c *cluster) node(t *testing.T, number int) *node {
	t.Helper()
	v4, v6 := fmt.Sprintf("192.0.2.%d", number), fmt.Sprintf("2001:db8::%d", number)
	n := &node{Node: c.Node(t, number, netip.MustParsePrefix(v4+"/24"), netip.MustParsePrefix(v6+"/64"))}
	o, err := c.Admin.CoreV1().Nodes().Create(t.Context(), &core.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o.Status.Addresses = []core.NodeAddress{{Type: core.NodeInternalIP, Address: v4}, {Type: core.NodeInternalIP, Address: v6}, {Type: core.NodeHostName, Address: n.Name}}
	if _, err := c.Admin.CoreV1().Nodes().UpdateStatus(t.Context(), o, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	config, err := c.NodeAgentConfig(t.Context(), kube.AgentAccount(), n.Name)
	if err != nil {
		t.Fatal(err)
	}
	n.Configure(t, &api.AuthInfo{Token: config.BearerToken}, fmt.Sprintf(`bgp:
  asn: 64512
  mesh: {enabled: true, passwordFile: %s, template: nodes}
templates:
- {name: nodes, holdTime: 30s, connectRetryTime: 1s}
`, c.password))
	n.Start(t)
	return n
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
	config := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"fairway","type":"ptp","ipam":{"type":"fairway-ipam","pool":%q,"socket":%q}}`, pool, n.File("run/ipam.sock"))
	plugins, err := filepath.Abs("../../bin/cni")
	if err != nil {
		t.Fatal(err)
	}
	nodes.Await(t, "a pod on "+n.Name, func() error {
		var err error
		p.addresses, err = n.CNI(nodes.Invocation{
			Command: "ADD", Plugin: filepath.Join(plugins, "ptp"), Path: n.Built + ":" + plugins, Config: config,
			Container: fmt.Sprintf("%s-pod-%d", n.Name, n.pods), Netns: fmt.Sprintf("/proc/%d/ns/net", p.PID()),
		})
		return err
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

// meets waits until the node has sessions with others and no other peers, and returns
// since when it has each.
func (n *node) meets(t *testing.T, others ...*node) map[string]time.Time {
	t.Helper()
	var want []string
	for _, o := range others {
		want = append(want, "mesh/"+o.Name+"/ipv4", "mesh/"+o.Name+"/ipv6")
	}
	slices.Sort(want)
	since := map[string]time.Time{}
	nodes.Await(t, fmt.Sprintf("%s has sessions with %q alone", n.Name, want), func() error {
		s, err := n.Status()
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
