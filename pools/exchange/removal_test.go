package exchange_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// lab has a few nodes at one store, whose calls are made at once, one by one.
type lab struct {
	*testing.T
	now   time.Time
	store model
	guest []*guest
}

// guest is a node of a lab.
type guest struct {
	*lab
	name    string
	node    *Node
	ledger  *pools.Ledger
	calls   map[Kind]int
	instead func(o *Op) (Result, bool) // of the store, where it says so
}

func newLab(t *testing.T) *lab {
	l := &lab{T: t, now: epoch()}
	l.store.removed = func(Stored) {}
	l.store.changed()
	return l
}

// joins has a node come, with a pool "a" of these addresses.
func (l *lab) joins(name string, blockSize int, addresses ...string) *guest {
	l.Helper()
	p, err := pools.New(pools.Definition{Name: "a", BlockSize: blockSize, ReuseAfter: time.Minute, Ranges: ranges(addresses...), Gateways: []netip.Prefix{netip.MustParsePrefix("10.0.0.255/24")}})
	if err != nil {
		l.Fatal(err)
	}
	g := &guest{lab: l, name: name, ledger: pools.NewLedger(name), calls: map[Kind]int{}}
	if err := g.ledger.SetPools([]*pools.Pool{p}); err != nil {
		l.Fatal(err)
	}
	g.node = NewNode(Config{Name: name, Machine: name + "-machine", Shared: true, Log: slog.New(slog.DiscardHandler), Keep: func(pools.Record) error { return nil }}, g.ledger)
	g.node.SetRules(map[string]Rule{"a": {IdleAfter: time.Hour}})
	l.guest = append(l.guest, g)
	l.store.nodes = append(l.store.nodes, nodeObject{name: name, machine: name + "-machine"})
	return g
}

// goOn makes all calls that are due now, until there are none.
func (l *lab) goOn() {
	for range 20 {
		for _, g := range l.guest {
			g.node.Seen(l.store.requests, l.now)
			g.advance()
		}
	}
}

func (g *guest) advance() {
	ops, _ := g.node.Advance(g.now)
	for _, o := range ops {
		g.calls[o.Kind]++
		r, ok := Result{}, false
		if g.instead != nil {
			r, ok = g.instead(o)
		}
		if !ok {
			r = g.store.do(g.name, o)
		}
		g.node.Done(o, r, g.now)
	}
	g.node.Parted(g.node.Parting())
}

func (l *lab) pass(d time.Duration) {
	step := min(max(d/100, 10*time.Millisecond), time.Second)
	for end := l.now.Add(d); l.now.Before(end); l.now = l.now.Add(step) {
		l.goOn()
	}
}

func anyOf(f pools.Family) Lack { return Lack{Pool: "a", Family: f} }

func ownerNamed(id string) pools.Owner {
	return pools.Owner{Attachment: pools.Attachment{Network: "n", ContainerID: id, IfName: "eth0"}, PodUID: id}
}

func (g *guest) lease(id string) ([]netip.Addr, error) {
	rec, _, err := g.ledger.ProposeLease(pools.Request{Pool: "a", Owner: ownerNamed(id)}, g.now)
	if err != nil {
		return nil, err
	}
	return rec.Addrs, g.ledger.Apply(rec)
}

// leases so many addresses, claiming what it takes.
func (g *guest) leases(count int) {
	g.Helper()
	for i := range count {
		_, err := g.lease(strconv.Itoa(i))
		for tries := 0; errors.Is(err, pools.ErrNoFree) && tries < 50; tries++ {
			g.node.Need(anyOf(pools.IPv4), 1, g.now)
			g.pass(100 * time.Millisecond)
			_, err = g.lease(strconv.Itoa(i))
		}
		g.node.Need(anyOf(pools.IPv4), 0, g.now)
		if err != nil {
			g.Fatal(err)
		}
	}
	g.pass(time.Second)
}

func (g *guest) release(id string) {
	g.Helper()
	rec, held, err := g.ledger.ProposeRelease(ownerNamed(id), g.now)
	if err != nil || !held {
		g.Fatal(held, err)
	}
	if err := g.ledger.Apply(rec); err != nil {
		g.Fatal(err)
	}
}

// unanswered makes the removals of a node be lost, and remembers the last one.
func (g *guest) unanswered(late **Op) {
	g.instead = func(o *Op) (Result, bool) {
		if o.Kind == Delete {
			*late = o
		}
		return Result{Err: ErrUnknown}, o.Kind == Delete
	}
}

// emptied is a node that returns its only block, which nobody answers.
func (l *lab) emptied(late **Op) *guest {
	l.Helper()
	g := l.joins("n", 8, "10.0.0.0/29")
	g.leases(1)
	g.release("0")
	g.pass(2 * time.Minute)
	g.unanswered(late)
	g.node.CloseEmpty(g.now)
	g.pass(time.Second)
	if *late == nil {
		l.Fatal("nothing is returned")
	}
	return g
}

// A removal that a life before this one has begun comes to count at any time
// after its node has taken the block anew, or never.
func TestLateRemoval(t *testing.T) {
	l := newLab(t)
	var late *Op
	l.emptied(&late)
	l.guest = nil // it crashes
	g := l.joins("n", 8, "10.0.0.0/29")
	if _, err := g.node.Found(nil, l.store.own("n"), l.now); err != nil {
		t.Fatal(err)
	}
	l.pass(2 * Settle)
	if _, err := g.lease("pod"); err != nil {
		t.Fatal(err)
	}
	if r := l.store.do("n", late); !errors.Is(r.Err, ErrConflict) {
		t.Errorf("the removal of a block in use: %v", r.Err)
	}
}

// A block whose removal has begun and that is another node's by now is let go.
func TestRemovalOfWhatIsAnothersNow(t *testing.T) {
	l := newLab(t)
	var late *Op
	g := l.emptied(&late)
	vacant, err := l.store.vacate(l.store.blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	vacant.Node, vacant.Machine = "other", "other-machine"
	if _, err := l.store.take("other", vacant); err != nil {
		t.Fatal(err)
	}
	g.instead = nil
	l.pass(20 * time.Second)
	if g.node.Busy() {
		t.Errorf("it is still busy after %v", g.calls)
	}
	g.node.Need(anyOf(pools.IPv4), 1, l.now)
	l.pass(time.Second)
	if g.calls[Ask] != 1 {
		t.Errorf("it asks for an address with %v", g.calls)
	}
}

// A cell is taken over around a block of this very node, which it was lent by
// another one that has the space around that.
func TestTakeOverAroundOwnBlock(t *testing.T) {
	l := newLab(t)
	g := l.joins("n", 8, "10.0.0.0/29")
	put := func(p, node, lender string) Stored {
		st, err := l.store.create(node, pools.Block{Prefix: netip.MustParsePrefix(p), Pool: "a", Node: node, Machine: node + "-machine", Lender: lender})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	cell := put("10.0.0.0/29", "gone", "")
	put("10.0.0.4/30", "x", "gone")
	if err := g.node.Adopt(put("10.0.0.6/31", "n", "x"), nil, l.now); err != nil {
		t.Fatal(err)
	}
	g.leases(2)
	if _, err := l.store.vacate(cell); err != nil {
		t.Fatal(err)
	}
	g.node.Need(anyOf(pools.IPv4), 1, l.now)
	l.pass(time.Second)
	a, err := g.lease("next")
	if err != nil || netip.MustParsePrefix("10.0.0.4/30").Contains(a[0]) {
		t.Errorf("it leases %v, %v; holds %v", a, err, describe(g.node.Held()))
	}
}

// A call that nobody answered makes a block once more that its node has removed since,
// for want of its pool: the node looks for it when no such call can come any more.
func TestLateCreationInAPoolThatIsGone(t *testing.T) {
	l := newLab(t)
	g := l.joins("n", 8, "10.0.0.0/29")
	var late *Op
	g.instead = func(o *Op) (Result, bool) {
		if o.Kind != Create || late != nil {
			return Result{}, false
		}
		late = o
		if err := g.ledger.SetPools(nil); err != nil {
			t.Fatal(err)
		}
		return Result{Err: ErrUnknown}, true
	}
	g.node.Need(anyOf(pools.IPv4), 1, l.now)
	l.pass(5 * time.Second)
	if late == nil || g.calls[Delete] != 1 || len(l.store.blocks) > 0 {
		t.Fatalf("it made the calls %v, and there are blocks %v", g.calls, l.store.blocks)
	}
	if r := l.store.do("n", late); r.Err != nil {
		t.Fatal(r.Err)
	}
	l.pass(2 * Settle)
	if len(l.store.blocks) > 0 {
		t.Errorf("%v stands there, and nobody holds it", l.store.blocks)
	}
}
