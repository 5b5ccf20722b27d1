package controller

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// cluster is what the controller sees of the cluster. Its parts are read from
// the source once and followed from then on.
type cluster struct {
	objects  *mirror[*v1alpha1.AddressPool, poolObjects]
	blocks   *mirror[placed, blocks]
	nodes    *mirror[node, nodes]
	pods     *mirror[pod, pods]
	requests *requests

	poolsChanged   chan struct{} // pools have to be judged
	numbersChanged chan struct{} // and counted
	ownersChanged  chan struct{} // blocks may have to be freed
}

func newCluster(c *clients, log *slog.Logger) *cluster {
	s := &cluster{
		poolsChanged: make(chan struct{}, 1), numbersChanged: make(chan struct{}, 1), ownersChanged: make(chan struct{}, 1),
	}
	s.objects = newMirror("pools", source[*v1alpha1.AddressPool](typed[*v1alpha1.AddressPool, *v1alpha1.AddressPool]{
		c.own, v1alpha1.AddressPools, func() runtime.Object { return new(v1alpha1.AddressPoolList) }, keepPool,
	}), func() poolObjects { return poolObjects{} }, log, s.poolsChanged)
	s.blocks = newMirror("blocks", source[placed](&blockSource{client: c.own, log: log}),
		func() blocks { return blocks{} }, log, s.numbersChanged, s.ownersChanged)
	s.nodes = newMirror("nodes", source[node](typed[*core.Node, node]{
		c.core, "nodes", func() runtime.Object { return new(core.NodeList) }, keepNode,
	}), func() nodes { return nodes{} }, log, s.ownersChanged, s.numbersChanged)
	s.pods = newMirror("pods", source[pod](typed[*core.Pod, pod]{
		c.core, "pods", func() runtime.Object { return new(core.PodList) }, keepPod,
	}), func() pods { return pods{} }, log, s.numbersChanged)
	s.requests = newRequests(s.numbersChanged, s.ownersChanged)
	return s
}

// follow keeps all parts until ctx ends.
func (s *cluster) follow(ctx context.Context, store exchange.Exchange) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { s.objects.follow(ctx) })
	all.Go(func() { s.blocks.follow(ctx) })
	all.Go(func() { s.nodes.follow(ctx) })
	all.Go(func() { s.pods.follow(ctx) })
	// It ends with ctx and retries by itself.
	all.Go(func() { _ = store.Watch(ctx, nil, s.requests.seen) })
}

// known says whether all was read that pools are judged and counted by.
func (s *cluster) known() bool {
	return s.objects.read(func(poolObjects) {}) && s.blocks.read(func(blocks) {}) && s.pods.read(func(pods) {}) && s.nodes.read(func(nodes) {})
}

// leftovers is what a Reaper has to see. The blocks are held while the nodes
// are read, so the nodes are not the older ones.
func (s *cluster) leftovers(now time.Time) (l leftovers) {
	l.requests = s.requests.list()
	type holder struct{ node, machine string }
	answers := map[holder]bool{}
	s.blocks.read(func(t blocks) {
		s.nodes.read(func(all nodes) {
			is := all.gone(now)
			l.blocks, l.unknown = t.suspects(is)
			for _, b := range l.blocks {
				answers[holder{b.Node, b.Machine}] = is(b.Node, b.Machine)
			}
			for _, q := range l.requests {
				answers[holder{q.Node, ""}] = is(q.Node, "")
			}
		})
	})
	l.gone = func(node, machine string) bool { return answers[holder{node, machine}] }
	return l
}

// know fills in what a list has not shown of a block.
func (s *cluster) know(b exchange.Stored) error {
	s.blocks.mu.Lock()
	defer s.blocks.mu.Unlock()
	return s.blocks.table.know(b)
}

func (s *cluster) pools() (out []*v1alpha1.AddressPool, since time.Time) {
	s.objects.read(func(t poolObjects) {
		out, since = slices.Collect(maps.Values(t)), s.objects.since
	})
	return out, since
}

// agents is how many watch the pools: one on each node.
func (s *cluster) agents() (n int) {
	s.nodes.read(func(t nodes) { n = len(t) })
	return n
}

func (s *cluster) remains(ps []*pools.Pool) (out []string) {
	s.blocks.read(func(t blocks) { out = t.remains(ps) })
	return out
}

func (s *cluster) census(p *pools.Pool) (c census) {
	var of []placed
	s.blocks.read(func(t blocks) { of = t.of(p.Name()) })
	return countBlocks(of, p.Addresses())
}

func (s *cluster) addresses() (out []netip.Addr) {
	s.pods.read(func(t pods) { out = t.addresses() })
	return out
}

func (s *cluster) waiting(now time.Time) map[string]wait { return s.requests.waiting(now) }

// vanished returns whether there is no Node of a name and no block in it. Where
// there is no Node at all, none has vanished.
func (s *cluster) vanished() func(node string) bool {
	there, some := map[string]bool{}, false
	s.blocks.read(func(t blocks) {
		for _, of := range t {
			for _, b := range of {
				there[b.node.Value()] = true
			}
		}
		s.nodes.read(func(t nodes) {
			some = len(t) > 0
			for name := range t {
				there[name] = true
			}
		})
	})
	return func(node string) bool { return some && !there[node] }
}

// back says whether the fence of a node has nothing to say any more: the node is
// there and in service.
func (s *cluster) back(name string) (is bool) {
	s.nodes.read(func(t nodes) {
		n, there := t[name]
		is = there && !n.out
	})
	return is
}
