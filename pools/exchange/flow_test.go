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

// The tests of this file tell the protocol call by call: what a node asks of the
// store, what it does with the answer, and what an answer that is lost changes.

// player is a node whose calls a test answers one round trip at a time.
type player struct {
	*Node
	t      *testing.T
	scene  *scene
	ledger *pools.Ledger
	calls  []*Op // under way
	trips  int   // round trips made
	writes int
}

// scene is some players, the store between them, and the time.
type scene struct {
	store model
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
	pool, err := pools.New(pools.Definition{Name: "a", BlockSize: 4, ReuseAfter: rest, Ranges: ranges("10.0.0.0/29"), Gateways: []netip.Prefix{netip.MustParsePrefix("10.0.0.255/24")}})
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
	p.Node = NewNode(Config{Name: name, Machine: machine, Shared: true, Log: slog.New(slog.DiscardHandler), Keep: func(pools.Record) error { return nil }}, p.ledger)
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

// The first claim of a pool lists its blocks and makes one; the next one is the
// buddy of the first, and one call.
func TestFlowOfClaims(t *testing.T) {
	a := newScene(t).enter(t, "a", "a.1")
	a.needs(1)
	a.completes("List a")
	a.completes("Create 10.0.0.0/30")
	a.has("10.0.0.0/30")
	if a.trips != 2 || a.writes != 1 {
		t.Errorf("%d round trips and %d writes, want 2 and 1", a.trips, a.writes)
	}
	a.needs(0)
	a.does()
	for _, id := range []string{"1", "2", "3", "4"} {
		a.lease(id)
	}
	a.needs(1)
	a.completes("Create 10.0.0.4/30")
	a.has("10.0.0.0/30", "10.0.0.4/30")
	if a.trips != 3 {
		t.Errorf("%d round trips more, want 1", a.trips-2)
	}
}

// A vacant block is taken, and looked into before it is used.
func TestFlowOfATakeOver(t *testing.T) {
	s := newScene(t)
	gone := s.enter(t, "gone", "gone.1")
	gone.holds("10.0.0.0/30", 0)
	gone.holds("10.0.0.4/30", 0)
	s.store.create("b", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Pool: "a", Node: "b", Lender: "gone"})
	s.vacate(t, "10.0.0.0/30")
	a := s.enter(t, "a", "a.1")
	a.needs(1)
	a.completes("List a")
	a.completes("Take 10.0.0.0/30")
	a.has()
	a.completes("Inside 10.0.0.0/30")
	a.has("10.0.0.0/30")
	if asides := a.ledger.Asides(); len(asides) != 1 || asides[0].Node != "b" {
		t.Errorf("set aside: %v, want b's 10.0.0.1", asides)
	}
}

// A vacant block that was lent is nobody's to take: it falls to the space around
// it, whose node may have leased of it already.
func TestFlowOfAVacantLoan(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	for _, cell := range []string{"10.0.0.0/30", "10.0.0.4/30"} {
		s.store.create("b", pools.Block{Prefix: netip.MustParsePrefix(cell), Pool: "a", Node: "b"})
	}
	lent, err := s.store.create("gone", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Pool: "a", Node: "gone", Lender: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.vacate(lent); err != nil {
		t.Fatal(err)
	}
	a.needs(1)
	a.completes("List a")
	a.does("Ask " + requestOf("a"))
}

// A node that came by the space around a block that it was lent keeps the space
// for as long as it has that block.
func TestFlowOfAReturnAroundAnOwnBlock(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	a.holds("10.0.0.0/30", 0)
	a.holds("10.0.0.1/32", 0)
	a.lease("pod", netip.MustParseAddr("10.0.0.1"))
	s.now = s.now.Add(time.Minute)
	a.CloseEmpty(s.now)
	if parting := a.Parting(); len(parting) > 0 {
		t.Errorf("a parts with %v", parting)
	}
}

// When a lent block is gone its lender looks for what its node has lent on.
func TestFlowOfWhatWasLentOn(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	block := func(prefix, node string) *pools.Block {
		return &pools.Block{Prefix: netip.MustParsePrefix(prefix), Pool: "a", Node: node}
	}
	held, err := s.store.create("a", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.0/30"), Pool: "a", Node: "a", Machine: "a.1"})
	if err != nil {
		t.Fatal(err)
	}
	s.store.create("c", *block("10.0.0.3/32", "c"))
	if _, err := a.Restore([]pools.Record{
		{Op: pools.Claimed, Pool: "a", Block: &held.Block},
		{Op: pools.Lent, Pool: "a", Block: block("10.0.0.2/31", "b")},
	}); err != nil {
		t.Fatal(err)
	}
	a.comesTo("Block 10.0.0.2/31")
	a.answered()
	a.completes("Inside 10.0.0.2/31")
	if asides := a.ledger.Asides(); len(asides) != 1 || asides[0].Node != "c" {
		t.Errorf("set aside: %v, want c's 10.0.0.3", asides)
	}
}

// lending brings a scene to where b has drawn nothing yet of what a granted.
func lending(t *testing.T) (s *scene, a, b *player) {
	t.Helper()
	s = newScene(t)
	a, b = s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 1)
	b.needs(1)
	b.completes("List a")
	b.trips, b.writes = 0, 0
	b.completes("Ask " + requestOf("b"))
	b.does()
	a.sees()
	a.does()
	if parting := a.Parting(); len(parting) != 1 || parting[0].String() != "10.0.0.3/32" {
		t.Fatalf("a parts with %v", parting)
	}
	a.Parted(a.Parting())
	a.does("Grant 10.0.0.3/32 to " + requestOf("b"))
	return s, a, b
}

// A loan: asked for, set aside, no longer led to the lender, granted, drawn,
// the request ended and the block around read, used. Usable after four round trips,
// with four writes.
func TestFlowOfALoan(t *testing.T) {
	s, a, b := lending(t)
	a.answered()
	b.sees()
	b.completes("Create 10.0.0.3/32")
	b.has()
	b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	b.has("10.0.0.3/32")
	if trips := a.trips + b.trips; trips != 4 {
		t.Errorf("usable after %d round trips, want 4", trips)
	}
	if writes := a.writes + b.writes; writes != 4 {
		t.Errorf("%d writes, want 4", writes)
	}
	// The lender finds that the request is gone, and that the block is there.
	a.sees()
	s.now = s.now.Add(time.Second)
	a.completes("Request " + requestOf("b"))
	s.now = s.now.Add(time.Second)
	a.does("Block 10.0.0.3/32")
	a.answered()
	// It comes back: the asker withdraws and removes it, the lender looks again.
	b.needs(0)
	b.CloseEmpty(s.now.Add(time.Minute))
	b.Parted(b.Parting())
	b.completes("Delete 10.0.0.3/32")
	s.now = s.now.Add(time.Minute)
	a.completes("Block 10.0.0.3/32")
	if left := a.ledger.Asides(); len(left) > 0 {
		t.Errorf("still set aside: %v", left)
	}
}

// A loan does not stand if its lender lost the block around it meanwhile, or has
// taken it anew, without a memory of what it granted.
func TestFlowOfALoanThatDoesNotStand(t *testing.T) {
	for name, meanwhile := range map[string]func(*model, Stored) (Stored, error){
		"lost":       (*model).vacate,
		"taken anew": func(m *model, outer Stored) (Stored, error) { return m.take("a", outer) },
	} {
		t.Run(name, func(t *testing.T) {
			s, a, b := lending(t)
			a.answered()
			b.sees()
			b.does("Create 10.0.0.3/32")
			i, _ := s.store.find(netip.MustParsePrefix("10.0.0.0/30"))
			if _, err := meanwhile(&s.store, s.store.blocks[i]); err != nil {
				t.Fatal(err)
			}
			b.answered()
			b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
			b.completes("Delete 10.0.0.3/32")
			b.has()
		})
	}
}

// A lent block is not used if it was somebody else who removed the request, or may have
// been: the lender may have looked for the block before it was made.
func TestFlowOfALoanWhoseRequestIsGone(t *testing.T) {
	for name, unanswered := range map[string]bool{"removed by somebody else": false, "removed, and not answered": true} {
		t.Run(name, func(t *testing.T) {
			s, a, b := lending(t)
			a.answered()
			b.sees()
			b.completes("Create 10.0.0.3/32")
			if unanswered {
				b.does("Retract "+requestOf("b"), "Block 10.0.0.0/30")
				b.unanswered(true)
				b.does("Retract "+requestOf("b"), "Block 10.0.0.0/30")
			} else {
				s.store.retract("", s.store.requests[0])
				b.does("Retract "+requestOf("b"), "Block 10.0.0.0/30")
			}
			b.answered()
			b.does("Delete 10.0.0.3/32")
			b.has()
		})
	}
}

// lendingParts brings a scene to where b makes the blocks of two grants of a.
func lendingParts(t *testing.T) (s *scene, a, b *player) {
	t.Helper()
	s = newScene(t)
	a, b = s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 1)
	b.asks(3)
	a.makesRoom()
	a.completes("Grant 10.0.0.2/31, 10.0.0.0/32 to " + requestOf("b"))
	b.sees()
	b.does("Create 10.0.0.2/31", "Create 10.0.0.0/32")
	return s, a, b
}

// What is granted together is drawn side by side, and what is around it read once.
func TestFlowOfALoanOfTwoParts(t *testing.T) {
	_, _, b := lendingParts(t)
	b.answered()
	b.has()
	b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	b.has("10.0.0.2/31", "10.0.0.0/32")
}

// One part of what was granted is another node's block by now, and nothing of it is
// made; the other is used.
func TestFlowOfALoanOfWhichAPartIsAnothers(t *testing.T) {
	s, _, b := lendingParts(t)
	s.store.create("c", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.0/32"), Pool: "a", Node: "c"})
	b.answered()
	b.completes("Block 10.0.0.0/32")
	b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	b.has("10.0.0.2/31")
}

// An asker that ends between the creations of one request returns what it has made, and
// then the lender has all of it back.
func TestFlowOfAnAskerThatEndsBetweenCreations(t *testing.T) {
	s, a, b := lendingParts(t)
	s.store.do("b", b.calls[0])
	again := s.enter(t, "b", "b.1")
	again.does()
	again.Disown(s.store.requests)
	s.now = s.now.Add(Settle)
	again.completes("Request " + requestOf("b"))
	again.completes("Block 10.0.0.2/31", "Block 10.0.0.0/32")
	again.completes("Delete 10.0.0.2/31", "Retract "+requestOf("b"))
	again.has()
	a.sees()
	for range 10 {
		s.now = s.now.Add(time.Second)
		a.calls, _ = a.Advance(s.now)
		a.answered()
	}
	if left := a.ledger.Asides(); len(left) > 0 || a.ledger.Free("a", pools.IPv4, s.now) != 3 {
		t.Errorf("still set aside: %v", left)
	}
}

// A lender that ends asks once after all that it has granted together.
func TestFlowOfALenderThatEndsAfterAGrant(t *testing.T) {
	s, a, b := lendingParts(t)
	again := s.enter(t, "a", "a.1")
	if _, err := again.Restore(a.History()); err != nil {
		t.Fatal(err)
	}
	again.completes("Request " + requestOf("b"))
	b.answered()
	b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	s.now = s.now.Add(time.Second)
	again.completes("Request " + requestOf("b"))
	s.now = s.now.Add(time.Second)
	again.completes("Block 10.0.0.2/31", "Block 10.0.0.0/32")
	if asides := again.ledger.Asides(); len(asides) != 2 {
		t.Errorf("set aside: %v", asides)
	}
	b.has("10.0.0.2/31", "10.0.0.0/32")
}

// A request that was given more since it was read is not removed before that is drawn,
// too; what was read of the blocks around is read again.
func TestFlowOfAGrantThatComesWhileTheRequestIsClosed(t *testing.T) {
	s, a, b := lending(t)
	b.needs(3)
	a.answered()
	first := s.store.requests[0]
	first.Count = 3 // more than b has asked for at first
	s.store.requests[0] = first
	b.sees()
	b.completes("Create 10.0.0.3/32")
	s.now = s.now.Add(time.Second)
	b.does("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	outer := first.Grants[0]
	outer.Prefix = netip.MustParsePrefix("10.0.0.2/32")
	first.Grants = append(slices.Clip(first.Grants), outer)
	if _, err := s.store.grant("a", first); err != nil {
		t.Fatal(err)
	}
	b.answered()
	b.has()
	b.sees()
	b.completes("Create 10.0.0.2/32")
	s.now = s.now.Add(time.Second)
	b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
	b.has("10.0.0.2/32", "10.0.0.3/32")
}

// What comes free while another node waits is lent at once: whoever releases is told
// that somebody waits, and the node wakes by itself when an address has rested.
func TestFlowOfWhatComesFree(t *testing.T) {
	const rest = 20 * time.Second
	s := newSceneWithRest(t, rest)
	a, b := s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 4)
	b.asks(1)
	if a.Awaited("a") {
		t.Error("a has heard of nobody who waits")
	}
	a.sees()
	a.does()
	if !a.Awaited("a") || a.Awaited("another") {
		t.Errorf("somebody waits for pool a: %v, for another one: %v", a.Awaited("a"), a.Awaited("another"))
	}
	free := s.now.Add(rest)
	a.release("10.0.0.0/30b")
	_, next := a.Advance(s.now)
	if !next.Equal(free) {
		t.Fatalf("a goes on in %v, want %v", next.Sub(s.now), rest)
	}
	s.now = next
	a.does()
	if parting := a.Parting(); len(parting) != 1 {
		t.Errorf("a parts with %v", parting)
	}
}

// A block in which nothing was leased yet goes back soon to the one who asks: its node
// wakes by itself when it may go.
func TestFlowOfWhatIsFresh(t *testing.T) {
	s := newScene(t)
	a, b := s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/32", 0) // too small to lend a part of
	claimed := s.now
	b.asks(1)
	a.sees()
	_, next := a.Advance(s.now)
	if parting := a.Parting(); len(parting) > 0 {
		t.Fatalf("a parts with %v after %v", parting, s.now.Sub(claimed))
	}
	if wait := next.Sub(claimed); next.IsZero() || wait > time.Second {
		t.Fatalf("a goes on %v after it has claimed the block", wait)
	}
	s.now = next
	a.does()
	if parting := a.Parting(); len(parting) != 1 || parting[0].String() != "10.0.0.0/32" {
		t.Errorf("a parts with %v", parting)
	}
}

// Pods of a node that wait get what has rested there as soon as it has.
func TestFlowOfWhatHasRested(t *testing.T) {
	const rest = 20 * time.Millisecond
	s := newSceneWithRest(t, rest)
	a := s.enter(t, "a", "a.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 4)
	a.asks(1)
	a.does()
	a.release("10.0.0.0/30b")
	if _, next := a.Advance(s.now); !next.Equal(s.now.Add(rest)) {
		t.Errorf("a goes on in %v, want %v", next.Sub(s.now), rest)
	}
}

// Who answers too late leaves the request alone, though the watch shows it open still.
func TestFlowOfAnAnswerThatComesTooLate(t *testing.T) {
	s, a, _ := lending(t)
	i, _ := s.store.findRequest(RequestName("b", Lack{Pool: "a", Family: pools.IPv4}))
	first := s.store.requests[i]
	first.Grants = []Grant{{Lender: "c", Prefix: netip.MustParsePrefix("10.0.0.9/32")}}
	if _, err := s.store.grant("c", first); err != nil {
		t.Fatal(err)
	}
	a.answered()
	a.does()
	s.now = s.now.Add(time.Second)
	a.completes("Request " + requestOf("b"))
	a.does()
	if parting := a.Parting(); len(parting) > 0 || len(a.ledger.Asides()) > 0 {
		t.Errorf("a parts with %v, and has set %v aside", parting, a.ledger.Asides())
	}
}

// A grant that nobody answered may count: it is read, and what it grants stays
// set aside.
func TestFlowOfAnUnknownGrant(t *testing.T) {
	for name, done := range map[string]bool{"done": true, "not done": false} {
		t.Run(name, func(t *testing.T) {
			_, a, _ := lending(t)
			a.unanswered(done)
			a.does("Request " + requestOf("b"))
			if len(a.ledger.Asides()) != 1 {
				t.Fatal("what was perhaps granted is not set aside")
			}
			a.answered()
			if done {
				a.does()
			} else {
				a.does("Grant 10.0.0.3/32 to " + requestOf("b"))
			}
		})
	}
}

// A draw that nobody answered is made again, until it is known; then the loan is
// checked as always.
func TestFlowOfAnUnknownDraw(t *testing.T) {
	for name, done := range map[string]bool{"done": true, "not done": false} {
		t.Run(name, func(t *testing.T) {
			_, a, b := lending(t)
			a.answered()
			b.sees()
			b.does("Create 10.0.0.3/32")
			b.unanswered(done)
			b.completes("Create 10.0.0.3/32")
			if done {
				b.completes("Block 10.0.0.3/32")
			}
			b.completes("Retract "+requestOf("b"), "Block 10.0.0.0/30")
			b.has("10.0.0.3/32")
		})
	}
}

// A claim that nobody answered is made again; if the block is there by then, its
// node looks whose it is.
func TestFlowOfAnUnknownClaim(t *testing.T) {
	for name, done := range map[string]bool{"done": true, "not done": false} {
		t.Run(name, func(t *testing.T) {
			a := newScene(t).enter(t, "a", "a.1")
			a.needs(1)
			a.completes("List a")
			a.does("Create 10.0.0.0/30")
			a.unanswered(done)
			a.has()
			a.completes("Create 10.0.0.0/30")
			if done {
				a.completes("Block 10.0.0.0/30")
				a.completes("Take 10.0.0.0/30")
				a.has()
				a.completes("Inside 10.0.0.0/30")
			}
			a.has("10.0.0.0/30")
		})
	}
}

// What a claim finds in its node's name may be of an earlier life, whose removal
// of it is still under way: taken anew, it stays.
func TestFlowOfAClaimOfWhatAnEarlierLifeRemoves(t *testing.T) {
	s := newScene(t)
	old := s.enter(t, "a", "a.1")
	old.holds("10.0.0.0/30", 0)
	s.now = s.now.Add(time.Minute)
	old.CloseEmpty(s.now)
	old.Parted(old.Parting())
	old.does("Delete 10.0.0.0/30")
	late := old.calls[0]
	a := s.enter(t, "a", "a.1")
	a.needs(1)
	a.does("List a")
	a.calls[0].Pool = "behind" // shows nothing yet
	a.answered()
	a.does("Create 10.0.0.0/30")
	a.unanswered(false)
	a.completes("Create 10.0.0.0/30")
	a.completes("Block 10.0.0.0/30")
	a.does("Take 10.0.0.0/30")
	a.unanswered(false)
	a.completes("Take 10.0.0.0/30")
	a.completes("Inside 10.0.0.0/30")
	a.has("10.0.0.0/30")
	if r := s.store.do("a", late); r.Err == nil {
		t.Error("a late removal has removed what is in use")
	}
}

// An address that one want of a node was granted in an earlier life, and another
// one was granted since, is the latter's.
func TestFlowOfTwoGrantsOfOneAddress(t *testing.T) {
	s := newScene(t)
	a, b := s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 1)
	chosen := Lack{Pool: "a", Family: pools.IPv4, Want: netip.MustParseAddr("10.0.0.3")}
	earlier := Request{Name: RequestName("b", chosen), Node: "b", Pool: "a", Family: pools.IPv4, Want: chosen.Want, Count: 1}
	earlier, err := s.store.ask("b", earlier)
	if err != nil {
		t.Fatal(err)
	}
	earlier.Grants = []Grant{{Lender: "a", Prefix: netip.MustParsePrefix("10.0.0.3/32"), Outer: netip.MustParsePrefix("10.0.0.0/30"), OuterUID: "x"}}
	if _, err = s.store.grant("a", earlier); err != nil {
		t.Fatal(err)
	}
	b.Need(chosen, 1, s.now)
	b.completes("List a")
	b.completes("Ask " + earlier.Name + " of b")
	b.does("Request " + earlier.Name + " of b")
	b.answered() // refused: it is to be swept when nothing can make the block any more
	s.store.retract("b", earlier)
	b.asks(1)
	a.makesRoom()
	a.completes("Grant 10.0.0.3/32 to " + requestOf("b"))
	s.now = s.now.Add(Settle)
	b.sees()
	b.Seen(s.store.requests, s.now)
	for range 8 {
		b.calls, _ = b.Advance(s.now)
		b.answered()
		s.now = s.now.Add(time.Second)
	}
	for _, st := range b.Held() {
		if i, there := s.store.find(st.Prefix); !there || s.store.blocks[i].UID != st.UID {
			t.Errorf("b holds %v, which is not there", st.Prefix)
		}
	}
}

// A block whose removal has begun is not used any more, whatever became of it.
func TestFlowOfAnUnknownReturn(t *testing.T) {
	for name, done := range map[string]bool{"done": true, "not done": false} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			a := s.enter(t, "a", "a.1")
			a.holds("10.0.0.0/30", 0)
			s.now = s.now.Add(time.Minute)
			a.CloseEmpty(s.now)
			a.does()
			a.Parted(a.Parting())
			a.does("Delete 10.0.0.0/30")
			a.unanswered(done)
			a.has()
			a.completes("Delete 10.0.0.0/30")
			a.does()
			a.has()
		})
	}
}

// An empty block is returned, not lent, when somebody asks.
func TestFlowOfAReturnOnRequest(t *testing.T) {
	s := newScene(t)
	a, b := s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.4/30", 4)
	a.holds("10.0.0.0/30", 0)
	s.now = s.now.Add(time.Minute)
	b.asks(1)
	a.makesRoom()
	a.completes("Delete 10.0.0.0/30")
	b.comesTo("Create 10.0.0.0/30")
	b.answered()
	b.has("10.0.0.0/30")
	b.does("Retract " + requestOf("b"))
}

// A chosen address is lent as a block of one.
func TestFlowOfAChosenAddress(t *testing.T) {
	s := newScene(t)
	a, b := s.enter(t, "a", "a.1"), s.enter(t, "b", "b.1")
	a.holds("10.0.0.0/30", 1)
	want := Lack{Pool: "a", Family: pools.IPv4, Want: netip.MustParseAddr("10.0.0.2")}
	name := RequestName("b", want) + " of b"
	b.Need(want, 1, s.now)
	b.completes("List a")
	b.completes("Ask " + name)
	a.makesRoom()
	a.completes("Grant 10.0.0.2/32 to " + name)
	b.sees()
	b.completes("Create 10.0.0.2/32")
	b.completes("Retract "+name, "Block 10.0.0.0/30")
	b.lease("chosen", want.Want)
}

// A machine without a journal takes its name's cells anew at once, and returns
// what was lent to it.
func TestFlowOfAReboot(t *testing.T) {
	s := newScene(t)
	old := s.enter(t, "a", "a.1")
	old.holds("10.0.0.0/30", 2)
	s.store.create("c", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.4/30"), Pool: "a", Node: "c"})
	s.store.create("a", pools.Block{Prefix: netip.MustParsePrefix("10.0.0.5/32"), Pool: "a", Node: "a", Machine: "a.1", Lender: "c"})
	a := s.enter(t, "a", "a.2")
	if _, err := a.Found(nil, s.store.own("a"), s.now); err != nil {
		t.Fatal(err)
	}
	a.does("Take 10.0.0.0/30", "Delete 10.0.0.5/32")
	a.has()
	a.answered()
	a.completes("Inside 10.0.0.0/30")
	a.has("10.0.0.0/30")
	if held := a.Held()[0]; held.Machine != "a.2" || held.Tenure != 1 {
		t.Errorf("it is %v's in tenure %d", held.Machine, held.Tenure)
	}
}

// A block that no pool has goes before what of it is lent is forgotten: a life
// that finds the one in its journal finds the other.
func TestFlowOfADiscard(t *testing.T) {
	s := newScene(t)
	a := s.enter(t, "a", "a.1")
	var kept []pools.Op
	a.Keep = func(rec pools.Record) error {
		kept = append(kept, rec.Op)
		return nil
	}
	block := func(prefix, node string) *pools.Block {
		return &pools.Block{Prefix: netip.MustParsePrefix(prefix), Pool: "gone", Node: node, UID: prefix}
	}
	unfit, err := a.Restore([]pools.Record{
		{Op: pools.Claimed, Pool: "gone", Block: block("10.0.1.0/30", "a")},
		{Op: pools.Lent, Pool: "gone", Block: block("10.0.1.3/32", "b")},
	})
	if err != nil || len(unfit) != 1 {
		t.Fatalf("unfit: %v, %v", unfit, err)
	}
	if err := a.Discard(unfit[0], s.now); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(kept, []pools.Op{pools.Returned, pools.Regained}) {
		t.Errorf("the journal says %v, want returned (%v), then regained (%v)", kept, pools.Returned, pools.Regained)
	}
}
