package agent

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-network/fairway/bfd"
	"github.com/fairway-network/fairway/speaker"
)

// failures is a speaker that ends sessions only when it has been asked for all that
// it waits for.
type failures struct {
	fakeSpeaker
	all   sync.WaitGroup
	mu    sync.Mutex
	asked []string
}

func (f *failures) Fail(_ context.Context, peer string) error {
	f.mu.Lock()
	f.asked = append(f.asked, peer)
	f.mu.Unlock()
	f.all.Done()
	f.all.Wait()
	return nil
}

func newTestPaths(t *testing.T, bgp speaker.Speaker) *paths {
	return newPaths(bgp, slog.New(slog.NewTextHandler(t.Output(), nil)))
}

func session(name, address string, state bfd.State, failures uint64) bfd.PeerState {
	return bfd.PeerState{
		Peer:   bfd.Peer{Name: name, Endpoint: bfd.Endpoint{Address: netip.MustParseAddr(address)}},
		Status: bfd.Status{State: state, Failures: failures, Since: time.Unix(int64(failures), int64(state))},
	}
}

// Only a path that was lost ends a BGP session, once for each loss, and no session
// waits for the end of another.
func TestLostPathsEndSessions(t *testing.T) {
	bgp := &failures{}
	w := newTestPaths(t, bgp)
	react := func(calls int, sessions ...bfd.PeerState) {
		bgp.all.Add(calls)
		w.react(t.Context(), sessions)
		w.working.Wait()
	}
	react(0, session("a", "192.0.2.1", bfd.Down, 0), session("b", "192.0.2.2", bfd.Up, 0), session("c", "192.0.2.3", bfd.Up, 0))
	react(0, session("a", "192.0.2.1", bfd.Up, 0), session("b", "192.0.2.2", bfd.Down, 0), session("c", "192.0.2.3", bfd.Up, 0)) // b: AdminDown
	react(2, session("a", "192.0.2.1", bfd.Down, 1), session("b", "192.0.2.2", bfd.Down, 0), session("c", "192.0.2.3", bfd.Up, 1))
	react(0, session("a", "192.0.2.1", bfd.Down, 1), session("b", "192.0.2.2", bfd.Up, 0), session("c", "192.0.2.3", bfd.Up, 1))
	react(1, session("a", "192.0.2.1", bfd.Down, 1), session("b", "192.0.2.2", bfd.Down, 3), session("c", "192.0.2.3", bfd.Up, 1))
	slices.Sort(bgp.asked)
	if !slices.Equal(bgp.asked, []string{"a", "b", "c"}) {
		t.Errorf("sessions ended: %v", bgp.asked)
	}
}

// A peer that was taken away and came back has a session that counts anew.
func TestLossesCountAnewForAnotherSession(t *testing.T) {
	bgp := &failures{}
	w := newTestPaths(t, bgp)
	a := router{name: "a", address: netip.MustParseAddr("192.0.2.1")}
	bgp.all.Add(2)
	w.peers([]router{a}, 64512, nil)
	w.react(t.Context(), []bfd.PeerState{session("a", "192.0.2.1", bfd.Down, 2)})
	w.peers(nil, 64512, nil)
	w.peers([]router{a}, 64512, nil)
	w.react(t.Context(), []bfd.PeerState{session("a", "192.0.2.1", bfd.Down, 1)})
	w.working.Wait()
	if len(bgp.asked) != 2 {
		t.Errorf("sessions ended: %v", bgp.asked)
	}
}

func TestWhichPathsAreWatched(t *testing.T) {
	at := netip.MustParseAddr
	s := Settings{
		Peers: []speaker.Peer{
			{Name: "yes", Address: at("192.0.2.1")}, {Name: "no", Address: at("192.0.2.2")},
			{Name: "shut", Address: at("192.0.2.3"), Session: speaker.Session{Down: true}}, {Name: "link", Interface: "eth1"},
		},
		Ranges: []speaker.Range{{Name: "rack", ASN: 65000}, {Name: "other"}},
		BFD:    map[string]BFD{"yes": {Multiplier: 4}, "shut": {}, "link": {}, "rack": {Multiplier: 5}, "gone": {}},
	}
	known, unknown := watched(&s)
	if len(known) != 1 || known[0].name != "yes" || known[0].how.Multiplier != 4 {
		t.Errorf("watched: %+v", known)
	}
	if got := slices.Sorted(maps.Keys(unknown)); !slices.Equal(got, []string{"link", "rack"}) {
		t.Errorf("without an address: %v", got)
	}
	w := newTestPaths(t, nil)
	names := func() string { return strings.Join(slices.Sorted(maps.Keys(w.learned)), " ") }
	w.learn(unknown, speaker.State{Peers: []speaker.PeerState{
		{Name: "yes", Address: at("192.0.2.1")}, {Name: "link", Address: at("fe80::1%eth1")},
		{Name: "rack/192.0.2.9", Address: at("192.0.2.9"), Range: "rack"}, {Name: "rack/192.0.2.8", Address: at("192.0.2.8"), Range: "rack"},
		{Name: "other/192.0.2.7", Address: at("192.0.2.7"), Range: "other"},
	}}, nil)
	if names() != "link rack/192.0.2.8 rack/192.0.2.9" || w.learned["rack/192.0.2.9"].how.Multiplier != 5 {
		t.Errorf("learned %+v", w.learned)
	}
	// The speaker's process starts anew: BFD still reaches two of them.
	w.learn(unknown, speaker.State{}, []bfd.PeerState{
		session("link", "fe80::1", bfd.Up, 0), session("rack/192.0.2.9", "192.0.2.9", bfd.Up, 0), session("rack/192.0.2.8", "192.0.2.8", bfd.Down, 0)})
	if names() != "link rack/192.0.2.9" || w.learned["link"].address != at("fe80::1%eth1") {
		t.Errorf("while BGP is away: %+v", w.learned)
	}
	w.learn(nil, speaker.State{}, []bfd.PeerState{session("link", "fe80::1", bfd.Up, 0)})
	if len(w.learned) != 0 {
		t.Errorf("watched although nobody asks for it: %+v", w.learned)
	}
}

func TestKindsOfPaths(t *testing.T) {
	link := []net.Addr{&net.IPNet{IP: net.IPv4(192, 0, 2, 77), Mask: net.CIDRMask(24, 32)}}
	for _, c := range []struct {
		what     string
		router   router
		multihop bool
	}{
		{"eBGP", router{asn: 65000, address: netip.MustParseAddr("198.51.100.1")}, false},
		{"eBGP multihop", router{asn: 65000, address: netip.MustParseAddr("198.51.100.1"), session: speaker.Session{Multihop: 2}}, true},
		{"eBGP multihop on a link", router{asn: 65000, address: netip.MustParseAddr("192.0.2.1"), session: speaker.Session{Multihop: 2}}, false},
		{"eBGP two hops away", router{asn: 65000, address: netip.MustParseAddr("198.51.100.1"), session: speaker.Session{TTLSecurity: 2}}, true},
		{"iBGP", router{asn: 64512, address: netip.MustParseAddr("198.51.100.1")}, true},
		{"iBGP on a link", router{asn: 64512, address: netip.MustParseAddr("192.0.2.1")}, false},
		{"iBGP by another ASN", router{asn: 65000, address: netip.MustParseAddr("198.51.100.1"), session: speaker.Session{LocalASN: 65000}}, true},
		{"link-local", router{asn: 64512, address: netip.MustParseAddr("fe80::1%eth1")}, false},
	} {
		w := newTestPaths(t, nil)
		p := w.peers([]router{c.router}, 64512, link)[0]
		if p.Multihop != c.multihop || p.Interface != c.router.address.Zone() {
			t.Errorf("%s: %+v", c.what, p)
		}
		// What was on a link stays there when the link's address goes.
		if p := w.peers([]router{c.router}, 64512, nil)[0]; p.Multihop != c.multihop {
			t.Errorf("%s, after the link's address is gone: %+v", c.what, p)
		}
	}
}

// asked is a speaker that counts who asks for its state.
type asked struct {
	fakeSpeaker
	times atomic.Int64
}

func (s *asked) State(context.Context) (speaker.State, error) {
	s.times.Add(1)
	return speaker.State{}, nil
}

// Routers are searched for only where the settings have some without an address.
func TestSearchRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bgp := &asked{}
		w := newTestPaths(t, bgp)
		ctx, cancel := context.WithCancel(t.Context())
		go w.search(ctx)
		within := func(settings *Settings) int64 {
			if err := w.set(ctx, settings); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * searchTime) // of the bubble's clock: the last search may end
			before := bgp.times.Load()
			time.Sleep(10*searchTime + searchTime/2)
			return bgp.times.Load() - before
		}
		none := &Settings{}
		some := &Settings{Ranges: []speaker.Range{{Name: "rack"}}, BFD: map[string]BFD{"rack": {}}}
		for i, c := range []struct {
			settings *Settings
			want     int64
		}{{none, 0}, {some, 10}, {some, 10}, {none, 0}, {some, 10}} {
			if got := within(c.settings); got < c.want || got > c.want+1 {
				t.Errorf("%d: BGP was asked %d times in 10 s, want %d", i, got, c.want)
			}
		}
		cancel()
	})
}
