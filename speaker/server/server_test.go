package server

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"context"
	"errors"
	"testing"
	"time"

	"github.com/fairway-network/fairway/internal/namespace"
	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

func newTestServer(t *testing.T) *Server {
	t.Helper()
	oneServerUnderRace(t)
	s := New(testLog(t))
	t.Cleanup(func() {
		if err := s.Close(within(t, soon), speaker.Withdraw); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestAnnounceFlushWithdraw(t *testing.T) {
	t.Parallel()
	r := startRouter(t, "127.0.0.2", routerASN)
	r.accept(t, "127.0.0.1", "")
	s := newTestServer(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer("tor")}, Announcements: announce("10.1.0.0/26", "10.2.0.0/26")}
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()))
	r.has(t, "10.1.0.0/26", "10.2.0.0/26")

	d.Announcements = announce("10.2.0.0/26", "10.3.0.0/26")
	must(t, s.Set(t.Context(), d))
	start := time.Now()
	must(t, s.Flush(within(t, soon), d.Prefixes()))
	t.Logf("Flush took %v", time.Since(start))
	r.has(t, "10.2.0.0/26", "10.3.0.0/26")
	if p := stateOf(t, s, "tor"); !p.Established() || p.Advertised != 2 || p.Since.IsZero() {
		t.Errorf("state %+v", p)
	}
	heard := r.log()
	if n := len(heard); heard[n-2] != "+10.3.0.0/26" || heard[n-1] != "-10.1.0.0/26" {
		t.Errorf("the router heard %v: want the new prefix before the withdrawal", heard)
	}
	must(t, s.Close(within(t, soon), speaker.Withdraw))
	r.has(t)
}

func TestFlushWithoutPeer(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{nobody("127.0.0.22")}, Announcements: announce("10.1.0.0/26", "fd00:1::/64")}
	must(t, s.Set(t.Context(), d))
	err := s.Flush(within(t, 50*time.Millisecond), d.Prefixes()[:1])
	if !errors.Is(err, speaker.ErrNoPeer) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "ipv4") {
		t.Errorf("Flush without a session: %v", err)
	}
	err = s.Flush(t.Context(), d.Prefixes())
	if !errors.Is(err, speaker.ErrNoPeer) || !strings.Contains(err.Error(), "no peer is configured") || !strings.Contains(err.Error(), "ipv6") {
		t.Errorf("Flush of a family that no peer is configured for: %v", err)
	}
	must(t, s.Flush(t.Context(), nil))
}

// A prefix of a family that nobody carries does not hold up the others, and
// neither does another prefix that a peer has not taken yet.
func TestFlushOfOneFamily(t *testing.T) {
	t.Parallel()
	r := startRouter(t, "127.0.0.23", routerASN)
	r.accept(t, "127.0.0.1", "")
	v6 := nobody("::1")
	s := newTestServer(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer("tor"), v6}, Announcements: announce("10.1.0.0/26", "fd00:1::/64")}
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()[:1]))
	d.Peers = d.Peers[:1]
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()[:1]))
	d.Announcements = nil
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), prefixes("10.1.0.0/26")))
	r.has(t)
}

// nobody is a peer that is not there.
func nobody(address string) speaker.Peer {
	return speaker.Peer{Name: "nobody", Address: netip.MustParseAddr(address), ASN: routerASN, Session: speaker.Session{Port: 1}}
}

// comesUp waits for a peer's session.
func comesUp(t *testing.T, s speaker.Speaker, name string) {
	t.Helper()
	eventually(t, "the session with "+name, func() bool { return stateOf(t, s, name).Established() })
}

// A peer that sends too many prefixes loses its session, and nobody else does.
func TestFlood(t *testing.T) {
	t.Parallel()
	good := startRouter(t, "127.0.0.6", routerASN)
	good.accept(t, "127.0.0.1", "")
	flood := startRaw(t, "flood", "127.0.0.7")
	c := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{good.peer("good"), flood.peer}, Announcements: announce("10.1.0.0/26")}
	must(t, c.Set(t.Context(), d))
	good.has(t, "10.1.0.0/26")
	since := stateOf(t, c, "good").Since
	conn := <-flood.sessions
	before := residentKB(t, c.pid())
	for i := range 40 { // a closed connection ends it early
		if writeMessage(conn, announcement(i*500, 500)) != nil {
			break
		}
	}
	eventually(t, "the flooding session is shut, and says why", func() bool {
		p := stateOf(t, c, "flood")
		return !p.Established() && strings.Contains(p.LastError, "more than 10000 prefixes")
	})
	if grown := residentKB(t, c.pid()) - before; grown > 40_000 {
		t.Errorf("the flood cost %d kB", grown)
	} else {
		t.Logf("the flood cost %d kB on top of %d", grown, before)
	}
	if p := stateOf(t, c, "good"); !p.Established() || p.Since != since || p.Advertised != 1 {
		t.Errorf("the other session: %+v", p)
	}
	good.has(t, "10.1.0.0/26")
}

// The session of a flooding peer is tried again after a while.
func TestFloodRetry(t *testing.T) {
	t.Parallel()
	flood := startRaw(t, "flood", "127.0.0.20")
	s := newTestServer(t)
	s.limitRetry = 200 * time.Millisecond
	must(t, s.Set(t.Context(), speaker.Desired{Local: local(), Peers: []speaker.Peer{flood.peer}}))
	comesUp(t, s, "flood")
	conn := <-flood.sessions
	for i := range 40 {
		if writeMessage(conn, announcement(i*500, 500)) != nil {
			break
		}
	}
	eventually(t, "the session is shut and comes back", func() bool {
		p := stateOf(t, s, "flood")
		return p.Established() && strings.Contains(p.LastError, "more than 10000 prefixes") && p.Received == 0
	})
}

// A session that was shut for a flood and is kept down by the settings then is not
// opened again, whichever of the two comes first.
func TestFloodOfDownPeer(t *testing.T) {
	t.Parallel()
	tooMany := func(l *ledger, p speaker.Peer) {
		l.overLimit(flood{address: p.Address.String(), family: speaker.IPv4, most: 1})
		l.down(p.Address.String(), "notification sent")
	}
	disable := func(l *ledger, p speaker.Peer) {
		p.Down = true
		l.rename(p)
		l.shut(p.Address.String(), shutWords(p))
	}
	for name, order := range map[string][]func(*ledger, speaker.Peer){"flood": {tooMany, disable}, "settings": {disable, tooMany}} {
		l := newLedger(speaker.GracefulRestart{})
		p := peerWithDefaults(nobody("192.0.2.1"))
		_, err := l.add(p, false)
		must(t, err)
		l.established(p.Address.String())
		for _, step := range order {
			step(l, p)
		}
		if again := l.limitsOver(time.Now().Add(time.Hour)); len(again) != 0 {
			t.Errorf("%s first: opened again: %v", name, again)
		}
	}
}

// announcement is an UPDATE with n /32 prefixes from number first on.
func announcement(first, n int) *bgp.BGPMessage {
	var nlri []*bgp.IPAddrPrefix
	for i := first; i < first+n; i++ {
		nlri = append(nlri, bgp.NewIPAddrPrefix(32, fmt.Sprintf("100.%d.%d.%d", 64+i>>16, i>>8&0xff, i&0xff)))
	}
	return bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{
		bgp.NewPathAttributeOrigin(0),
		bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{routerASN})}),
		bgp.NewPathAttributeNextHop("127.0.0.7"),
	}, nlri)
}

func residentKB(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	must(t, err)
	return kb
}

// The gobgp command reads, and can't write; nobody reads a password.
func TestAPIReadOnly(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("gobgp"); err != nil {
		t.Skip("the gobgp command is not installed")
	}
	r := startRouter(t, "127.0.0.8", routerASN)
	r.accept(t, "127.0.0.1", "swordfish")
	dir := shortDir(t)
	socket := filepath.Join(dir, "bgp.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	stale.SetUnlinkOnClose(false)
	must(t, stale.Close())
	s := newTestServer(t)
	peer := r.peer("tor")
	peer.Password = "swordfish"
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{peer}, Announcements: announce("10.1.0.0/26")}
	d.Local.APISocket = socket
	d.Local.APIAddress = fmt.Sprintf("127.0.0.1:%d", apiPort)
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()))

	gobgp := func(args ...string) (string, error) {
		out, err := exec.Command("gobgp", append([]string{"--target", "unix://" + socket}, args...)...).CombinedOutput()
		return string(out), err
	}
	readsAndCannotWrite(t, gobgp)
	_, port, _ := net.SplitHostPort(d.Local.APIAddress)
	if out, err := exec.Command("gobgp", "-p", port, "global", "rib").CombinedOutput(); err != nil {
		t.Errorf("gobgp over TCP: %v: %s", err, out)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v: want mode 0600", info, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("beside the socket: %v, %v", entries, err)
	}
	second := newTestServer(t)
	d.Local.APIAddress = ""
	if err := second.Set(t.Context(), d); err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Errorf("a second speaker on the same socket: %v", err)
	}
	must(t, s.Close(within(t, soon), speaker.Withdraw))
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func readsAndCannotWrite(t *testing.T, gobgp func(args ...string) (string, error)) {
	t.Helper()
	for _, c := range []struct{ args, want string }{
		{"global rib", "10.1.0.0/26"},
		{"neighbor", "127.0.0.8"},
		{"neighbor 127.0.0.8", "64513"},
		{"neighbor 127.0.0.8 adj-out", "10.1.0.0/26"},
		{"-j neighbor 127.0.0.8", "127.0.0.8"},
	} {
		out, err := gobgp(strings.Fields(c.args)...)
		if err != nil || !strings.Contains(out, c.want) || strings.Contains(out, "swordfish") {
			t.Errorf("gobgp %s: %v: %s", c.args, err, out)
		}
	}
	for _, args := range []string{"global rib add 10.9.0.0/24", "global rib del 10.1.0.0/26", "neighbor del 127.0.0.8", "neighbor 127.0.0.8 reset"} {
		if out, err := gobgp(strings.Fields(args)...); err == nil || !strings.Contains(out, "read-only") {
			t.Errorf("gobgp %s: %v: %s", args, err, out)
		}
	}
}

func TestRefusedSettings(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	for name, c := range map[string]struct {
		change func(*speaker.Desired)
		want   string
	}{
		"ASN 0":                {func(d *speaker.Desired) { d.Local.ASN = 0 }, "ASN 0"},
		"no router ID":         {func(d *speaker.Desired) { d.Local.RouterID = netip.Addr{} }, "router ID"},
		"router ID 0.0.0.0":    {func(d *speaker.Desired) { d.Local.RouterID = netip.IPv4Unspecified() }, "router ID"},
		"IPv6 router ID":       {func(d *speaker.Desired) { d.Local.RouterID = netip.IPv6LinkLocalAllNodes() }, "router ID"},
		"API for all":          {func(d *speaker.Desired) { d.Local.APIAddress = "0.0.0.0:50051" }, "loopback"},
		"API by name":          {func(d *speaker.Desired) { d.Local.APIAddress = "localhost:50051" }, "loopback"},
		"API port taken":       {func(d *speaker.Desired) { d.Local.APIAddress = taken.Addr().String() }, "address already in use"},
		"API socket nowhere":   {func(d *speaker.Desired) { d.Local.APISocket = "/nowhere/at/all" }, "no such file"},
		"API socket is a file": {func(d *speaker.Desired) { d.Local.APISocket = "/etc/passwd" }, "no socket"},
		"listen port taken": {func(d *speaker.Desired) {
			d.Local.Listen = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
			d.Local.Port = uint16(taken.Addr().(*net.TCPAddr).Port)
		}, "another BGP speaker"},
		"host bits":      {func(d *speaker.Desired) { d.Announcements = announce("10.1.0.1/26") }, "host bits"},
		"restart time":   {func(d *speaker.Desired) { d.Local.Time = 2 * time.Hour }, "graceful restart time"},
		"hold time 2":    {func(d *speaker.Desired) { d.Peers[0].HoldTime = 2 * time.Second }, "hold time"},
		"peer ASN 0":     {func(d *speaker.Desired) { d.Peers[0].ASN = 0 }, "ASN 0"},
		"IPv6 over IPv4": {func(d *speaker.Desired) { d.Peers[0].Families = []speaker.Family{speaker.IPv4, speaker.IPv6} }, "IPv4-mapped"},
		"unknown family": {func(d *speaker.Desired) { d.Peers[0].Families = []speaker.Family{"evpn"} }, "evpn"},
		"same address":   {func(d *speaker.Desired) { d.Peers[0].Address = d.Peers[1].Address }, "already"},
		"same name":      {func(d *speaker.Desired) { d.Peers[1].Name = d.Peers[0].Name }, "two peers"},
		"link-local secret": {func(d *speaker.Desired) {
			d.Peers[0].Address, d.Peers[0].Password = netip.MustParseAddr("fe80::1%lo"), "x"
		}, "MD5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t)
			d := speaker.Desired{Local: local(), Peers: []speaker.Peer{
				{Name: "a", Address: netip.MustParseAddr("127.0.0.9"), ASN: 1, Session: speaker.Session{Port: 1}},
				{Name: "b", Address: netip.MustParseAddr("127.0.0.10"), ASN: 1, Session: speaker.Session{Port: 1}},
			}}
			c.change(&d)
			err := s.Set(t.Context(), d)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Set: %v: want %q in it", err, c.want)
			}
		})
	}
}

// A router that comes up after another one ended the deferral sees the restart
// bit all the same.
func TestLateRouterSeesRestartBit(t *testing.T) {
	t.Parallel()
	early := startRouter(t, "127.0.0.12", routerASN)
	early.accept(t, "127.0.0.1", "")
	late := newRaw(t, "late", "127.0.0.13")
	close(late.gate)
	s := newTestServer(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{early.peer("early"), late.peer}, Announcements: announce("10.1.0.0/26")}
	d.Local.Restarting = true
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()))
	early.has(t, "10.1.0.0/26")
	late.listen(t)
	select {
	case o := <-late.opens:
		if !restartBit(o) {
			t.Error("no restart bit in the OPEN to the late router")
		}
	case <-time.After(soon):
		t.Fatal("the late router was not dialled")
	}
	if p := stateOf(t, s, "early"); !p.Established() {
		t.Errorf("the early router's session: %+v", p)
	}
}

// A message that is too short ends that session with the reason, and no more.
func TestGarbage(t *testing.T) {
	t.Parallel()
	r := startRaw(t, "garbage", "127.0.0.14")
	s := newTestServer(t)
	must(t, s.Set(t.Context(), speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}, Announcements: announce("10.1.0.0/26")}))
	comesUp(t, s, r.peer.Name)
	short := header(bgp.BGP_MSG_KEEPALIVE)
	short[17]--
	_, err := (<-r.sessions).Write(short)
	must(t, err)
	eventually(t, "the session ended and says why", func() bool {
		return strings.Contains(stateOf(t, s, r.peer.Name).LastError, "bad message length")
	})
	t.Log(stateOf(t, s, r.peer.Name).LastError)
}

func TestPeerWithoutHoldTime(t *testing.T) {
	t.Parallel()
	r := newRaw(t, "timeless", "127.0.0.15")
	r.hold = 0
	close(r.gate)
	r.listen(t)
	s := newTestServer(t)
	must(t, s.Set(t.Context(), speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}, Announcements: announce("10.1.0.0/26")}))
	eventually(t, "the state names the hold time", func() bool {
		return strings.Contains(stateOf(t, s, r.peer.Name).LastError, "hold time 0")
	})
	t.Log(stateOf(t, s, r.peer.Name).LastError)
}

// A router that dials the node: with a password, without it, and after this
// node's own side changed.
func TestListen(t *testing.T) {
	t.Parallel()
	node := netip.MustParseAddr("127.0.0.1")
	r := startRouter(t, "127.0.0.16", routerASN)
	s := newTestServer(t)
	peer := r.peer("tor")
	peer.Port = 1 // nobody answers there
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{peer}}
	d.Local.Listen, d.Local.Port = []netip.Addr{node}, nodePort
	for i, c := range []struct {
		password speaker.Secret
		routerID string
		prefix   string
	}{
		{"secret", "192.0.2.10", "10.1.0.0/26"},
		{"", "192.0.2.10", "10.1.0.0/26"},
		{"other", "192.0.2.10", "10.1.0.0/26"},
		{"other", "192.0.2.11", "10.2.0.0/26"},
	} {
		d.Peers[0].Password, d.Local.RouterID, d.Announcements = c.password, netip.MustParseAddr(c.routerID), announce(c.prefix)
		must(t, s.Set(t.Context(), d))
		if i > 0 {
			must(t, r.bgp.DeletePeer(t.Context(), &api.DeletePeerRequest{Address: node.String()}))
			r.has(t)
		}
		p := peerWithDefaults(speaker.Peer{Address: node, ASN: nodeASN, Session: speaker.Session{Port: nodePort, Password: c.password, HoldTime: 9 * time.Second}})
		dials := peerOf(p, speaker.Local{ASN: routerASN}, false)
		dials.Transport.LocalAddress = r.address.String()
		must(t, r.bgp.AddPeer(t.Context(), &api.AddPeerRequest{Peer: dials}))
		must(t, s.Flush(within(t, soon), d.Prefixes()))
		r.has(t, c.prefix)
	}
}

// A router that does not read: Flush waits for it, and returns once everything
// was written.
func TestFlushWaitsForSlowRouter(t *testing.T) {
	t.Parallel()
	namespace.Need(t)
	const many = 30_000 // more than fits into the kernel's buffers
	r := newRaw(t, "slow", "127.0.0.19")
	r.listen(t)
	s := newTestServer(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}}
	must(t, s.Set(t.Context(), d))
	comesUp(t, s, "slow")
	d.Announcements = speaker.Plainly(manyPrefixes(many)...)
	must(t, s.Set(t.Context(), d))
	err := s.Flush(within(t, 300*time.Millisecond), d.Prefixes())
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, speaker.ErrNoPeer) || !strings.Contains(err.Error(), "slow") {
		t.Errorf("Flush while the router does not read: %v", err)
	}
	eventually(t, "something is written to the router", func() bool { return stateOf(t, s, "slow").Advertised > 0 })
	if p := stateOf(t, s, "slow"); p.Advertised >= many {
		t.Errorf("advertised %d of %d to a router that does not read", p.Advertised, many)
	}
	close(r.gate)
	must(t, s.Flush(within(t, soon), d.Prefixes()))
	eventually(t, "the router has all", func() bool { return r.heard.Load() == many })
}
