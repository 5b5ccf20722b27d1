package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// notYet fails unless a Flush in a hurry names what it waits for.
func notYet(t *testing.T, s speaker.Speaker, prefixes []netip.Prefix, words ...string) {
	t.Helper()
	err := s.Flush(within(t, 300*time.Millisecond), prefixes)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, speaker.ErrNoPeer) {
		t.Errorf("Flush of %v: %v: want it to wait", prefixes, err)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("Flush of %v: %v: want %q in it", prefixes, err, w)
		}
	}
}

// A helper of this node's restart keeps what it had of it until the
// End-of-RIB: until then nothing that is not announced counts as withdrawn.
func TestWithdrawalWaitsForEndOfRIB(t *testing.T) {
	t.Parallel()
	r := newRaw(t, "helper", "127.0.0.34")
	r.helps = true
	close(r.gate)
	r.listen(t)
	c := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}, Announcements: announce("10.1.0.0/26")}
	d.Local.Restarting, d.Local.Deferral = true, time.Minute
	must(t, c.Set(t.Context(), d))
	comesUp(t, c, "helper")
	gone := prefixes("10.2.0.0/26")
	notYet(t, c, gone, "helper (127.0.0.34)", "End-of-RIB", "10.2.0.0/26")
	if len(r.ended) > 0 {
		t.Fatal("the node does not defer its End-of-RIB: the test tries nothing")
	}
	must(t, writeMessage(<-r.sessions, bgp.NewEndOfRib(bgp.RF_IPv4_UC))) // ends the deferral
	must(t, c.Flush(within(t, soon), gone))
	r.hearsEnd(t)
}

func (r *raw) hearsEnd(t *testing.T) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(soon):
		t.Fatalf("%s heard no End-of-RIB", r.peer.Name)
	}
}

// A peer that does not help restarts keeps nothing, and is sent no End-of-RIB.
func TestWithdrawalFromNoHelper(t *testing.T) {
	t.Parallel()
	r := startRaw(t, "plain", "127.0.0.35")
	c := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}}
	d.Local.Restarting = true
	must(t, c.Set(t.Context(), d))
	must(t, c.Flush(within(t, soon), prefixes("10.2.0.0/26")))
}

// A helper whose session is lost goes on forwarding: a withdrawal waits until
// it can be told, an announcement does not.
func TestWithdrawalWaitsForLostHelper(t *testing.T) {
	t.Parallel()
	stays := startRaw(t, "stays", "127.0.0.36")
	lost := newRaw(t, "lost", "127.0.0.37")
	lost.helps = true
	close(lost.gate)
	listener := lost.listen(t)
	c := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{stays.peer, lost.peer}, Announcements: announce("10.1.0.0/26", "10.2.0.0/26")}
	must(t, c.Set(t.Context(), d))
	comesUp(t, c, "stays")
	comesUp(t, c, "lost")
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	lost.hearsEnd(t)
	must(t, listener.Close())
	must(t, (<-lost.sessions).Close())
	eventually(t, "the session is lost", func() bool { return !stateOf(t, c, "lost").Established() })

	d.Announcements = announce("10.1.0.0/26", "10.3.0.0/26")
	must(t, c.Set(t.Context(), d))
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	gone := prefixes("10.2.0.0/26")
	notYet(t, c, gone, "lost (127.0.0.37)", "has no session", "10.2.0.0/26")
	lost.listen(t)
	must(t, c.Flush(within(t, soon), gone))
	lost.hearsEnd(t)
}

// A helper that never comes back holds up withdrawals for as long as it may
// forward: until it finds the session dead, and the restart time after that.
func TestWithdrawalGivesUpHelperInTime(t *testing.T) {
	t.Parallel()
	r := startRaw(t, "there", "127.0.0.38")
	dead := nobody("127.0.0.39")
	dead.HoldTime = 5 * time.Second
	c := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer, dead}}
	d.Local.Restarting, d.Local.Time, d.Local.Deferral = true, time.Second, time.Second
	begun := time.Now()
	must(t, c.Set(t.Context(), d))
	must(t, c.Flush(within(t, soon), prefixes("10.2.0.0/26")))
	if took := time.Since(begun); took < dead.HoldTime+d.Local.Time {
		t.Errorf("the withdrawal counted after %v: the dead peer may forward for %v", took, dead.HoldTime+d.Local.Time)
	}
}

// What a peer without a session may hold, by what the session before was told.
func TestHolds(t *testing.T) {
	t.Parallel()
	wanted, gone := netip.MustParsePrefix("10.1.0.0/26"), netip.MustParsePrefix("10.2.0.0/26")
	const address = "192.0.2.1"
	for _, c := range []struct {
		name    string
		restart bool
		also    speaker.Family              // carried beside IPv4; empty for none
		live    func(l *ledger, s *session) // the session before it is lost; nil for none
		holds   bool
	}{
		{"new", false, "", nil, false},
		{"restart", true, "", nil, true},
		{"told", false, "", func(l *ledger, _ *session) { l.update(address, []netip.Prefix{wanted}, nil, nil) }, true},
		{"told a peer that is no helper", true, "", func(l *ledger, s *session) {
			l.update(address, []netip.Prefix{wanted}, nil, nil)
			s.noHelper = true
		}, false},
		{"restart, lost before the End-of-RIB", true, "", func(*ledger, *session) {}, true},
		{"restart, lost after the End-of-RIB", true, "", func(l *ledger, _ *session) { l.endOfRIB(address, speaker.IPv4) }, false},
		{"restart, lost after the End-of-RIB of one family", true, speaker.IPv6, func(l *ledger, _ *session) { l.endOfRIB(address, speaker.IPv4) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLedger(speaker.GracefulRestart{Enabled: true, Time: 30 * time.Second})
			l.expect(wanted, l.everybody[familyOf(wanted.Addr())])
			families := []speaker.Family{speaker.IPv4}
			if c.also != "" {
				families = append(families, c.also)
			}
			l.add(peerWithDefaults(speaker.Peer{Name: "tor", Address: netip.MustParseAddr(address), Session: speaker.Session{Families: families}}), c.restart)
			if c.live != nil {
				l.established(address)
				c.live(l, l.sessions[address])
				l.down(address, "test")
			}
			now := time.Now()
			for p, want := range map[netip.Prefix][]bool{gone: {c.holds, c.holds, false}, wanted: {false, false, false}} {
				var got []bool
				for _, at := range []time.Duration{0, 119 * time.Second, 121 * time.Second} { // hold time and restart time are 120 s
					got = append(got, l.lacking(p, now.Add(at)) != nil)
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s is held after 0, 119, 121 s: %v, want %v", p, got, want)
				}
			}
		})
	}
}

// One router ends the deferral while another has this node's OPEN, with the
// restart bit, and has not answered yet: when it does, to it the session has
// begun, and a Cease would make it drop what it keeps.
func TestRestartLeavesOpeningSessionInPeace(t *testing.T) {
	t.Parallel()
	slow := newRaw(t, "slow", "127.0.0.41")
	slow.helps, slow.assent = true, make(chan struct{})
	close(slow.gate)
	slow.listen(t)
	quick := newRaw(t, "quick", "127.0.0.40")
	close(quick.gate)
	c := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{quick.peer, slow.peer}, Announcements: announce("10.1.0.0/26")}
	d.Local.Restarting = true
	must(t, c.Set(t.Context(), d))
	if !restartBit(slow.nextOpen(t)) {
		t.Error("no restart bit in the OPEN to the slow router")
	}
	quick.listen(t)
	comesUp(t, c, "quick")
	must(t, c.Flush(within(t, soon), d.Prefixes())) // the deferral is over
	select {
	case <-slow.opens:
		t.Error("the slow router was dialled again")
	case <-time.After(2 * defaultConnectRetry): // that it is not
	}
	close(slow.assent)
	must(t, c.Flush(within(t, soon), prefixes("10.1.0.0/26", "10.2.0.0/26")))
	comesUp(t, c, "slow")
	if len(slow.opens) > 0 {
		t.Error("the slow router was dialled again")
	}
}

// The restart bit is out in an OPEN that comes to nothing: the next has it, too.
func TestRestartBitAfterFailedOpen(t *testing.T) {
	t.Parallel()
	const address = "192.0.2.1"
	for opening, want := range map[bool]int{true: 0, false: 1} {
		l := newLedger(speaker.GracefulRestart{Enabled: true, Time: 30 * time.Second})
		l.add(peerWithDefaults(speaker.Peer{Name: "tor", Address: netip.MustParseAddr(address)}), true)
		if opening {
			l.opens(address)
		}
		l.restarted()
		if got := len(l.lostBits()); got != want {
			t.Errorf("opening %v: %d peers lost the bit, want %d", opening, got, want)
		}
		l.down(address, "test")
		if got := len(l.lostBits()); got != 1-want {
			t.Errorf("opening %v: then the attempt failed: %d peers lost the bit, want %d", opening, got, 1-want)
		}
	}
}

// FRR keeps a prefix that is not announced any more until the restart is over;
// Flush waits for that, and the one that stays is never absent.
func TestFRRDropsStale(t *testing.T) {
	t.Parallel()
	f := startFRR(t, "10.0.0.9", routerASN, neighbor("10.0.0.1", nodeASN, speaker.IPv4))
	first := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{f.peer("tor")}, Announcements: announce("10.1.0.0/26", "10.2.0.0/26")}
	must(t, first.Set(t.Context(), d))
	must(t, first.Flush(within(t, soon), d.Prefixes()))
	f.has(t, "10.1.0.0/26", "10.2.0.0/26")
	must(t, first.Close(within(t, soon), speaker.Forward))
	eventually(t, "both routes are stale", func() bool {
		routes := f.routes(t, speaker.IPv4)
		if len(routes) != 2 {
			t.Fatalf("FRR's table after the first speaker ended: %+v", routes)
		}
		return routes["10.1.0.0/26"][0].Stale && routes["10.2.0.0/26"][0].Stale
	})
	second := newTestChild(t)
	gone := d.Prefixes()[1:]
	d.Announcements = d.Announcements[:1]
	d.Local.Restarting = true
	must(t, second.Set(t.Context(), d))
	must(t, second.Flush(within(t, soon), gone))
	eventually(t, "FRR has dropped the other route", func() bool {
		routes := f.routes(t, speaker.IPv4)
		if len(routes["10.1.0.0/26"]) == 0 {
			t.Fatal(fmt.Sprint("the route that stays was absent: ", routes))
		}
		return len(routes) == 1
	})
}

// A session that this node is about to end is none that anything can be told in.
func TestFlushPastUnwantedSession(t *testing.T) {
	t.Parallel()
	l := newLedger(speaker.GracefulRestart{})
	l.asn = nodeASN
	p := peerWithDefaults(speaker.Peer{Name: "tor", Address: netip.MustParseAddr("192.0.2.1")})
	_, err := l.add(p, false)
	must(t, err)
	l.introduce(p.Address.String(), nodeASN)
	l.established(p.Address.String())
	if l.carried(speaker.IPv4) {
		t.Error("it counts before it is shut")
	}
	if l.takeUnwanted(); l.carried(speaker.IPv4) {
		t.Error("it counts while it is shut")
	}
}
