package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools/exchange"
	"github.com/fairway-network/fairway/speaker"
)

// Confirm is what nobody waits for.
func (c *fakeCluster) Confirm(context.Context, string) error { return nil }

// lifting is a cluster that waits for orders to be confirmed.
type lifting struct {
	*fakeCluster
	mu        sync.Mutex
	deaf      int // confirmations that fail first
	confirmed []string
}

func (c *lifting) Confirm(_ context.Context, orders string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deaf > 0 {
		c.deaf--
		return errors.New("try again later")
	}
	c.confirmed = append(c.confirmed, orders)
	return nil
}

// silentSpeaker is one whose process does not say how it is.
type silentSpeaker struct{ fakeSpeaker }

func (silentSpeaker) State(ctx context.Context) (speaker.State, error) {
	<-ctx.Done()
	return speaker.State{}, ctx.Err()
}

// What a fence waits for does not wait for a speaker that is silent, and is said again
// if it was not heard.
func TestOrdersAreConfirmedWhileTheSpeakerIsSilent(t *testing.T) {
	h := newHost(t)
	c := &lifting{fakeCluster: newCluster(pool(t, "web", 4, "10.1.0.0/24")), deaf: 1}
	c.state.Orders = "speaker/1"
	parts, store := h.parts()
	parts.Cluster, parts.Speaker = c, silentSpeaker{fakeSpeaker{h.world}}
	a, err := New(t.Context(), parts, settings(t))
	if err != nil {
		t.Fatal(errors.Join(err, store.Close()))
	}
	a.every = never()
	h.runs(a, store)
	eventually(t, "the first orders are known", func() bool {
		a.desk.mu.Lock()
		defer a.desk.mu.Unlock()
		return a.desk.node.Heeded() == "speaker/1"
	})
	began := time.Now()
	c.update(func() { c.state.Orders, c.state.Fence, c.state.Lifting = "speaker/2", "since now", true })
	eventually(t, "they are confirmed", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return slices.Contains(c.confirmed, "speaker/2")
	})
	if took := time.Since(began); took >= readTime {
		t.Errorf("they were confirmed after %v", took)
	}
	if n := locked(c.fakeCluster, func() int { return len(c.reports) }); n != 0 {
		t.Errorf("%d reports were made without the speaker", n)
	}
	if kept, err := newMemory(h.run, h.boot).recall(); err != nil || kept.orders != "speaker/2" {
		t.Errorf("the next agent recalls %q, %v", kept.orders, err)
	}
}

// Each time that there is no place for orders one may have come and gone.
func TestNoOrdersAgainAreNews(t *testing.T) {
	c := webCluster(t, exchange.NoOrders+"/1")
	a, store := newHost(t).ordered(c, "")
	heeds := func(orders string) {
		t.Helper()
		eventually(t, "it has heeded "+orders, func() bool {
			a.desk.mu.Lock()
			defer a.desk.mu.Unlock()
			return a.desk.node.Heeded() == orders
		})
	}
	heeds(exchange.NoOrders + "/1")
	before := store.reads.Load()
	c.update(func() { c.state.Orders = exchange.NoOrders + "/2" })
	heeds(exchange.NoOrders + "/2")
	if store.reads.Load() == before {
		t.Error("the blocks were not read")
	}
	if got := a.desk.ordersHeeded(); got != "" {
		t.Errorf("the next agent would rely on the orders %q", got)
	}
}
