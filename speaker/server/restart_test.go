package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// nextOpen is the next OPEN that a raw router is sent.
func (r *raw) nextOpen(t *testing.T) *bgp.BGPOpen {
	t.Helper()
	select {
	case o := <-r.opens:
		return o
	case <-time.After(soon):
		t.Fatalf("%s was not dialled", r.peer.Name)
		return nil
	}
}

// opensWith fails the test unless the next OPEN has the restart bit, or has not.
func (r *raw) opensWith(t *testing.T, restarting bool, when string) {
	t.Helper()
	if got := restartBit(r.nextOpen(t)); got != restarting {
		t.Errorf("restart bit %s: %v", when, got)
	}
}

// forgetOpens drops the OPENs of attempts that led to nothing.
func (r *raw) forgetOpens() {
	for len(r.opens) > 0 {
		<-r.opens
	}
}

// A Local that can't be had is refused before anything is stopped: the session
// stays, and what the Set says of prefixes holds all the same.
func TestRefusedLocalStopsNothing(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	r := startRouter(t, "127.0.0.24", routerASN)
	r.accept(t, "127.0.0.1", "")
	c := newTestChild(t)
	good := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer("tor")}, Announcements: announce("10.1.0.0/26")}
	must(t, c.Set(t.Context(), good))
	must(t, c.Flush(within(t, soon), good.Prefixes()))
	since := stateOf(t, c, "tor").Since
	for name, change := range map[string]func(*speaker.Local){
		"listen address elsewhere": func(l *speaker.Local) { l.Listen, l.Port = []netip.Addr{netip.MustParseAddr("203.0.113.9")}, 1793 },
		"listen address twice held": func(l *speaker.Local) {
			l.Listen, l.Port = []netip.Addr{netip.MustParseAddr("127.0.0.1")}, uint16(taken.Addr().(*net.TCPAddr).Port)
		},
		"API address taken":  func(l *speaker.Local) { l.APIAddress = taken.Addr().String() },
		"API socket nowhere": func(l *speaker.Local) { l.APISocket = "/nowhere/at/all" },
		"no router ID":       func(l *speaker.Local) { l.RouterID = netip.Addr{} },
	} {
		d := good
		d.Peers, d.Announcements = nil, announce("10.1.0.0/26", "10.2.0.0/26")
		change(&d.Local)
		if err := c.Set(t.Context(), d); !errors.Is(err, speaker.ErrLocal) || !strings.Contains(err.Error(), "stay in force") {
			t.Errorf("%s: %v: want ErrLocal, and that the old settings stay in force", name, err)
		}
	}
	r.has(t, "10.1.0.0/26", "10.2.0.0/26")
	if p := stateOf(t, c, "tor"); !p.Established() || p.Since != since {
		t.Errorf("the session did not stay up: %+v, was up since %v", p, since)
	}
	// A process that dies after that starts with the settings that were good.
	c.signal(t, syscall.SIGKILL)
	eventually(t, "the session is back", func() bool { p := stateOf(t, c, "tor"); return p.Established() && p.Since != since })
	r.has(t, "10.1.0.0/26", "10.2.0.0/26")
}

// What only the start itself finds out: the old settings are started again.
func TestFailedRestartReturns(t *testing.T) {
	t.Parallel()
	const port = 1793
	r := startRouter(t, "127.0.0.25", routerASN)
	r.accept(t, "127.0.0.1", "")
	taken, err := net.Listen("tcp", "127.0.0.26:1793")
	must(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	s := newTestServer(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer("tor")}, Announcements: announce("10.1.0.0/26")}
	d.Local.Listen, d.Local.Port = []netip.Addr{netip.MustParseAddr("127.0.0.27")}, port
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()))
	wide := d
	wide.Local.Listen = []netip.Addr{netip.IPv4Unspecified()}
	if err := s.Set(t.Context(), wide); !errors.Is(err, speaker.ErrLocal) || !strings.Contains(err.Error(), "stay in force") {
		t.Errorf("Set of a listen address that is taken in part: %v", err)
	}
	must(t, s.Flush(within(t, soon), d.Prefixes()))
	r.has(t, "10.1.0.0/26")
	since := stateOf(t, s, "tor").Since
	if err := s.Set(t.Context(), wide); !errors.Is(err, speaker.ErrLocal) || !strings.Contains(err.Error(), "not tried again") {
		t.Errorf("the same Set again: %v", err)
	}
	must(t, s.Set(t.Context(), d))
	if p := stateOf(t, s, "tor"); !p.Established() || p.Since != since {
		t.Errorf("the same Set again touched the session: %+v, was up since %v", p, since)
	}
}

// The restart bit is about the first run of a process alone, and a new run may
// have the places of the one before.
func TestRestartBitOfFirstRunOnly(t *testing.T) {
	t.Parallel()
	r := startRaw(t, "raw", "127.0.0.28")
	s := newTestServer(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}}
	d.Local.Restarting = true
	d.Local.APISocket = filepath.Join(shortDir(t), "s")
	d.Local.APIAddress = "127.0.0.1:1794"
	d.Local.Listen, d.Local.Port = []netip.Addr{netip.MustParseAddr("127.0.0.29")}, 1795
	must(t, s.Set(t.Context(), d))
	r.opensWith(t, true, "in the first OPEN")
	comesUp(t, s, "raw")
	r.forgetOpens()
	d.Local.RouterID = netip.MustParseAddr("192.0.2.77")
	must(t, s.Set(t.Context(), d))
	r.opensWith(t, false, "after a Cease to all")
	comesUp(t, s, "raw")
	r.forgetOpens()
	d.Peers[0].ReceivePaths = true
	must(t, s.Set(t.Context(), d))
	r.opensWith(t, false, "after a Cease to this peer")
}

func TestChildRestartBitAfterDeathOnly(t *testing.T) {
	t.Parallel()
	r := startRaw(t, "raw", "127.0.0.30")
	c := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}}
	must(t, c.Set(t.Context(), d))
	r.opensWith(t, false, "at the first start")
	comesUp(t, c, "raw")
	r.forgetOpens()
	c.signal(t, syscall.SIGKILL)
	r.opensWith(t, true, "after the process died")
	comesUp(t, c, "raw")
	r.forgetOpens()
	d.Local.RouterID = netip.MustParseAddr("192.0.2.78")
	must(t, c.Set(t.Context(), d))
	r.opensWith(t, false, "after a change of this node's settings")
}

// Close comes while no process runs: the router, which keeps the routes for a
// restart, hears of their withdrawal all the same.
func TestWithdrawWithoutProcess(t *testing.T) {
	t.Parallel()
	r := startRouter(t, "127.0.0.31", routerASN)
	r.accept(t, "127.0.0.1", "")
	c := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer("tor")}, Announcements: announce("10.1.0.0/26")}
	must(t, c.Set(t.Context(), d))
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	r.has(t, "10.1.0.0/26")
	first := c.signal(t, syscall.SIGKILL)
	eventually(t, "the process is gone", func() bool { return c.pid() != first })
	must(t, c.Close(within(t, soon), speaker.Withdraw))
	r.has(t)
}

// A router that may hold routes of the life before and can't be told is named,
// and one that can hold none is not waited for.
func TestWithdrawNamesTheUntold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		restarting bool
		patience   time.Duration // which only the one that waits uses up
	}{"restarting": {true, 500 * time.Millisecond}, "new": {false, soon}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := speaker.Desired{Local: local(), Peers: []speaker.Peer{nobody("127.0.0.32")}, Announcements: announce("10.1.0.0/26")}
			d.Local.Restarting = c.restarting
			child := childOf(testSpawn(t))
			must(t, child.Set(t.Context(), d))
			err := child.Close(within(t, c.patience), speaker.Withdraw)
			if named := err != nil && strings.Contains(err.Error(), "nobody (127.0.0.32)"); named != c.restarting || (err != nil) != c.restarting {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// A process that is stopped blocks no call, and is replaced after a while. One that neither
// answers nor reads is found out by whichever is noticed first.
func TestWedgedChild(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		address string
		fills   bool // a Set fills the link
		says    *regexp.Regexp
	}{
		"it does not answer": {"127.0.0.42", false, regexp.MustCompile("it did not answer for 4s and was killed")},
		"nor read":           {"127.0.0.33", true, regexp.MustCompile("it did not (answer|read) for 4s and was killed")},
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); testWedgedChild(t, c.address, c.fills, c.says) })
	}
}

func testWedgedChild(t *testing.T, address string, fills bool, says *regexp.Regexp) {
	r := startRaw(t, "tor", address)
	said, spawn := &lines{}, testSpawn(t)
	spawn.Log = slog.New(slog.NewTextHandler(said, nil))
	spawn.Patience = 4 * time.Second
	c := childOf(spawn)
	t.Cleanup(func() { _ = c.Close(within(t, soon), speaker.Forward) })
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}, Announcements: announce("10.1.0.0/26")}
	must(t, c.Set(t.Context(), d))
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	first := c.freeze(t)
	if p := stateOf(t, within500ms{c}, "tor"); p.Session != "Idle" || p.LastError != "the BGP speaker process does not answer" {
		t.Errorf("state of a process that is stopped: %+v", p)
	}
	if fills {
		if err := c.Set(within(t, 100*time.Millisecond), large(d)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Set: %v", err)
		}
	}
	if err := c.Set(within(t, 100*time.Millisecond), d); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Set, after one that filled the link: %v: %v", fills, err)
	}
	eventually(t, "another process is in its place", func() bool { pid := c.pid(); return pid != 0 && pid != first })
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	if p := stateOf(t, c, "tor"); !p.Established() || !says.MatchString(said.String()) {
		t.Errorf("state %+v, and the first process ended: %s", p, said)
	}
	c.freeze(t)
	begun := time.Now()
	err := c.Close(within(t, 300*time.Millisecond), speaker.Withdraw)
	if err == nil || !strings.Contains(err.Error(), "tor ("+address+")") || time.Since(begun) > 2*time.Second {
		t.Errorf("Close of a process that is stopped, after %v: %v", time.Since(begun), err)
	}
}

// large is d with more prefixes than a socket holds.
func large(d speaker.Desired) speaker.Desired {
	for i := range 100_000 {
		d.Announcements = append(d.Announcements, speaker.Announcement{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)})
	}
	return d
}

// within500ms is a speaker that is asked for its state in a hurry.
type within500ms struct{ speaker.Speaker }

func (s within500ms) State(context.Context) (speaker.State, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	st, err := s.Speaker.State(ctx)
	return st, errors.Join(err, ctx.Err())
}

// A router that keeps this node's routes when the connection is lost is told that it
// was right to: else it would drop them with the next OPEN.
func TestRestartBitAfterLostSession(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		address string
		helps   bool
		accepts []speaker.PrefixRule
		want    bool
	}{
		"helper":             {address: "127.0.0.60", helps: true, want: true},
		"no helper":          {address: "127.0.0.61"},
		"helper with routes": {address: "127.0.0.62", helps: true, accepts: []speaker.PrefixRule{{Network: netip.MustParsePrefix("0.0.0.0/0")}}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRaw(t, "raw", c.address)
			r.helps, r.peer.Accept.Prefixes = c.helps, c.accepts
			close(r.gate)
			r.listen(t)
			s := newTestServer(t)
			d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}, Announcements: announce("10.1.0.0/26")}
			must(t, s.Set(t.Context(), d))
			r.opensWith(t, false, "at the first start")
			must(t, s.Flush(within(t, soon), d.Prefixes()))
			for cuts := 1; cuts <= 2; cuts++ {
				r.forgetOpens()
				must(t, (<-r.sessions).Close())
				r.opensWith(t, c.want, fmt.Sprintf("after cut %d", cuts))
				comesUp(t, s, "raw")
				must(t, s.Flush(within(t, soon), d.Prefixes()))
				if p := stateOf(t, s, "raw"); p.Flaps != cuts || p.LastError == "" {
					t.Errorf("state after cut %d: %+v", cuts, p)
				}
			}
		})
	}
}
