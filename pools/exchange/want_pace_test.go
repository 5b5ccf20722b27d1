package exchange_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// town is some nodes of one pool around a store that answers at once.
type town struct {
	*testing.T
	store model
	pool  *pools.Pool
	now   time.Time
	nodes []*neighbour
}

// neighbour is a node of a town.
type neighbour struct {
	*Node
	town   *town
	ledger *pools.Ledger
	calls  map[Kind]int
	answer func(*Op) (Result, bool) // instead of the store, if true
}

// newTown has a pool "a" of these addresses.
func newTown(t *testing.T, blockSize int, addresses string) *town {
	t.Helper()
	pool, err := pools.New(pools.Definition{Name: "a", BlockSize: blockSize, Ranges: ranges(addresses), Gateways: []netip.Prefix{netip.MustParsePrefix("10.0.0.255/24")}})
	if err != nil {
		t.Fatal(err)
	}
	w := &town{T: t, pool: pool, now: epoch()}
	w.store.removed = func(Stored) {}
	w.store.changed()
	return w
}

// join adds a node that returns what has been empty for idleAfter.
func (w *town) join(name string, idleAfter time.Duration) *neighbour {
	w.Helper()
	b := &neighbour{town: w, ledger: pools.NewLedger(name), calls: map[Kind]int{}, answer: func(*Op) (Result, bool) { return Result{}, false }}
	if err := b.ledger.SetPools([]*pools.Pool{w.pool}); err != nil {
		w.Fatal(err)
	}
	b.Node = NewNode(Config{Name: name, Machine: name + ".1", Shared: true, Log: slog.New(slog.DiscardHandler), Keep: func(pools.Record) error { return nil }}, b.ledger)
	b.SetRules(map[string]Rule{"a": {IdleAfter: idleAfter}})
	w.nodes = append(w.nodes, b)
	w.store.nodes = append(w.store.nodes, nodeObject{name: name, machine: name + ".1"})
	return b
}

// work does all that can be done now, up to a limit that only a loop reaches.
func (w *town) work() {
	for quiet, rounds := false, 0; !quiet && rounds < 1000; rounds++ {
		quiet = true
		for _, b := range w.nodes {
			b.Seen(w.store.requests, w.now)
			b.Parted(b.Parting())
			ops, _ := b.Advance(w.now)
			for _, o := range ops {
				quiet = false
				b.calls[o.Kind]++
				r, ok := b.answer(o)
				if !ok {
					r = w.store.do(b.Name, o)
				}
				b.Done(o, r, w.now)
			}
			quiet = quiet && len(b.Parting()) == 0
		}
	}
}

// pass lets time go by.
func (w *town) pass(d time.Duration) {
	const step = 10 * time.Millisecond
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(step) {
		w.work()
	}
}

func (w *town) lack() Lack { return Lack{Pool: "a", Family: pools.IPv4} }

func podNamed(id string, want ...netip.Addr) pools.Request {
	return pools.Request{Pool: "a", Want: want, Owner: pools.Owner{Attachment: pools.Attachment{Network: "n", ContainerID: id, IfName: "eth0"}, PodUID: id}}
}

// run starts so many pods, which claim what they need.
func (b *neighbour) run(name string, count int) {
	b.town.Helper()
	for i := range count {
		rec, _, err := b.ledger.ProposeLease(podNamed(fmt.Sprint(name, i)), b.town.now)
		if errors.Is(err, pools.ErrNoFree) {
			b.Need(b.town.lack(), 1, b.town.now)
			b.town.pass(100 * time.Millisecond)
			b.Need(b.town.lack(), 0, b.town.now)
			rec, _, err = b.ledger.ProposeLease(podNamed(fmt.Sprint(name, i)), b.town.now)
		}
		if err != nil {
			b.town.Fatalf("pod %s%d on %s: %v", name, i, b.Name, err)
		}
		if err := b.ledger.Apply(rec); err != nil {
			b.town.Fatal(err)
		}
	}
}

// end ends pods.
func (b *neighbour) end(name string, count int) {
	b.town.Helper()
	for i := range count {
		rec, held, err := b.ledger.ProposeRelease(podNamed(fmt.Sprint(name, i)).Owner, b.town.now)
		if err != nil || !held {
			b.town.Fatalf("pod %s%d on %s: held %v, %v", name, i, b.Name, held, err)
		}
		if err := b.ledger.Apply(rec); err != nil {
			b.town.Fatal(err)
		}
	}
}

// refuse has calls of a kind refused.
func (b *neighbour) refuse(k Kind) {
	b.answer = func(o *Op) (Result, bool) { return Result{Err: errRefused}, o.Kind == k }
}

// most fails the test if there were more calls than that.
func (b *neighbour) most(limit int, kinds ...Kind) {
	b.town.Helper()
	for _, k := range kinds {
		if b.calls[k] > limit {
			b.town.Errorf("%s: %d calls of %v, no more than %d are wanted; all calls: %v", b.Name, b.calls[k], k, limit, b.calls)
		}
	}
}

// What the store refuses is tried again less and less often.
func TestRefusedClaimsBecomeRare(t *testing.T) {
	w := newTown(t, 8, "10.0.0.0/24")
	a := w.join("a", time.Hour)
	a.refuse(Create)
	a.Need(w.lack(), 1, w.now)
	w.pass(time.Minute)
	a.most(20, Create, List)
	if err := a.Why(w.lack()); !errors.Is(err, errRefused) {
		t.Errorf("the reason told is %v", err)
	}
}

// A claim that nobody answered, and that is refused ever after, is given up once it can't
// come to count any more, as is a vacant block, and a lent one, which its lender has back.
func TestWhatIsRefusedAfterAllIsGivenUp(t *testing.T) {
	refuse := func(k Kind, prefix string) func(o *Op) (Result, bool) {
		err := ErrUnknown
		return func(o *Op) (Result, bool) {
			if o.Kind != k || o.Block.Prefix.String() != prefix {
				return Result{}, false
			}
			defer func() { err = errRefused }()
			return Result{Err: err}, true
		}
	}
	t.Run("claim", func(t *testing.T) {
		w := newTown(t, 4, "10.0.0.0/29")
		a := w.join("a", time.Hour)
		cell, err := w.pool.NextCell(pools.IPv4, "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		a.answer = refuse(Create, cell.String())
		a.Need(w.lack(), 1, w.now)
		w.pass(time.Second)
		a.Need(w.lack(), 0, w.now)
		w.pass(time.Minute)
		a.most(1, Look)
		tried := a.calls[Create]
		w.pass(10 * time.Minute)
		a.most(tried, Create)
		if a.Wants(w.lack()) {
			t.Errorf("nobody waits, and after %v it is still wanted", a.calls)
		}
	})
	t.Run("take", func(t *testing.T) {
		w := newTown(t, 4, "10.0.0.0/29")
		for _, p := range []string{"10.0.0.0/30", "10.0.0.4/30"} {
			cell := netip.MustParsePrefix(p)
			b, err := w.store.create("z", pools.Block{Prefix: cell, Pool: "a", Node: "z"})
			if err == nil {
				_, err = w.store.vacate(b)
			}
			if err == nil { // so that it stays
				_, err = w.store.create("y", pools.Block{Prefix: netip.PrefixFrom(cell.Addr(), 32), Pool: "a", Node: "y", Lender: "z"})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		a := w.join("a", time.Hour)
		a.answer = refuse(Take, "10.0.0.0/30")
		a.Need(w.lack(), 1, w.now)
		w.pass(time.Minute)
		if len(a.Held()) == 0 {
			t.Errorf("a pod waits, while another cell is vacant: %v, %v", a.calls, a.Why(w.lack()))
		}
		a.Need(w.lack(), 0, w.now)
		w.pass(time.Minute)
		tried := a.calls[Take]
		w.pass(10 * time.Minute)
		a.most(tried, Take)
	})
	t.Run("loan", func(t *testing.T) {
		w := newTown(t, 4, "10.0.0.0/30")
		a, b := w.join("a", time.Hour), w.join("b", time.Hour)
		a.run("p", 3)
		b.answer = refuse(Create, "10.0.0.0/32")
		b.Need(w.lack(), 1, w.now)
		w.pass(time.Second)
		b.Need(w.lack(), 0, w.now)
		w.pass(2 * time.Minute)
		if len(w.store.requests) > 0 || len(a.ledger.Asides()) > 0 {
			t.Errorf("a has %v set aside for %+v", a.ledger.Asides(), w.store.requests)
		}
	})
}

func TestRefusedDrawsBecomeRare(t *testing.T) {
	w := newTown(t, 8, "10.0.0.0/29")
	a, b := w.join("a", time.Hour), w.join("b", time.Hour)
	a.run("p", 4)
	b.refuse(Create)
	b.Need(w.lack(), 1, w.now)
	w.pass(time.Minute)
	b.most(20, Create, Ask, Retract)
	a.most(20, Answer)
}
