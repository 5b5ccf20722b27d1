package exchange_test

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
)

// Scenes tell the protocol call by call: what a node asks of the store, what it does
// with the answer, and what an answer that is lost changes.

// player is a node whose calls a test answers one round trip at a time.
type player struct {
	*Node
	t       *testing.T
	scene   *scene
	ledger  *pools.Ledger
	calls   []*Op // under way
	trips   int   // round trips made
	writes  int
	journal []pools.Record
}

func (p *player) keep(rec pools.Record) error {
	if rec.Block != nil {
		b := *rec.Block
		rec.Block = &b
	}
	p.journal = append(p.journal, rec)
	return nil
}

// scene is some players, the store between them, and the time.
type scene struct {
	store model
	alone bool // one node has the store for itself
	now   time.Time
	pool  *pools.Pool
}

// newScene has a pool "a" of eight addresses in cells of four.
func newScene(t *testing.T) *scene {
	t.Helper()
	return newSceneWithRest(t, 0)
}

// newSceneWithRest is newScene where addresses rest for so long.
func newSceneWithRest(t *testing.T, rest time.Duration) *scene {
	t.Helper()
	return newSceneOf(t, pools.Definition{BlockSize: 4, ReuseAfter: rest, Ranges: ranges("10.0.0.0/29")})
}

// newSceneOf has a pool "a" as it is defined.
func newSceneOf(t *testing.T, d pools.Definition) *scene {
	t.Helper()
	d.Name, d.Gateways = "a", []netip.Prefix{netip.MustParsePrefix("10.255.0.1/8")}
	pool, err := pools.New(d)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{now: epoch(), pool: pool}
	s.store.removed = func(Stored) {}
	s.store.changed()
	return s
}

func (s *scene) enter(t *testing.T, name, machine string) *player {
	t.Helper()
	p := &player{t: t, scene: s, ledger: pools.NewLedger(name)}
	if err := p.ledger.SetPools([]*pools.Pool{s.pool}); err != nil {
		t.Fatal(err)
	}
	p.Node = NewNode(Config{Name: name, Machine: machine, Shared: !s.alone, Log: slog.New(slog.DiscardHandler), Keep: p.keep}, p.ledger)
	p.SetRules(map[string]Rule{"a": {IdleAfter: time.Hour}})
	return p
}

// vacate takes a block from its node, as the controller does, and returns it.
func (s *scene) vacate(t *testing.T, prefix string) Stored {
	t.Helper()
	i, there := s.store.find(netip.MustParsePrefix(prefix))
	if !there {
		t.Fatalf("there is no block %s", prefix)
	}
	b, err := s.store.vacate(s.store.blocks[i])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// holds gives a node a cell, in which so many pods have addresses; the cells before are full.
func (p *player) holds(cell string, pods int) {
	p.t.Helper()
	r := p.scene.store.do(p.Name, &Op{Kind: Create, Block: Stored{Block: pools.Block{
		Prefix: netip.MustParsePrefix(cell), Pool: "a", Node: p.Name, Machine: p.Machine, Created: p.scene.now,
	}}})
	if r.Err != nil {
		p.t.Fatal(r.Err)
	}
	if err := p.Adopt(r.Block, nil, p.scene.now); err != nil {
		p.t.Fatal(err)
	}
	for i := range pods {
		p.lease(cell + string(rune('a'+i)))
	}
}

func (p *player) lease(id string, want ...netip.Addr) {
	p.t.Helper()
	rec, _, err := p.ledger.ProposeLease(pools.Request{Pool: "a", Want: want, Owner: pools.Owner{Attachment: pools.Attachment{ContainerID: p.Name + id}}}, p.scene.now)
	if err == nil {
		err = p.ledger.Apply(rec)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// release ends the lease of that id.
func (p *player) release(id string) {
	p.t.Helper()
	rec, held, err := p.ledger.ProposeRelease(pools.Owner{Attachment: pools.Attachment{ContainerID: p.Name + id}}, p.scene.now)
	if err == nil && held {
		err = p.ledger.Apply(rec)
	}
	if err != nil || !held {
		p.t.Fatalf("release %s: held %v, %v", id, held, err)
	}
}

func (p *player) needs(n int) { p.Need(Lack{Pool: "a", Family: pools.IPv4}, n, p.scene.now) }

// does fails the test unless these are the calls that the node makes now.
func (p *player) does(want ...string) {
	p.t.Helper()
	ops, _ := p.Advance(p.scene.now)
	var got []string
	for _, o := range ops {
		got = append(got, o.String())
		if o.Kind.Writes() {
			p.writes++
		}
	}
	if !slices.Equal(got, want) {
		p.t.Fatalf("%s makes the calls %q, not %q", p.Name, got, want)
	}
	p.calls = ops
}

// completes is does, and answers the calls.
func (p *player) completes(want ...string) {
	p.t.Helper()
	p.does(want...)
	p.answered()
}

// comesTo answers what the node looks at, until it makes this call.
func (p *player) comesTo(want string) {
	p.t.Helper()
	for range 100 {
		p.calls, _ = p.Advance(p.scene.now)
		if len(p.calls) == 1 && p.calls[0].String() == want {
			return
		}
		p.answered()
		p.scene.now = p.scene.now.Add(100 * time.Millisecond)
	}
	p.t.Fatalf("%s does not come to %q", p.Name, want)
}

// answered lets one round trip pass.
func (p *player) answered() {
	p.trips++
	p.scene.now = p.scene.now.Add(time.Millisecond)
	for _, o := range p.calls {
		p.Done(o, p.scene.store.do(p.Name, o), p.scene.now)
	}
}

// unanswered has the store do what it is asked, or not, and tells nobody.
func (p *player) unanswered(done bool) {
	for _, o := range p.calls {
		if done {
			p.scene.store.do(p.Name, o)
		}
		p.Done(o, Result{Err: ErrUnknown}, p.scene.now)
	}
	p.scene.now = p.scene.now.Add(time.Second)
}

// sees shows the node the requests, and gives it time for its turn to answer.
func (p *player) sees() {
	p.Seen(p.scene.store.requests, p.scene.now)
	p.scene.now = p.scene.now.Add(100 * time.Millisecond)
}

// removes gives the node a block that b lends it, and has the store refuse its removal.
func (p *player) removes(prefix string) Stored {
	p.t.Helper()
	st, err := p.scene.store.create(p.Name, pools.Block{Prefix: netip.MustParsePrefix(prefix), Pool: "a", Node: p.Name, Machine: p.Machine, Lender: "b"})
	if err == nil {
		err = p.Adopt(st, nil, p.scene.now)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.waits(time.Hour)
	p.CloseEmpty(p.scene.now)
	p.Parted(p.Parting())
	p.does("Delete " + prefix)
	p.Done(p.calls[0], Result{Err: errRefused}, p.scene.now)
	return st
}

// restarts is the node's next life, which has its blocks from this journal.
func (p *player) restarts(journal []pools.Record) *player {
	p.t.Helper()
	history, err := pools.Fold(journal)
	if err != nil {
		p.t.Fatal(err)
	}
	next := p.scene.enter(p.t, p.Name, p.Machine)
	if _, err := next.Restore(history); err != nil {
		p.t.Fatal(err)
	}
	return next
}

// calm is so long that what the node claimed before is no rush any more.
const calm = time.Second

// waits lets some time go by.
func (p *player) waits(d time.Duration) { p.scene.now = p.scene.now.Add(d) }

// asks has the node ask the others for so many addresses, having found no free cell.
func (p *player) asks(n int) {
	p.t.Helper()
	p.needs(n)
	p.completes("List a")
	p.completes("Ask " + requestOf(p.Name))
}

// makesRoom shows the node the requests, and what it parts with for them is announced
// no more.
func (p *player) makesRoom() {
	p.t.Helper()
	p.sees()
	p.does()
	p.Parted(p.Parting())
}

// cell is the one that the node is to claim next, if others have none.
func (p *player) cell(t *testing.T) string {
	t.Helper()
	var held []pools.Block
	for _, st := range p.Held() {
		held = append(held, st.Block)
	}
	cell, err := p.scene.pool.NextCell(pools.IPv4, p.Name, held)
	if err != nil {
		t.Fatal(err)
	}
	return cell.String()
}

// has fails the test unless these are the blocks that the node may lease of.
func (p *player) has(want ...string) {
	p.t.Helper()
	var got []string
	for _, st := range p.Held() {
		got = append(got, st.Prefix.String())
	}
	if !slices.Equal(got, want) {
		p.t.Fatalf("%s holds %q, not %q", p.Name, got, want)
	}
}

func requestOf(node string) string {
	return RequestName(node, Lack{Pool: "a", Family: pools.IPv4}) + " of " + node
}
