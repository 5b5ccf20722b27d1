package agent

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"github.com/fairway-network/fairway/speaker"
)

type answer struct {
	addr netip.Addr
	err  error
}

// ask asks for a lease beside the test.
func (a running) ask(ctx context.Context, r pools.Request) <-chan answer {
	out := make(chan answer, 1)
	go func() {
		g, err := a.desk.Lease(ctx, r)
		if err != nil {
			out <- answer{err: err}
			return
		}
		out <- answer{addr: g.Addresses[0].Addr}
	}()
	return out
}

// waitHolding waits until an attachment has a lease, answered or not.
func (a running) waitHolding(t *testing.T, r pools.Request) {
	t.Helper()
	eventually(t, "the lease is made", func() bool { return len(a.desk.Held(r.Owner.Attachment)) > 0 })
}

// A DEL ends an ADD that waits; an ADD after it has a lease of its own, which
// the first one's end leaves alone.
func TestReleaseOvertakesAWaitingLease(t *testing.T) {
	h := newHost(t)
	h.established = false
	a := h.start(settings(t, pool(t, "web", 4, "10.1.0.0/30")))
	first := a.ask(t.Context(), request("web", 1))
	a.waitHolding(t, request("web", 1))
	release(t, a, request("web", 1))
	if got := <-first; !errors.Is(got.err, ErrOvertaken) {
		t.Errorf("the overtaken lease: %v, %v", got.addr, got.err)
	}
	if got := a.desk.Held(request("web", 1).Owner.Attachment); len(got) != 0 {
		t.Errorf("held after the release: %v", got)
	}
	second := a.ask(t.Context(), request("web", 1))
	h.update(func() { h.established = true })
	mine := <-second
	if mine.err != nil {
		t.Fatal(mine.err)
	}
	if other := lease(t, a, request("web", 2)); other == mine.addr {
		t.Errorf("%s was leased twice", other)
	}
}

// Two equal ADDs, the first of which runs out of time: its end must not take
// the second one's lease.
func TestRepeatedLeaseOutlivesTheFirst(t *testing.T) {
	h := newHost(t)
	h.established = false
	s := settings(t, pool(t, "web", 4, "10.1.0.0/30"))
	s.AnnounceTimeout = 100 * time.Millisecond
	a := h.start(s)
	first := a.ask(t.Context(), request("web", 1))
	a.waitHolding(t, request("web", 1))
	second := a.ask(t.Context(), request("web", 1))
	if got := <-first; !errors.Is(got.err, ErrNotReachable) {
		t.Fatalf("the first: %v, %v", got.addr, got.err)
	}
	h.update(func() { h.established = true })
	mine := <-second
	if mine.err != nil {
		t.Fatal(mine.err)
	}
	if got := a.desk.Held(request("web", 1).Owner.Attachment); len(got) != 1 || got[0].Addr != mine.addr {
		t.Errorf("answered %s, held %v", mine.addr, got)
	}
}

func TestReleaseOfAnotherPodOvertakesNothing(t *testing.T) {
	h := newHost(t)
	h.established = false
	a := h.start(settings(t, pool(t, "web", 4, "10.1.0.0/30")))
	first := a.ask(t.Context(), request("web", 1))
	a.waitHolding(t, request("web", 1))
	other := request("web", 1).Owner
	other.PodUID = "another"
	if err := a.desk.Release(t.Context(), other); !errors.Is(err, pools.ErrNotOwner) {
		t.Errorf("release by another pod: %v", err)
	}
	h.update(func() { h.established = true })
	if got := <-first; got.err != nil {
		t.Error(got.err)
	}
}

// What a stopping agent cuts off is told so, for the plugin to ask the next.
func TestStopCutsOffWaitingLeases(t *testing.T) {
	h := newHost(t)
	h.established = false
	a := h.start(settings(t, pool(t, "web", 4, "10.1.0.0/30")))
	ctx, cancel := context.WithCancel(t.Context())
	first := a.ask(ctx, request("web", 1))
	a.waitHolding(t, request("web", 1))
	cancel()
	if got := <-first; !errors.Is(got.err, context.Canceled) || errors.Is(got.err, ErrNotReachable) {
		t.Errorf("a lease cut off: %v", got.err)
	}
	if got := a.desk.Held(request("web", 1).Owner.Attachment); len(got) != 0 {
		t.Errorf("held after it was cut off: %v", got)
	}
}

// One route that the kernel does not take holds up its own block alone.
func TestOneRefusedRoute(t *testing.T) {
	h := newHost(t)
	h.refused = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24"), pool(t, "db", 4, "10.2.0.0/24"))
	s.AnnounceTimeout = 200 * time.Millisecond
	a := h.start(s)
	if _, err := a.desk.Lease(t.Context(), request("web", 1)); !errors.Is(err, ErrNotReachable) {
		t.Errorf("lease in a block that the kernel does not deliver: %v", err)
	}
	good := lease(t, a, request("db", 2))
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.peer.Contains(good) || h.bgp.Contains(netip.MustParseAddr("10.1.0.1")) {
		t.Errorf("announced %v", h.bgp.Prefixes())
	}
}

// A restart with a route that the kernel does not take any more withdraws
// nothing that peers keep forwarding: the pods' own routes are there.
func TestRestartWithARefusedRouteWithdrawsNothing(t *testing.T) {
	h := newHost(t)
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24"), pool(t, "db", 4, "10.2.0.0/24"))
	first := h.start(s)
	web, db := lease(t, first, request("web", 1)), lease(t, first, request("db", 2))
	stop(t, first)
	h.update(func() {
		h.tolerant = true // the blackhole of web is missing, by intent of the test
		h.refused = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}
		h.bgp = set()
	})
	h.start(s)
	h.await("both blocks are announced again", func() bool { return h.bgp.Contains(web) && h.bgp.Contains(db) })
}

// Peers of one family that are away hold up the blocks of that family alone.
func TestFamilyWithoutAPeer(t *testing.T) {
	h := newHost(t)
	h.down = map[pools.Family]bool{pools.IPv6: true}
	s := settings(t, pool(t, "four", 4, "10.1.0.0/24"), pool(t, "six", 4, "fd00::/120"))
	s.AnnounceTimeout = 2 * time.Second
	a := h.start(s)
	six := a.ask(t.Context(), request("six", 1))
	a.waitHolding(t, request("six", 1))
	lease(t, a, request("four", 2))
	if got := <-six; !errors.Is(got.err, ErrNotReachable) || !errors.Is(got.err, speaker.ErrNoPeer) {
		t.Errorf("a lease that no peer was told of: %v, %v", got.addr, got.err)
	}
}

// A family that no configured peer carries has nobody to wait for.
func TestFamilyThatNoPeerCarries(t *testing.T) {
	h := newHost(t)
	h.down = map[pools.Family]bool{pools.IPv6: true}
	s := settings(t, pool(t, "both", 4, "10.1.0.0/24", "fd00::/120"))
	s.Peers[0].Families = []speaker.Family{speaker.IPv4}
	a := h.start(s)
	lease(t, a, request("both", 1))
}

// A block is not given back before the peers were told, while one might still
// forward to it.
func TestNoReturnBeforeTheWithdrawalLeft(t *testing.T) {
	web := pool(t, "web", 4, "10.1.0.0/24")
	web.IdleAfter = 0
	h, a, addr := withLease(t, settings(t, web))
	h.update(func() { h.established = false })
	release(t, a, request("web", 1))
	a.call()
	h.await("the withdrawal is handed over", func() bool { return !h.bgp.Contains(addr) })
	h.await("the loop has waited twice", func() bool { return h.unflushed >= 2 })
	if bs, err := a.Store.Own(t.Context()); err != nil || len(bs) != 1 || !h.delivers(addr) {
		t.Errorf("blocks %v (%v), kernel delivers: %v", bs, err, h.delivers(addr))
	}
	h.update(func() { h.established = true })
	eventually(t, "the block is returned", func() bool {
		bs, err := a.Store.Own(t.Context())
		return err == nil && len(bs) == 0
	})
}

func (h *host) delivers(a netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kernel.Contains(a)
}

// A block whose announcement never left is not known to the network after a
// crash, however many leases were being made in it.
func TestCrashBeforeTheAnnouncementLeft(t *testing.T) {
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24"))
	h, first, told := withLease(t, s)
	stop(t, first)
	// As if the crash had come before: the mark is from the start alone.
	file := filepath.Join(h.run, toldFile)
	if err := os.WriteFile(file, []byte(`{"boot":"boot-1","blocks":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	h.update(func() { h.established = false })
	s.AnnounceTimeout = 100 * time.Millisecond
	second := h.start(s)
	if _, err := second.desk.Lease(t.Context(), request("web", 1)); !errors.Is(err, ErrNotReachable) {
		t.Errorf("%s answered, and no peer was told: %v", told, err)
	}
	if got := second.desk.Held(request("web", 1).Owner.Attachment); len(got) != 1 {
		t.Errorf("a failed repetition ended the standing lease: %v", got)
	}
}

// Peers give up what they heard from an agent that was away for too long.
func TestLongAbsenceIsNoRestart(t *testing.T) {
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24"))
	h, first, _ := withLease(t, s)
	stop(t, first)
	long := time.Now().Add(-s.Local.Time - time.Second)
	if err := os.Chtimes(filepath.Join(h.run, toldFile), long, long); err != nil {
		t.Fatal(err)
	}
	if h.start(s).settings.Load().Local.Restarting {
		t.Error("the restart bit is set after an absence longer than the restart time")
	}
}

// When the peers could not be told, neither kernel nor blocks are given up.
func TestFailedDrainGivesNothingUp(t *testing.T) {
	h, a, addr := withLease(t, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	release(t, a, request("web", 1))
	h.update(func() { h.closeErr = errors.New("the peer does not listen") })
	if err := a.Drain(t.Context()); !errors.Is(err, h.closeErr) {
		t.Errorf("drain: %v", err)
	}
	_ = a.stop()
	if !h.delivers(addr) || !a.told.recall(time.Hour) {
		t.Errorf("given up after a failed drain: kernel %v", h.kernel.Prefixes())
	}
}

func TestDrainOfAStoppingAgentIsRefused(t *testing.T) {
	h := newHost(t)
	a := h.start(settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	stop(t, a)
	if err := a.Drain(t.Context()); err == nil {
		t.Error("an agent that had stopped forwarding says that it withdrew")
	}
}

func TestReadySaysWhatIsWrong(t *testing.T) {
	h := newHost(t)
	a := h.start(settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	if err := a.desk.Ready(t.Context(), "web"); err != nil {
		t.Error(err)
	}
	if err := a.desk.Ready(t.Context(), "nosuch"); !errors.Is(err, pools.ErrUnknownPool) {
		t.Errorf("a pool that is not there: %v", err)
	}
	a.desk.noteTrouble(func(t *trouble) { t.pass = errors.New("the kernel is full"); t.since = time.Now().Add(-2 * lasting) })
	if err := a.desk.Ready(t.Context(), "web"); err == nil {
		t.Error("lasting trouble is not told")
	}
}

// While a request of an attachment is under way, another one waits, even if
// its answer seems to be at hand: the first one may yet take it back.
func TestOneRequestOfAnAttachmentAtATime(t *testing.T) {
	_, a, _ := withLease(t, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	_, end, err := a.desk.take(t.Context(), request("web", 1).Owner, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.desk.Lease(ctx, request("web", 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("a request that gave up waiting for its turn: %v", err)
	}
	end()
	lease(t, a, request("web", 1))
}

// A block whose route could not be removed from the kernel is not given back.
func TestLingeringRouteKeepsItsBlock(t *testing.T) {
	web := pool(t, "web", 4, "10.1.0.0/30")
	web.IdleAfter = 0
	h, a, addr := withLease(t, settings(t, web))
	h.update(func() { h.stuck = true })
	release(t, a, request("web", 1))
	a.call()
	h.await("the withdrawal left", func() bool { return !h.peer.Contains(addr) })
	h.await("the kernel was asked in vain, twice", func() bool { return h.lingered > 1 })
	if a.desk.count() != 1 {
		t.Errorf("%d blocks held, want the one that the kernel still delivers", a.desk.count())
	}
	// Its addresses are not lost meanwhile: who needs one waits for its return.
	web.IdleAfter = time.Hour
	if err := a.Reload(settings(t, web)); err != nil {
		t.Fatal(err)
	}
	next := a.ask(t.Context(), request("web", 2))
	h.update(func() { h.stuck = false })
	if got := <-next; got.err != nil {
		t.Errorf("a lease from the pool whose only block was on its way back: %v", got.err)
	}
}

// claimingStore claims a block in the moment after one was returned.
type claimingStore struct {
	exchange.Store
	claim func()
}

func (s *claimingStore) Delete(ctx context.Context, b exchange.Stored) error {
	err := s.Store.Delete(ctx, b)
	if claim := s.claim; err == nil && claim != nil {
		s.claim = nil
		claim()
	}
	return err
}

// A cell that is claimed again between its return and the moment in which the
// agent forgets it is held, and not lost.
func TestClaimRightAfterTheReturn(t *testing.T) {
	h := newHost(t)
	parts, store := h.parts()
	defer store.Close()
	claiming := &claimingStore{Store: store}
	parts.Store = claiming
	web := pool(t, "web", 4, "10.1.0.0/30")
	web.IdleAfter = 0
	a, err := New(t.Context(), parts, Settings{Pools: []Pool{web}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	lack := pools.NoFreeError{Pool: "web", Family: pools.IPv4}
	pass := func() {
		if err := a.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	leaseIn := func() {
		if _, err := a.desk.Lease(t.Context(), request("web", 1)); err != nil {
			t.Errorf("lease in the block: %v", err)
		}
	}
	if err := a.claim(t.Context(), lack); err != nil {
		t.Fatal(err)
	}
	pass() // opens the door
	leaseIn()
	if err := a.desk.Release(t.Context(), request("web", 1).Owner); err != nil {
		t.Fatal(err)
	}
	claimed := make(chan error, 1)
	claiming.claim = func() { go func() { claimed <- a.claim(t.Context(), lack) }() }
	pass() // closes the idle block
	pass() // returns it
	if err := <-claimed; err != nil {
		t.Error(err)
	}
	held, err := store.Own(t.Context())
	if err != nil || len(held) != 1 || a.desk.count() != 1 {
		t.Errorf("the store has %v (%v), the agent %d blocks", held, err, a.desk.count())
	}
	pass()
	leaseIn()
}

// A pod that can't be announced and tries again and again uses nothing up:
// nobody has seen the addresses that it gave up.
func TestRetriesBurnNoAddress(t *testing.T) {
	h := newHost(t)
	h.established = false
	s := settings(t, resting(t, "web", "10.1.0.0/29"))
	s.AnnounceTimeout = 20 * time.Millisecond
	a := h.start(s)
	for range 20 {
		if _, err := a.desk.Lease(t.Context(), request("web", 1)); !errors.Is(err, ErrNotReachable) {
			t.Fatalf("lease without a peer: %v", err)
		}
	}
	if got := a.desk.count(); got != 1 {
		t.Errorf("%d blocks were claimed for one pod", got)
	}
	h.update(func() { h.established = true })
	eventually(t, "the pod has an address", func() bool {
		_, err := a.desk.Lease(t.Context(), request("web", 1))
		return err == nil
	})
}

// A peer that can't be told is given the time to notice that the session is
// lost, and then the restart time.
func TestWhenPeersHaveForgotten(t *testing.T) {
	h := newHost(t)
	h.established = false
	parts, store := h.parts()
	defer store.Close()
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24"))
	s.Local.GracefulRestart.Time = 60 * time.Second
	s.Peers[0].HoldTime = 30 * time.Second
	a, err := New(t.Context(), parts, s)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	begun := time.Now()
	closing := []pools.Block{{Prefix: netip.MustParsePrefix("10.1.0.0/30"), Pool: "web"}}
	for _, step := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {61 * time.Second, false}, {89 * time.Second, false}, {91 * time.Second, true}} {
		running{Agent: a}.clock(func() time.Time { return begun.Add(step.after) })
		if got := a.forgotten(t.Context(), closing, &s); got != step.want {
			t.Errorf("forgotten after %v: %v", step.after, got)
		}
	}
}

// A node that lends and has back again keeps records that are worth nothing any
// more, without a lease in between.
func TestRecordsOfBlocksAreCompacted(t *testing.T) {
	a := newHost(t).start(settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	part := lease(t, a, request("web", 1)).Prev()
	d := a.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	d.node.Shared = true
	b := pools.Block{Prefix: netip.PrefixFrom(part, 32), Pool: "web", Node: "n2"}
	for limit := d.compactAt; d.journal.Size() <= limit; {
		for _, op := range []pools.Op{pools.Lent, pools.Regained} {
			if err := d.record(pools.Record{Op: op, Pool: "web", At: d.now(), Block: &b}); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.advance()
	if size := d.journal.Size(); size > 1<<10 {
		t.Errorf("the journal has %d bytes", size)
	}
}
