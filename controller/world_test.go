package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
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
func vacant(b *exchange.Stored) bool { return b != nil && b.Vacant() }

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

func (w *world) removePool(name string) {
	w.Helper()
	if err := w.clients.own.Delete().Resource(v1alpha1.AddressPools).Name(name).Do(w.Context()).Error(); err != nil {
		w.Fatal(err)
	}
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
