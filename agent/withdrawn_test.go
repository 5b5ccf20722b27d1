package agent

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

// bereft is a store in which a node has an inner block that can't be removed, and an outer
// one until that is lost.
type bereft struct {
	exchange.Exchange
	inner, outer exchange.Stored
	lost         atomic.Bool
}

func (l *bereft) Own(context.Context) ([]exchange.Stored, error) {
	if l.lost.Load() {
		return []exchange.Stored{l.inner}, nil
	}
	return []exchange.Stored{l.inner, l.outer}, nil
}

func (l *bereft) Delete(context.Context, exchange.Stored) error { return errors.New("refused") }

func (l *bereft) Block(context.Context, netip.Prefix) (exchange.Stored, error) {
	return exchange.Stored{}, errors.New("refused")
}

// What lies in a lost block is withdrawn anew, whatever peers were told before: they may
// send here by the block around it. That holds also where that is lost between the plan
// and its end.
func TestWhatLiesInALostBlockIsWithdrawnAnew(t *testing.T) {
	for name, late := range map[string]bool{"lost before the plan": false, "lost after the plan": true} {
		t.Run(name, func(t *testing.T) { losesOuter(t, late) })
	}
}

func losesOuter(t *testing.T, late bool) {
	parts, store := newHost(t).parts()
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	a, err := New(t.Context(), parts, settings(t, pool(t, "web", 4, "10.1.0.0/30")))
	if err != nil {
		t.Fatal(err)
	}
	block := func(uid, prefix, lender string) exchange.Stored {
		return exchange.Stored{Version: "1", Block: pools.Block{UID: uid, Prefix: netip.MustParsePrefix(prefix), Pool: "web", Node: a.Node, Machine: a.Machine, Lender: lender}}
	}
	l := &bereft{inner: block("i", "10.1.0.1/32", "z"), outer: block("o", "10.1.0.0/30", "")}
	d := a.desk
	now := time.Now()
	d.mu.Lock()
	a.Store, d.store, d.node.Shared = l, l, true
	d.now = func() time.Time { return now }
	for _, st := range []exchange.Stored{l.outer, l.inner} {
		if err := d.node.Adopt(st, nil, now); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(time.Hour)
	d.node.CloseEmpty(now)
	d.mu.Unlock()
	t.Cleanup(func() {
		d.mu.Lock()
		if d.timer != nil {
			d.timer.Stop()
		}
		d.stopCalls()
		d.mu.Unlock()
		d.calls.Wait()
	})

	plans := func(closing, gone int) plan {
		t.Helper()
		p := d.plan(a.settings.Load())
		if len(p.closing) != closing || len(p.gone) != gone {
			t.Fatalf("it takes leave of %v, and is done with %v; want %d and %d blocks", p.closing, p.gone, closing, gone)
		}
		return p
	}
	loses := func() {
		l.lost.Store(true)
		d.audit()
		eventually(t, "the block is lost", func() bool { return d.forfeited() == 1 })
	}
	d.left(plans(1, 0).closing)
	p := plans(0, 1)
	if late {
		loses()
	}
	d.parted(p.gone)
	if !late {
		loses()
	}
	d.left(plans(1, 0).closing)
	d.parted(plans(0, 1).gone)
	plans(0, 0)
}
