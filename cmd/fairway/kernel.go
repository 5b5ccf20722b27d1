package main

import (
	"context"
	"log/slog"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/config"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/routes"
	"github.com/fairway-network/fairway/routes/kernel"
)

// kernelOf is the node's route table as c wants it. The caller closes it with
// the function returned.
func kernelOf(c *config.Config, log *slog.Logger) (agent.Kernel, func() error, error) {
	k := c.Routes.Kernel
	if !k.Enabled {
		return noTable{}, func() error { return nil }, nil
	}
	table, err := kernel.New(kernel.Config{Protocol: int(k.Protocol), Table: int(k.Table), Metric: int(k.Metric)}, log)
	if err != nil {
		return nil, nil, err
	}
	return table, table.Close, nil
}

// forward sees to the sysctls that c's pools need.
func forward(ctx context.Context, c *config.Config, log *slog.Logger) error {
	var f kernel.Families
	for _, p := range c.Pools {
		for _, family := range p.Checked().Families() {
			f.IPv4 = f.IPv4 || family == pools.IPv4
			f.IPv6 = f.IPv6 || family == pools.IPv6
		}
	}
	return kernel.Forwarding(ctx, kernel.Mode(c.Routes.Kernel.Sysctls), f, log)
}

// noTable stands in for the kernel where its routes are somebody else's task.
type noTable struct{}

func (noTable) Sync(context.Context, []routes.Route) error { return nil }

func (noTable) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}
