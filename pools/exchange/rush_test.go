package exchange_test

import (
	"container/heap"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// What things take in a rush: about what they do on a small machine that is busy.
const (
	storeTime   = 2 * time.Millisecond // for one call, one after the other
	wireTime    = time.Millisecond     // one way
	watchTime   = 100 * time.Microsecond
	networkTime = 5 * time.Millisecond
)

// rush is many pods that come to many nodes at once, event by event.
type rush struct {
	testing.TB
	store  model
	took   time.Duration // by the store for one call
	now    time.Time
	free   time.Time // when the store has done all that it was asked
	agenda agenda
	nodes  []*runner
	calls  int
	late   int // answers that were refused
}

// moment is something to do at a time; those of one time in the order of their numbers.
type moment struct {
	at     time.Time
	number int
	do     func()
}

type agenda struct {
	moments []moment
	number  int
}

func (a *agenda) Len() int { return len(a.moments) }
func (a *agenda) Less(i, j int) bool {
	x, y := a.moments[i], a.moments[j]
	return x.at.Before(y.at) || x.at.Equal(y.at) && x.number < y.number
}
func (a *agenda) Swap(i, j int) { a.moments[i], a.moments[j] = a.moments[j], a.moments[i] }
func (a *agenda) Push(x any)    { a.moments = append(a.moments, x.(moment)) }
func (a *agenda) Pop() any {
	last := a.moments[len(a.moments)-1]
	a.moments = a.moments[:len(a.moments)-1]
	return last
}

// runner is a node of a rush, and how many pods wait there and have an address.
type runner struct {
	*Node
	rush                *rush
	ledger              *pools.Ledger
	waiting, told, pods int
	gone                int // of the pods; the first ones
	due                 time.Time
	parting             bool
}

// newRush has nodes of a pool "a" of these addresses.
func newRush(t testing.TB, nodes, blockSize int, addresses string) *rush {
	t.Helper()
	pool, err := pools.New(pools.Definition{Name: "a", BlockSize: blockSize, Ranges: ranges(addresses), Gateways: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/0")}})
	if err != nil {
		t.Fatal(err)
	}
	r := &rush{TB: t, took: storeTime, now: epoch()}
	r.store.removed = func(Stored) {}
	r.store.changed()
	for i := range nodes {
		name := fmt.Sprint("node-", i+1)
		n := &runner{rush: r, ledger: pools.NewLedger(name)}
		if err := n.ledger.SetPools([]*pools.Pool{pool}); err != nil {
			t.Fatal(err)
		}
		n.Node = NewNode(Config{Name: name, Machine: name, Shared: true, Log: slog.New(slog.DiscardHandler), Keep: func(pools.Record) error { return nil }}, n.ledger)
		n.SetRules(map[string]Rule{"a": {IdleAfter: time.Hour}})
		r.nodes = append(r.nodes, n)
	}
	return r
}

func (r *rush) in(d time.Duration, do func()) {
	r.agenda.number++
	heap.Push(&r.agenda, moment{r.now.Add(d), r.agenda.number, do})
}

// run has so many pods come to nodes that chance chooses, and says how long it took
// until all have an address; a minute at most.
func (r *rush) run(pods int, seed uint64) time.Duration {
	random := rand.New(rand.NewPCG(seed, 3))
	places := make([]*runner, pods)
	for i := range places {
		places[i] = r.nodes[random.IntN(len(r.nodes))]
	}
	return r.come(places)
}

// move ends all pods, and as many come to other nodes each.
func (r *rush) move(seed uint64) time.Duration {
	random := rand.New(rand.NewPCG(seed, 4))
	var places []*runner
	for i, n := range r.nodes {
		for ; n.gone < n.pods; n.gone++ {
			rec, held, err := n.ledger.ProposeRelease(podNamed(fmt.Sprint(n.Name, "-", n.gone)).Owner, r.now)
			if err == nil {
				err = n.ledger.Apply(rec)
			}
			if err != nil || !held {
				r.Fatalf("release: held %v, %v", held, err)
			}
			places = append(places, r.nodes[(i+1+random.IntN(len(r.nodes)-1))%len(r.nodes)])
		}
	}
	return r.come(places)
}

// come has a pod come to each place, one right after the other.
func (r *rush) come(places []*runner) time.Duration {
	began := r.now
	for i, n := range places {
		r.in(time.Duration(i)*50*time.Microsecond, func() {
			n.waiting++
			if n.serve() {
				n.turn()
			}
		})
	}
	served := func() (sum int) {
		for _, n := range r.nodes {
			sum += n.pods - n.gone
		}
		return sum
	}
	for end := r.now.Add(time.Minute); served() < len(places); {
		if r.next(); r.now.After(end) {
			r.Fatalf("after a minute %d of %d pods have an address", served(), len(places))
		}
	}
	return r.now.Sub(began)
}

// next does what is to be done next.
func (r *rush) next() {
	next := heap.Pop(&r.agenda).(moment)
	r.now = next.at
	next.do()
}

// rest lets some time go by.
func (r *rush) rest(d time.Duration) {
	for end := r.now.Add(d); r.agenda.Len() > 0 && !r.agenda.moments[0].at.After(end); {
		r.next()
	}
}

// turn has the node go on, as its agent does after each event.
func (n *runner) turn() {
	for again := true; again; again = n.serve() {
		ops, next := n.Advance(n.rush.now)
		for _, o := range ops {
			n.rush.call(n, o)
		}
		if n.due = next; !next.IsZero() {
			n.rush.in(max(next.Sub(n.rush.now), time.Millisecond), func() {
				if n.due.Equal(next) {
					n.turn()
				}
			})
		}
		if len(n.Parting()) > 0 && !n.parting {
			n.parting = true
			n.rush.in(networkTime, n.part)
		}
	}
}

func (n *runner) part() {
	n.parting = false
	n.Parted(n.Parting())
	n.turn()
}

// serve leases to those who wait, and says whether the node has news.
func (n *runner) serve() bool {
	for ; n.waiting > 0; n.waiting-- {
		rec, _, err := n.ledger.ProposeLease(podNamed(fmt.Sprint(n.Name, "-", n.pods)), n.rush.now)
		if err != nil {
			break
		}
		if err := n.ledger.Apply(rec); err != nil {
			n.rush.Fatal(err)
		}
		n.pods++
	}
	if n.waiting == n.told {
		return false
	}
	n.told = n.waiting
	n.Need(Lack{Pool: "a", Family: pools.IPv4}, n.waiting, n.rush.now)
	return true
}

// call has the store do what a node asks, in turn, and answer.
func (r *rush) call(n *runner, o *Op) {
	r.in(wireTime, func() {
		r.free = later(r.free, r.now).Add(r.took)
		r.in(r.free.Sub(r.now), func() {
			before := slices.Clone(r.store.requests)
			res := r.store.do(n.Name, o)
			if r.calls++; o.Kind == Answer && res.Err != nil {
				r.late++
			}
			if !slices.EqualFunc(before, r.store.requests, Request.Equal) {
				r.tell()
			}
			r.in(wireTime, func() {
				n.Done(o, res, r.now)
				n.turn()
			})
		})
	})
}

// tell shows all nodes the requests, one after the other.
func (r *rush) tell() {
	requests := slices.Clone(r.store.requests)
	for _, n := range r.nodes {
		r.free = r.free.Add(watchTime)
		r.in(r.free.Sub(r.now)+wireTime, func() {
			n.Seen(requests, r.now)
			n.turn()
		})
	}
}

// A thousand pods that come to ten nodes at once take few calls, and not many times
// as long where there are exactly as many addresses.
func TestAThousandPodsTakeFewCalls(t *testing.T) {
	for _, c := range []struct {
		name, addresses string
		blockSize       int
		calls, late     int
		took            time.Duration
	}{
		{"plenty", "10.0.0.0/16", 64, 35, 0, 100 * time.Millisecond},
		{"small, with plenty", "10.2.0.0/20", 64, 35, 0, 100 * time.Millisecond},
		{"exact", "10.2.0.0-10.2.3.231", 32, 140, 25, 330 * time.Millisecond},
		{"exact, smaller blocks", "10.2.0.0-10.2.3.231", 16, 215, 30, 550 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(3) {
				r := newRush(t, 10, c.blockSize, c.addresses)
				took := r.run(1000, seed)
				t.Logf("seed %d: %d calls, %d answers too late, %v", seed, r.calls, r.late, took)
				if r.calls > c.calls || r.late > c.late || took > c.took {
					t.Errorf("seed %d: %d calls, %d answers too late, %v; want at most %d, %d, %v", seed, r.calls, r.late, took, c.calls, c.late, c.took)
				}
			}
		})
	}
}

// The same figures for changes of the protocol to be judged by: medians of many seeds, which
// are the same each time, with a store that is quick, as usual, or busy. The second half is
// of as many pods that come when these have gone.
func BenchmarkAsManyAddressesAsPods(b *testing.B) {
	for _, took := range []time.Duration{storeTime / 2, storeTime, 2 * storeTime} {
		b.Run(took.String(), func(b *testing.B) {
			figures := map[string][]float64{}
			for b.Loop() {
				for seed := range uint64(50) {
					r := newRush(b, 10, 32, "10.2.0.0-10.2.3.231")
					r.took = took
					note := func(when string, all time.Duration) {
						figures["ms-"+when] = append(figures["ms-"+when], all.Seconds()*1e3)
						figures["calls-"+when] = append(figures["calls-"+when], float64(r.calls))
						figures["late-"+when] = append(figures["late-"+when], float64(r.late))
					}
					note("at-first", r.run(1000, seed))
					r.rest(3 * time.Second)
					r.calls, r.late = 0, 0
					note("again", r.move(seed))
				}
			}
			for name, all := range figures {
				slices.Sort(all)
				b.ReportMetric(all[len(all)/2], name)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// Where all addresses are in use pods that go and come elsewhere don't wait for a look
// that somebody takes now and then: what was lent, and was returned for those who ask,
// its lender finds soon.
func TestWhatIsReturnedIsFoundSoon(t *testing.T) {
	for seed := range uint64(12) {
		r := newRush(t, 10, 32, "10.2.0.0-10.2.3.231")
		r.run(1000, seed)
		r.rest(3 * time.Second)
		if took := r.move(seed); took > 900*time.Millisecond {
			t.Errorf("seed %d: all have another address after %v", seed, took)
		}
	}
}
