package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/metadata"
)

// ownKeys begin the annotations that are ours, which alone are kept.
const ownKeys = v1alpha1.Group + "/"

// Why a pod is not to be served.
var (
	// ErrNoPod: the API server has no such pod.
	ErrNoPod = errors.New("no such pod")
	// ErrOtherPod: a pod of that name is there, but it is another one.
	ErrOtherPod = errors.New("another pod has that name")
)

// Pod is what is kept of a pod.
type Pod struct {
	Namespace, Name, UID string
	Labels               map[string]string
	Annotations          map[string]string // those of fairway.network/
	Deleted              time.Time         // since when it is to end; zero if it is not
	// Static is the UID by which the node's kubelet knows the static pod of
	// which this one is the mirror; "" if it is none.
	Static string
}

// Is says whether uid is the pod's, or "".
func (p Pod) Is(uid string) bool { return uid == "" || uid == p.UID || uid == p.Static }

// Namespace is what is kept of a namespace.
type Namespace struct {
	Name        string
	Labels      map[string]string
	Annotations map[string]string // those of fairway.network/
}

// Node is what is kept of the node. The zero Node is none.
type Node struct {
	Name, UID   string
	Labels      map[string]string
	Annotations map[string]string // those that are short
	Addresses   []netip.Addr      // its internal ones
	// Cordoned nodes are to take no new work.
	Cordoned bool
}

// Sight is told what has changed. Its functions are called one at a time for
// each kind of object, first when the kind was seen; nil ones are left out.
type Sight struct {
	// Pools gets all pools, in the order of their names. They are shared with
	// the Watcher: change nothing in them.
	Pools func([]v1alpha1.AddressPool)
	// Node gets the node, or the zero Node when there is none, each time that
	// it was read.
	Node func(Node)
	// Speaker gets the node's own NodeSpeaker, or nil when there is none.
	Speaker func(*v1alpha1.NodeSpeaker)
	// Pods says that pods of this node came, changed or went, and that their
	// namespaces were read.
	Pods func()
}

// Watcher keeps what a node's agent has to know of the cluster, beside the
// requests that its Store watches. It watches the pods of its node, all pools and
// its NodeSpeaker; it reads its Node every few minutes, and with the pod's
// namespace whenever a pod comes or they are doubted. What it saw last stays while the API server is
// away. It is safe for concurrent use.
type Watcher struct {
	*Client
	node     string
	pods     *mirror[Pod]
	pools    *mirror[v1alpha1.AddressPool]
	standing *standing
	speaker  *mirror[v1alpha1.NodeSpeaker]
	around   *surroundings
	ready    chan struct{}
}

// Watcher returns one for a node, which has seen nothing until it runs.
func (c *Client) Watcher(node string) *Watcher {
	w := &Watcher{
		Client: c, node: node, ready: make(chan struct{}),
		pools:   newMirror("pools", c.log, poolOf),
		speaker: newMirror("node speakers", c.log, speakerOf),
		around:  newSurroundings(c, node),
	}
	w.pods = newMirror("pods", c.log, w.come)
	w.standing = newStanding(c, w.pools)
	return w
}

// Store returns the exchange of the node. It claims in no pool that was deleted while
// the client was cut off: Create reads the pool first if the connection was lost since
// the pool was shown.
func (w *Watcher) Store() *Store { return &Store{Client: w.Client, node: w.node, pools: w.standing} }

// Run watches until ctx ends, whose error it returns. It runs once.
func (w *Watcher) Run(ctx context.Context, s Sight) error {
	var missing sync.WaitGroup
	missing.Add(3)
	go func() {
		missing.Wait()
		close(w.ready)
	}()
	listed, began := make(chan struct{}), w.losses.Load()
	var watches sync.WaitGroup
	watches.Go(func() {
		_ = w.pods.follow(ctx, outlines(w.podsMeta(metav1.NamespaceAll), "spec.nodeName="+w.node), outline("v1", "Pod"), then(w.around.wake, func() { close(listed) }))
	})
	watches.Go(func() {
		_ = w.pools.follow(ctx, w.standing.heedful(every(w.own, v1alpha1.AddressPools)), &v1alpha1.AddressPool{}, then(shown(s.Pools, w.Pools), func() {
			w.standing.listed(began)
			missing.Done()
		}))
	})
	watches.Go(func() {
		_ = w.speaker.follow(ctx, one(w.own, v1alpha1.NodeSpeakers, w.node), &v1alpha1.NodeSpeaker{}, then(w.ordered(shown(s.Speaker, w.Speaker)), missing.Done))
	})
	watches.Go(func() {
		select {
		case <-listed:
			w.lookAround(ctx, shown(s.Node, w.Node), told(s.Pods), missing.Done)
		case <-ctx.Done():
		}
	})
	watches.Wait()
	return ctx.Err()
}

// then is tell, with which after is called once, after the first time.
func then(tell, after func()) func() {
	var once sync.Once
	return func() {
		tell()
		once.Do(after)
	}
}

// ordered is tell, with which the Node is read if the controller has changed
// something here: it may have its reason there.
func (w *Watcher) ordered(tell func()) func() {
	before, started := "", false
	return func() {
		orders := ""
		if s := w.Speaker(); s != nil {
			orders = fmt.Sprint(s.UID, s.Generation)
		}
		if started && orders != before {
			w.around.stir()
		}
		before, started = orders, true
		tell()
	}
}

// lookAround reads the Node and the namespaces of the pods, as needed, until ctx
// ends. seen is called when all of it is known.
func (w *Watcher) lookAround(ctx context.Context, tellNode, tellPods, seen func()) {
	var once sync.Once
	_ = w.around.follow(ctx, w.spaces, func(err error) {
		if _, known := w.around.self.now(); known {
			tellNode()
		}
		tellPods()
		if err == nil {
			once.Do(seen)
		}
	})
}

// spaces are the names of the namespaces of the pods.
func (w *Watcher) spaces() []string {
	var names []string
	for _, p := range w.pods.all() { // in their order
		if len(names) == 0 || names[len(names)-1] != p.Namespace {
			names = append(names, p.Namespace)
		}
	}
	return names
}

func told(tell func()) func() {
	if tell == nil {
		return func() {}
	}
	return tell
}

func shown[T any](tell func(T), get func() T) func() {
	if tell == nil {
		return func() {}
	}
	return func() { tell(get()) }
}

// Ready is closed when all kinds were seen once and the Sight knows them.
func (w *Watcher) Ready() <-chan struct{} { return w.ready }

// Pods returns the pods of this node, as far as the Watcher knows.
func (w *Watcher) Pods() []Pod { return w.pods.all() }

// Pools returns all pools, as far as the Watcher knows. They are shared.
func (w *Watcher) Pools() []v1alpha1.AddressPool { return w.pools.all() }

// Node returns this node as it was read last, or the zero Node when the Watcher
// knows of none.
func (w *Watcher) Node() Node {
	n, _ := w.around.self.now()
	return n
}

// Speaker returns this node's NodeSpeaker, or nil when the Watcher knows of
// none. It is shared.
func (w *Watcher) Speaker() *v1alpha1.NodeSpeaker {
	if s, ok := w.speaker.get("", w.node); ok {
		return &s
	}
	return nil
}

// Pod returns the pod of that UID, any of that name if it is "". It asks the API
// server, once, only when the Watcher does not know that very pod. The error is
// ErrNoPod or ErrOtherPod, or another one when the API server does not say.
func (w *Watcher) Pod(ctx context.Context, namespace, name, uid string) (Pod, error) {
	p, ok := w.pods.get(namespace, name)
	if ok && p.Is(uid) {
		return p, nil
	}
	what := fmt.Sprintf("pod %s/%s", namespace, name)
	o, err := outlined(ctx, what, w.podsMeta(namespace), name)
	if apierrors.IsNotFound(err) {
		return Pod{}, fmt.Errorf("%s: %w: %w", what, ErrNoPod, err)
	}
	if err != nil {
		return Pod{}, err
	}
	if p, err = podOf(o); err != nil {
		return Pod{}, err
	}
	w.around.pod(namespace)
	if !p.Is(uid) {
		return Pod{}, fmt.Errorf("%s: %w: its UID is %s, not %s", what, ErrOtherPod, p.UID, uid)
	}
	return p, nil
}

// Around returns the namespace of a pod of this node, and the node, as they were
// when a pod of the namespace came last, or were doubted, or later. It asks the API server, once
// for each, only when the Watcher has not done so since. While the API server is
// away what was read before has to do, if something was.
func (w *Watcher) Around(ctx context.Context, namespace string) (Namespace, Node, error) {
	space := w.around.space(namespace)
	w.around.self.begin(ctx)
	ns, err := space.get(ctx)
	if err != nil {
		return Namespace{}, Node{}, err
	}
	node, err := w.around.self.get(ctx)
	return ns, node, err
}

// Doubt says that what Around returns may have changed: what of it was read longer
// ago than age does not count any more. It makes no call itself.
func (w *Watcher) Doubt(namespace string, age time.Duration) { w.around.doubt(namespace, age) }

// Refresh has the Node read anew, soon. It makes no call itself.
func (w *Watcher) Refresh() { w.around.stir() }

func (w *Watcher) podsMeta(namespace string) metadata.ResourceInterface {
	return w.meta.Resource(core.SchemeGroupVersion.WithResource("pods")).Namespace(namespace)
}

// outline is an example of the metadata of an object of that kind.
func outline(version, kind string) runtime.Object {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: version, Kind: kind}}
}

func podOf(o any) (Pod, error) {
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return Pod{}, fmt.Errorf("a pod is no %T", o)
	}
	p := Pod{Namespace: m.Namespace, Name: m.Name, UID: string(m.UID), Labels: m.Labels, Annotations: ours(m.Annotations), Static: m.Annotations[core.MirrorPodAnnotationKey]}
	if m.DeletionTimestamp != nil {
		p.Deleted = m.DeletionTimestamp.Time
	}
	return p, nil
}

// come is podOf, and looks around if the pod is one that the Watcher does not
// know yet.
func (w *Watcher) come(o any) (Pod, error) {
	p, err := podOf(o)
	if err != nil {
		return p, err
	}
	if old, known := w.pods.get(p.Namespace, p.Name); !known || old.UID != p.UID {
		w.around.pod(p.Namespace)
	}
	return p, nil
}

func poolOf(o any) (v1alpha1.AddressPool, error) {
	p, ok := o.(*v1alpha1.AddressPool)
	if !ok {
		return v1alpha1.AddressPool{}, fmt.Errorf("a pool is no %T", o)
	}
	kept := *p
	kept.ManagedFields = nil
	kept.Annotations = ours(p.Annotations)
	return kept, nil
}

func nodeOf(o any) (Node, error) {
	n, ok := o.(*core.Node)
	if !ok {
		return Node{}, fmt.Errorf("a node is no %T", o)
	}
	node := Node{Name: n.Name, UID: string(n.UID), Labels: n.Labels, Annotations: short(n.Annotations), Cordoned: n.Spec.Unschedulable}
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == core.NodeInternalIP {
			node.Addresses = append(node.Addresses, ip.Unmap())
		}
	}
	return node, nil
}

func speakerOf(o any) (v1alpha1.NodeSpeaker, error) {
	s, ok := o.(*v1alpha1.NodeSpeaker)
	if !ok {
		return v1alpha1.NodeSpeaker{}, fmt.Errorf("a node speaker is no %T", o)
	}
	kept := *s
	kept.ManagedFields = nil
	return kept, nil
}

// shortAnnotation is how many bytes one has at most that says a number, an address or
// a name.
const shortAnnotation = 64

// short are the annotations that a configuration may ask for. Others, such as the
// whole of what was last applied, change without a use.
func short(annotations map[string]string) map[string]string {
	var kept map[string]string
	for k, v := range annotations {
		if len(v) <= shortAnnotation {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[k] = v
		}
	}
	return kept
}

// ours are the annotations of fairway.network/.
func ours(annotations map[string]string) map[string]string {
	var kept map[string]string
	for k, v := range annotations {
		if strings.HasPrefix(k, ownKeys) {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[k] = v
		}
	}
	return kept
}
