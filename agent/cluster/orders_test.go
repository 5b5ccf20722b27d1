package cluster_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// speaker is a node's NodeSpeaker.
func (s *stage) speaker(t *testing.T, node string) (uid string, generation, observed int64) {
	t.Helper()
	o, err := s.resource("nodespeakers").Get(t.Context(), node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if status, ok := o.Object["status"].(map[string]any); ok {
		observed, _ = status["observedGeneration"].(int64)
	}
	return string(o.GetUID()), o.GetGeneration(), observed
}

// fence is what the controller writes, "null" to take it off.
func (s *stage) fence(t *testing.T, node, fence string) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"fence":%s}}`, fence)
	if _, err := s.resource("nodespeakers").Patch(t.Context(), node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

const aFence = `{"since":"2026-01-01T00:00:00Z","reason":"test"}`

// seize removes a block of a node, which is not asked.
func (s *stage) seize(t *testing.T, name string) {
	t.Helper()
	blocks := s.resource("addressblocks")
	if _, err := blocks.Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"fairway.network/force-delete":"yes"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := blocks.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// confirmed waits until the agent says that it has acted on all orders, and will
// remember it.
func (n *node) confirmed(t *testing.T) {
	t.Helper()
	await(t, "the agent of "+n.name+" has acted on its orders", func() bool {
		uid, generation, observed := n.speaker(t, n.name)
		kept, err := os.ReadFile(filepath.Join(n.dir, "pools.json"))
		return err == nil && observed == generation && strings.Contains(string(kept), fmt.Sprintf("%s/%d", uid, generation))
	})
}

// told waits for an event on a pod.
func (s *stage) told(t *testing.T, p *core.Pod, reason string, words ...string) {
	t.Helper()
	var last string
	await(t, "pod "+p.Name+" is told "+reason, func() bool {
		list, err := s.admin.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(p.UID)})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Items {
			if e.Reason == reason {
				last = e.Message
			}
		}
		return last != ""
	})
	for _, w := range words {
		if !strings.Contains(last, w) {
			t.Errorf("pod %s is told %q, without %q", p.Name, last, w)
		}
	}
}

// A fence that has come and gone, and a block with it, while the agent was down: it
// leases nothing of that block any more, however soon it is asked.
func (s *stage) fencedMeanwhile(t *testing.T) {
	s.pool(t, "meanwhile", 4, "addresses: [10.20.0.0/28]")
	n := s.node(t, "k1")
	n.knows(t, "meanwhile")
	one := s.pod(t, n.name, "meanwhile-1", inPool("meanwhile"))
	lost := n.add(t, one)
	if err := s.Apply(t.Context(), "apiVersion: fairway.network/v1alpha1\nkind: NodeSpeaker\nmetadata: {name: k1}"); err != nil {
		t.Fatal(err)
	}
	n.confirmed(t)
	_, before, _ := n.speaker(t, n.name)
	block := blockName(t, n)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	s.fence(t, n.name, aFence)
	s.seize(t, block)
	other := s.node(t, "k2")
	other.knows(t, "meanwhile")
	annotations := inPool("meanwhile")
	annotations["fairway.network/addresses"] = lost.String()
	other.add(t, s.pod(t, other.name, "meanwhile-other", annotations))
	s.fence(t, n.name, "null")
	if _, generation, observed := n.speaker(t, n.name); generation != before+2 || observed != before {
		t.Fatalf("while the agent is down it is at generation %d, of which %d are confirmed; before %d", generation, observed, before)
	}
	n.start(t)
	two := s.pod(t, n.name, "meanwhile-2", inPool("meanwhile"))
	got := n.add(t, two)
	if around := netip.PrefixFrom(lost, 30).Masked(); around.Contains(got) {
		t.Errorf("a new pod got %s of %s, which is not this node's any more", got, around)
	}
	n.confirmed(t)
	s.told(t, one, "AddressLost", lost.String(), `pool "meanwhile"`, "delete this one")
}

// A node that is back leases nothing until its fence is off. It takes its blocks anew
// before it confirms the lifting, so that nobody's write from before counts.
func (s *stage) fenceLifted(t *testing.T) {
	s.pool(t, "lifted", 4, "addresses: [10.22.0.0/28]")
	n := s.node(t, "m1")
	n.knows(t, "lifted")
	address := n.add(t, s.pod(t, n.name, "lifted-1", inPool("lifted")))
	second := s.pod(t, n.name, "lifted-2", inPool("lifted"))
	if err := s.Apply(t.Context(), "apiVersion: fairway.network/v1alpha1\nkind: NodeSpeaker\nmetadata: {name: m1}\nspec: {fence: "+aFence+"}"); err != nil {
		t.Fatal(err)
	}
	n.confirmed(t)
	if _, err := n.cni("ADD", second); err == nil || !strings.Contains(err.Error(), "counts as gone") {
		t.Errorf("a pod on a node that counts as gone: %v", err)
	}
	before, err := s.resource("addressblocks").Get(t.Context(), blockName(t, n), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.fence(t, n.name, `{"lifting":true}`)
	n.confirmed(t)
	unstructured.RemoveNestedField(before.Object, "spec", "nodeUID")
	if err := unstructured.SetNestedField(before.Object, "", "spec", "node"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.resource("addressblocks").Update(t.Context(), before, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("a late write that makes the block vacant: %v", err)
	}
	s.fence(t, n.name, "null")
	await(t, "the fence is off", func() bool { return n.cluster.State().Fence == "" })
	if other := n.add(t, second); other == address {
		t.Errorf("both pods have %s", other)
	}
	if blocks := n.status(t).Blocks; len(blocks) != 1 {
		t.Errorf("the node holds %+v", blocks)
	}
}

// An agent whose Node object is away goes on, also after a restart, and takes its
// blocks along when the object comes back as another one.
func (s *stage) nodeAway(t *testing.T) {
	s.pool(t, "absent", 2, "addresses: [10.21.0.0/28]")
	s.makeNode(t, "l1")
	n := s.nodeAs(t, "l1", s.Config()) // the node's own token ends with the node
	n.knows(t, "absent")
	first := s.pod(t, "l1", "absent-1", inPool("absent"))
	address := n.add(t, first)
	second, third := s.pod(t, "l1", "absent-2", inPool("absent")), s.pod(t, "l1", "absent-3", inPool("absent"))
	if err := s.admin.CoreV1().Nodes().Delete(t.Context(), "l1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.pod(t, "l1", "absent-4", nil) // when a pod comes the agent looks at the Node
	await(t, "the agent knows", func() bool { return n.cluster.State().Machine == "" })
	n.add(t, second)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	if again := n.add(t, first); again != address {
		t.Errorf("the pod has %s, after a restart of the agent %s", address, again)
	}
	n.add(t, third) // in a block of its own
	blocks := s.blocks(t, "absent")
	uid := s.makeNode(t, "l1")
	s.pod(t, "l1", "absent-5", nil)
	await(t, "all blocks have the name of the new machine", func() bool {
		for _, b := range blocks {
			name := strings.NewReplacer(".", "-", "/", "-").Replace(strings.Fields(b)[0])
			o, err := s.resource("addressblocks").Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if o.Object["spec"].(map[string]any)["nodeUID"] != string(uid) {
				return false
			}
		}
		return len(blocks) == 2
	})
	if again := n.add(t, first); again != address {
		t.Errorf("the pod has %s, on the new machine %s", address, again)
	}
}
