package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	store "github.com/fairway-network/fairway/pools/kube"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const namespace = "fairway-system"

// absenceTime is after which a node is gone: nobody waits for half a minute.
const absenceTime = 300 * time.Millisecond

// world is a real API server with Fairway's manifests.
type world struct {
	*testing.T
	cluster *kube.Cluster
	admin   kubernetes.Interface
	clients *clients // the administrator's
	store   *store.Client
}

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

func (w *world) in(t *testing.T) *world {
	inner := *w
	inner.T = t
	return &inner
}

// asController is who the controller is in a cluster: it has no other rights.
func (w *world) asController() *rest.Config {
	return w.cluster.As("system:serviceaccount:"+namespace+":fairway-controller",
		"system:serviceaccounts", "system:serviceaccounts:"+namespace, "system:authenticated")
}

// start runs a controller until the function that it returns is called.
func (w *world) start(name string, t terms) (stop func() error) {
	w.Helper()
	return w.startPatient(name, t, absenceTime)
}

// startPatient is start with a time after which a node is gone.
func (w *world) startPatient(name string, t terms, absence time.Duration) (stop func() error) {
	w.Helper()
	c, err := New(Options{
		Config: w.asController(), Elect: true, Namespace: namespace, Identity: name,
		Log: slog.New(slog.NewTextHandler(w.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("who", name),
	})
	if err != nil {
		w.Fatal(err)
	}
	c.terms = t
	c.every, c.linger = 500*time.Millisecond, time.Second
	c.absence = absence
	c.forget = 100 * time.Millisecond
	return run(w.T, c.Run)
}

// run runs a function until the one that it returns is called, at the end of
// the test at the latest.
func run(t *testing.T, f func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	result := make(chan error, 1)
	go func() { result <- f(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-result
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// await waits for a condition; last says what is instead.
func (w *world) await(what string, done func() (ok bool, last any)) {
	w.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for {
		ok, last := done()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("waited in vain for %s; it is %v", what, last)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *world) node(name string) *core.Node {
	w.Helper()
	o, err := w.admin.CoreV1().Nodes().Create(w.Context(), &core.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return o
}

func (w *world) removeNode(name string) {
	w.Helper()
	if err := w.admin.CoreV1().Nodes().Delete(w.Context(), name, metav1.DeleteOptions{}); err != nil {
		w.Fatal(err)
	}
}

// pool makes a pool with blocks of 16 addresses.
func (w *world) pool(name string, addresses ...v1alpha1.AddressRange) {
	w.Helper()
	o := aPool(name, 0, addresses...)
	o.ObjectMeta = metav1.ObjectMeta{Name: name}
	if err := w.clients.own.Post().Resource(v1alpha1.AddressPools).Body(o).Do(w.Context()).Error(); err != nil {
		w.Fatal(err)
	}
}

func (w *world) get(pool string) *v1alpha1.AddressPool {
	w.Helper()
	o, err := w.clients.custodian.Pool(w.Context(), pool)
	if err != nil {
		w.Fatal(err)
	}
	return o
}

func (w *world) patch(resource, name, patch string) {
	w.Helper()
	err := w.clients.own.Patch(types.MergePatchType).Resource(resource).Name(name).Body([]byte(patch)).Do(w.Context()).Error()
	if err != nil {
		w.Fatal(err)
	}
}

// awaitPool waits until the status of a pool is as it should be.
func (w *world) awaitPool(pool, what string, is func(v1alpha1.AddressPoolStatus) bool) v1alpha1.AddressPoolStatus {
	w.Helper()
	var s v1alpha1.AddressPoolStatus
	w.await("pool "+pool+" to be "+what, func() (bool, any) {
		s = w.get(pool).Status
		return is(s), fmt.Sprintf("%+v", s)
	})
	return s
}

func (w *world) awaitState(pool, state string) v1alpha1.AddressPoolStatus {
	w.Helper()
	return w.awaitPool(pool, state, func(s v1alpha1.AddressPoolStatus) bool { return s.State == state })
}

// block makes a block in a node's name.
func (w *world) block(pool, node, machine, prefix, lender string) exchange.Stored {
	w.Helper()
	b, err := w.store.Store(node).Create(w.Context(), pools.Block{
		Prefix: netip.MustParsePrefix(prefix), Pool: pool, Node: node, Machine: machine, Lender: lender,
	})
	if err != nil {
		w.Fatal(err)
	}
	return b
}

// awaitBlock waits until a block is as it should be; absent: nil.
func (w *world) awaitBlock(prefix, what string, is func(*exchange.Stored) bool) {
	w.Helper()
	w.await("block "+prefix+" to be "+what, func() (bool, any) {
		b, err := w.store.Store("").Block(w.Context(), netip.MustParsePrefix(prefix))
		if errors.Is(err, exchange.ErrGone) {
			return is(nil), "gone"
		}
		if err != nil {
			return false, err
		}
		return is(&b), b
	})
}

func absent(b *exchange.Stored) bool { return b == nil }
func vacant(b *exchange.Stored) bool { return b != nil && b.Node == "" }

// stays looks at a block for as long as the controller would need several times
// to free one, which it shows by freeing another one.
func (w *world) stays(prefix string) {
	w.Helper()
	w.decoys(prefix)
	if _, err := w.store.Store("").Block(w.Context(), netip.MustParsePrefix(prefix)); err != nil {
		w.Errorf("block %s should have stayed: %v", prefix, err)
	}
}

// decoys has the controller free a block three times over.
func (w *world) decoys(tag string) {
	w.Helper()
	const decoy = "10.99.0.0/28"
	for i := range 3 {
		name := fmt.Sprintf("decoy-%d-%s", i, strings.NewReplacer(".", "-", "/", "-", ":", "-").Replace(tag))
		o := w.node(name)
		w.block("decoys", name, string(o.UID), decoy, "")
		w.removeNode(name)
		w.awaitBlock(decoy, "gone", absent)
	}
}

// onPod makes a pod that has these addresses.
func (w *world) onPod(name string, hostNetwork bool, addrs ...string) *core.Pod {
	w.Helper()
	api := w.admin.CoreV1().Pods("default")
	o, err := api.Create(w.Context(), &core.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       core.PodSpec{NodeName: "steady", HostNetwork: hostNetwork, Containers: []core.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		w.Fatal(err)
	}
	o.Status.Phase = core.PodRunning
	for _, a := range addrs {
		o.Status.PodIPs = append(o.Status.PodIPs, core.PodIP{IP: a})
	}
	o.Status.PodIP = addrs[0]
	if o, err = api.UpdateStatus(w.Context(), o, metav1.UpdateOptions{}); err != nil {
		w.Fatal(err)
	}
	return o
}

func (w *world) endPod(name string) {
	w.Helper()
	now := int64(0)
	err := w.admin.CoreV1().Pods("default").Delete(w.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if err != nil && !apierrors.IsNotFound(err) {
		w.Fatal(err)
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

func (w *world) removePool(name string) {
	w.Helper()
	if err := w.clients.own.Delete().Resource(v1alpha1.AddressPools).Name(name).Do(w.Context()).Error(); err != nil {
		w.Fatal(err)
	}
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

func (w *world) request(pool, node string) {
	w.Helper()
	_, err := w.store.Store(node).Ask(w.Context(), exchange.Request{
		Name: exchange.RequestName(node, exchange.Lack{Pool: pool, Family: pools.IPv4}), Node: node, Pool: pool, Family: pools.IPv4, Count: 1,
	})
	if err != nil {
		w.Fatal(err)
	}
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

// awaitSpeaker waits until a NodeSpeaker is there, or until it is not.
func (w *world) awaitSpeaker(node string, there bool) {
	w.Helper()
	w.await(fmt.Sprintf("NodeSpeaker %s to be there: %v", node, there), func() (bool, any) {
		err := w.clients.own.Get().Resource(v1alpha1.NodeSpeakers).Name(node).Do(w.Context()).Error()
		return there && err == nil || !there && apierrors.IsNotFound(err), err
	})
}

func (w *world) speaker(node string) {
	w.Helper()
	o := &v1alpha1.NodeSpeaker{ObjectMeta: metav1.ObjectMeta{Name: node}}
	if err := w.clients.own.Post().Resource(v1alpha1.NodeSpeakers).Body(o).Do(w.Context()).Error(); err != nil {
		w.Fatal(err)
	}
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

// remove removes a block of a node, which is not asked.
func (w *world) remove(node string, block netip.Prefix) {
	w.Helper()
	w.patch(v1alpha1.AddressBlocks, v1alpha1.BlockName(block), `{"metadata":{"annotations":{"fairway.network/force-delete":"yes"}}}`)
	b, err := w.store.Store(node).Block(w.Context(), block)
	if err != nil {
		w.Fatal(err)
	}
	if err := w.store.Store(node).Delete(w.Context(), b); err != nil {
		w.Fatal(err)
	}
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

func (w *world) election() {
	short := terms{6 * time.Second, 4 * time.Second, 200 * time.Millisecond}
	stopA := w.start("a", short)
	w.awaitLeader("a")
	w.pool("decoys", "10.99.0.0/24")
	w.awaitState("decoys", v1alpha1.PoolIsActive)
	stopB := w.start("b", short)
	w.decoys("a")
	// The leader ends in order: the other one leads at once.
	if err := stopA(); err != nil {
		w.Errorf("a ends with %v", err)
	}
	w.awaitLeader("b")
	w.decoys("b")
	// The leader can't renew its Lease: it ends, and says so.
	stopC := w.start("c", short)
	w.await("the Lease to be stolen", func() (bool, any) {
		leases := w.admin.CoordinationV1().Leases(namespace)
		lease, err := leases.Get(w.Context(), LeaseName, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		thief := "a thief"
		lease.Spec.HolderIdentity = &thief
		_, err = leases.Update(w.Context(), lease, metav1.UpdateOptions{})
		return err == nil, err
	})
	w.awaitLeader("c")
	if err := stopB(); !errors.Is(err, ErrLeadershipLost) {
		w.Errorf("b ends with %v, want %v", err, ErrLeadershipLost)
	}
	w.decoys("c")
	if err := stopC(); err != nil {
		w.Errorf("c ends with %v", err)
	}
}

func (w *world) awaitLeader(name string) {
	w.Helper()
	w.await(name+" to lead", func() (bool, any) {
		lease, err := w.admin.CoordinationV1().Leases(namespace).Get(w.Context(), LeaseName, metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil {
			return false, err
		}
		return *lease.Spec.HolderIdentity == name, *lease.Spec.HolderIdentity
	})
}
