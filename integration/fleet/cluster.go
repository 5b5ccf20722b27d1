package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/kube"
)

// cluster is what an agent sees of the cluster through the watches that every
// agent has. The pools are those of the fleet: to accept pools is the
// controller's work. A pod gets the pool that the network configuration names;
// its object is looked up for that only if the fleet's pods have one.
type cluster struct {
	watcher *kube.Watcher
	pools   []agent.Pool
	pods    bool

	mu      sync.Mutex
	changed map[int]func()
	next    int
}

func newCluster(w *kube.Watcher, o Options) *cluster {
	return &cluster{watcher: w, pools: o.Pools, pods: o.Pods, changed: map[int]func(){}}
}

// run watches until ctx ends.
func (c *cluster) run(ctx context.Context) {
	_ = c.watcher.Run(ctx, kube.Sight{Node: func(kube.Node) { c.tell() }}) // it ends with ctx
}

func (c *cluster) tell() {
	c.mu.Lock()
	all := maps.Clone(c.changed)
	c.mu.Unlock()
	for _, changed := range all {
		changed()
	}
}

// Watch is for the agent, as are the methods below.
func (c *cluster) Watch(ctx context.Context, changed func()) error {
	c.mu.Lock()
	id := c.next
	c.next++
	c.changed[id] = changed
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.changed, id)
	}()
	select {
	case <-c.watcher.Ready():
		changed()
	case <-ctx.Done():
	}
	<-ctx.Done()
	return ctx.Err()
}

// State is the fleet's pools and the node.
func (c *cluster) State() agent.ClusterState {
	s := agent.ClusterState{Pools: c.pools}
	select {
	case <-c.watcher.Ready():
		s.Seen = true
	default:
	}
	node := c.watcher.Node()
	s.Machine, s.Cordoned = node.UID, node.Cordoned
	return s
}

// Place is the pool that is named.
func (c *cluster) Place(ctx context.Context, o pools.Owner, named string) (agent.Placement, error) {
	if c.pods {
		if _, err := c.watcher.Pod(ctx, o.Namespace, o.Pod, o.PodUID); err != nil {
			return agent.Placement{}, fmt.Errorf("%w: %w", cni.ErrTryAgain, err)
		}
	}
	return agent.Placement{Pool: named}, nil
}

// Gone is never known.
func (c *cluster) Gone(context.Context, pools.Owner) (bool, error) {
	return false, errors.New("nobody asks after the pods of a fleet")
}

// Warn tells nobody.
func (c *cluster) Warn(context.Context, pools.Owner, string, string) error { return nil }

// Report tells nobody.
func (c *cluster) Report(context.Context, agent.Report) error { return nil }

// Confirm tells nobody.
func (c *cluster) Confirm(context.Context, string) error { return nil }

func (c *cluster) Refresh() {}

// WatchMesh has no nodes to show.
func (c *cluster) WatchMesh(ctx context.Context, _ func([]agent.MeshNode)) error {
	<-ctx.Done()
	return ctx.Err()
}
