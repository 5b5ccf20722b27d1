package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

// heedfulStore claims only in pools that the cluster has shown since the start.
type heedfulStore struct {
	orderedStore
	cluster *fakeCluster
}

func (s heedfulStore) Create(ctx context.Context, b pools.Block) (exchange.Stored, error) {
	if !s.cluster.State().Seen {
		return exchange.Stored{}, errors.New("the pool was not seen yet")
	}
	return s.orderedStore.Create(ctx, b)
}

// shownLate is a cluster that shows its pools to whoever waits for them.
type shownLate struct{ *fakeCluster }

func (c shownLate) Watch(ctx context.Context, changed func()) error {
	c.update(func() { c.state.Seen = true })
	return c.fakeCluster.Watch(ctx, changed)
}

// A start that has to claim a lost block anew waits until the cluster has shown its
// pools, though it knows them from the agent before.
func TestALostBlockIsClaimedOnceThePoolsAreShown(t *testing.T) {
	h := newHost(t)
	c := webCluster(t, "speaker/1")
	first := h.startIn(c, never())
	grant, err := first.leases().Lease(t.Context(), podRequest(1))
	if err != nil {
		t.Fatal(err)
	}
	stop(t, first)
	if err := os.Remove(filepath.Join(h.state, "blocks.db")); err != nil { // as a restored etcd may not have it
		t.Fatal(err)
	}
	c.update(func() { c.state.Seen = false })
	parts, store := h.parts()
	parts.Store, parts.Cluster = heedfulStore{parts.Store.(orderedStore), c}, shownLate{c}
	second := h.startWith(parts, store, settings(t))
	if now, err := second.leases().Lease(t.Context(), podRequest(1)); err != nil || now.Addresses[0] != grant.Addresses[0] {
		t.Errorf("the pod has %v, %v; before %v", now, err, grant)
	}
}
