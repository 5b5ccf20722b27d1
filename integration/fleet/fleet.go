package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/pools"
	"k8s.io/client-go/rest"
)

// Options say what a fleet is.
type Options struct {
	Nodes int
	// Name is that of all nodes, before their numbers; "" is "node". What the
	// nodes of that name have left in the cluster a fleet finds.
	Name  string
	Pools []agent.Pool
	// Pods says that the fleet's pods are objects of the API server, which an
	// ADD looks up.
	Pods bool
	// Log is where the agents log; nil is nowhere.
	Log *slog.Logger
}

// Fleet is the agents of some nodes.
type Fleet struct {
	Nodes []*Node
	Calls Calls
	dir   string
}

// Pool is one of these IPv4 ranges (CIDR, from-to or a single address each), with
// blocks of so many addresses; 0 is the size that fits the pool. It keeps empty
// blocks for an hour, and a freed address is free at once. No address of it is
// a gateway.
func Pool(name string, blockSize int, ranges ...string) (agent.Pool, error) {
	// This gateway is on every link, and in no pool of a test.
	gateway := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), 0)
	d := pools.Definition{Name: name, BlockSize: blockSize, Gateways: []netip.Prefix{gateway}}
	for _, s := range ranges {
		r, err := pools.ParseRange(s)
		if err != nil {
			return agent.Pool{}, err
		}
		d.Ranges = append(d.Ranges, r)
	}
	if blockSize == 0 {
		d.BlockSize = 1
		p, err := pools.New(d)
		if err != nil {
			return agent.Pool{}, err
		}
		d.BlockSize = pools.FittingBlockSize(p.Addresses())
	}
	p, err := pools.New(d)
	return agent.Pool{Pool: p, IdleAfter: idleAfter}, err
}

// Start brings up the agents of nodes node-1, node-2 and so on, or of another
// name, on a cluster
// that Fairway was installed in, and returns when all serve. Close must follow,
// also on an error.
func Start(ctx context.Context, c *kube.Cluster, o Options) (*Fleet, error) {
	f := &Fleet{}
	var err error
	// The journal belongs on a tmpfs.
	if f.dir, err = os.MkdirTemp("/dev/shm", "fairway-fleet-"); err != nil {
		return f, err
	}
	f.Nodes = make([]*Node, o.Nodes)
	errs := make([]error, o.Nodes)
	var starts sync.WaitGroup
	for i := range f.Nodes {
		starts.Go(func() {
			name := fmt.Sprintf("%s-%d", cmp.Or(o.Name, "node"), i+1)
			var config *rest.Config
			if config, errs[i] = c.NodeAgentConfig(ctx, kube.AgentAccount(), name); errs[i] != nil {
				return
			}
			f.Nodes[i], errs[i] = startNode(ctx, name, filepath.Join(f.dir, name), f.Calls.noted(config, name), o)
		})
	}
	starts.Wait()
	return f, errors.Join(errs...)
}

// Close stops the agents, as a restart does: what they hold they keep.
func (f *Fleet) Close() error {
	errs := make([]error, len(f.Nodes))
	var ends sync.WaitGroup
	for i, n := range f.Nodes {
		if n != nil {
			ends.Go(func() { errs[i] = n.Close() })
		}
	}
	ends.Wait()
	return errors.Join(append(errs, os.RemoveAll(f.dir))...)
}
