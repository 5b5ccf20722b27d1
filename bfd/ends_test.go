package bfd

import (
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/interop"
	"github.com/fairway-network/fairway/integration/router"
)

// daemon is a router's BFD. Addresses are this node's.
type daemon interface {
	up(t *testing.T, address string) bool
	// knowsAdminDown waits until it has heard that a session was taken down on purpose.
	knowsAdminDown(t *testing.T, address string)
	kill()
}

// end is a router with its end of sessions of all kinds, at 50 ms and 20 packets.
type end struct {
	daemon
	peers     []Peer   // this node's; the first is a single hop away
	addresses []string // this node's, of each peer
	// heard says whether it has this node's timers as TestTimersAndPeersChange changes them.
	heard func(t *testing.T) bool
	// change makes its own interval 200 ms towards the peers in changed.
	change  func(t *testing.T)
	changed []string
	again   func(t *testing.T) // starts it anew
}

func eachEnd(t *testing.T, test func(t *testing.T, i router.Implementation, e end)) {
	for i, start := range map[router.Implementation]func(*testing.T) end{router.FRR: frrEnd, router.BIRD: birdEnd} {
		t.Run(string(i), func(t *testing.T) { test(t, i, start(t)) })
	}
}

// start gives a server with all peers, up at both ends.
func (e end) start(t *testing.T) *Server {
	t.Helper()
	s := newTestServer(t, e.peers...)
	s.are(t, Up)
	for _, a := range e.addresses {
		eventually(t, "the router is up with "+a, func() bool { return e.up(t, a) })
	}
	return s
}

// steady fails when a session was not up all the time since before.
func (s *Server) steady(t *testing.T, before []PeerState) {
	t.Helper()
	for _, b := range before {
		if p := s.state(t, b.Peer.Name); p.State != Up || p.Since != b.Since || p.Failures != b.Failures {
			t.Errorf("%s did not stay up: %+v, was %+v", b.Peer.Name, p, b)
		}
	}
}

// Either side changes its timers, and then one session is taken away and comes
// back: no other session goes down.
func TestTimersAndPeersChange(t *testing.T) {
	table := interop.Open(t)
	table.Lacks(t, "BFD", router.OpenBGPD, "has none")
	table.Lacks(t, "BFD", router.GoBGP, "has none")
	eachEnd(t, func(t *testing.T, i router.Implementation, e end) {
		table.Try(t, "BFD", i, router.IPv4, router.IPv6)
		s := e.start(t)
		before := s.State()
		peers := slices.Clone(e.peers)
		for i := range peers {
			peers[i].Timers = Timers{MinTx: 120 * time.Millisecond, MinRx: 80 * time.Millisecond, Multiplier: 21}
		}
		must(t, s.Set(peers))
		eventually(t, "the router has the new timers", func() bool { return e.heard(t) })
		timed := func(interval, detection time.Duration, names ...string) func() bool {
			return func() bool {
				return !slices.ContainsFunc(names, func(name string) bool {
					p := s.state(t, name)
					return p.Interval != interval || p.Detection != detection
				})
			}
		}
		last := peers[len(peers)-1].Name
		eventually(t, "both count", timed(120*time.Millisecond, 20*80*time.Millisecond, last))
		e.change(t)
		eventually(t, "the router's new timers count", timed(200*time.Millisecond, 20*200*time.Millisecond, e.changed...))
		s.steady(t, before)

		must(t, s.Set(peers[1:]))
		e.knowsAdminDown(t, e.addresses[0])
		s.steady(t, before[1:])
		must(t, s.Set(peers))
		s.are(t, Up)
		s.steady(t, before[1:])
	})
}

// The router's BFD is killed: every session knows within its Detection Time of the last
// packet that it had. Then it starts again.
func TestRouterKilled(t *testing.T) {
	eachEnd(t, func(t *testing.T, _ router.Implementation, e end) {
		s := e.start(t)
		e.kill()
		s.are(t, Down)
		for _, p := range s.State() {
			const detection = 20 * 50 * time.Millisecond
			took := p.Since.Sub(p.Heard)
			t.Logf("%s: down %s after the last packet", p.Peer.Name, took)
			if p.Diagnostic != DetectionExpired || p.Failures != 1 || took < detection || took > detection+5*time.Second {
				t.Errorf("%+v, %s after the last packet: want %s and what the machine takes", p, took, detection)
			}
		}
		e.again(t)
		s.are(t, Up)
	})
}
