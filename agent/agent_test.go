package agent

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/agent/journal"
	"github.com/fairway-network/fairway/internal/lockfile"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/speaker"
)

func lease(t *testing.T, a running, r pools.Request) netip.Addr {
	t.Helper()
	g, err := a.desk.Lease(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return g.Addresses[0].Addr
}

// withLease is a host and an agent on it, whose pool web has leased request 1
// its address.
func withLease(t *testing.T, s Settings) (*host, running, netip.Addr) {
	t.Helper()
	h := newHost(t)
	a := h.start(s)
	return h, a, lease(t, a, request("web", 1))
}

func release(t *testing.T, a running, r pools.Request) {
	t.Helper()
	if err := a.desk.Release(t.Context(), r.Owner); err != nil {
		t.Fatal(err)
	}
}

func stop(t *testing.T, a running) {
	t.Helper()
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
}

// The first lease of a block is answered when the peer has been told, and not
// before; the world holds the rest of the order.
func TestLeaseWaitsForTheAnnouncement(t *testing.T) {
	h := newHost(t)
	h.established = false
	a := h.start(settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	answered := make(chan netip.Addr, 1)
	go func() { answered <- lease(t, a, request("web", 1)) }()
	h.await("the block is handed to the speaker", func() bool { return len(h.bgp.Ranges()) > 0 })
	select {
	case got := <-answered:
		t.Fatalf("answered %s without an established peer", got)
	default:
	}
	h.update(func() { h.established = true })
	got := <-answered
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.peer.Contains(got) || !h.kernel.Contains(got) {
		t.Errorf("answered %s; the peer has %v, the kernel %v", got, h.peer.Prefixes(), h.kernel.Prefixes())
	}
}

func TestLeaseFailsWithoutAPeerAndLeasesNothing(t *testing.T) {
	h := newHost(t)
	h.established = false
	s := settings(t, pool(t, "web", 4, "10.1.0.0/30"))
	s.AnnounceTimeout = 50 * time.Millisecond
	a := h.start(s)
	for range 6 { // more often than there are addresses
		_, err := a.desk.Lease(t.Context(), request("web", 1))
		if !errors.Is(err, ErrNotReachable) || !errors.Is(err, cni.ErrTryAgain) {
			t.Fatalf("lease without a peer: %v", err)
		}
	}
	if got := a.desk.Held(request("web", 1).Owner.Attachment); len(got) != 0 {
		t.Errorf("held after the failure: %v", got)
	}
}

func TestKernelFailureKeepsTheBlockUnannounced(t *testing.T) {
	h := newHost(t)
	h.kernelErr = errors.New("no space for routes")
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24"))
	s.AnnounceTimeout = 100 * time.Millisecond
	a := h.start(s)
	_, err := a.desk.Lease(t.Context(), request("web", 1))
	if !errors.Is(err, ErrNotReachable) || !strings.Contains(err.Error(), "no space for routes") {
		t.Errorf("lease without a kernel route: %v", err)
	}
	h.update(func() { h.kernelErr = nil })
	h.await("the block is announced once the kernel recovered", func() bool { return len(h.bgp.Ranges()) > 0 })
	lease(t, a, request("web", 2))
}

// An idle block goes in the order withdrawal, kernel, store.
func TestIdleBlockIsReturned(t *testing.T) {
	web := pool(t, "web", 4, "10.1.0.0/24")
	web.IdleAfter = 0
	h, a, _ := withLease(t, settings(t, web))
	release(t, a, request("web", 1))
	a.call()
	h.await("the block is withdrawn and out of the kernel", func() bool { return len(h.kernel.Ranges()) == 0 && len(h.peer.Ranges()) == 0 })
	eventually(t, "the block is returned", func() bool {
		bs, err := a.Store.Own(t.Context())
		return err == nil && len(bs) == 0 && a.desk.count() == 0
	})
	lease(t, a, request("web", 2))
}

// Of a pool with one block, which is about to be returned, a lease must still
// be had.
func TestClosingBlockIsReopenedWhenNeeded(t *testing.T) {
	h := newHost(t)
	web := pool(t, "web", 4, "10.1.0.0/30")
	web.IdleAfter = 0
	a := h.start(settings(t, web))
	for n := range 200 {
		lease(t, a, request("web", n))
		a.call()
		release(t, a, request("web", n))
		a.call()
	}
}

func TestExhaustionNamesPoolSizeAndUse(t *testing.T) {
	h := newHost(t)
	a := h.start(settings(t, pool(t, "web", 2, "10.1.0.0/30")))
	for n := range 4 {
		lease(t, a, request("web", n))
	}
	_, err := a.desk.Lease(t.Context(), request("web", 4))
	if !errors.Is(err, pools.ErrExhausted) {
		t.Fatalf("fifth lease of four: %v", err)
	}
	for _, want := range []string{`"web"`, "size 4", "4 leased"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
}

func TestManyLeasesAtOnce(t *testing.T) {
	h := newHost(t)
	a := h.start(settings(t, pool(t, "web", 4, "10.1.0.0/25")))
	var mu sync.Mutex
	seen := map[netip.Addr]int{}
	var wg sync.WaitGroup
	for n := range 128 {
		wg.Go(func() {
			g, err := a.desk.Lease(t.Context(), request("web", n))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			seen[g.Addresses[0].Addr]++
		})
	}
	wg.Wait()
	if len(seen) != 128 {
		t.Errorf("%d distinct addresses for 128 pods: %v", len(seen), seen)
	}
}

func TestRestartKnowsTheLeases(t *testing.T) {
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24", "fd00::/112"))
	h, first, before := withLease(t, s)
	lease(t, first, request("web", 2))
	release(t, first, request("web", 2))
	stop(t, first)
	// No peer comes up: what the network knows from before needs none.
	h.update(func() { h.established = false })
	second := h.start(s)
	if again := lease(t, second, request("web", 1)); again != before {
		t.Errorf("%s before the restart, %s after", before, again)
	}
	if !second.settings.Load().Local.Restarting {
		t.Error("the second start of one boot is not a restart to BGP")
	}
	if got := second.desk.Held(request("web", 2).Owner.Attachment); len(got) != 0 {
		t.Errorf("a released lease came back: %v", got)
	}
}

func TestRebootEndsAllLeases(t *testing.T) {
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24"))
	h, first, _ := withLease(t, s)
	stop(t, first)
	h.boot = "boot-2"
	second := h.start(s)
	if got := second.desk.Held(request("web", 1).Owner.Attachment); len(got) != 0 {
		t.Errorf("leases of an earlier boot: %v", got)
	}
	if second.settings.Load().Local.Restarting {
		t.Error("a reboot keeps no forwarding, yet the speaker claims it")
	}
}

func TestLostStoreIsClaimedAnew(t *testing.T) {
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24"))
	h, first, before := withLease(t, s)
	stop(t, first)
	if err := os.Remove(filepath.Join(h.state, "blocks.db")); err != nil {
		t.Fatal(err)
	}
	second := h.start(s)
	if got := second.desk.Held(request("web", 1).Owner.Attachment); len(got) != 1 || got[0].Addr != before {
		t.Errorf("held %v after the store was lost, want %s", got, before)
	}
	h.await("the block of the lease is announced", func() bool { return h.bgp.Contains(before) })
}

func TestPoolTakenAwayUnderALease(t *testing.T) {
	h, first, _ := withLease(t, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	none := settings(t, pool(t, "other", 4, "10.2.0.0/24"))
	if err := first.Reload(none); err == nil || !strings.Contains(err.Error(), "web") {
		t.Errorf("reload without the leased pool: %v", err)
	}
	stop(t, first)
	parts, store := h.parts()
	defer store.Close()
	if _, err := New(t.Context(), parts, none); !errors.Is(err, pools.ErrUnknownPool) {
		t.Errorf("start without the leased pool: %v", err)
	}
}

func TestReloadReturnsTheBlocksOfAPoolThatWent(t *testing.T) {
	web, other := pool(t, "web", 4, "10.1.0.0/24"), pool(t, "other", 4, "10.2.0.0/24")
	h, a, _ := withLease(t, settings(t, web, other))
	kept := lease(t, a, request("other", 1001))
	release(t, a, request("web", 1))
	if err := a.Reload(settings(t, other)); err != nil {
		t.Fatal(err)
	}
	h.await("only the other pool is announced", func() bool {
		return h.peer.Contains(kept) && len(h.peer.Ranges()) == 1 && len(h.kernel.Ranges()) == 1
	})
}

func TestQuietPoolIsNeitherRoutedNorAnnounced(t *testing.T) {
	h := newHost(t)
	h.established = false // a quiet pool waits for nobody
	lan := pool(t, "lan", 4, "10.1.0.0/24")
	lan.Quiet = true
	a := h.start(settings(t, lan))
	lease(t, a, request("lan", 1))
	stop(t, a)
	if len(h.kernel.Ranges()) != 0 || len(h.bgp.Ranges()) != 0 {
		t.Errorf("kernel %v, announced %v", h.kernel.Prefixes(), h.bgp.Prefixes())
	}
}

// While the addresses of a pool that went still rest, its blocks are held, and
// a quiet one stays quiet.
func TestBlocksOfAPoolThatWentRestFirst(t *testing.T) {
	h := newHost(t)
	lan, web, other := resting(t, "lan", "10.1.0.0/24"), resting(t, "web", "10.3.0.0/24"), pool(t, "other", 4, "10.2.0.0/24")
	lan.Quiet = true
	a := h.start(settings(t, lan, web, other))
	for n, name := range []string{"lan", "web"} {
		lease(t, a, request(name, n))
		release(t, a, request(name, n))
	}
	if err := a.Reload(settings(t, other)); err != nil {
		t.Fatal(err)
	}
	p := a.desk.plan(a.settings.Load())
	if a.desk.count() != 2 || len(p.closing) != 0 || len(p.announce) != 1 || !p.announce[0].Overlaps(netip.MustParsePrefix("10.3.0.0/24")) || len(p.deliver) != 1 {
		t.Errorf("%d blocks held, closing %v, announced %v, delivered %v, want the block of web announced and delivered",
			a.desk.count(), p.closing, p.announce, p.deliver)
	}
	a.desk.mu.Lock()
	a.desk.now = func() time.Time { return time.Now().Add(time.Hour) }
	a.desk.mu.Unlock()
	a.call()
	eventually(t, "both blocks are returned", func() bool { return a.desk.count() == 0 })
	h.await("nothing is announced or routed", func() bool { return len(h.peer.Ranges())+len(h.kernel.Ranges()) == 0 })
}

func TestStopForwards(t *testing.T) {
	h, a, addr := withLease(t, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	stop(t, a)
	if len(h.closed) != 1 || h.closed[0] != speaker.Forward || !h.kernel.Contains(addr) {
		t.Errorf("closed %v, kernel %v", h.closed, h.kernel.Prefixes())
	}
}

func TestDrainWithdrawsEverything(t *testing.T) {
	h, a, _ := withLease(t, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := a.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if len(h.closed) != 1 || h.closed[0] != speaker.Withdraw || len(h.kernel.Ranges()) != 0 {
		t.Errorf("closed %v, kernel %v", h.closed, h.kernel.Prefixes())
	}
	if err := a.stop(); err != nil {
		t.Error(err)
	}
	if a.told.recall(time.Hour) {
		t.Error("the next start would claim that forwarding was kept")
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	h := newHost(t)
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24"))
	first := h.start(s)
	sameDir, sameSocket := first.Parts, first.Parts
	sameDir.Socket = filepath.Join(t.TempDir(), "other.sock")
	sameSocket.RunDir = t.TempDir()
	for name, parts := range map[string]Parts{"same run directory": sameDir, "same socket": sameSocket} {
		_, err := New(t.Context(), parts, s)
		if !errors.Is(err, lockfile.ErrHeld) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
			t.Errorf("%s: %v", name, err)
		}
	}
	lease(t, first, request("web", 1)) // the first one has not noticed
}

func TestCorruptJournalStopsTheStart(t *testing.T) {
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24"))
	h, first, _ := withLease(t, s)
	lease(t, first, request("web", 2))
	stop(t, first)
	path := filepath.Join(h.run, journalFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	parts, store := h.parts()
	defer store.Close()
	if _, err := New(t.Context(), parts, s); !errors.Is(err, journal.ErrCorrupt) || !strings.Contains(err.Error(), path) {
		t.Errorf("start with a damaged journal: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(data) {
		t.Errorf("the damaged journal was changed (%v)", err)
	}
}

func TestWithin(t *testing.T) {
	p := netip.MustParsePrefix
	got := within([]netip.Prefix{p("10.0.0.0/24"), p("fd00::/64")}, setOf([]netip.Prefix{p("10.0.0.128/25"), p("10.0.1.0/24")}))
	if len(got) != 1 || got[0] != p("10.0.0.128/25") {
		t.Errorf("got %v", got)
	}
}

// With a full disk under the journal an ADD fails and leases nothing; what
// stood before stands, and with room again the next one works.
func TestFullJournalDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a tmpfs needs root")
	}
	h := newHost(t)
	if err := syscall.Mount("tmpfs", h.run, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(h.run, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	a := h.start(settings(t, pool(t, "web", 64, "10.1.0.0/20")))
	last := 0
	var err error
	for err == nil && last < 4000 {
		last++
		_, err = a.desk.Lease(t.Context(), request("web", last))
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), h.run) {
		t.Fatalf("lease %d with a full disk: %v", last, err)
	}
	if got := a.desk.Held(request("web", last).Owner.Attachment); len(got) != 0 {
		t.Errorf("the failed request holds %v", got)
	}
	if err := a.desk.Release(t.Context(), request("web", 1).Owner); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("release with a full disk: %v", err)
	}
	if got := a.desk.Held(request("web", 1).Owner.Attachment); len(got) != 1 {
		t.Errorf("the failed release left %v", got)
	}
	if err := syscall.Mount("", h.run, "", syscall.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	lease(t, a, request("web", last))
	stop(t, a)
	again := h.start(settings(t, pool(t, "web", 64, "10.1.0.0/20")))
	if got := len(again.desk.ledger.Grants()); got != last {
		t.Errorf("%d leases after a restart, want %d", got, last)
	}
}

// claim claims what is lacking, for nobody.
func (a *Agent) claim(ctx context.Context, lack pools.NoFreeError) error {
	w, err := a.desk.claim(ctx, lack)
	if err != nil {
		return err
	}
	a.desk.mu.Lock()
	defer a.desk.mu.Unlock()
	a.desk.endWait(w)
	return nil
}

// A block that was claimed for a request is not idle before that request had
// its turn, however short idleAfter is.
func TestClaimedBlockIsNotIdle(t *testing.T) {
	h := newHost(t)
	h.established = false
	web := pool(t, "web", 4, "10.1.0.0/24")
	web.IdleAfter = 0
	a := h.start(settings(t, web))
	if err := a.claim(t.Context(), pools.NoFreeError{Pool: "web", Family: pools.IPv4}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if p := a.desk.plan(a.settings.Load()); len(p.closing) != 0 || len(p.news.Prefixes()) != 1 {
			t.Errorf("closing %v, new %v", p.closing, p.news.Prefixes())
		}
	}
}
