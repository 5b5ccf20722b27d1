package mesh

import (
	"fmt"
	"slices"
	"strings"
	"testing"

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
	reach := func(what string, pods ...pod) {
		t.Helper()
		await(t, what, func() error {
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
	since := one.meets(t, two, three)
	reach("all pods reach each other", pods...)
	unmoved := func(when string, others ...*node) {
		t.Helper()
		for name, now := range one.meets(t, others...) {
			if was, is := since[name]; is && !was.Equal(now) {
				t.Errorf("%s: the session with %s is another one", when, name)
			}
		}
	}

	// A part of a block, which another node was lent, is the longer match everywhere.
	c.pool(t, "few", "10.244.1.0/30", "fd00:244:0:1::/126")
	lent := []pod{one.pod(t, "few"), two.pod(t, "few"), pods[2]}
	reach("the pods of a block and of what was lent of it", lent...)

	four := c.node(t, 4)
	pods = append(pods, four.pod(t, "web"))
	unmoved("a node came", two, three, four)
	reach("the pods of the new node, too", pods...)

	// It dies, and is declared dead.
	three.kill(t)
	three.Run(t, "ip", "link", "set", "eth0", "down")
	for _, remove := range []func() error{
		func() error { return c.admin.CoreV1().Nodes().Delete(t.Context(), three.name, metav1.DeleteOptions{}) },
		func() error {
			return c.resource("nodespeakers").Delete(t.Context(), three.name, metav1.DeleteOptions{})
		},
	} {
		if err := remove(); err != nil {
			t.Fatal(err)
		}
	}
	unmoved("a node was removed", two, four)
	await(t, "its routes are gone", func() error {
		routes, err := one.learned()
		if slices.ContainsFunc(routes, func(r string) bool {
			return strings.HasSuffix(r, " 192.0.2.3") || strings.HasSuffix(r, " 2001:db8::3")
		}) || len(routes) != 6 { // in each family a block of either node, and what was lent
			err = fmt.Errorf("there are %q", routes)
		}
		return err
	})

	// It counts as gone while it lives, and is back.
	c.patch(t, "nodespeakers", four.name, `{"spec":{"fence":{"since":"2026-01-01T00:00:00Z"}}}`)
	unmoved("a node was fenced", two)
	c.patch(t, "nodespeakers", four.name, `{"spec":{"fence":null}}`)
	unmoved("a fence was lifted", two, four)
	pods = []pod{pods[0], pods[1], pods[3]}
	reach("the pods that are left", pods...)

	// Without the API server an agent begins with the nodes that it knew.
	if err := c.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	lost := pods[0].stream(t, pods[1])
	two.kill(t)
	two.start(t)
	two.meets(t, one, four)
	one.meets(t, two, four)
	lost("an agent was killed and started")
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	since = one.meets(t, two, four)
	two.meets(t, one, four)
	unmoved("the API server is back", two, four)
}
