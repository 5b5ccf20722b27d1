package server

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// The pause doubles up to a bound, and a session that stood for long makes up for those
// before it.
func TestDamping(t *testing.T) {
	p, now := usualPatience(), time.Now()
	var d damping
	for n, want := range []time.Duration{5, 10, 20, 40, 80, 80} {
		d = d.after(p, time.Minute, now)
		if d.pause != want*time.Second || d.times != n+1 || !d.rests(now.Add(d.pause-1)) || d.rests(now.Add(d.pause)) {
			t.Errorf("%d. time: %+v, want a pause of %d s", n+1, d, want)
		}
	}
	if d = d.after(p, p.settled, now); d.pause != p.first || d.times != 1 {
		t.Errorf("after a session that stood for %v: %+v", p.settled, d)
	}
}

// hasty is an in-process speaker with short pauses, and its log.
func hasty(t *testing.T, d speaker.Desired) (*Server, *lines) {
	t.Helper()
	oneServerUnderRace(t)
	log := &lines{}
	s := New(slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() {
		if err := s.Close(within(t, soon), speaker.Forward); err != nil {
			t.Error(err)
		}
		t.Log(log)
	})
	d.Peers, d.Ranges = nil, nil
	must(t, s.Set(t.Context(), d))
	l := s.run.Load().ledger
	l.mu.Lock()
	l.patience = patience{first: time.Second, most: 2 * time.Second, settled: time.Hour}
	l.mu.Unlock()
	return s, log
}

// A router whose sessions end over what it says gets the next ones later and later, the
// log and the state say how often, and it keeps this node's routes in between. When it
// has come to its senses its session stays. Nobody else is touched.
func TestRepeatedMisdeed(t *testing.T) {
	t.Parallel()
	for n, kind := range []string{"peer", "peer that tells", "member"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			good := startRaw(t, "good", fmt.Sprintf("127.0.9.%d", 10+n))
			bad := newRaw(t, "bad", fmt.Sprintf("127.0.9.%d", 20+n))
			bad.helps, bad.notifications = true, true
			close(bad.gate)
			d := speaker.Desired{Local: local(), Peers: []speaker.Peer{good.peer}, Announcements: announce("10.1.0.0/26")}
			d.Local.GracefulRestart = speaker.GracefulRestart{Enabled: true, Time: time.Minute, Deferral: time.Second}
			node := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("127.0.9.%d", 30+n)), nodePort)
			name := bad.peer.Name
			switch kind {
			case "member":
				d.Local.Listen, d.Local.Port = []netip.Addr{node.Addr()}, node.Port()
				d.Ranges = []speaker.Range{{Name: "rack", Network: whereabouts(bad.peer.Address), ASN: routerASN}}
				name = "rack/" + bad.peer.Address.String()
			case "peer that tells":
				bad.peer.Accept.Prefixes = []speaker.PrefixRule{{Network: netip.MustParsePrefix("100.64.0.0/10"), AtMost: 32}}
				fallthrough
			default:
				d.Peers = append(d.Peers, bad.peer)
				bad.listen(t)
			}
			s, log := hasty(t, d)
			must(t, s.Set(t.Context(), d))
			if kind == "member" {
				bad.insist(t, node, 100*time.Millisecond)
			}
			comesUp(t, s, "good")
			before := stateOf(t, s, "good")
			bad.repeats(t, s, name, log)
			undisturbed(t, s, before)
		})
	}
}

// repeats says something that this node ends the session over twice, and is good
// then.
func (r *raw) repeats(t *testing.T, s speaker.Speaker, name string, log *lines) {
	t.Helper()
	var lost time.Time
	for n, pause := range []time.Duration{0, time.Second, 2 * time.Second} {
		conn := r.session(t)
		if gap := time.Since(lost); gap < pause {
			t.Errorf("session %d came %v after the one before, want at least %v", n+1, gap, pause)
		}
		if bit := restartBit(r.nextOpen(t)); bit != (n > 0) {
			t.Errorf("session %d: restart bit %v: want it from the second on", n+1, bit)
		}
		r.hearsEnd(t)
		if n == 2 {
			break
		}
		_, err := conn.Write(header(99))
		must(t, err)
		words := fmt.Sprintf("held off for %v, as %d in a row ended so", time.Duration(n+1)*time.Second, n+1)
		eventually(t, "the state says that it is "+words, func() bool {
			p := stateOf(t, s, name)
			lost = p.Since
			return !p.Established() && strings.HasSuffix(p.LastError, words) && p.Reason() == speaker.ReasonProtocolError
		})
	}
	eventually(t, "the session is up, and nothing is said of a pause", func() bool {
		p := stateOf(t, s, name)
		return p.Established() && p.Flaps == 2 && strings.HasSuffix(p.LastError, "came")
	})
	if n := strings.Count(log.String(), "peer="+name); n != 5 {
		t.Errorf("%d lines of the log are about %s, want one for each session and each loss", n, name)
	}
	if !strings.Contains(log.String(), "times=2 pause=2s") {
		t.Error("the log does not say how often it was")
	}
}

// session is the next one that the router has.
func (r *raw) session(t *testing.T) net.Conn {
	t.Helper()
	select {
	case conn := <-r.sessions:
		return conn
	case <-time.After(soon):
		t.Fatalf("%s has no session", r.peer.Name)
		return nil
	}
}

// What people mend on either side, and what is nobody's fault, is not held against a
// router.
func TestBlame(t *testing.T) {
	for code, want := range map[uint8]bool{
		bgp.BGP_ERROR_MESSAGE_HEADER_ERROR: true, bgp.BGP_ERROR_UPDATE_MESSAGE_ERROR: true, bgp.BGP_ERROR_FSM_ERROR: true,
		bgp.BGP_ERROR_OPEN_MESSAGE_ERROR: false, bgp.BGP_ERROR_HOLD_TIMER_EXPIRED: false, bgp.BGP_ERROR_CEASE: false,
	} {
		if got := blames(map[string]any{"Code": code}); got != want {
			t.Errorf("code %d: %v, want %v", code, got, want)
		}
	}
}
