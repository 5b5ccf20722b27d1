package controller

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/integration/kube"
	store "github.com/fairway-network/fairway/pools/kube"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// One cluster for all: a start takes seconds. Each test has its own names and
// addresses.
func TestOnAnAPIServer(t *testing.T) {
	c := kube.Start(t, kube.Options{})
	if err := c.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, cluster: c}
	var err error
	if w.admin, err = kubernetes.NewForConfig(c.Config()); err != nil {
		t.Fatal(err)
	}
	if w.clients, err = newClients(c.Config(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if w.store, err = store.NewClient(c.Config(), store.Options{}); err != nil {
		t.Fatal(err)
	}
	// There always is some node: no node at all says nothing.
	w.node("steady")
	t.Run("leader election", func(t *testing.T) { w.in(t).election() })
	t.Run("a node that is absent", func(t *testing.T) { w.in(t).absence() })
	w.beforeItsTime()
	stop := w.start("the-controller", terms{60 * time.Second, 40 * time.Second, 200 * time.Millisecond})
	// It knows this one from a list, not from a change.
	w.awaitBlock("10.9.0.0/28", "gone", absent)
	t.Run("acceptance", func(t *testing.T) { w.in(t).acceptance() })
	t.Run("numbers", func(t *testing.T) { w.in(t).numbers() })
	t.Run("exhausted", func(t *testing.T) { w.in(t).exhausted() })
	t.Run("draining", func(t *testing.T) { w.in(t).draining() })
	t.Run("deleted", func(t *testing.T) { w.in(t).deleted() })
	t.Run("node gone", func(t *testing.T) { w.in(t).nodeGone() })
	t.Run("out of service", func(t *testing.T) { w.in(t).outOfService() })
	t.Run("fences", func(t *testing.T) { w.in(t).fences() })
	t.Run("forgotten", func(t *testing.T) { w.in(t).forgotten() })
	t.Run("newborn", func(t *testing.T) { w.in(t).newborn() })
	t.Run("lent out of a dead node's block", func(t *testing.T) { w.in(t).lentOutOfTheDead() })
	t.Run("request of a dead node", func(t *testing.T) { w.in(t).requestOfTheDead() })
	if err := stop(); err != nil {
		t.Error("the controller ended with", err)
	}
}

func (w *world) acceptance() {
	w.pool("first", "10.1.0.0/24")
	s := w.awaitState("first", v1alpha1.PoolIsActive)
	if s.BlockSize == nil || *s.BlockSize != 16 || s.Total != 255 || s.Free != 255 || len(s.Gateways) != 1 || s.Gateways[0] != "10.1.0.1/23" {
		w.Errorf("the accepted pool has the status %+v", s)
	}
	w.pool("second", "10.1.0.128/25", "10.1.1.0/24")
	s = w.awaitState("second", v1alpha1.PoolIsRefused)
	c := apimeta.FindStatusCondition(s.Conditions, v1alpha1.ConditionAccepted)
	if c.Reason != v1alpha1.ReasonOverlaps || !strings.Contains(c.Message, `pools "first" and "second" both have 10.1.0.128/25`) {
		w.Errorf("the refused pool says %+v", c)
	}
	// An older pool can't push a younger one out by growing. It goes on as it was.
	w.pool("third", "10.1.2.0/24")
	w.awaitState("third", v1alpha1.PoolIsActive)
	w.patch(v1alpha1.AddressPools, "first", `{"spec":{"addresses":["10.1.0.0/24","10.1.2.0/28"]}}`)
	s = w.awaitState("first", v1alpha1.PoolIsChangeRefused)
	c = apimeta.FindStatusCondition(s.Conditions, v1alpha1.ConditionAccepted)
	if !slices.Equal(s.Addresses, []string{"10.1.0.0/24"}) || s.Total != 255 || c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, "10.1.2.0/28") {
		w.Errorf("the pool whose change is refused has the status %+v", s)
	}
	if s := w.get("third").Status; s.State != v1alpha1.PoolIsActive {
		w.Errorf("the pool that was there before is %s", s.State)
	}
	// The change is taken back, and another one made.
	w.patch(v1alpha1.AddressPools, "first", `{"spec":{"addresses":["10.1.0.0/24"]}}`)
	w.awaitState("first", v1alpha1.PoolIsActive)
	w.patch(v1alpha1.AddressPools, "first", `{"spec":{"addresses":["10.1.0.0/24","10.1.3.0/24"]}}`)
	w.awaitPool("first", "larger", func(s v1alpha1.AddressPoolStatus) bool {
		return s.State == v1alpha1.PoolIsActive && slices.Equal(s.Addresses, []string{"10.1.0.0/24", "10.1.3.0/24"}) && s.Total == 511 && s.Gateways[0] == "10.1.0.1/21"
	})
	w.patch(v1alpha1.AddressPools, "third", `{"spec":{"podSelector":{"matchLabels":{"no key":"a"}}}}`)
	s = w.awaitState("third", v1alpha1.PoolIsRefused)
	if c := apimeta.FindStatusCondition(s.Conditions, v1alpha1.ConditionAccepted); c.Reason != v1alpha1.ReasonInvalid || !strings.Contains(c.Message, `spec.podSelector: key: Invalid value: "no key"`) {
		w.Errorf("a pool with a wrong selector says %+v", c)
	}
	// When the cause is gone, so is the refusal.
	w.removePool("third")
	w.removePool("first")
	w.awaitState("second", v1alpha1.PoolIsActive)
}

// A deleted pool is there until nothing of it is in use.
func (w *world) deleted() {
	w.pool("bye", "10.10.0.0/24")
	s := w.awaitState("bye", v1alpha1.PoolIsActive)
	n := w.node("bye-a")
	b := w.block("bye", n.Name, string(n.UID), "10.10.0.0/28", "")
	w.awaitPool("bye", "held", func(s v1alpha1.AddressPoolStatus) bool { return s.Blocks == 1 })
	w.patch(v1alpha1.AddressPools, "bye", `{"metadata":{"annotations":{"a":"b"},"finalizers":["fairway.network/pool-in-use","example.org/other"]}}`)
	w.removePool("bye")
	s = w.awaitPool("bye", "terminating", func(s v1alpha1.AddressPoolStatus) bool {
		return s.State == v1alpha1.PoolIsTerminating && s.Drain != nil && s.Drain.Blocks == 1
	})
	if !slices.Equal(s.Addresses, []string{"10.10.0.0/24"}) {
		w.Errorf("the deleted pool has the status %+v", s)
	}
	w.pool("heir", "10.10.0.0/24")
	w.awaitState("heir", v1alpha1.PoolIsRefused)
	w.remove(n.Name, b.Prefix)
	w.await("the finalizer to go", func() (bool, any) {
		o := w.get("bye")
		return slices.Equal(o.Finalizers, []string{"example.org/other"}) && o.Annotations["a"] == "b", o
	})
	w.patch(v1alpha1.AddressPools, "bye", `{"metadata":{"finalizers":[]}}`)
	w.awaitState("heir", v1alpha1.PoolIsActive)
}

func (w *world) numbers() {
	w.pool("app", "10.2.0.0/24")
	w.awaitState("app", v1alpha1.PoolIsActive)
	a, b := w.node("app-a"), w.node("app-b")
	// Two of a are adjacent; one of b lies in a's: a announces around it.
	w.block("app", a.Name, string(a.UID), "10.2.0.0/28", "")
	w.block("app", a.Name, string(a.UID), "10.2.0.16/28", "")
	w.block("app", b.Name, string(b.UID), "10.2.0.16/30", a.Name)
	w.onPod("app-1", false, "10.2.0.2")
	w.onPod("app-2", false, "10.2.0.17")
	w.onPod("app-host", true, "10.2.0.3")
	w.awaitPool("app", "counted", func(s v1alpha1.AddressPoolStatus) bool {
		return s.Total == 255 && s.Used == 2 && s.Free == 253 && s.Blocks == 3 && s.Nodes == 2 && s.Routes == 4
	})
	out, err := w.cluster.Kubectl(w.Context(), "get", "addresspools", "app")
	if err != nil {
		w.Fatal(err)
	}
	lines := strings.Split(out, "\n")
	if head := strings.Join(strings.Fields(lines[0]), " "); !strings.HasPrefix(head, "NAME TOTAL USED FREE BLOCKS ROUTES STATE") {
		w.Errorf("kubectl shows the columns %s", head)
	}
	if row := strings.Join(strings.Fields(lines[1]), " "); !strings.HasPrefix(row, "app 255 2 253 3 4 Active") {
		w.Errorf("kubectl shows %s", row)
	}
	w.endPod("app-2")
	w.awaitPool("app", "counted again", func(s v1alpha1.AddressPoolStatus) bool { return s.Used == 1 })
}

func (w *world) exhausted() {
	w.pool("tiny", "10.3.0.2/31")
	w.awaitState("tiny", v1alpha1.PoolIsActive)
	gateway := strings.Split(string(w.get("tiny").Status.Gateways[0]), "/")[0]
	addr := map[string]string{"10.3.0.2": "10.3.0.3", "10.3.0.3": "10.3.0.2"}[gateway]
	w.onPod("tiny-1", false, addr)
	s := w.awaitState("tiny", v1alpha1.PoolIsExhausted)
	if c := apimeta.FindStatusCondition(s.Conditions, v1alpha1.ConditionExhausted); c.Status != metav1.ConditionTrue || c.Reason != v1alpha1.ReasonNoFreeAddress {
		w.Errorf("the exhausted pool says %+v", c)
	}
	w.endPod("tiny-1")
	w.awaitState("tiny", v1alpha1.PoolIsActive)
}

func (w *world) draining() {
	w.pool("old", "10.4.0.0/24")
	w.awaitState("old", v1alpha1.PoolIsActive)
	n := w.node("old-a")
	b := w.block("old", n.Name, string(n.UID), "10.4.0.0/28", "")
	w.onPod("old-1", false, "10.4.0.2")
	w.patch(v1alpha1.AddressPools, "old", `{"spec":{"state":"Draining"}}`)
	s := w.awaitPool("old", "draining one lease", func(s v1alpha1.AddressPoolStatus) bool {
		return s.State == v1alpha1.PoolIsDraining && s.Drain != nil && s.Drain.Leases == 1 && s.Drain.Blocks == 1 && s.Drain.Nodes == 1
	})
	if c := apimeta.FindStatusCondition(s.Conditions, v1alpha1.ConditionDrained); c == nil || c.Status != metav1.ConditionFalse {
		w.Errorf("the draining pool says %+v", c)
	}
	w.endPod("old-1")
	w.awaitPool("old", "draining one block", func(s v1alpha1.AddressPoolStatus) bool {
		return s.Drain != nil && s.Drain.Leases == 0 && s.Drain.Blocks == 1
	})
	if err := w.store.Store(n.Name).Delete(w.Context(), b); err == nil {
		w.Error("somebody else than its node deletes a block")
	}
	w.remove(n.Name, b.Prefix)
	w.awaitState("old", v1alpha1.PoolIsDrained)
	w.patch(v1alpha1.AddressPools, "old", `{"spec":{"state":"Active"}}`)
	if s := w.awaitState("old", v1alpha1.PoolIsActive); s.Drain != nil || apimeta.FindStatusCondition(s.Conditions, v1alpha1.ConditionDrained) != nil {
		w.Errorf("taken back into use, it has the status %+v", s)
	}
}
