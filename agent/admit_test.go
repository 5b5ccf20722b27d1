package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

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

// onError is a log that has something done when an error is logged.
type onError struct {
	slog.Handler
	do func()
}

func (h onError) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		h.do()
	}
	return h.Handler.Handle(ctx, r)
}

// The other pools serve as ever while a misfit is found among them, wherever it is in
// the list, and what is empty of them stays.
func TestMisfitDisturbsNoOtherPool(t *testing.T) {
	first, web, empty := pool(t, "first", 4, "10.1.0.0/24"), pool(t, "web", 4, "10.3.0.0/24"), pool(t, "empty", 4, "10.4.0.0/24")
	c := newCluster(first, pool(t, "anew", 4, "10.2.0.0/24"), web, empty)
	h := newHost(t)
	parts, store := h.parts()
	parts.Cluster = c
	found := make(chan struct{})
	look := func() {}
	parts.Log = slog.New(onError{parts.Log.Handler(), func() { look() }})
	made, err := New(t.Context(), parts, settings(t))
	if err != nil {
		t.Fatal(errors.Join(err, store.Close()))
	}
	made.every = never()
	a := h.runs(made, store)
	for n, name := range []string{"first", "anew", "web", "empty"} {
		lease(t, a, request(name, n))
	}
	release(t, a, request("empty", 3))
	look = sync.OnceFunc(func() {
		defer close(found)
		a.desk.tick()
		status := a.desk.status()
		for _, p := range status.Pools {
			if p.Draining != (p.Name == "anew") {
				t.Errorf("pool %q drains: %v", p.Name, p.Draining)
			}
		}
		for _, b := range status.Blocks {
			if b.State != "ready" {
				t.Errorf("block %s of pool %q is %s", b.Prefix, b.Pool, b.State)
			}
		}
		for n, p := range []Pool{first, web, empty} {
			if _, err := a.desk.Lease(t.Context(), request(p.Name(), 10+n)); err != nil {
				t.Errorf("a new pod: %v", err)
			}
		}
	})
	c.update(func() { c.state.Pools = []Pool{first, pool(t, "anew", 4, "10.9.0.0/24"), web, empty} })
	select {
	case <-found:
	case <-time.After(10 * time.Second):
		t.Fatal("no misfit was found")
	}
}
