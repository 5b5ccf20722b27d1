package kube

import (
	"errors"
	"slices"
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
	if err := c.admin.Report(t.Context(), node, c.speakerOf(t, node).UID, status); err != nil {
		t.Fatal(err)
	}
}

// A node that is back keeps its fence until its agent has taken its blocks anew: a
// Vacate from before that is late is void then.
func (c real) fences(t *testing.T) {
	c.empty(t)
	ctx := t.Context()
	const node = "fenced"
	uid, inService := c.outOfService(t, node)
	b := webBlock(node, "10.1.0.0/26")
	b.Machine = uid
	block, err := c.Node(node).Create(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	custodian := c.admin.Custodian()
	if _, err := custodian.Fence(ctx, node); !errors.Is(err, exchange.ErrGone) {
		t.Errorf("the fence of a node without a NodeSpeaker: %v", err)
	}
	// There was no NodeSpeaker: its agent may have not come to make one.
	if err := custodian.SetFence(ctx, exchange.Fence{Node: node, Machine: uid}); err != nil {
		t.Fatal(err)
	}
	fence := func() exchange.Fence { return c.fenceOf(t, node) }
	set := fence()
	if !set.Stands || set.Lifting || set.Machine != uid || set.Heeded >= set.Generation {
		t.Fatalf("the node has the fence %+v", set)
	}
	c.heeds(t, node)
	heeded := fence()
	if heeded.Heeded != set.Generation || heeded.Generation != set.Generation {
		t.Errorf("the agent has heeded %+v, and it is %+v", set, heeded)
	}
	if err := c.admin.Report(ctx, node, "another", v1alpha1.NodeSpeakerStatus{ObservedGeneration: 7}); err == nil {
		t.Error("a report on an earlier NodeSpeaker of that name is taken for one on this")
	}
	if err := custodian.LiftFence(ctx, set); !errors.Is(err, exchange.ErrConflict) {
		t.Errorf("it is lifted as it was before: %v", err)
	}
	if err := custodian.LiftFence(ctx, heeded); err != nil {
		t.Fatal(err)
	}
	lifting := fence()
	if !lifting.Stands || !lifting.Lifting || lifting.Generation <= set.Generation || lifting.Heeded != set.Generation {
		t.Errorf("it is to be lifted, and is %+v", lifting)
	}
	inService()
	if err := custodian.SetFence(ctx, exchange.Fence{Node: node, Machine: uid}); !errors.Is(err, exchange.ErrConflict) {
		t.Errorf("a node that is there is fenced: %v", err)
	}
	if _, err := c.Node(node).Take(ctx, block); err != nil { // as the agent does
		t.Fatal(err)
	}
	c.confirms(t, node)
	if err := custodian.RemoveFence(ctx, lifting); !errors.Is(err, exchange.ErrConflict) {
		t.Errorf("it is taken off as it was before: %v", err)
	}
	if err := custodian.RemoveFence(ctx, fence()); err != nil {
		t.Error(err)
	}
	if f := fence(); f.Stands || f.Generation <= lifting.Generation {
		t.Errorf("it is off, and is %+v", f)
	}
	if _, err := custodian.Vacate(ctx, block); !errors.Is(err, exchange.ErrConflict) {
		t.Errorf("a Vacate that was begun before, and is late: %v", err)
	}
}

func (c real) fenceOf(t *testing.T, node string) exchange.Fence {
	t.Helper()
	f, err := c.admin.Custodian().Fence(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// confirms has the agent of a node say that it has read its orders.
func (c real) confirms(t *testing.T, node string) {
	t.Helper()
	seen := c.speakerOf(t, node)
	if err := c.admin.Confirm(t.Context(), seen, seen.Generation); err != nil {
		t.Fatal(err)
	}
	if err := c.admin.Confirm(t.Context(), seen, 7); !errors.Is(err, exchange.ErrConflict) {
		t.Errorf("what was changed since is confirmed: %v", err)
	}
	if now := c.speakerOf(t, node); now.Status.ObservedGeneration != seen.Generation || len(now.ManagedFields) == 0 {
		t.Errorf("of generation %d, %d is confirmed, by %v", seen.Generation, now.Status.ObservedGeneration, now.ManagedFields)
	}
}

// A fence that is set anew is not to be lifted any more, and all that stand are found.
func (c real) fencesAnew(t *testing.T) {
	c.empty(t)
	ctx := t.Context()
	const node = "fenced-anew"
	uid, _ := c.outOfService(t, node)
	custodian := c.admin.Custodian()
	of := exchange.Fence{Node: node, Machine: uid}
	if err := custodian.SetFence(ctx, of); err != nil {
		t.Fatal(err)
	}
	set, err := custodian.Fence(ctx, node)
	if err != nil {
		t.Fatal(err)
	}
	if err := custodian.LiftFence(ctx, set); err != nil {
		t.Fatal(err)
	}
	if err := custodian.SetFence(ctx, of); err != nil {
		t.Fatal(err)
	}
	now, err := custodian.Fence(ctx, node)
	if err != nil || !now.Stands || now.Lifting || now.Generation != set.Generation+2 {
		t.Errorf("the fence is %+v, %v, and was %+v before it was lifted and set anew", now, err, set)
	}
	all, err := custodian.Fences(ctx)
	if err != nil || !slices.Contains(all, now) {
		t.Errorf("the fences are %+v, %v", all, err)
	}
}
