package fleet

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	store "github.com/fairway-network/fairway/pools/kube"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// Remove removes all blocks and requests of a pool, whose nodes have ended.
func Remove(ctx context.Context, c *kube.Cluster, pool string) error {
	config := c.Config()
	config.QPS = -1 // no limit
	admin, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	of := metav1.ListOptions{LabelSelector: v1alpha1.LabelPool + "=" + pool}
	blocks := admin.Resource(v1alpha1.GroupVersion().WithResource(v1alpha1.AddressBlocks))
	all, err := blocks.List(ctx, of)
	if err != nil {
		return err
	}
	// By anybody but its node a block is not deleted without that word.
	force := []byte(`{"metadata":{"annotations":{"` + v1alpha1.AnnotationForceDelete + `":"yes"}}}`)
	for _, b := range all.Items {
		if _, err := blocks.Patch(ctx, b.GetName(), types.MergePatchType, force, metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	requests := admin.Resource(v1alpha1.GroupVersion().WithResource(v1alpha1.AddressRequests))
	return errors.Join(blocks.DeleteCollection(ctx, metav1.DeleteOptions{}, of), requests.DeleteCollection(ctx, metav1.DeleteOptions{}, of))
}

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
