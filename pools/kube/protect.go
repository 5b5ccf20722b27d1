package kube

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/exchange"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// WritePoolFinalizers writes the finalizers of the pool with o's UID, at o's
// version, and returns what became of the pool: as it was last, if it went with
// its last finalizer.
func (c *Custodian) WritePoolFinalizers(ctx context.Context, o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error) {
	what := "write the finalizers of pool " + o.Name
	if o.UID == "" || o.ResourceVersion == "" {
		return nil, fmt.Errorf("%s: its UID %q or version %q is missing", what, o.UID, o.ResourceVersion)
	}
	// Nothing else is written: of o not all may be known here.
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": o.UID, "resourceVersion": o.ResourceVersion, "finalizers": append([]string{}, o.Finalizers...),
	}})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	out := new(v1alpha1.AddressPool)
	r := c.own.Patch(types.MergePatchType).Resource(v1alpha1.AddressPools).Name(o.Name).Body(patch)
	if err := write(ctx, what, r, out); err != nil {
		return nil, err
	}
	if out.UID != o.UID {
		return nil, fmt.Errorf("%s: %w: the answer is not that pool", what, exchange.ErrUnknown)
	}
	return out, nil
}

// HasBlocks asks whether any block is of that pool, past all caches.
func (c *Custodian) HasBlocks(ctx context.Context, pool string) (bool, error) {
	blocks, err := c.listBlocks(ctx, "look for blocks of pool "+pool, metav1.ListOptions{
		LabelSelector: equals(v1alpha1.LabelPool, pool), Limit: 1,
	})
	return len(blocks) > 0, err
}
