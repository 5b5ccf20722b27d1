package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

// sharing is an agent whose pool web has four addresses, and which could ask others
// for more: who gets none waits.
func sharing(t *testing.T, ranges ...string) running {
	a := newHost(t).start(settings(t, pool(t, "web", 4, ranges...)))
	a.desk.mu.Lock()
	defer a.desk.mu.Unlock()
	a.desk.node.Shared = true
	return a
}

// Of many more pods than there are addresses each has one in the end, and at once: none
// waits until it looks by itself, which is after askTime. Each comes twice, the second time
// past those who wait.
func TestEachFreeAddressIsSomebodys(t *testing.T) {
	const crowd, times = 60, 2
	a := sharing(t, "10.1.0.0/30", "fd00::/126")
	for n := range 4 {
		lease(t, a, request("web", n))
	}
	ctx, cancel := context.WithTimeout(t.Context(), askTime/2)
	defer cancel()
	served := make(chan error)
	for n := range crowd {
		go func() {
			var err error
			for turn := 0; turn < times && err == nil; turn++ {
				r := request("web", 100+n*times+turn)
				if _, err = a.desk.Lease(ctx, r); err == nil {
					err = a.desk.Release(ctx, r.Owner)
				}
			}
			served <- err
		}()
	}
	a.awaitWaiters(t, crowd)
	for n := range 4 {
		release(t, a, request("web", n))
	}
	for range crowd {
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
	a.desk.mu.Lock()
	defer a.desk.mu.Unlock()
	if len(a.desk.waiters) > 0 || len(a.desk.waiting) > 0 {
		t.Errorf("left behind: %d who wait, %v", len(a.desk.waiters), a.desk.waiting)
	}
}

// awaitWaiters waits until so many leases wait.
func (a running) awaitWaiters(t *testing.T, count int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d leases wait", count), func() bool {
		a.desk.mu.Lock()
		defer a.desk.mu.Unlock()
		return len(a.desk.waiters) == count
	})
}

// Who looks and has to wait on, because one family's address is gone again, leaves the
// other family's to the next.
func TestAddressThatIsLeftWakesTheNext(t *testing.T) {
	a := sharing(t, "10.1.0.0-10.1.0.2", "fd00::/126")
	for n := range 3 {
		lease(t, a, request("web", n))
	}
	v4, v6 := pools.NoFreeError{Pool: "web", Family: pools.IPv4}, pools.NoFreeError{Pool: "web", Family: pools.IPv6}
	first := &waiter{lacks: []pools.NoFreeError{v4, v6}, woken: true, look: make(chan struct{}, 1)}
	next := &waiter{lacks: []pools.NoFreeError{v6}, look: make(chan struct{}, 1)}
	a.desk.mu.Lock()
	a.desk.waiters = []*waiter{first, next}
	a.desk.need(first.lacks, +1)
	a.desk.need(next.lacks, +1)
	early := next.woken
	a.desk.mu.Unlock()
	if early {
		t.Fatal("the one address is for the first")
	}
	if _, over := a.desk.claimed(first, false); over || first.woken || !next.woken {
		t.Errorf("the wait of the first is over: %t, it is woken: %t, the next one is: %t", over, first.woken, next.woken)
	}
	a.desk.mu.Lock()
	defer a.desk.mu.Unlock()
	a.desk.endWait(first)
	a.desk.endWait(next)
}

// However many wait, one address that comes free has one of them look, and no more
// the next time that the node goes on.
func TestFreeAddressWakesOne(t *testing.T) {
	for how, free := range map[string]func(*desk, pools.Owner) error{
		"released": (*desk).release, "taken back": (*desk).takeBack,
	} {
		t.Run(how, func(t *testing.T) {
			a := sharing(t, "10.1.0.0/30")
			for n := range 4 {
				lease(t, a, request("web", n))
			}
			for n := range 8 {
				a.ask(t.Context(), request("web", 10+n))
			}
			a.awaitWaiters(t, 8)
			a.desk.mu.Lock()
			defer a.desk.mu.Unlock()
			if err := free(a.desk, request("web", 0).Owner); err != nil {
				t.Error(err)
			}
			if got := a.desk.woken(); got != 1 {
				t.Errorf("%d of those who wait are to look at one address, before the lock is given up", got)
			}
			a.desk.advance()
			if got := a.desk.woken(); got != 1 {
				t.Errorf("%d of those who wait are to look at one address, once the node has gone on", got)
			}
		})
	}
}

// woken are so many of those who wait. The lock is held.
func (d *desk) woken() (count int) {
	for _, w := range d.waiters {
		if w.woken {
			count++
		}
	}
	return count
}

// An address that came for one who gives up is the next one's at once.
func TestAddressThatIsNotTakenWakesTheNext(t *testing.T) {
	a := sharing(t, "10.1.0.0/30")
	for n := range 4 {
		lease(t, a, request("web", n))
	}
	first := make(chan *waiter)
	go func() {
		w, err := a.desk.claim(t.Context(), pools.NoFreeError{Pool: "web", Family: pools.IPv4})
		if err != nil {
			t.Error(err)
		}
		first <- w
	}()
	a.awaitWaiters(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), askTime/2) // it looks again by itself later
	defer cancel()
	second := a.ask(ctx, request("web", 5))
	a.awaitWaiters(t, 2)
	release(t, a, request("web", 0))
	w := <-first
	a.desk.mu.Lock()
	a.desk.endWait(w)
	if a.desk.woken() != 1 {
		t.Error("the next one has to wait until the node goes on")
	}
	a.desk.mu.Unlock()
	if got := <-second; got.err != nil {
		t.Error(got.err)
	}
}

// A chosen address that another node has says nothing of how full the pool is.
func TestAChosenAddressOfAnotherNodeIsTaken(t *testing.T) {
	a := sharing(t, "10.1.0.0/30")
	a.desk.mu.Lock()
	defer a.desk.mu.Unlock()
	pool, err := a.desk.ledger.Pool("web")
	if err != nil {
		t.Fatal(err)
	}
	chosen := pools.NoFreeError{Pool: "web", Family: pools.IPv4, Want: netip.MustParseAddr("10.1.0.2")}
	for name, c := range map[string]struct {
		lack       pools.NoFreeError
		cause      error
		taken, out bool
	}{
		"chosen":             {chosen, pools.ErrExhausted, true, false},
		"chosen, none asked": {chosen, fmt.Errorf("%w, and %w", pools.ErrExhausted, exchange.ErrUnasked), false, true},
		"any":                {pools.NoFreeError{Pool: "web", Family: pools.IPv4}, pools.ErrExhausted, false, true},
	} {
		err := a.desk.exhausted(pool, c.lack, c.cause)
		if errors.Is(err, pools.ErrTaken) != c.taken || errors.Is(err, pools.ErrExhausted) != c.out {
			t.Errorf("%s: %v", name, err)
		}
	}
}
