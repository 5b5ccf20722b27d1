package fleet

import (
	"context"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	store "github.com/fairway-network/fairway/pools/kube"
)

// Blocks are those of an IPv4 pool, as the API server has them now.
func Blocks(ctx context.Context, c *kube.Cluster, pool string) ([]pools.Block, error) {
	client, err := store.NewClient(c.Config(), store.Options{})
	if err != nil {
		return nil, err
	}
	all, err := client.Store("").Inside(ctx, netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(b exchange.Stored) bool { return b.Pool != pool })
	out := make([]pools.Block, len(all))
	for i, b := range all {
		out[i] = b.Block
	}
	return out, nil
}
