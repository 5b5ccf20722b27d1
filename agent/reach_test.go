package agent

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/speaker"
)

// lendOut has a part of a block that first is not in withdrawn, as a loan of it
// does, and returns it.
func (h *host) lendOut(t *testing.T, a running, first netip.Addr) netip.Prefix {
	t.Helper()
	part := netip.MustParsePrefix("10.1.0.0/31")
	if part.Contains(first) {
		part = netip.MustParsePrefix("10.1.0.2/31")
	}
	h.update(func() { h.tolerant = true }) // of what is told to nobody here
	a.desk.mu.Lock()
	err := a.desk.ledger.SetAside("web", part, "n2")
	a.desk.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	a.call()
	h.await("the part is withdrawn", func() bool { return !h.bgp.OverlapsPrefix(part) && !h.kernel.OverlapsPrefix(part) })
	return part
}

func (a running) regain(part netip.Prefix) {
	a.desk.mu.Lock()
	defer a.desk.mu.Unlock()
	a.desk.ledger.TakeBack(part)
	a.call()
}

// leasesTold leases what is left of web while no peer listens, and then when one
// does: only what it knows is leased.
func (h *host) leasesTold(t *testing.T, a running, next, count int) {
	t.Helper()
	for n := next; n < next+count; n++ {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		g, err := a.desk.Lease(ctx, request("web", n))
		cancel()
		if err == nil && !h.told(g.Addresses[0].Addr) {
			t.Errorf("leased %s, which the peer does not have", g.Addresses[0].Addr)
		} else if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}
	h.update(func() { h.established = true })
	for n := next; n < next+count; n++ {
		if addr := lease(t, a, request("web", n)); !h.told(addr) {
			t.Errorf("leased %s, which the peer does not have", addr)
		}
	}
}

func (h *host) hangUp() {
	h.update(func() { h.established, h.peer = false, h.bgp })
}

func TestWhatComesBackFromALoanIsAnnouncedFirst(t *testing.T) {
	h, a, first := withLease(t, settings(t, pool(t, "web", 4, "10.1.0.0/30")))
	part := h.lendOut(t, a, first)
	h.hangUp()
	a.regain(part)
	h.leasesTold(t, a, 2, 3)
}

// The agent before this one announced the block, but not what had just come back.
func TestWhatCameBackBeforeARestartIsAnnouncedFirst(t *testing.T) {
	s := settings(t, pool(t, "web", 4, "10.1.0.0/30"))
	h, a, first := withLease(t, s)
	part := h.lendOut(t, a, first)
	h.hangUp()
	a.regain(part)
	stop(t, a)
	again := h.start(s)
	if got := lease(t, again, request("web", 1)); got != first {
		t.Errorf("the pod has %s, after a restart %s", first, got)
	}
	h.leasesTold(t, again, 2, 3)
}

func TestAddressesNewInABlockAreAnnouncedFirst(t *testing.T) {
	h, a, _ := withLease(t, settings(t, pool(t, "web", 4, "10.1.0.0/31")))
	h.hangUp()
	if err := a.Reload(settings(t, pool(t, "web", 4, "10.1.0.0/30"))); err != nil {
		t.Fatal(err)
	}
	h.leasesTold(t, a, 2, 3)
}

// What a plan brings about late does not count when a later one wants less.
func TestLateNewsOfWhatWasLeftOut(t *testing.T) {
	all, half := netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.1.0.0/25")
	r := newReach(setOf())
	r.narrow([]netip.Prefix{all})
	late := r.number
	r.narrow([]netip.Prefix{half})
	r.grow(setOf([]netip.Prefix{all}), late)
	r.narrow([]netip.Prefix{all})
	r.grow(setOf([]netip.Prefix{half}), r.number)
	r.grow(setOf([]netip.Prefix{all}), late)
	if !r.set.Equal(setOf([]netip.Prefix{half})) {
		t.Errorf("reached: %v; want %s", r.set.Prefixes(), half)
	}
	if got := ofFamily(r.set, pools.IPv6); len(got.Ranges()) != 0 {
		t.Errorf("of IPv6: %v", got.Prefixes())
	}
}

// Peers that the node's labels keep out of force are waited for like those that are
// away: no pod runs before the network leads to it, and the node is not ready.
func TestPeersThatLabelsKeepOut(t *testing.T) {
	h := newHost(t)
	complete := settings(t, pool(t, "web", 4, "10.1.0.0/24"))
	bare := complete
	bare.Local.ASN, bare.Peers, bare.Awaited, bare.AnnounceTimeout = 0, nil, complete.Peers, 100*time.Millisecond
	bare.Unmet = errors.New("bgp.asnFrom: label example.com/asn: node n1 has no such label")
	a := h.start(bare)
	<-a.Started()
	if g, err := a.desk.Lease(t.Context(), request("web", 1)); !errors.Is(err, cni.ErrTryAgain) {
		t.Errorf("leased %v, %v before a peer was there", g, err)
	}
	if code, body := h.get(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, bare.Unmet.Error()) {
		t.Errorf("without the label: %d %q", code, body)
	}
	if err := a.Reload(complete); err != nil {
		t.Fatal(err)
	}
	got := lease(t, a, request("web", 1))
	h.update(func() {
		if !h.peer.Contains(got) {
			t.Errorf("%s was leased before the peer was told", got)
		}
	})
	if code, body := h.get(t, "/readyz"); code != http.StatusOK {
		t.Errorf("with the label: %d %q", code, body)
	}
}

// A family is awaited for as long as no peer carries it, and for pools alone that an
// awaited peer is told of.
func TestAwaitedFamilies(t *testing.T) {
	s := settings(t, pool(t, "six", 4, "2001:db8::/120"))
	six := speaker.Peer{Name: "tor6", Session: speaker.Session{Families: []speaker.Family{speaker.IPv6}}}
	s.Awaited, s.Unmet = []speaker.Peer{six}, errors.New("no label")
	if s.awaits(pools.IPv6) || s.unserved() != nil {
		t.Error("a family that a peer carries is awaited")
	}
	s.Peers[0].Families = []speaker.Family{speaker.IPv4}
	s.Rules = []Rule{{Pools: []string{"inner"}, Withhold: true}}
	if !s.awaits(pools.IPv6) || s.awaits(pools.IPv4) || !s.waits(pools.IPv6) || s.unserved() == nil {
		t.Error("IPv6 alone is to be awaited")
	}
	if !s.heard("web", pools.IPv6) || s.heard("inner", pools.IPv6) {
		t.Error("the rules are for awaited peers, too")
	}
	s.Pools = []Pool{pool(t, "four", 4, "10.1.0.0/24")}
	if s.unserved() != nil {
		t.Error("a peer is missed for a family that no pod has")
	}
	if s.Pools = nil; s.unserved() == nil {
		t.Error("without pools no peer is missed")
	}
	if s.Healthy = NoPeers; s.unserved() != nil {
		t.Error("no peer is needed, and one is missed")
	}
}
