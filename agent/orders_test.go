package agent

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/pools/exchange"
)

// reading is a store that counts the reads of a node's blocks, and may refuse them.
type reading struct {
	orderedStore
	away  atomic.Bool
	reads atomic.Int32
}

func (s *reading) Own(ctx context.Context) ([]exchange.Stored, error) {
	s.reads.Add(1)
	if s.away.Load() {
		return nil, errors.New("no answer")
	}
	return s.orderedStore.Own(ctx)
}

// ordered is an agent that has its blocks from its journal, and has heeded these
// orders before. Its store counts from zero.
func (h *host) ordered(c *fakeCluster, heeded string) (running, *reading) {
	h.t.Helper()
	parts, store := h.parts()
	s := &reading{orderedStore: parts.Store.(orderedStore)}
	parts.Store, parts.Cluster = s, c
	a, err := New(h.t.Context(), parts, settings(h.t))
	if err != nil {
		h.t.Fatal(errors.Join(err, store.Close()))
	}
	a.every = never()
	a.desk.replayed = true
	a.desk.recallOrders(heeded, func() bool { return c.State().Reached })
	s.reads.Store(0)
	return h.runs(a, store), s
}

func webCluster(t *testing.T, orders string) *fakeCluster {
	c := newCluster(pool(t, "web", 4, "10.1.0.0/24"))
	c.state.Orders = orders
	for _, name := range []string{"web-1", "web-2", "web-3"} {
		c.placed[name] = Placement{Pool: "web"}
	}
	return c
}

func TestOrdersThatWereHeededNeedNoRead(t *testing.T) {
	a, store := newHost(t).ordered(webCluster(t, "speaker/2"), "speaker/2")
	if _, err := a.leases().Lease(t.Context(), podRequest(1)); err != nil {
		t.Error(err)
	}
	if n := store.reads.Load(); n != 0 {
		t.Errorf("the blocks were read %d times", n)
	}
}

// Other orders than before: nothing new is leased until the blocks were read, and
// what is leased stays.
func TestOrdersThatAreNewsHoldUpLeases(t *testing.T) {
	c := webCluster(t, "speaker/2")
	h := newHost(t)
	a, store := h.ordered(c, "speaker/2")
	leases := a.leases()
	first, err := leases.Lease(t.Context(), podRequest(1))
	if err != nil {
		t.Fatal(err)
	}
	store.away.Store(true)
	c.update(func() { c.state.Orders = "speaker/3" })
	eventually(t, "it tries to read its blocks", func() bool { return store.reads.Load() > 0 })
	if again, err := leases.Lease(t.Context(), podRequest(1)); err != nil || again.Addresses[0] != first.Addresses[0] {
		t.Errorf("the same ADD again: %v, %v; before %v", again, err, first)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := leases.Lease(short, podRequest(2)); !errors.Is(err, errUnheeded) {
		t.Errorf("a lease before the blocks are read: %v", err)
	}
	if got := a.desk.ordersHeeded(); got != "speaker/2" {
		t.Errorf("heeded are the orders %q", got)
	}
	store.away.Store(false)
	if _, err := leases.Lease(t.Context(), podRequest(2)); err != nil {
		t.Errorf("a lease after the blocks are read: %v", err)
	}
	eventually(t, "they are confirmed", func() bool {
		return locked(c, func() bool { return len(c.reports) > 0 && c.reports[len(c.reports)-1].Orders == "speaker/3" })
	})
	if kept, err := newMemory(h.run, h.boot).recall(); err != nil || kept.orders != "speaker/3" {
		t.Errorf("the next agent recalls %q, %v", kept.orders, err)
	}
}

// Orders that are not known are waited for, but not for long.
func TestOrdersThatAreNotKnown(t *testing.T) {
	c := webCluster(t, "")
	a, _ := newHost(t).ordered(c, "speaker/2")
	began := time.Now()
	if _, err := a.leases().Lease(t.Context(), podRequest(1)); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("it was leased after %v", took)
	}
	if _, err := a.leases().Lease(t.Context(), podRequest(2)); err != nil {
		t.Error(err)
	}
	// Nobody could have left orders: that says nothing.
	c.update(func() { c.state.Orders = exchange.NoOrders })
	eventually(t, "it has read its blocks", func() bool {
		a.desk.mu.Lock()
		defer a.desk.mu.Unlock()
		return a.desk.node.Heeded() == exchange.NoOrders
	})
	if got := a.desk.ordersHeeded(); got != "" {
		t.Errorf("the next agent would rely on the orders %q", got)
	}
}

// An API server that is there, and has only not come to it, has orders that count:
// they are waited for as long as it takes.
func TestOrdersThatTheAPIServerHasNotShownYet(t *testing.T) {
	c := webCluster(t, "")
	c.state.Reached = true
	a, _ := newHost(t).ordered(c, "speaker/2")
	a.desk.mu.Lock()
	a.desk.node.Recall("speaker/2", a.desk.now().Add(-time.Minute))
	a.desk.mu.Unlock()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := a.leases().Lease(short, podRequest(1)); !errors.Is(err, errUnheeded) {
		t.Errorf("a lease before the orders are known: %v", err)
	}
	c.update(func() { c.state.Orders = "speaker/2" })
	if _, err := a.leases().Lease(t.Context(), podRequest(1)); err != nil {
		t.Errorf("a lease after they are known: %v", err)
	}
}

// A fenced node leases nothing new, whatever it has read, and keeps what it has.
func TestAFencedNodeLeasesNothingNew(t *testing.T) {
	c := webCluster(t, "speaker/2")
	a, _ := newHost(t).ordered(c, "speaker/2")
	leases := a.leases()
	first, err := leases.Lease(t.Context(), podRequest(1))
	if err != nil {
		t.Fatal(err)
	}
	c.update(func() { c.state.Orders, c.state.Fence = "speaker/3", "since now" })
	eventually(t, "it has read its blocks", func() bool { return a.desk.ordersHeeded() == "speaker/3" })
	_, err = leases.Lease(t.Context(), podRequest(2))
	if !errors.Is(err, errFenced) || !errors.Is(err, cni.ErrTryAgain) || !strings.Contains(err.Error(), "since now") {
		t.Errorf("a lease behind a fence: %v", err)
	}
	if again, err := leases.Lease(t.Context(), podRequest(1)); err != nil || again.Addresses[0] != first.Addresses[0] {
		t.Errorf("the same ADD again: %v, %v; before %v", again, err, first)
	}
	c.update(func() { c.state.Orders, c.state.Fence = "speaker/4", "" })
	eventually(t, "it leases again", func() bool {
		_, err := leases.Lease(t.Context(), podRequest(2))
		return err == nil
	})
}
