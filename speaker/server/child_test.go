package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// testChild is a Child whose process a test can find.
type testChild struct {
	*speaker.Child
	mark string // in the environment of its process alone
}

func newTestChild(t *testing.T) *testChild {
	t.Helper()
	c := childOf(testSpawn(t))
	t.Cleanup(func() {
		if err := c.Close(within(t, soon), speaker.Forward); err != nil {
			t.Error(err)
		}
	})
	return c
}

func testSpawn(t *testing.T) speaker.Spawn {
	return speaker.Spawn{Path: os.Args[0], Env: []string{asChild + "=1"}, Log: testLog(t)}
}

func childOf(spawn speaker.Spawn) *testChild {
	c := &testChild{mark: childMark + "=" + rand.Text()}
	spawn.Env = append(slices.Clone(spawn.Env), c.mark)
	c.Child = speaker.NewChild(spawn)
	return c
}

// pid of the process that runs; 0 if none does.
func (c *testChild) pid() int {
	environments, _ := filepath.Glob("/proc/[0-9]*/environ") // no pattern fails
	for _, path := range environments {
		b, _ := os.ReadFile(path) // it may have ended, or be somebody else's
		if slices.Contains(strings.Split(string(b), "\x00"), c.mark) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			return pid
		}
	}
	return 0
}

// signal sends a signal to the process that runs, and says which it is.
func (c *testChild) signal(t *testing.T, s syscall.Signal) int {
	t.Helper()
	pid := 0 // which would be the test's own process group
	eventually(t, "a process runs", func() bool { pid = c.pid(); return pid != 0 })
	must(t, syscall.Kill(pid, s))
	return pid
}

// freeze stops the process that runs. The signal reaches its threads one after
// the other, and until the last has stopped the process may answer.
func (c *testChild) freeze(t *testing.T) int {
	t.Helper()
	pid := c.signal(t, syscall.SIGSTOP)
	eventually(t, "all threads have stopped", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		must(t, err)
		return len(threads) > 0 && !slices.ContainsFunc(threads, func(stat string) bool { return !stoppedThread(stat) })
	})
	return pid
}

// stoppedThread reads the state in proc(5)'s stat of a thread: it comes after
// the name in parentheses.
func stoppedThread(stat string) bool {
	b, err := os.ReadFile(stat)
	at := bytes.LastIndexByte(b, ')')
	return err == nil && at >= 0 && bytes.HasPrefix(b[at:], []byte(") T "))
}

func TestChildSpeaks(t *testing.T) {
	t.Parallel()
	r := startRouter(t, "127.0.0.3", routerASN)
	r.accept(t, "127.0.0.1", "secret")
	c := newTestChild(t)
	peer := r.peer("tor")
	peer.Password = "secret"
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{peer}, Announcements: announce("10.1.0.0/26", "10.2.0.0/26")}
	must(t, c.Set(t.Context(), d))
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	r.has(t, "10.1.0.0/26", "10.2.0.0/26")
	if p := stateOf(t, c, "tor"); !p.Established() || p.Advertised != 2 {
		t.Errorf("state %+v", p)
	}
	d.Local.RouterID = netip.MustParseAddr("fd00::1")
	if err := c.Set(t.Context(), d); err == nil || !strings.Contains(err.Error(), "router ID") {
		t.Errorf("Set with a bad router ID: %v", err)
	}
	must(t, c.Close(within(t, soon), speaker.Withdraw))
	r.has(t)
	if err := c.Flush(t.Context(), d.Prefixes()); !errors.Is(err, speaker.ErrClosed) {
		t.Errorf("Flush of a closed speaker: %v", err)
	}
}

func TestChildFlushWithoutPeer(t *testing.T) {
	t.Parallel()
	c := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{nobody("127.0.0.21")}, Announcements: announce("10.1.0.0/26")}
	must(t, c.Set(t.Context(), d))
	err := c.Flush(within(t, 50*time.Millisecond), d.Prefixes())
	if !errors.Is(err, speaker.ErrNoPeer) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Flush without a peer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Flush(ctx, d.Prefixes()); !errors.Is(err, speaker.ErrNoPeer) || !errors.Is(err, context.Canceled) {
		t.Errorf("Flush that is cancelled: %v", err)
	}
}

// The process dies when the last settings of this node were refused: the one after it
// has the settings of before with what is announced now, on the terms of now, which
// may name a peer that came with what was refused.
func TestChildFallsBack(t *testing.T) {
	t.Parallel()
	r := startRouter(t, "127.0.0.88", routerASN)
	r.accept(t, "127.0.0.1", "")
	c := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer("tor")}, Announcements: announce("10.1.0.0/26")}
	must(t, c.Set(t.Context(), d))
	d.Local.RouterID = netip.MustParseAddr("fd00::1")
	d.Peers = append(d.Peers, nobody("127.0.0.89"))
	d.Terms = map[string]speaker.Terms{"web": {"tor": {}, "nobody": {}}}
	d.Announcements = []speaker.Announcement{{Prefix: netip.MustParsePrefix("10.2.0.0/26"), Terms: "web"}}
	if err := c.Set(t.Context(), d); !errors.Is(err, speaker.ErrLocal) {
		t.Fatalf("Set with a bad router ID: %v", err)
	}
	pid := c.signal(t, syscall.SIGKILL)
	eventually(t, "another process runs", func() bool { next := c.pid(); return next != 0 && next != pid })
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	r.has(t, "10.2.0.0/26")
}

// Messages over which GoBGP ends its process: the router that sends one is told what was
// wrong with it, its own session ends, and the process and the session with another
// router go on.
func TestDeadlyMessages(t *testing.T) {
	t.Parallel()
	update := func(attribute ...byte) []byte {
		return framed(bgp.BGP_MSG_UPDATE, append([]byte{0, 0, 0, byte(len(attribute))}, attribute...)...)
	}
	type misfit struct {
		message       []byte
		code, subcode uint8
		says          string
	}
	misfits := map[string]misfit{
		"type 99":        {header(99), 1, 3, "bad message type"},
		"second OPEN":    {framed(bgp.BGP_MSG_OPEN, 4, 0, 1, 0, 90, 1, 2, 3, 4, 0), 5, 3, "unexpected message in established"},
		"HTTP":           {[]byte(strings.Repeat("GET / HTTP/1.1\r\n", 4096)), 1, 1, "connection not synchronized"},
		"short MP_REACH": {update(0x80, 14, 3, 0, 2, 1), 3, 9, "cannot be read"},
		"VPN routes":     {update(0x80, 15, 7, 0, 1, 128, 0x5b, 0x96, 0x5c, 0x33), 3, 9, "cannot be read"},
	}
	good := startRaw(t, "good", "127.0.0.4")
	child := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{good.peer}, Announcements: announce("10.1.0.0/26")}
	evil := make(map[string]*raw, len(misfits))
	for name := range misfits {
		evil[name] = startRaw(t, name, fmt.Sprintf("127.0.6.%d", len(evil)+1))
		d.Peers = append(d.Peers, evil[name].peer)
	}
	must(t, child.Set(t.Context(), d))
	must(t, child.Flush(within(t, soon), d.Prefixes()))
	comesUp(t, child, "good")
	before, pid := stateOf(t, child, "good"), child.pid()
	for name, m := range misfits {
		_, _ = (<-evil[name].sessions).Write(m.message) // may be cut short
		var note *bgp.BGPNotification
		select {
		case note = <-evil[name].notes:
		case <-within(t, soon).Done():
			t.Fatalf("%s: it was sent no NOTIFICATION", name)
		}
		if note.ErrorCode != m.code || note.ErrorSubcode != m.subcode {
			t.Errorf("%s: it was sent the NOTIFICATION %d/%d, want %d/%d", name, note.ErrorCode, note.ErrorSubcode, m.code, m.subcode)
		}
		eventually(t, fmt.Sprintf("%s: %q in the state", name, m.says), func() bool {
			return strings.Contains(stateOf(t, child, name).LastError, m.says)
		})
		t.Logf("%s: %s", name, stateOf(t, child, name).LastError)
	}
	undisturbed(t, child, before)
	if now := child.pid(); now != pid {
		t.Errorf("process %d died, and %d follows it", pid, now)
	}
}

// The child is killed: FRR keeps the routes as stale ones until they are back.
func TestFRRGracefulRestart(t *testing.T) {
	t.Parallel()
	v4 := startFRR(t, "10.0.0.6", routerASN, neighbor("10.0.0.1", nodeASN, speaker.IPv4))
	v6 := startFRR(t, "fd00::6", routerASN, neighbor("fd00::1", nodeASN, speaker.IPv6))
	c := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{v4.peer("tor4"), v6.peer("tor6")}, Announcements: announce("10.1.0.0/26", "2001:db8:1::/64")}
	must(t, c.Set(t.Context(), d))
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	v4.has(t, "10.1.0.0/26")
	v6.has(t, "2001:db8:1::/64")

	c.signal(t, syscall.SIGKILL)
	stale4, stale6 := false, false
	eventually(t, "both routes were stale and are fresh", func() bool {
		path4, path6 := v4.routes(t, speaker.IPv4)["10.1.0.0/26"], v6.routes(t, speaker.IPv6)["2001:db8:1::/64"]
		if len(path4) == 0 || len(path6) == 0 {
			t.Fatalf("a route was absent from FRR's tables: %+v, %+v", path4, path6)
		}
		stale4, stale6 = stale4 || path4[0].Stale, stale6 || path6[0].Stale
		return stale4 && stale6 && !path4[0].Stale && !path6[0].Stale
	})
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	must(t, c.Close(within(t, soon), speaker.Withdraw))
	v4.has(t)
	v6.has(t)
}
