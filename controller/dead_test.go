package controller

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	store "github.com/fairway-network/fairway/pools/kube"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (w *world) nodeGone() {
	w.pool("web", "10.5.0.0/24")
	w.awaitState("web", v1alpha1.PoolIsActive)
	dead, alive := w.node("web-dead"), w.node("web-alive")
	for i := range 4 {
		w.block("web", dead.Name, string(dead.UID), fmt.Sprintf("10.5.0.%d/28", 16*i), "")
	}
	w.block("web", alive.Name, string(alive.UID), "10.5.0.128/28", "")
	w.request("web", dead.Name)
	w.awaitPool("web", "held", func(s v1alpha1.AddressPoolStatus) bool { return s.Blocks == 5 })
	w.removeNode(dead.Name)
	for i := range 4 {
		w.awaitBlock(fmt.Sprintf("10.5.0.%d/28", 16*i), "gone", absent)
	}
	w.stays("10.5.0.128/28")
	w.awaitPool("web", "counted", func(s v1alpha1.AddressPoolStatus) bool { return s.Blocks == 1 && s.Nodes == 1 })
}

func (w *world) outOfService() {
	n := w.node("broken")
	w.pool("oos", "10.6.0.0/24")
	w.block("oos", n.Name, string(n.UID), "10.6.0.0/28", "")
	w.speaker(n.Name)
	w.stays("10.6.0.0/28")
	n.Spec.Taints = []core.Taint{{Key: core.TaintNodeOutOfService, Value: "nodeshutdown", Effect: core.TaintEffectNoExecute}}
	n, err := w.admin.CoreV1().Nodes().Update(w.Context(), n, metav1.UpdateOptions{})
	if err != nil {
		w.Fatal(err)
	}
	w.awaitBlock("10.6.0.0/28", "gone", absent)
	var s v1alpha1.NodeSpeaker
	if err := w.clients.own.Get().Resource(v1alpha1.NodeSpeakers).Name(n.Name).Do(w.Context()).Into(&s); err != nil {
		w.Fatal(err)
	}
	if f := s.Spec.Fence; f == nil || f.NodeUID != n.UID || !strings.Contains(f.Reason, "out-of-service") {
		w.Errorf("the fence is %+v", f)
	}
	w.removeNode(n.Name)
}

// forgotten: the NodeSpeaker of a node goes when nothing of the node is left, and
// not while somebody may need it.
func (w *world) forgotten() {
	there, vanished, fenced := w.node("forget-there"), w.node("forget-vanished"), w.node("forget-fenced")
	for _, n := range []*core.Node{there, vanished, fenced} {
		w.speaker(n.Name)
	}
	w.patch(v1alpha1.NodeSpeakers, fenced.Name, fmt.Sprintf(`{"spec":{"fence":{"nodeUID":%q,"since":%q,"reason":"a test"}}}`,
		fenced.UID, time.Now().UTC().Format(time.RFC3339)))
	for _, n := range []*core.Node{vanished, fenced} {
		w.removeNode(n.Name)
	}
	w.awaitSpeaker(vanished.Name, false)
	// As long again: whoever is to stay has been looked at several times.
	w.speaker(vanished.Name)
	w.awaitSpeaker(vanished.Name, false)
	for _, n := range []*core.Node{there, fenced} {
		w.awaitSpeaker(n.Name, true)
	}
	// A fence that nobody has asked for in a day is of no use.
	w.patch(v1alpha1.NodeSpeakers, fenced.Name, fmt.Sprintf(`{"spec":{"fence":{"since":%q}}}`,
		time.Now().Add(-store.FenceKept).UTC().Format(time.RFC3339)))
	w.awaitSpeaker(fenced.Name, false)
}

// A node that is born again has another UID, and its earlier blocks stay for it
// to take over; a node that is younger than all that was seen stays, too.
func (w *world) newborn() {
	w.pool("birth", "10.7.0.0/24")
	for i := range 10 {
		name := fmt.Sprint("newborn-", i)
		n := w.node(name)
		w.block("birth", name, string(n.UID), fmt.Sprintf("10.7.0.%d/28", 16*i), "")
	}
	w.removeNode("newborn-0")
	again := w.node("newborn-0")
	w.stays("10.7.0.16/28")
	for i := 1; i < 10; i++ {
		if _, err := w.store.Store("").Block(w.Context(), netip.MustParsePrefix(fmt.Sprintf("10.7.0.%d/28", 16*i))); err != nil {
			w.Errorf("the block of a newborn: %v", err)
		}
	}
	// What the watch shows of the node in between depends on the moment. Taken
	// over or freed, nobody else has it.
	b, err := w.store.Store("").Block(w.Context(), netip.MustParsePrefix("10.7.0.0/28"))
	if err == nil && b.Node != "newborn-0" && b.Node != "" {
		w.Errorf("the block of the node that is born again as %s is %+v", again.UID, b)
	}
}

func (w *world) lentOutOfTheDead() {
	w.pool("loan", "10.8.0.0/24")
	lender, asker := w.node("lender"), w.node("asker")
	w.block("loan", lender.Name, string(lender.UID), "10.8.0.0/28", "")
	inner := w.block("loan", asker.Name, string(asker.UID), "10.8.0.4/30", lender.Name)
	w.removeNode(lender.Name)
	w.awaitBlock("10.8.0.0/28", "vacant", vacant)
	w.decoys("loan")
	w.awaitBlock("10.8.0.0/28", "vacant as long as a block lies in it", vacant)
	w.remove(asker.Name, inner.Prefix)
	w.awaitBlock("10.8.0.0/28", "gone", absent)
}

// requestOfTheDead looks after the request that nodeGone has made.
func (w *world) requestOfTheDead() {
	w.await("the dead node's request to be gone", func() (bool, any) {
		all, err := w.store.Store("").Requests(w.Context())
		return err == nil && len(all) == 0, all
	})
}

// beforeItsTime leaves a block of a node that is gone when no controller runs.
func (w *world) beforeItsTime() {
	n := w.node("long-gone")
	w.block("long-gone", n.Name, string(n.UID), "10.9.0.0/28", "")
	w.removeNode(n.Name)
}
