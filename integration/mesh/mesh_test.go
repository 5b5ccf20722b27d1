package mesh

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/nodes"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pods reach each other without any router; nodes come, die, are fenced and restarted
// without a session lost that is not theirs.
func TestMesh(t *testing.T) {
	c := newCluster(t)
	c.pool(t, "web", "10.244.0.0/24", "fd00:244::/120")
	one, two, three := c.node(t, 1), c.node(t, 2), c.node(t, 3)
	pods := []pod{one.pod(t, "web"), two.pod(t, "web"), three.pod(t, "web")}
	for _, p := range pods {
		if len(p.addresses) != 2 {
			t.Fatalf("the pod has addresses %v, want one of each family", p.addresses)
		}
	}
	since := one.meets(t, two, three)
	reach(t, "all pods reach each other", pods...)

	// A part of a block, which another node was lent, is the longer match everywhere.
	c.pool(t, "few", "10.244.1.0/30", "fd00:244:0:1::/126")
	reach(t, "the pods of a block and of what was lent of it", one.pod(t, "few"), two.pod(t, "few"), pods[2])

	four := c.node(t, 4)
	pods = append(pods, four.pod(t, "web"))
	one.keeps(t, since, "a node came", two, three, four)
	reach(t, "the pods of the new node, too", pods...)

	three.die(t)
	one.keeps(t, since, "a node was removed", two, four)
	nodes.Await(t, "its routes are gone", func() error {
		routes, err := one.learned()
		if slices.ContainsFunc(routes, func(r string) bool {
			return strings.HasSuffix(r, " 192.0.2.3") || strings.HasSuffix(r, " 2001:db8::3")
		}) || len(routes) != 6 { // in each family a block of either node, and what was lent
			err = fmt.Errorf("there are %q", routes)
		}
		return err
	})

	// It counts as gone while it lives, and is back.
	c.patch(t, "nodespeakers", four.Name, `{"spec":{"fence":{"since":"2026-01-01T00:00:00Z"}}}`)
	one.keeps(t, since, "a node was fenced", two)
	c.patch(t, "nodespeakers", four.Name, `{"spec":{"fence":null}}`)
	one.keeps(t, since, "a fence was lifted", two, four)
	reach(t, "the pods that are left", pods[0], pods[1], pods[3])

	c.restartWithoutAPIServer(t, pods[0], pods[1], one, two, four)
}

// reach waits until each of the pods reaches each.
func reach(t *testing.T, what string, pods ...pod) {
	t.Helper()
	nodes.Await(t, what, func() error {
		for _, p := range pods {
			for _, q := range pods {
				if err := p.ping(q); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// keeps waits until the node has sessions with others and no other peers; those that it
// had since are the same ones.
func (n *node) keeps(t *testing.T, since map[string]time.Time, when string, others ...*node) {
	t.Helper()
	for name, now := range n.meets(t, others...) {
		if was, is := since[name]; is && !was.Equal(now) {
			t.Errorf("%s: the session with %s is another one", when, name)
		}
	}
}

// die kills a node, which is then declared dead.
func (n *node) die(t *testing.T) {
	t.Helper()
	n.Kill(t)
	n.Run(t, "ip", "link", "set", "eth0", "down")
	if err := n.Admin.CoreV1().Nodes().Delete(t.Context(), n.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := n.Resource("nodespeakers").Delete(t.Context(), n.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// restartWithoutAPIServer: without the API server the agent of two begins with the nodes
// that it knew, and no packet is lost from a pod of one to a pod of two.
func (c *cluster) restartWithoutAPIServer(t *testing.T, from, to pod, one, two, other *node) {
	t.Helper()
	if err := c.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	lost := from.stream(t, to)
	two.Kill(t)
	two.Start(t)
	two.meets(t, one, other)
	one.meets(t, two, other)
	lost("an agent was killed and started")
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	since := one.meets(t, two, other)
	two.meets(t, one, other)
	one.keeps(t, since, "the API server is back", two, other)
}
