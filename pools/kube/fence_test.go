package kube

import (
	"errors"
	"fmt"
	"testing"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/exchange"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// outOfService is such a node; in takes it back into service.
func (c real) outOfService(t *testing.T, name string) (uid string, in func()) {
	t.Helper()
	admin, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	n := &core.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Spec.Taints = []core.Taint{{Key: core.TaintNodeOutOfService, Value: "nodeshutdown", Effect: core.TaintEffectNoExecute}}
	if n, err = admin.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return string(n.UID), func() {
		t.Helper()
		if _, err := admin.CoreV1().Nodes().Patch(t.Context(), name, types.MergePatchType, []byte(`{"spec":{"taints":null}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func (c real) speakerOf(t *testing.T, node string) (s v1alpha1.NodeSpeaker) {
	t.Helper()
	if err := c.admin.own.Get().Resource(v1alpha1.NodeSpeakers).Name(node).Do(t.Context()).Into(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// heeds is an agent that confirms what it was told.
func (c real) heeds(t *testing.T, node string) {
	t.Helper()
	status := v1alpha1.NodeSpeakerStatus{ObservedGeneration: c.speakerOf(t, node).Generation}
	if err := c.admin.Report(t.Context(), node, status); err != nil {
		t.Fatal(err)
	}
}

// A node that is back keeps its fence until its agent has taken its blocks anew: a
// Vacate from before that is late is void, and none begins after it.
func (c real) fences(t *testing.T) {
	c.empty(t)
	ctx := t.Context()
	const node = "fenced"
	uid, inService := c.outOfService(t, node)
	var blocks []exchange.Stored
	for i := range 2 {
		b := webBlock(node, fmt.Sprintf("10.1.%d.0/26", i))
		b.Machine = uid
		st, err := c.Node(node).Create(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, st)
	}
	custodian := c.admin.Custodian()
	if _, err := custodian.Vacate(ctx, blocks[0]); err != nil {
		t.Fatal(err)
	}
	// There was no NodeSpeaker: its agent may have not come to make one.
	if f := c.speakerOf(t, node).Spec.Fence; f == nil || string(f.NodeUID) != uid {
		t.Fatalf("the node has the fence %+v", f)
	}
	c.heeds(t, node)
	inService()
	unfence := func() *v1alpha1.Fence {
		t.Helper()
		if err := custodian.Unfence(ctx, func(string, string) bool { return true }); err != nil {
			t.Fatal(err)
		}
		return c.speakerOf(t, node).Spec.Fence
	}
	for range 2 {
		if f := unfence(); f == nil || !f.Lifting {
			t.Fatalf("before the agent has heard of the lifting the fence is %+v", f)
		}
	}
	late := blocks[1]
	if _, err := custodian.Vacate(ctx, late); !errors.Is(err, exchange.ErrConflict) {
		t.Errorf("a Vacate that begins after the lifting: %v", err)
	}
	if _, err := c.Node(node).Take(ctx, blocks[1]); err != nil { // as the agent does
		t.Fatal(err)
	}
	c.heeds(t, node)
	if f := unfence(); f != nil {
		t.Errorf("after the agent has confirmed the lifting the fence is %+v", f)
	}
	if _, err := c.Vacate(ctx, late); !errors.Is(err, exchange.ErrConflict) {
		t.Errorf("a Vacate that was begun before, and is late: %v", err)
	}
}

// A node that is gone again while its fence is lifted is fenced anew.
func (c real) fencesAnew(t *testing.T) {
	c.empty(t)
	const node = "fenced-anew"
	uid, _ := c.outOfService(t, node)
	b := webBlock(node, "10.1.0.0/26")
	b.Machine = uid
	st, err := c.Node(node).Create(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	custodian := c.admin.Custodian()
	if st, err = custodian.Vacate(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	c.heeds(t, node)
	if err := custodian.Unfence(t.Context(), func(string, string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	lifting := c.speakerOf(t, node)
	if f := lifting.Spec.Fence; f == nil || !f.Lifting {
		t.Fatalf("the fence of a node that is back is %+v", f)
	}
	st.Node, st.Machine = node, uid
	if st, err = c.Node(node).Take(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	if _, err := custodian.Vacate(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	if s := c.speakerOf(t, node); s.Spec.Fence == nil || s.Spec.Fence.Lifting || s.Generation <= lifting.Generation {
		t.Errorf("the fence is %+v at generation %d, while it was lifted %+v at %d", s.Spec.Fence, s.Generation, lifting.Spec.Fence, lifting.Generation)
	}
}
