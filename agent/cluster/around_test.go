package cluster_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What its namespace says when a pod is made counts for it, however soon its ADD
// comes; and what the Node says, a moment later.
func (s *stage) justSaid(t *testing.T) {
	s.pool(t, "said-1", 8, "addresses: [10.11.1.0/24]")
	s.pool(t, "said-2", 8, "addresses: [10.11.2.0/24]")
	s.pool(t, "said-3", 8, "addresses: [10.11.3.0/24], nodeSelector: {matchLabels: {said: here}}, podSelector: {matchLabels: {said: here}}")
	if _, err := s.admin.CoreV1().Namespaces().Create(t.Context(), &core.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "said"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	n := s.node(t, "p1")
	for i := range 3 {
		n.knows(t, fmt.Sprintf("said-%d", i+1))
	}
	pod := func(name string, labels map[string]string) *core.Pod {
		t.Helper()
		p, err := s.admin.CoreV1().Pods("said").Create(t.Context(), &core.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
			Spec:       core.PodSpec{NodeName: "p1", Containers: []core.Container{{Name: "web", Image: "web"}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	in := func(p *core.Pod, prefix string) {
		t.Helper()
		if got := n.add(t, p); !netip.MustParsePrefix(prefix).Contains(got) {
			t.Errorf("pod %s got %s, want one of %s", p.Name, got, prefix)
		}
	}
	for i := range 4 {
		pool := i%2 + 1
		annotation := fmt.Appendf(nil, `{"metadata":{"annotations":{"fairway.network/pool":"said-%d"}}}`, pool)
		if _, err := s.admin.CoreV1().Namespaces().Patch(t.Context(), "said", types.MergePatchType, annotation, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		in(pod(fmt.Sprintf("said-%d", i), nil), fmt.Sprintf("10.11.%d.0/24", pool))
	}
	if _, err := s.admin.CoreV1().Namespaces().Patch(t.Context(), "said", types.MergePatchType, []byte(`{"metadata":{"annotations":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.admin.CoreV1().Nodes().Patch(t.Context(), "p1", types.MergePatchType, []byte(`{"metadata":{"labels":{"said":"here"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	late := pod("said-late", map[string]string{"said": "here"})
	await(t, "the pool serves this node", func() bool { // the agent takes the pool up a moment after the Node
		got, err := n.cni("ADD", late)
		return err == nil && netip.MustParsePrefix("10.11.3.0/24").Contains(got)
	})
}

// A pod that was refused for what its namespace said is served once that is mended,
// although no other pod comes.
func (s *stage) mended(t *testing.T) {
	s.pool(t, "mended", 8, "addresses: [10.11.4.0/24]")
	ns := &core.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "mended", Annotations: inPool("nowhere")}}
	if _, err := s.admin.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	n := s.node(t, "p2")
	n.knows(t, "mended")
	p, err := s.admin.CoreV1().Pods("mended").Create(t.Context(), &core.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       core.PodSpec{NodeName: "p2", Containers: []core.Container{{Name: "web", Image: "web"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the agent knows the pod", func() bool {
		_, err := n.cni("ADD", p)
		return err != nil && strings.Contains(err.Error(), `"nowhere"`)
	})
	calls := n.calls.Load()
	for range 20 {
		if _, err := n.cni("ADD", p); err == nil {
			t.Fatal("a pod of a pool that is not there is served")
		}
	}
	if more := n.calls.Load() - calls; more > 10 {
		t.Errorf("20 refusals cost %d calls", more)
	}
	if _, err := s.admin.CoreV1().Namespaces().Patch(t.Context(), "mended", types.MergePatchType, []byte(`{"metadata":{"annotations":{"fairway.network/pool":"mended"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the pod is served", func() bool {
		got, err := n.cni("ADD", p)
		return err == nil && netip.MustParsePrefix("10.11.4.0/24").Contains(got)
	})
}
