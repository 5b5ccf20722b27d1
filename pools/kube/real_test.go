package kube

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/exchange"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// await waits for done, which is asked again after a moment.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// refusals are errors that mean no more than that nothing was changed, in the
// API server's words.
func (c real) refusals(t *testing.T) {
	c.empty(t)
	ctx := t.Context()
	bad := webBlock("n1", "10.1.0.0/26")
	bad.Pool = ""
	_, err := c.admin.Store("n1").Create(ctx, bad)
	wantMeaning(t, "a block that is invalid", err, nil)
	if err != nil && !strings.Contains(err.Error(), "spec.pool") {
		t.Errorf("the error does not say what is wrong: %v", err)
	}
	nobody := client(t, c.As("nobody"))
	for name, call := range writes(nobody.Store("n1")) {
		err := call(ctx)
		wantMeaning(t, name+" without a right", err, nil)
		if err != nil && !strings.Contains(err.Error(), `User "nobody" cannot`) {
			t.Errorf("the error does not say why: %v", err)
		}
	}
	q, err := c.Node("n1").Ask(ctx, webRequest("n1"))
	if err != nil {
		t.Fatal(err)
	}
	q.Grants = []exchange.Grant{{Lender: "n2", Prefix: bad.Prefix, Outer: bad.Prefix, OuterUID: "u"}}
	if q, err = c.Node("n2").Grant(ctx, q); err != nil {
		t.Fatal(err)
	}
	q.Grants[0].Lender = "n3"
	_, err = c.Node("n3").Grant(ctx, q)
	wantMeaning(t, "another answer at the right version", err, nil)
}

// finalizers keep an object that was deleted: it may go any time.
func (c real) finalizers(t *testing.T) {
	c.empty(t)
	s := c.admin.Store("n1")
	b, err := s.Create(t.Context(), webBlock("n1", "10.1.0.0/26"))
	if err != nil {
		t.Fatal(err)
	}
	patch := func(finalizers string) {
		t.Helper()
		err := c.admin.own.Patch(types.MergePatchType).Resource(v1alpha1.AddressBlocks).Name(v1alpha1.BlockName(b.Prefix)).
			Body([]byte(`{"metadata":{"finalizers":` + finalizers + `}}`)).Do(t.Context()).Error()
		if err != nil {
			t.Fatal(err)
		}
	}
	patch(`["example.com/keep"]`)
	if b, err = s.Block(t.Context(), b.Prefix); err != nil {
		t.Fatal(err)
	}
	err = s.Delete(t.Context(), b)
	wantMeaning(t, "removing a block with finalizers", err, exchange.ErrUnknown)
	if err != nil && !strings.Contains(err.Error(), "example.com/keep") {
		t.Errorf("the error does not name the finalizer: %v", err)
	}
	if still, err := s.Block(t.Context(), b.Prefix); err != nil || still.UID != b.UID {
		t.Errorf("it is %+v, %v", still, err)
	}
	patch(`[]`)
	_, err = s.Block(t.Context(), b.Prefix)
	wantMeaning(t, "without the finalizers", err, exchange.ErrGone)
}

// away is last: it stops the API server and starts it again.
func (c real) away(t *testing.T) {
	c.empty(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sights := make(chan []exchange.Request)
	go func() {
		_ = c.admin.Store("n9").Watch(ctx, nil, func(all []exchange.Request) {
			select {
			case sights <- slices.Clone(all):
			case <-ctx.Done():
			}
		})
	}()
	seen := func(want ...exchange.Request) {
		t.Helper()
		for deadline := time.After(patience); ; {
			select {
			case all := <-sights:
				if slices.EqualFunc(all, want, exchange.Request.Equal) {
					return
				}
				if len(want) > 0 && len(all) == 0 {
					t.Fatal("the watch shows nothing, though nothing was removed")
				}
			case <-deadline:
				t.Fatalf("waited in vain to see %+v", want)
			}
		}
	}
	seen()
	one, err := c.Node("n1").Ask(ctx, webRequest("n1"))
	if err != nil {
		t.Fatal(err)
	}
	seen(one)
	c.halted(t)
	c.stopped(t)
	two, err := c.Node("n2").Ask(ctx, webRequest("n2"))
	if err != nil {
		t.Fatal(err)
	}
	want := []exchange.Request{one, two}
	slices.SortFunc(want, func(a, b exchange.Request) int { return strings.Compare(a.Name, b.Name) })
	seen(want...)
}

// halted has the API server not answer. What becomes of the write shows when it
// does again.
func (c real) halted(t *testing.T) {
	s := c.admin.Store("n1")
	if _, err := s.List(t.Context(), "web"); err != nil { // there is a connection
		t.Fatal(err)
	}
	if err := c.PauseAPIServer(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := s.Create(ctx, webBlock("n1", "10.1.0.0/26"))
	if err := c.ResumeAPIServer(); err != nil {
		t.Fatal(err)
	}
	wantMeaning(t, "a create that is not answered", err, exchange.ErrUnknown)
	await(t, "a create that counts, or finds that the first one did", func() bool {
		_, err := s.Create(t.Context(), webBlock("n1", "10.1.0.0/26"))
		return err == nil || errors.Is(err, exchange.ErrExists)
	})
}

// stopped has nobody answer: that is definite.
func (c real) stopped(t *testing.T) {
	if err := c.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	for name, call := range writes(client(t, c.Config()).Store("n1")) {
		wantMeaning(t, name+" with no API server", call(t.Context()), nil)
	}
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	// It is ready before it knows all kinds.
	await(t, "the API server to know our kinds again", func() bool {
		_, err := c.admin.Store("n1").List(t.Context(), "web")
		return err == nil
	})
}

// watcher has a node see its own pods, and what concerns all.
func (c real) watcher(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	admin, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	node := &core.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"rack": "7"}}}
	if node, err = admin.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	space := &core.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "shop", Labels: map[string]string{"team": "red"}, Annotations: map[string]string{"fairway.network/pool": "web", "note": "x"},
	}}
	if _, err := admin.CoreV1().Namespaces().Create(ctx, space, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	counting, n := counted(t, c.Config())
	w := counting.Watcher("n1")
	pools, nodes, ended := make(chan int, 100), make(chan Node, 100), make(chan error, 1)
	go func() {
		ended <- w.Run(ctx, Sight{
			Pools: func(p []v1alpha1.AddressPool) { pools <- len(p) },
			Node:  func(n Node) { nodes <- n },
		})
	}()
	select {
	case <-w.Ready():
	case <-time.After(patience):
		t.Fatal("the watcher does not get ready")
	}
	if <-pools != 0 || (<-nodes).UID != string(node.UID) || w.Speaker() != nil || w.Node().Labels["rack"] != "7" {
		t.Errorf("first seen: node %+v, speaker %v", w.Node(), w.Speaker())
	}
	n.take()
	c.seesPods(t, admin, w, n)
	c.seesNamespaces(t, admin, w, n)
	c.seesNode(t, admin, w)
	c.seesPools(t, w)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
}

// pod makes one on a node.
func pod(t *testing.T, admin kubernetes.Interface, node, name string) *core.Pod {
	t.Helper()
	p := &core.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{"app": "web"},
			Annotations: map[string]string{"fairway.network/pool": "web", "example.com/blob": strings.Repeat("x", 1000)},
		},
		Spec: core.PodSpec{NodeName: node, Containers: []core.Container{{Name: "c", Image: "i"}}},
	}
	made, err := admin.CoreV1().Pods("shop").Create(t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (c real) seesPods(t *testing.T, admin kubernetes.Interface, w *Watcher, n *counter) {
	ctx := t.Context()
	mine, other := pod(t, admin, "n1", "mine"), pod(t, admin, "n2", "other")
	await(t, "the pod", func() bool { return len(w.Pods()) == 1 })
	got, err := w.Pod(ctx, "shop", "mine", string(mine.UID))
	if err != nil || got.Name != "mine" || got.Namespace != "shop" || got.Labels["app"] != "web" || len(got.Annotations) != 1 ||
		got.Annotations["fairway.network/pool"] != "web" || !got.Deleted.IsZero() {
		t.Errorf("seen: %+v, %v", got, err)
	}
	if made := about(n.take(), "/pods"); len(made) != 0 {
		t.Errorf("a pod that is known costs %v", made)
	}
	// One that the watch does not show (yet) is read.
	if got, err := w.Pod(ctx, "shop", "other", string(other.UID)); err != nil || got.UID != string(other.UID) || got.Annotations["fairway.network/pool"] != "web" {
		t.Errorf("read: %+v, %v", got, err)
	}
	if _, err := w.Pod(ctx, "shop", "other", "another"); !errors.Is(err, ErrOtherPod) {
		t.Errorf("another pod of that name: %v", err)
	}
	if _, err := w.Pod(ctx, "shop", "mine", "another"); !errors.Is(err, ErrOtherPod) {
		t.Errorf("another pod of a name that is known: %v", err)
	}
	if _, err := w.Pod(ctx, "shop", "none", "x"); !errors.Is(err, ErrNoPod) {
		t.Errorf("no pod: %v", err)
	}
	if made := about(n.take(), "/pods"); len(made) != 4 {
		t.Errorf("four pods that are not known cost %v", made)
	}
	now := int64(0)
	if err := admin.CoreV1().Pods("shop").Delete(ctx, "mine", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	await(t, "the pod to go", func() bool { return len(w.Pods()) == 0 })
}

// about are the calls of a path with what in it.
func about(calls []string, what string) (out []string) {
	for _, call := range calls {
		if strings.Contains(call, what) {
			out = append(out, call)
		}
	}
	return out
}

// A pod that comes finds what its namespace said when it was made, and once that
// was read nobody asks again.
func (c real) seesNamespaces(t *testing.T, admin kubernetes.Interface, w *Watcher, n *counter) {
	ctx := t.Context()
	for _, pool := range []string{"web", "db"} {
		_, err := admin.CoreV1().Namespaces().Patch(ctx, "shop", types.MergePatchType, []byte(`{"metadata":{"annotations":{"fairway.network/pool":"`+pool+`"}}}`), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		pod(t, admin, "n1", "for-"+pool)
		await(t, "the pod", func() bool {
			return slices.ContainsFunc(w.Pods(), func(p Pod) bool { return p.Name == "for-"+pool })
		})
		ns, node, err := w.Around(ctx, "shop")
		if err != nil || ns.Labels["team"] != "red" || len(ns.Annotations) != 1 || ns.Annotations["fairway.network/pool"] != pool || node.Name != "n1" {
			t.Errorf("around: %+v, %+v, %v", ns, node, err)
		}
		n.take()
		if _, _, err := w.Around(ctx, "shop"); err != nil || len(n.take()) != 0 {
			t.Errorf("to look around when nothing has come costs calls, or is not possible: %v", err)
		}
	}
	if _, _, err := w.Around(ctx, "none"); err == nil {
		t.Error("a namespace that is not there is found")
	}
}

// The node is seen as it is when a pod comes, or when the controller says
// something.
func (c real) seesNode(t *testing.T, admin kubernetes.Interface, w *Watcher) {
	_, err := admin.CoreV1().Nodes().Patch(t.Context(), "n1", types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod(t, admin, "n1", "after-cordon")
	await(t, "the node to be cordoned", func() bool { return w.Node().Cordoned })
	speaker := &v1alpha1.NodeSpeaker{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	speaker.Spec.Fence = &v1alpha1.Fence{NodeUID: "old", Since: metav1.Now(), Reason: "it is gone"}
	if err := c.admin.own.Post().Resource(v1alpha1.NodeSpeakers).Body(speaker).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	await(t, "the fence", func() bool { s := w.Speaker(); return s != nil && s.Spec.Fence != nil && s.Spec.Fence.NodeUID == "old" })
	if err := c.admin.own.Delete().Resource(v1alpha1.NodeSpeakers).Name("n1").Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	await(t, "the fence to go", func() bool { return w.Speaker() == nil })
	if err := admin.CoreV1().Nodes().Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.admin.own.Post().Resource(v1alpha1.NodeSpeakers).Body(&v1alpha1.NodeSpeaker{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	await(t, "the node to go", func() bool { return w.Node().UID == "" })
}

func (c real) seesPools(t *testing.T, w *Watcher) {
	for _, name := range []string{"web", "db"} {
		p := &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: name}}
		p.Spec.Addresses = []v1alpha1.AddressRange{"10.1.0.0/16"}
		if err := c.admin.own.Post().Resource(v1alpha1.AddressPools).Body(p).Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "two pools", func() bool {
		p := w.Pools()
		return len(p) == 2 && p[0].Name == "db" && p[1].Name == "web" && p[0].Spec.Addresses[0] == "10.1.0.0/16" && p[0].ManagedFields == nil
	})
	if err := c.admin.own.Delete().Resource(v1alpha1.AddressPools).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	await(t, "no pools", func() bool { return len(w.Pools()) == 0 })
}
