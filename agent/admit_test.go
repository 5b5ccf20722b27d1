package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/pools/exchange"
)

// A pool that was deleted and made again with other addresses, on a node with
// pods from before: what keeps a new pod waiting are those, not a state of the
// pool that nobody wrote. It starts when they are gone.
func TestPoolMadeAnewWaitsForThePodsOfTheOldOne(t *testing.T) {
	old := pool(t, "web", 4, "10.1.0.0/24")
	old.IdleAfter = 0
	c := newCluster(old)
	c.placed["web-1"], c.placed["web-2"] = Placement{Pool: "web"}, Placement{Pool: "web"}
	a := newHost(t).startIn(c, never())
	leases := a.leases()
	if _, err := leases.Lease(t.Context(), podRequest(1)); err != nil {
		t.Fatal(err)
	}
	c.update(func() { c.state.Pools = []Pool{pool(t, "web", 4, "10.9.0.0/24")} })
	var err error
	eventually(t, "the old addresses serve nobody new", func() bool {
		if _, err = leases.Lease(t.Context(), podRequest(2)); err == nil {
			release(t, a, podRequest(2))
		}
		return err != nil
	})
	if !errors.Is(err, cni.ErrTryAgain) || errors.Is(err, exchange.ErrDraining) || !strings.Contains(err.Error(), `pool "web" can't be used on this node now: `) || !strings.Contains(err.Error(), "shop/web-1") {
		t.Errorf("a new pod is told: %v", err)
	}
	release(t, a, podRequest(1))
	eventually(t, "the new addresses serve", func() bool {
		a.call()
		grant, err := leases.Lease(t.Context(), podRequest(2))
		return err == nil && strings.HasPrefix(grant.Addresses[0].Addr.String(), "10.9.0.")
	})
}
