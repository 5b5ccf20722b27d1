package agent

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

// leftBehind is a host whose agent leased an address of web and took it back,
// and stopped: the network forwards to its block.
func leftBehind(t *testing.T, web Pool) (*host, netip.Addr) {
	t.Helper()
	h, first, addr := withLease(t, settings(t, web, pool(t, "other", 4, "10.2.0.0/24")))
	release(t, first, request("web", 1))
	lease(t, first, request("other", 2))
	stop(t, first)
	return h, addr
}

// held are the blocks of a pool that the store has for this node.
func (a running) held(t *testing.T, pool string) []pools.Block {
	t.Helper()
	own, err := a.Store.Own(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var bs []pools.Block
	for _, b := range own {
		bs = append(bs, b.Block)
	}
	return slices.DeleteFunc(bs, func(b pools.Block) bool { return b.Pool != pool })
}

func (a running) clock(now func() time.Time) {
	a.desk.mu.Lock()
	defer a.desk.mu.Unlock()
	a.desk.now = now
}

// A block whose pool went while no agent ran goes as any other: withdrawal,
// kernel, store. The world holds the order.
func TestStartWithoutAPool(t *testing.T) {
	for name, now := range map[string][]string{
		"the pool is gone":               {"10.2.0.0/24"},
		"another pool has its addresses": {"10.2.0.0/24", "10.1.0.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			h, addr := leftBehind(t, pool(t, "web", 4, "10.1.0.0/24"))
			s := settings(t, pool(t, "other", 4, now...))
			start := func() running {
				h.update(func() { h.bgp, h.established = set(), false })
				a := h.start(s)
				h.await("the rest is announced", func() bool { return len(h.bgp.Ranges()) > 0 })
				return a
			}
			stop(t, start()) // in the middle of it
			a := start()
			a.clock(func() time.Time { return time.Now().Add(unknownRest) })
			h.await("the loop has waited for the peer", func() bool { return h.unflushed > 0 })
			if got := a.held(t, "web"); len(got) != 1 || !h.delivers(addr) {
				t.Errorf("before the peer was told: held %v, the kernel delivers: %v", got, h.delivers(addr))
			}
			h.update(func() {
				if h.bgp.Contains(addr) {
					t.Errorf("%v is announced", h.bgp.Prefixes())
				}
				h.established = true
			})
			a.call()
			eventually(t, "the block is returned", func() bool { return len(a.held(t, "web")) == 0 })
			if h.delivers(addr) {
				t.Error("the kernel still delivers the block")
			}
		})
	}
}

// A pool that was cut into smaller blocks gets the old ones' cells after that.
func TestStartWithSmallerBlocks(t *testing.T) {
	h, addr := leftBehind(t, pool(t, "web", 4, "10.1.0.0/30"))
	h.update(func() { h.bgp = set() })
	a := h.start(settings(t, pool(t, "web", 2, "10.1.0.0/30"), pool(t, "other", 4, "10.2.0.0/24")))
	a.clock(func() time.Time { return time.Now().Add(unknownRest) })
	a.call()
	eventually(t, "the pool leases again", func() bool {
		_, err := a.desk.Lease(t.Context(), request("web", 1))
		return err == nil
	})
	if got := a.held(t, "web"); len(got) != 1 || got[0].Prefix.Bits() != 31 || !h.delivers(addr) && !h.delivers(addr.Next()) {
		t.Errorf("held: %v", got)
	}
}

// What the pods' network never routed is not routed on the way out, either.
func TestStartWithoutAQuietPool(t *testing.T) {
	lan := pool(t, "web", 4, "10.1.0.0/24")
	lan.Quiet = true
	h, addr := leftBehind(t, lan)
	h.update(func() { h.bgp, h.established = set(), false })
	h.start(settings(t, pool(t, "other", 4, "10.2.0.0/24")))
	h.await("the loop has waited for the peer", func() bool { return h.unflushed > 0 })
	if h.delivers(addr) {
		t.Error("a block of a pool that was not routed is")
	}
}

// Until its addresses have rested, a block is returned by no agent: not by the
// one that found it, nor by one after that, whatever became of the journal.
func TestBlockWithoutAPoolRestsFirst(t *testing.T) {
	h, addr := leftBehind(t, resting(t, "web", "10.1.0.0/24"))
	released := time.Now()
	s := settings(t, pool(t, "other", 4, "10.2.0.0/24"))
	for _, end := range []string{"stops", "compacts its journal and stops"} {
		h.update(func() { h.bgp = set() })
		a := h.start(s)
		h.await("nothing of it is delivered", func() bool { return !h.peer.Contains(addr) && !h.kernel.Contains(addr) })
		if status := a.desk.status(); len(status.Blocks) != 2 || status.Blocks[1].State != "returning" {
			t.Errorf("status: %+v", status.Blocks)
		}
		if end != "stops" {
			a.desk.mu.Lock()
			a.desk.compact()
			a.desk.mu.Unlock()
		}
		stop(t, a)
		if t.Failed() {
			t.Fatal(end)
		}
	}
	h.update(func() { h.bgp = set() })
	a := h.start(s)
	h.await("it is withdrawn", func() bool { return !h.peer.Contains(addr) && !h.kernel.Contains(addr) })
	eventually(t, "the withdrawal is known to have left", func() bool {
		a.desk.mu.Lock()
		defer a.desk.mu.Unlock()
		return len(a.desk.unfit) == 1 && a.desk.unfits()[0].withdrawn
	})
	a.clock(func() time.Time { return released.Add(unknownRest - 10*time.Second) })
	if p := a.desk.plan(a.settings.Load()); len(p.gone) != 0 {
		t.Errorf("to be returned before it has rested: %v", p.gone)
	}
	a.clock(func() time.Time { return released.Add(unknownRest) })
	a.call()
	eventually(t, "the block is returned", func() bool { return len(a.held(t, "web")) == 0 && len(a.desk.status().Blocks) == 1 })
}

// Nobody knows how long the addresses of a pool that is gone should rest: it is
// the longest time that any pool has.
func TestLongestRest(t *testing.T) {
	short, long := pool(t, "short", 4, "10.1.0.0/24"), resting(t, "long", "10.2.0.0/24")
	for want, s := range map[time.Duration]Settings{time.Minute: settings(t, short), time.Hour: settings(t, short, long)} {
		if got := s.longestRest(); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

// A pool that comes back before the block was returned has it again, with what
// rests in it, and tells the peers anew.
func TestPoolComesBack(t *testing.T) {
	web, other := resting(t, "web", "10.1.0.0/30"), pool(t, "other", 4, "10.2.0.0/24")
	for _, c := range []struct {
		when string
		told bool
	}{{"before the peers were told", false}, {"while its addresses rest", true}} {
		t.Run(c.when, func(t *testing.T) {
			h, addr := leftBehind(t, web)
			h.update(func() { h.bgp, h.established = set(), c.told })
			a := h.start(settings(t, other))
			if c.told {
				h.await("it is withdrawn", func() bool { return !h.peer.Contains(addr) && !h.kernel.Contains(addr) })
			} else {
				h.await("the loop has waited for the peer", func() bool { return h.unflushed > 0 })
			}
			if err := a.Reload(settings(t, other, web)); err != nil {
				t.Fatal(err)
			}
			h.update(func() { h.established = true })
			for n := range 3 {
				if got := lease(t, a, request("web", 10+n)); got == addr || !h.told(got) {
					t.Errorf("leased %s; %s rests; the peer was told: %v", got, addr, h.told(got))
				}
			}
			if _, err := a.desk.Lease(t.Context(), request("web", 13)); !errors.Is(err, pools.ErrExhausted) {
				t.Errorf("a fourth address of four, one of which rests: %v", err)
			}
			if got := a.held(t, "web"); len(got) != 1 {
				t.Errorf("held: %v", got)
			}
		})
	}
}

func (h *host) told(a netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.peer.Contains(a)
}

// returningStore does something just before a block is returned.
type returningStore struct {
	exchange.Store
	before func()
}

func (s *returningStore) Delete(ctx context.Context, b exchange.Stored) error {
	if before := s.before; before != nil {
		s.before = nil
		before()
	}
	return s.Store.Delete(ctx, b)
}

// A pool that comes back when the return is final claims the cell anew: the
// block is not held and returned at the same time.
func TestPoolComesBackTooLate(t *testing.T) {
	web, other := pool(t, "web", 4, "10.1.0.0/30"), pool(t, "other", 4, "10.2.0.0/24")
	h, _ := leftBehind(t, web)
	h.update(func() { h.bgp = set() })
	parts, store := h.parts()
	defer store.Close()
	returning := &returningStore{Store: parts.Store}
	parts.Store = returning
	a, err := New(t.Context(), parts, settings(t, other))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	running{Agent: a}.clock(func() time.Time { return time.Now().Add(time.Hour) })
	claimed := make(chan error, 1)
	begun := make(chan struct{})
	returning.before = func() {
		if err := a.Reload(settings(t, other, web)); err != nil {
			t.Error(err)
		}
		if n := len(a.desk.ledger.Blocks()); n != 1 {
			t.Errorf("%d blocks held while one of them is being returned, want that of other", n)
		}
		go func() { claimed <- a.claim(t.Context(), pools.NoFreeError{Pool: "web", Family: pools.IPv4}) }()
		close(begun)
	}
	for range 2 { // withdraws it, then returns it
		if err := a.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-begun:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was returned")
	}
	if err := <-claimed; err != nil { // bounded by claimTime
		t.Errorf("claim while the pool's only block was on its way back: %v", err)
	}
	if err := a.pass(t.Context()); err != nil {
		t.Error(err)
	}
	if bs, err := store.Own(t.Context()); err != nil || len(bs) != 2 || len(a.desk.ledger.Blocks()) != 2 || len(a.desk.unfit) != 0 {
		t.Errorf("the store has %v (%v), the agent %v and %v", bs, err, a.desk.ledger.Blocks(), a.desk.unfit)
	}
}

// What can't be unremembered is not withdrawn, and holds up nothing else.
func TestWithdrawalThatCantBeUnremembered(t *testing.T) {
	web, other := pool(t, "web", 4, "10.1.0.0/24"), pool(t, "other", 4, "10.2.0.0/24")
	web.IdleAfter = 0
	h, a, addr := withLease(t, settings(t, web, other))
	mend := a.breakTold(t)
	release(t, a, request("web", 1))
	news := lease(t, a, request("other", 2))
	if !h.told(news) {
		t.Error("another block waits for the withdrawal that can't be")
	}
	eventually(t, "the trouble is told", func() bool { return a.desk.status().Trouble != "" })
	h.update(func() {
		if !h.bgp.Contains(addr) || !h.kernel.Contains(addr) {
			t.Errorf("withdrawn while the next agent would take it for announced: %v, kernel %v", h.bgp.Prefixes(), h.kernel.Prefixes())
		}
	})
	mend()
	h.await("the block is withdrawn", func() bool { return !h.peer.Contains(addr) && !h.kernel.Contains(addr) })
	eventually(t, "all is well again", func() bool { return a.desk.status().Trouble == "" && len(a.held(t, "web")) == 0 })
	if a.told.all().Contains(addr) {
		t.Error("an agent after this one would take the block for announced")
	}
}

// breakTold keeps the memory of what was announced from being written, as a
// full disk would, until mend is called.
func (a running) breakTold(t *testing.T) (mend func()) {
	t.Helper()
	a.told.mu.Lock()
	defer a.told.mu.Unlock()
	good := a.told.path
	a.told.path = filepath.Join(t.TempDir(), "missing", toldFile)
	return func() {
		a.told.mu.Lock()
		defer a.told.mu.Unlock()
		a.told.path = good
	}
}

// meetingStore lets claims through when one of each family is under way.
type meetingStore struct {
	exchange.Store
	meet map[pools.Family]chan struct{}
}

func (s meetingStore) Create(ctx context.Context, b pools.Block) (exchange.Stored, error) {
	close(s.meet[pools.FamilyOf(b.Prefix.Addr())])
	for _, met := range s.meet {
		select {
		case <-met:
		case <-ctx.Done():
			return exchange.Stored{}, ctx.Err()
		}
	}
	return s.Store.Create(ctx, b)
}

// The first pod of a dual-stack pool waits for the longer of its two claims,
// not for one after the other.
func TestClaimsOfTwoFamiliesGoSideBySide(t *testing.T) {
	h := newHost(t)
	parts, store := h.parts()
	parts.Store = meetingStore{parts.Store, map[pools.Family]chan struct{}{pools.IPv4: make(chan struct{}), pools.IPv6: make(chan struct{})}}
	a := h.startWith(parts, store, settings(t, pool(t, "web", 4, "10.1.0.0/24", "fd00::/112")))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := a.desk.Lease(ctx, request("web", 1)); err != nil {
		t.Error(err)
	}
	if got := a.held(t, "web"); len(got) != 2 {
		t.Errorf("held: %v", got)
	}
}
