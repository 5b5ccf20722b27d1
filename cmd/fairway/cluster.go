package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/agent/cluster"
	"github.com/fairway-network/fairway/config"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/embedded"
	"github.com/fairway-network/fairway/pools/kube"
	"github.com/fairway-network/fairway/routes/kernel"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// openStore fills in where blocks are kept, and the cluster if c says so. The
// caller closes it with the function returned.
func openStore(ctx context.Context, c *config.Config, parts *agent.Parts) (func() error, error) {
	if c.Store == config.Kubernetes {
		return joinCluster(ctx, c, parts)
	}
	store, err := embedded.Open(filepath.Join(c.StateDir, "blocks.db"), c.Node)
	if err != nil {
		return nil, err
	}
	if taken := store.TakenOver(); len(taken) > 0 {
		parts.Log.Warn("this host had another name; its blocks are kept under the new one", "was", taken[0].Node, "node", c.Node, "blocks", len(taken))
	}
	parts.Store = store
	return store.Close, nil
}

// joinCluster begins to watch the cluster.
func joinCluster(ctx context.Context, c *config.Config, parts *agent.Parts) (func() error, error) {
	server, err := apiServer(c.Kubernetes.Kubeconfig)
	if err != nil {
		return nil, err
	}
	client, err := kube.NewClient(server, kube.Options{Log: parts.Log})
	if err != nil {
		return nil, err
	}
	joined := cluster.New(cluster.Config{
		Client: client, Node: c.Node, RunDir: c.RunDir, Boot: parts.Boot, Version: version, Log: parts.Log,
	})
	parts.Cluster, parts.Store = joined, joined.Store()
	parts.Log.Info("the API server keeps pools and blocks", "server", server.Host, "node", c.Node)
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { _ = joined.Run(ctx) })
	watching.Go(func() { forwardAsNeeded(ctx, c, joined, parts.Log) })
	return func() error {
		cancel()
		watching.Wait()
		return nil
	}, nil
}

// apiServer is how to reach it, and who the agent is there.
func apiServer(kubeconfig string) (*rest.Config, error) {
	if kubeconfig != "" {
		server, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("kubernetes.kubeconfig %s: %w", kubeconfig, err)
		}
		return server, nil
	}
	server, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, errors.New("store is kubernetes, and this is no pod of a cluster: say with kubernetes.kubeconfig how to reach the API server")
	}
	return server, err
}

// forwardAsNeeded sees to the sysctls that the cluster's pools need, as they
// come, until ctx ends.
func forwardAsNeeded(ctx context.Context, c *config.Config, joined agent.Cluster, log *slog.Logger) {
	var have kernel.Families
	_ = joined.Watch(ctx, func() {
		need := have
		for _, p := range joined.State().Pools {
			for _, f := range p.Families() {
				need.IPv4 = need.IPv4 || f == pools.IPv4
				need.IPv6 = need.IPv6 || f == pools.IPv6
			}
		}
		if need == have {
			return
		}
		have = need
		if err := kernel.Forwarding(ctx, kernel.Mode(c.Routes.Kernel.Sysctls), need, log); err != nil {
			log.Error("the kernel is without settings that pods need", "err", err)
		}
	})
}
