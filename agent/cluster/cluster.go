// Package cluster is a Kubernetes cluster as the agent of one of its nodes sees
// it: which pools there are, which of them serves a pod, whether a pod is gone.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/agent/choice"
	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"github.com/fairway-network/fairway/pools/kube"
)

const (
	// refusedAge bounds how often a namespace is read for pods that it gets refused.
	refusedAge = 2 * time.Second
	// placedAge is from when on what was read of a namespace is good for one more
	// pod only: it is read anew for those that ask again. Of new pods it is younger.
	placedAge = time.Minute
)

// Config is what a Cluster is made with.
type Config struct {
	Client *kube.Client
	Node   string // this node's name
	// RunDir is for what a later one of this Boot, the kernel's boot ID, needs
	// while the API server is away.
	RunDir, Boot string
	Version      string // of the agent, for people to read
	Log          *slog.Logger
}

// Cluster is an agent.Cluster. It knows nothing until it runs, but what an
// earlier one of this boot has left.
type Cluster struct {
	Config
	watcher *kube.Watcher
	past    *sight        // what an earlier one saw; nil for nothing
	news    chan struct{} // of size one: there is something to be kept
	// unordered is how often there was no NodeSpeaker when one was to be shown. It
	// belongs to the watch of that.
	unordered int

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	objects  []v1alpha1.AddressPool
	node     kube.Node
	listed   struct{ pools, node bool }
	read     map[string]readPool // by name
	offers   []choice.Pool       // never changed
	state    agent.ClusterState
	problems map[string]string // of pools that can't be used
}

// New makes a Cluster. Whoever makes it runs it.
func New(c Config) *Cluster {
	cluster := &Cluster{
		Config: c, watcher: c.Client.Watcher(c.Node), news: make(chan struct{}, 1), changed: make(chan struct{}),
		problems: map[string]string{},
	}
	past, err := recall(c.RunDir, c.Boot)
	if err != nil {
		c.Log.Warn("what an earlier agent saw of the cluster is lost; pods are served once the API server answers", "err", err)
	}
	if past != nil {
		cluster.past, cluster.objects, cluster.node = past, past.Pools, past.Node
		cluster.review()
	}
	return cluster
}

// Store returns the exchange of this node, which claims in pools only that the cluster
// still has.
func (c *Cluster) Store() *kube.Store { return c.watcher.Store() }

// Run watches the cluster until ctx ends, whose error it returns. It runs once.
func (c *Cluster) Run(ctx context.Context) error {
	var keeping sync.WaitGroup
	keeping.Go(func() { c.keepSight(ctx) })
	defer keeping.Wait()
	return c.watcher.Run(ctx, kube.Sight{
		Pools: func(all []v1alpha1.AddressPool) {
			c.update(func() { c.objects, c.listed.pools = all, true })
		},
		// It is shown again whether it has changed or not.
		Node: func(n kube.Node) {
			if now, listed := c.current(); !listed || !reflect.DeepEqual(n, now) {
				c.update(func() { c.node, c.listed.node = n, true })
			}
		},
		Speaker: func(s *v1alpha1.NodeSpeaker) {
			fence, orders := fenceOf(s), c.ordersOf(s)
			if old := c.State(); fence != old.Fence || orders != old.Orders {
				c.update(func() {
					c.state.Fence, c.state.Orders = fence, orders
					c.state.Lifting = fence != "" && s.Spec.Fence.Lifting
				})
			}
		},
		Pods: c.signal,
	})
}

// ordersOf is another one whenever the controller has set or removed a fence, of
// which none may be seen by a node that is cut off. Each time that there is no
// NodeSpeaker one may have come and gone, with its fence: nothing is shown twice unless
// something has happened, or the watch has begun anew.
func (c *Cluster) ordersOf(s *v1alpha1.NodeSpeaker) string {
	if s == nil {
		c.unordered++
		return fmt.Sprintf("%s/%d", exchange.NoOrders, c.unordered)
	}
	return fmt.Sprintf("%s/%d", s.UID, s.Generation)
}

// fenceOf tells one fence from another.
func fenceOf(s *v1alpha1.NodeSpeaker) string {
	if s == nil || s.Spec.Fence == nil {
		return ""
	}
	f := s.Spec.Fence
	return fmt.Sprintf("since %s, node %s: %s", f.Since.UTC().Format("2006-01-02T15:04:05.000Z"), f.NodeUID, f.Reason)
}

// current is the node as it was shown last, if it was.
func (c *Cluster) current() (n kube.Node, listed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.node, c.listed.node
}

func (c *Cluster) signal() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

func (c *Cluster) update(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	c.review()
	close(c.changed)
	c.changed = make(chan struct{})
	c.signal()
}

// Watch implements agent.Cluster.
func (c *Cluster) Watch(ctx context.Context, changed func()) error {
	for {
		c.mu.Lock()
		next := c.changed
		c.mu.Unlock()
		changed()
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Refresh implements agent.Cluster.
func (c *Cluster) Refresh() { c.watcher.Refresh() }

// State implements agent.Cluster.
func (c *Cluster) State() agent.ClusterState {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state
	s.Reached = c.Client.Reached()
	s.Pools = slices.Clone(s.Pools)
	return s
}

// Place implements agent.Cluster.
func (c *Cluster) Place(ctx context.Context, o pools.Owner, named string) (agent.Placement, error) {
	pod, err := c.pod(ctx, o)
	if errors.Is(err, kube.ErrNoPod) || errors.Is(err, kube.ErrOtherPod) {
		return agent.Placement{}, cni.Refuse(err)
	}
	if err != nil {
		return agent.Placement{}, fmt.Errorf("%w: the API server does not say what pod %s/%s is: %w", cni.ErrTryAgain, o.Namespace, o.Pod, err)
	}
	ns, node, err := c.around(ctx, o.Namespace)
	if err != nil {
		return agent.Placement{}, fmt.Errorf("%w: the API server does not say what namespace %s and node %s are: %w", cni.ErrTryAgain, o.Namespace, c.Node, err)
	}
	offers, known := c.offered()
	if !known {
		return agent.Placement{}, fmt.Errorf("%w: the pools are not known yet: the API server has not shown them", cni.ErrTryAgain)
	}
	choose := func() (choice.Decision, error) {
		return choice.Choose(
			choice.Pod{Namespace: pod.Namespace, Name: pod.Name, Labels: pod.Labels, Annotations: pod.Annotations, NetworkPool: named},
			choice.Namespace{Name: ns.Name, Labels: ns.Labels, Annotations: ns.Annotations},
			choice.Node{Name: c.Node, Labels: node.Labels}, offers)
	}
	d, err := choose()
	if err == nil {
		c.watcher.Doubt(o.Namespace, placedAge)
	} else if c.lookAgain(ctx, &ns, &node) {
		d, err = choose()
	}
	if errors.Is(err, choice.ErrPending) {
		return agent.Placement{}, fmt.Errorf("%w: %w", cni.ErrTryAgain, err)
	}
	if err != nil {
		return agent.Placement{}, cni.Refuse(err)
	}
	return agent.Placement{Pool: d.Pool, Want: d.Addresses}, nil
}

// offered are the pools to choose of, if they are known.
func (c *Cluster) offered() (offers []choice.Pool, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offers, c.listed.pools && c.listed.node || c.past != nil
}

// lookAgain brings what decided against a pod up to date, if it can: they may have
// been changed for that very pod, and no other one comes that makes them be read.
func (c *Cluster) lookAgain(ctx context.Context, ns *kube.Namespace, node *kube.Node) bool {
	c.watcher.Doubt(ns.Name, refusedAge)
	freshSpace, freshNode, err := c.watcher.Around(ctx, ns.Name)
	if err != nil {
		return false // what was known decides
	}
	*ns, *node = freshSpace, freshNode
	return true
}

// pod is the one of o: as the watch shows it, or an earlier agent has seen it,
// or else as the API server says.
func (c *Cluster) pod(ctx context.Context, o pools.Owner) (kube.Pod, error) {
	if past := c.unlessReady(); past != nil && o.PodUID != "" {
		for _, p := range past.Pods {
			if p.Namespace == o.Namespace && p.Name == o.Pod && p.Is(o.PodUID) {
				return p, nil
			}
		}
	}
	return c.watcher.Pod(ctx, o.Namespace, o.Pod, o.PodUID)
}

// around is the namespace of a pod, and this node.
func (c *Cluster) around(ctx context.Context, namespace string) (kube.Namespace, kube.Node, error) {
	if past := c.unlessReady(); past != nil {
		for _, n := range past.Namespaces {
			if n.Name == namespace {
				node, _ := c.current()
				return n, node, nil
			}
		}
	}
	return c.watcher.Around(ctx, namespace)
}

// unlessReady is what an earlier agent saw, until this one has seen it all.
func (c *Cluster) unlessReady() *sight {
	select {
	case <-c.watcher.Ready():
		return nil
	default:
		return c.past
	}
}

// Gone implements agent.Cluster.
func (c *Cluster) Gone(ctx context.Context, o pools.Owner) (bool, error) {
	return c.watcher.Gone(ctx, o.Namespace, o.Pod, o.PodUID)
}

// Warn implements agent.Cluster.
func (c *Cluster) Warn(ctx context.Context, o pools.Owner, reason, message string) error {
	pod, err := c.pod(ctx, o)
	if err != nil {
		pod = kube.Pod{Namespace: o.Namespace, Name: o.Pod, UID: o.PodUID}
	}
	return c.Client.Warn(ctx, pod, c.Node, reason, message)
}
