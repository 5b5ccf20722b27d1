package server

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/interop"
	routers "github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// misdeed is what a router does wrong with a connection that was dialled to it.
type misdeed struct {
	do    func(conn net.Conn)
	says  string // the state's words
	stays bool   // the session is worth keeping
}

// after completes the handshake and then writes something.
func after(text []byte) func(conn net.Conn) {
	return func(conn net.Conn) {
		shakeHands(conn, 3)
		_, _ = conn.Write(text) // a connection that was closed is looked at in the state
		_, _ = io.Copy(io.Discard, conn)
	}
}

func shakeHands(conn net.Conn, hold uint16) {
	open := bgp.NewBGPOpenMessage(routerASN, hold, "192.0.2.45", []bgp.OptionParameterInterface{
		bgp.NewOptionParameterCapability([]bgp.ParameterCapabilityInterface{bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC)})})
	for _, m := range []*bgp.BGPMessage{open, bgp.NewBGPKeepAliveMessage()} {
		if _, err := readMessage(conn); err != nil || writeMessage(conn, m) != nil {
			return
		}
	}
}

func framed(kind byte, body ...byte) []byte {
	b := append(header(kind), body...)
	b[16], b[17] = byte(len(b)>>8), byte(len(b))
	return b
}

func misdeeds() map[string]misdeed {
	huge := header(bgp.BGP_MSG_UPDATE)
	huge[16], huge[17] = 0xff, 0xff
	return map[string]misdeed{
		"speaks HTTP":    {do: func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n")) }},
		"says nothing":   {do: func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }},
		"hangs up":       {do: func(net.Conn) {}, says: "closed by the peer"},
		"flaps":          {do: func(c net.Conn) { shakeHands(c, 90) }, says: "closed by the peer"},
		"falls silent":   {do: after(nil), says: "hold timer expired"},
		"long message":   {do: after(huge), says: "bad message length"},
		"short message":  {do: after(append(header(bgp.BGP_MSG_KEEPALIVE)[:17], 18, 4)), says: "bad message length"},
		"cut off UPDATE": {do: after(framed(bgp.BGP_MSG_UPDATE, 0, 9, 0, 0)), says: "malformed attribute list"},
		"unknown message at once": {do: func(c net.Conn) {
			_, _ = c.Write(header(99))
			_, _ = io.Copy(io.Discard, c)
		}, says: "code 1(header) subcode 3(bad message type): a message of type 99"},
		"KEEPALIVE for an OPEN": {do: func(c net.Conn) {
			_, _ = c.Write(header(bgp.BGP_MSG_KEEPALIVE))
			_, _ = io.Copy(io.Discard, c)
		}, says: "unexpected message in opensent"},
		"short NOTIFICATION": {do: after(framed(bgp.BGP_MSG_NOTIFICATION, 6)), says: "bad message length"},
		// RFC 7606: withdrawn, and the session lasts.
		"nonsense attributes": {do: func(c net.Conn) {
			shakeHands(c, 90)
			_, _ = c.Write(framed(bgp.BGP_MSG_UPDATE, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff))
			_, _ = io.Copy(io.Discard, c)
		}, stays: true},
	}
}

// lines collects a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Routers that do all sorts of wrong at once: the process lives, the session with a
// good one is not touched, the state of each says what is wrong in words, and the
// log is short and names them.
func TestMisdeeds(t *testing.T) {
	t.Parallel()
	good := startRaw(t, "good", "127.0.3.60")
	spawn, log := testSpawn(t), &lines{}
	spawn.Log = slog.New(slog.NewTextHandler(log, nil))
	c := childOf(spawn)
	t.Cleanup(func() {
		_ = c.Close(within(t, soon), speaker.Forward)
		t.Log(log)
	})
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{good.peer}, Announcements: announce("10.1.0.0/26")}
	must(t, c.Set(t.Context(), d))
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	before, pid := stateOf(t, c, "good"), c.pid()
	host := 100
	for name, m := range misdeeds() {
		host++
		p := speaker.Peer{Name: name, Address: netip.MustParseAddr(fmt.Sprintf("127.0.0.%d", host)), ASN: routerASN,
			Session: speaker.Session{Port: routerPort, ConnectRetry: time.Second}}
		misbehave(t, p, m)
		d.Peers = append(d.Peers, p)
	}
	must(t, c.Set(t.Context(), d))
	for name, m := range misdeeds() {
		eventually(t, fmt.Sprintf("the router that %s: %q in the state", name, m.says), func() bool {
			p := stateOf(t, c, name)
			return strings.Contains(p.LastError, m.says) && (m.says != "" || m.stays == p.Established())
		})
		t.Logf("%s: %s", name, stateOf(t, c, name).LastError)
	}
	undisturbed(t, c, before)
	if c.pid() != pid {
		t.Errorf("the process died: %s", log)
	}
	for name, m := range misdeeds() {
		if (m.says != "" || m.stays) && !strings.Contains(log.String(), name) {
			t.Errorf("the log does not name the router that %s", name)
		}
	}
	if n := strings.Count(log.String(), "\n"); n > 20*len(misdeeds()) {
		t.Errorf("%d lines in the log", n)
	}
}

func misbehave(t *testing.T, p speaker.Peer, m misdeed) {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(p.Address, p.Port).String())
	must(t, err)
	attendAll(t, l, func(conn net.Conn) {
		m.do(conn)
		_ = conn.Close()
	})
}

// A router that connects and hangs up ten times a second, and one that both dials
// and is dialled: the sessions that there are stay.
func TestInboundFlapping(t *testing.T) {
	t.Parallel()
	good := startRaw(t, "good", "127.0.0.80")
	bad := newRaw(t, "bad", "127.0.0.81")
	node := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.82"), nodePort)
	s := newTestServer(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{good.peer, bad.peer}, Announcements: announce("10.1.0.0/26")}
	d.Local.Listen, d.Local.Port = []netip.Addr{node.Addr()}, node.Port()
	d.Peers[1].Passive = true
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()))
	before := stateOf(t, s, "good")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 30 {
		<-tick.C
		conn, err := (&net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(bad.peer.Address, 0))}).Dial("tcp", node.String())
		must(t, err)
		_, _ = conn.Write([]byte("x"))
		must(t, conn.Close())
	}
	undisturbed(t, s, before)
	good.dial(t, node) // a second connection of a router that has a session
	close(bad.gate)
	eventually(t, "the router that has come to its senses has a session", func() bool {
		if stateOf(t, s, "bad").Established() {
			return true
		}
		bad.dial(t, node)
		<-tick.C
		return false
	})
	undisturbed(t, s, before)
}

// Both sides dial at the same time: one session comes of it, and it lasts.
func TestCollision(t *testing.T) {
	t.Parallel()
	table := interop.Open(t)
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			table.Try(t, "collision of connections", i, both()...)
			t.Parallel()
			f := join(t, i, func(_ *routers.Config, v4, v6 *routers.Neighbor) { v4.Dials, v6.Dials = true, true })
			d := speaker.Desired{Local: local(), Peers: f.peers(routerASN, speaker.Session{ConnectRetry: time.Second})}
			d.Local.Listen = []netip.Addr{f.node4, f.node6}
			s, d := f.up(t, d)
			must(t, s.Flush(within(t, soon), d.Prefixes()))
			for _, name := range []string{"tor4", "tor6"} {
				comesUp(t, s, name)
				t.Logf("%s: %+v", name, stateOf(t, s, name))
			}
		})
	}
}

// A router is gone without a word, and dials anew while this node takes the session that
// was for one that is: it is back once the old one is found to be dead, long before its
// hold time is over.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nftables are not installed: ", err)
	}
	table := interop.Open(t)
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			table.Try(t, "half-open connection", i, both()...)
			t.Parallel()
			f := join(t, i, func(_ *routers.Config, v4, v6 *routers.Neighbor) { v4.Dials, v6.Dials = true, true })
			d := speaker.Desired{Local: local(), Peers: f.peers(routerASN, speaker.Session{Passive: true, HoldTime: 90 * time.Second, Keepalive: time.Second})}
			d.Local.Listen = []netip.Addr{f.node4, f.node6}
			s, d := f.up(t, d)
			must(t, s.Flush(within(t, soon), d.Prefixes()))
			before := map[string]speaker.PeerState{"tor4": stateOf(t, s, "tor4"), "tor6": stateOf(t, s, "tor6")}
			mend := f.silence(t)
			f.tor.Kill()
			for _, b := range before {
				undisturbed(t, s, b)
			}
			f.tor.Again(t)
			mend()
			for name, b := range before {
				eventually(t, "the router has a session again", func() bool {
					now := stateOf(t, s, name)
					return now.Established() && now.Since != b.Since
				})
			}
			f.tor.Has(t, ours4, ours6)
		})
	}
}

// silence has this node hear nothing of the router, nor the router of it, until mend.
func (f *fabric) silence(t *testing.T) (mend func()) {
	t.Helper()
	link := linkOf(t, f.node4)
	table := "netdev cut" + link
	run := func(commands string) {
		t.Helper()
		if out, err := exec.Command("nft", commands).CombinedOutput(); err != nil {
			t.Fatalf("nft %s: %v: %s", commands, err, out)
		}
	}
	run("add table " + table +
		"; add chain " + table + " in { type filter hook ingress device " + link + " priority 0; policy drop; }" +
		"; add chain " + table + " out { type filter hook egress device " + link + " priority 0; policy drop; }")
	return func() { run("delete table " + table) }
}

// 100,000 prefixes of a router that may send them: the session and the others'
// stay, and this node tells nobody of them.
func TestManyPrefixes(t *testing.T) {
	t.Parallel()
	const many = 100_000
	good := startRaw(t, "good", "127.0.0.84")
	full := startRaw(t, "full", "127.0.0.85")
	c := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{good.peer, full.peer}, Announcements: announce("10.1.0.0/26")}
	d.Peers[1].Accept.Max = many
	must(t, c.Set(t.Context(), d))
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	comesUp(t, c, "full")
	comesUp(t, c, "good")
	before, conn := stateOf(t, c, "good"), <-full.sessions
	for i := range many / 500 {
		must(t, writeMessage(conn, announcement(i*500, 500)))
	}
	eventually(t, "all are received", func() bool { return stateOf(t, c, "full").Received == many })
	t.Logf("%d kB with %d prefixes", residentKB(t, c.pid()), many)
	undisturbed(t, c, before)
	if p := stateOf(t, c, "full"); !p.Established() || p.Flaps != 0 || p.Advertised != 1 {
		t.Errorf("state %+v", p)
	}
	if n := good.heard.Load(); n != 1 {
		t.Errorf("the other router heard of %d prefixes", n)
	}
}
