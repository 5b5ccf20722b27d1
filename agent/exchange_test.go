package agent

import (
	"context"
	"testing"

	"github.com/fairway-network/fairway/pools"
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

// Of many more pods than there are addresses each has one in the end.
func TestEachFreeAddressIsSomebodys(t *testing.T) {
	const pods = 60
	a := sharing(t, "10.1.0.0/30", "fd00::/126")
	served := make(chan error)
	for n := range pods {
		go func() {
			r := request("web", n)
			_, err := a.desk.Lease(t.Context(), r)
			if err == nil {
				err = a.desk.Release(t.Context(), r.Owner)
			}
			served <- err
		}()
	}
	for range pods {
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

// However many wait, one address that comes free has one of them look, and no more
// the next time that the node goes on.
func TestFreeAddressWakesOne(t *testing.T) {
	a := sharing(t, "10.1.0.0/30")
	for n := range 4 {
		lease(t, a, request("web", n))
	}
	for n := range 8 {
		a.ask(t.Context(), request("web", 10+n))
	}
	eventually(t, "all wait", func() bool {
		a.desk.mu.Lock()
		defer a.desk.mu.Unlock()
		return len(a.desk.waiters) == 8
	})
	a.desk.mu.Lock()
	defer a.desk.mu.Unlock()
	if err := a.desk.release(request("web", 0).Owner); err != nil {
		t.Error(err)
	}
	a.desk.advance()
	woken := 0
	for _, w := range a.desk.waiters {
		if w.woken {
			woken++
		}
	}
	if woken != 1 {
		t.Errorf("%d of those who wait are to look at one address", woken)
	}
}

// An address that came for one who gives up is the next one's at once.
func TestAddressThatIsNotTakenWakesTheNext(t *testing.T) {
	a := sharing(t, "10.1.0.0/30")
	for n := range 4 {
		lease(t, a, request("web", n))
	}
	waits := func(count int) {
		eventually(t, "they wait", func() bool {
			a.desk.mu.Lock()
			defer a.desk.mu.Unlock()
			return len(a.desk.waiters) == count
		})
	}
	first := make(chan *waiter)
	go func() {
		w, err := a.desk.claim(t.Context(), pools.NoFreeError{Pool: "web", Family: pools.IPv4})
		if err != nil {
			t.Error(err)
		}
		first <- w
	}()
	waits(1)
	ctx, cancel := context.WithTimeout(t.Context(), askTime/2) // it looks again by itself later
	defer cancel()
	second := a.ask(ctx, request("web", 5))
	waits(2)
	release(t, a, request("web", 0))
	w := <-first
	a.desk.mu.Lock()
	a.desk.endWait(w)
	a.desk.mu.Unlock()
	if got := <-second; got.err != nil {
		t.Error(got.err)
	}
}
