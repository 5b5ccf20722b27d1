package controller

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// taint puts a node out of service, or back into it.
func (w *world) taint(node string, out bool) {
	w.Helper()
	taints := "null"
	if out {
		taints = fmt.Sprintf(`[{"key":%q,"value":"nodeshutdown","effect":"NoExecute"}]`, core.TaintNodeOutOfService)
	}
	patch := fmt.Appendf(nil, `{"spec":{"taints":%s}}`, taints)
	if _, err := w.admin.CoreV1().Nodes().Patch(w.Context(), node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		w.Fatal(err)
	}
}

// frees has the controller free a block of a node that is put out of service.
func (w *world) frees(name, prefix string) {
	w.Helper()
	n := w.node(name)
	w.block("decoys", name, string(n.UID), prefix, "")
	w.taint(name, true)
	w.awaitBlock(prefix, "gone", absent)
}

// absence is with a controller for which a node is absent for an hour before it is
// gone: what is out of service is freed at once, and what is absent is not, nor what
// comes back as another Node.
func (w *world) absence() {
	const block = "10.30.0.0/28"
	n := w.node("absent")
	w.block("decoys", n.Name, string(n.UID), block, "")
	stop := w.startPatient("patient", terms{60 * time.Second, 40 * time.Second, 200 * time.Millisecond}, time.Hour)
	w.frees("absent-decoy-0", "10.30.1.0/28") // it leads
	w.removeNode(n.Name)
	w.frees("absent-decoy-1", "10.30.1.0/28")
	again := w.node(n.Name)
	w.frees("absent-decoy-2", "10.30.1.0/28")
	b, err := w.store.Store("").Block(w.Context(), netip.MustParsePrefix(block))
	if err != nil || b.Node != n.Name || b.Machine != string(n.UID) {
		w.Errorf("the block of a Node that was made anew as %s is %+v, %v", again.UID, b, err)
	}
	if err := stop(); err != nil {
		w.Error("the controller ended with", err)
	}
}

// fences stay until the node is back and its agent has acted on their lifting.
func (w *world) fences() {
	const node = "fenced"
	w.speaker(node)
	w.frees(node, "10.11.0.0/28")
	fenced := w.nodeSpeaker(node)
	if fenced.Spec.Fence == nil {
		w.Fatalf("a node that is out of service has the NodeSpeaker %+v", fenced)
	}
	w.taint(node, false)
	w.await("the fence is to be lifted", func() (bool, any) {
		f := w.nodeSpeaker(node).Spec.Fence
		if f == nil {
			w.Fatal("the fence is off, and no agent has heard of its lifting")
		}
		return f.Lifting, f
	})
	status := fmt.Appendf(nil, `{"status":{"peerCount":0,"establishedCount":0,"blocks":0,"routes":0,"observedGeneration":%d}}`, w.nodeSpeaker(node).Generation)
	r := w.clients.own.Patch(types.MergePatchType).Resource(v1alpha1.NodeSpeakers).Name(node).SubResource("status").Body(status)
	if err := r.Do(w.Context()).Error(); err != nil {
		w.Fatal(err)
	}
	w.await("the fence is off", func() (bool, any) {
		f := w.nodeSpeaker(node).Spec.Fence
		return f == nil, f
	})
	w.removeNode(node)
}

func (w *world) nodeSpeaker(node string) (s v1alpha1.NodeSpeaker) {
	w.Helper()
	if err := w.clients.own.Get().Resource(v1alpha1.NodeSpeakers).Name(node).Do(w.Context()).Into(&s); err != nil {
		w.Fatal(err)
	}
	return s
}
