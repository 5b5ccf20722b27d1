package exchange_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// asks is a request of a node that is not in the lab.
func asks(id string, count int) Request {
	return Request{Name: id, UID: id, Version: "1", Node: "asker", Pool: "a", Family: pools.IPv4, Count: count, Holders: 1}
}

// grantedBy is how many addresses a request was granted.
func grantedBy(r Request) int { return r.Count - r.Lacks() }

// A node lends nothing that its own pods wait for, nor in the moment in which
// they wait no more and have yet to lease it.
func TestWhatPodsWaitForStays(t *testing.T) {
	l := newLab(t)
	g := l.joins("n", 4, "10.0.0.0/30")
	l.store.requests = []Request{asks("r", 4)}
	g.node.Need(anyOf(pools.IPv4), 4, l.now)
	l.pass(10 * time.Second)
	g.node.Need(anyOf(pools.IPv4), 0, l.now)
	l.goOn()
	if g.calls[Answer]+g.calls[Delete] > 0 || len(g.node.Held()) != 1 {
		t.Fatalf("it holds %v after %v", describe(g.node.Held()), g.calls)
	}
	if _, err := g.lease("pod"); err != nil {
		t.Fatal(err)
	}
	l.pass(2 * time.Second)
	if g.calls[Answer] != 1 || grantedBy(l.store.requests[0]) != 3 {
		t.Errorf("nobody waits any more, and after %v the request is %+v", g.calls, l.store.requests[0])
	}
}

// A pod that waits no more has a lease or gets one soon: nothing is kept for it beside its
// lease.
func TestWhatPodsHaveLeasedIsKeptOnce(t *testing.T) {
	l := newLab(t)
	g := l.joins("n", 8, "10.0.0.0/29")
	g.node.Need(anyOf(pools.IPv4), 7, l.now)
	l.pass(10 * time.Second)
	for id := range 6 {
		if _, err := g.lease(strconv.Itoa(id)); err != nil {
			t.Fatal(err)
		}
		if id > 0 {
			g.node.Need(anyOf(pools.IPv4), 6-id, l.now)
		}
	}
	g.node.Need(anyOf(pools.IPv4), 0, l.now) // one has yet to lease, and one address is left
	l.store.requests = []Request{asks("r", 1), asks("s", 1)}
	granted := func() int { return grantedBy(l.store.requests[0]) + grantedBy(l.store.requests[1]) }
	if l.goOn(); granted() != 1 {
		t.Errorf("%d addresses are granted, want 1", granted())
	}
	if l.pass(time.Second); granted() != 2 {
		t.Errorf("the last pod has not leased for a second, and %d addresses are granted, want 2", granted())
	}
}

// No more than it asks for is returned for a request, and something else for
// another one.
func TestReturnsWhatIsAskedFor(t *testing.T) {
	l := newLab(t)
	g := l.joins("n", 2, "10.0.0.0/27")
	g.leases(14)
	for i := range 14 {
		g.release(strconv.Itoa(i))
	}
	l.pass(2 * time.Minute)
	for count, want := range map[int]int{1: 1, 5: 3} {
		l.store.requests = []Request{asks(fmt.Sprint("r", count), count)}
		before := g.calls[Delete]
		l.pass(900 * time.Millisecond)
		if got := g.calls[Delete] - before; got != want {
			t.Errorf("for %d addresses %d blocks of two were returned, want %d", count, got, want)
		}
	}
}

// Who has so much to spare that no other node can have as much does not wait for its
// turn, however many hold blocks.
func TestWhoHasMostAnswersAtOnce(t *testing.T) {
	l := newLab(t)
	g := l.joins("n", 16, "10.0.0.0/28")
	g.leases(2)
	r := asks("r", 1)
	r.Holders = 5000
	l.store.requests = []Request{r}
	l.goOn()
	if g.calls[Answer] != 1 {
		t.Errorf("after %v the request is %+v", g.calls, l.store.requests[0])
	}
}

// Requests that nothing can be done for cost nothing.
func TestHopelessRequestsAreCheap(t *testing.T) {
	l := newLab(t)
	g := l.joins("n", 16, "10.0.0.0/28")
	g.leases(16)
	requests := make([]Request, 5000)
	for i := range requests {
		requests[i] = asks(fmt.Sprint("r", i), 1)
	}
	g.node.Seen(requests, l.now)
	l.now = l.now.Add(time.Minute)
	g.node.Advance(l.now)
	if n := testing.AllocsPerRun(10, func() { g.node.Advance(l.now) }); n > 200 {
		t.Errorf("%.0f allocations each time", n)
	}
}

// waitsForChosen has a node a whose pod waits for the only IPv6 address of its pool, which
// another node has.
func (l *lab) waitsForChosen(addresses string) (g *guest, chosen Lack) {
	l.Helper()
	g = l.joins("a", 1, addresses, "fd00::/128")
	chosen = Lack{Pool: "a", Family: pools.IPv6, Want: netip.MustParseAddr("fd00::")}
	if _, err := l.store.create("z", pools.Block{Prefix: netip.MustParsePrefix("fd00::/128"), Pool: "a", Node: "z", Machine: "z-machine", Created: l.now}); err != nil {
		l.Fatal(err)
	}
	g.node.Need(chosen, 1, l.now)
	return g, chosen
}

// halfServed is waitsForChosen, where the pod has an IPv4 address to use.
func (l *lab) halfServed(addresses string) (g *guest, chosen Lack) {
	l.Helper()
	g, chosen = l.waitsForChosen(addresses)
	g.node.Need(anyOf(pools.IPv4), 1, l.now)
	l.pass(time.Second)
	g.node.Need(anyOf(pools.IPv4), 0, l.now)
	l.pass(time.Second)
	return g, chosen
}

// A pod that has come by one family of its addresses, and waits for a certain one of the
// other family, keeps what it has: returned to who comes later by name it would be asked
// for again, to and fro.
func TestWhatWaitsForAChosenAddressStays(t *testing.T) {
	l := newLab(t)
	g, chosen := l.halfServed("10.0.0.0/32")
	l.store.requests = append(l.store.requests, asks("r", 1))
	l.pass(10 * time.Second)
	if g.calls[Delete] != 0 || len(g.node.Held()) != 1 {
		t.Fatalf("it holds %v after %v", describe(g.node.Held()), g.calls)
	}
	g.node.Need(chosen, 0, l.now)
	l.pass(10 * time.Second)
	if g.calls[Delete] != 1 || len(g.node.Held()) != 0 {
		t.Errorf("nobody waits any more, and after %v it holds %v", g.calls, describe(g.node.Held()))
	}
}

// What such a pod has another one may want by choice, while any other address would do for
// it: it is given away, though not to and fro.
func TestWhatSomebodyChoseIsGivenAway(t *testing.T) {
	l := newLab(t)
	g, _ := l.halfServed("10.0.0.0/31")
	has := g.node.Held()[0].Prefix.Addr()
	for i, step := range []struct {
		want    netip.Addr
		after   time.Duration
		deletes int
	}{
		{has.Next(), time.Second, 0}, // which it does not have
		{has, time.Second, 1},
		{has, 30 * time.Second, 1},
		{has, 30 * time.Second, 2},
	} {
		if i == 2 { // it has it again
			l.store.requests = nil
			l.goOn()
			g.node.Need(Lack{Pool: "a", Family: pools.IPv4, Want: has}, 1, l.now)
			l.pass(time.Second)
			g.node.Need(Lack{Pool: "a", Family: pools.IPv4, Want: has}, 0, l.now)
			l.pass(time.Second)
		}
		r := asks(fmt.Sprint("r", i), 1)
		r.Want = step.want
		l.store.requests = append(l.store.requests, r)
		if l.pass(step.after); g.calls[Delete] != step.deletes {
			t.Fatalf("step %d: after %v it holds %v, want %d removals", i, g.calls, describe(g.node.Held()), step.deletes)
		}
	}
}

// Such an address is given away as soon as it can be, and a minute is counted from when it
// was, not from when it could not be.
func TestAChosenAddressIsGivenAwayOnceItCanBe(t *testing.T) {
	for _, c := range []struct {
		name  string
		has   Lack // of the pod that waits for the other family
		waits time.Duration
	}{
		{"it was fresh", anyOf(pools.IPv4), 0},
		{"a pod had chosen it, too", Lack{Pool: "a", Family: pools.IPv4, Want: netip.MustParseAddr("10.0.0.1")}, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			g, _ := l.waitsForChosen("10.0.0.0/31")
			g.node.Need(c.has, 1, l.now)
			for range 100 {
				if l.goOn(); len(g.node.Held()) > 0 {
					break
				}
				l.now = l.now.Add(time.Millisecond)
			}
			r := asks("r", 1)
			r.Want = g.node.Held()[0].Prefix.Addr()
			l.store.requests = append(l.store.requests, r)
			l.pass(c.waits)
			g.node.Need(c.has, 0, l.now)
			if l.pass(5 * time.Second); g.calls[Delete] == 0 {
				t.Errorf("after %v it holds %v still", g.calls, describe(g.node.Held()))
			}
		})
	}
}
