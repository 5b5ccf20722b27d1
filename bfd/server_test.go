package bfd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/internal/namespace"
	"golang.org/x/sys/unix"
)

// raw is a socket in a router's namespace that sends what a test likes.
type raw struct{ conn net.PacketConn }

func newRaw(t *testing.T, where, local string, ttl int) *raw {
	t.Helper()
	namespace.Need(t)
	r := &raw{}
	must(t, inside(where, func() (err error) {
		options := []option{{unix.IPPROTO_IP, unix.IP_TTL, ttl}}
		network := "udp4"
		if netip.MustParseAddrPort(local).Addr().Is6() {
			network, options = "udp6", []option{{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl}}
		}
		config := net.ListenConfig{Control: set(options)}
		r.conn, err = config.ListenPacket(t.Context(), network, local)
		return err
	}))
	t.Cleanup(func() { _ = r.conn.Close() })
	return r
}

func (r *raw) send(t *testing.T, to string, payload []byte) {
	t.Helper()
	_, err := r.conn.WriteTo(payload, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
	must(t, err)
}

// ear takes the BFD packets that come to a router.
type ear struct{ listener *listener }

func newEar(t *testing.T, where string, d door) *ear {
	t.Helper()
	namespace.Need(t)
	e := &ear{}
	must(t, inside(where, func() (err error) {
		e.listener, err = d.listen()
		return err
	}))
	t.Cleanup(func() { _ = e.listener.conn.Close() })
	return e
}

// heard is a packet, with where it came from.
type heard struct {
	Packet
	datagram
	port int
}

// next waits for a packet.
func (e *ear) next(t *testing.T) heard {
	t.Helper()
	var h heard
	must(t, e.listener.conn.SetReadDeadline(time.Now().Add(soon)))
	must(t, e.listener.raw.Read(func(fd uintptr) bool {
		payload, control := make([]byte, 64), make([]byte, 128)
		n, controlLength, _, from, err := unix.Recvmsg(int(fd), payload, control, unix.MSG_DONTWAIT)
		if err != nil {
			return false
		}
		messages, err := unix.ParseSocketControlMessage(control[:controlLength])
		must(t, err)
		for _, m := range messages {
			h.annotate(int(m.Header.Level), int(m.Header.Type), m.Data)
		}
		switch a := from.(type) {
		case *unix.SockaddrInet4:
			h.from, h.port = netip.AddrFrom4(a.Addr), a.Port
		case *unix.SockaddrInet6:
			h.from, h.port = netip.AddrFrom16(a.Addr), a.Port
		}
		h.Packet, err = Parse(payload[:n])
		must(t, err)
		return true
	}))
	return h
}

// What leaves is what RFC 5881 sections 4 and 5 ask for: TTL 255, a source
// port of the dynamic range that stays, another one for each session.
func TestPacketsThatLeave(t *testing.T) {
	v4, v6 := newEar(t, "tor", door{}), newEar(t, "tor", door{v6: true})
	peers := []Peer{single("v4", "10.0.1.2", ""), single("ll", "fe80::2%eth1", "")}
	peers[0].ControlPlaneIndependent = true
	newTestServer(t, peers...)
	first, second, other := v4.next(t), v4.next(t), v6.next(t)
	if first.ttl != 255 || other.ttl != 255 || first.from.String() != "10.0.1.1" || other.from.String() != "fe80::1" {
		t.Errorf("heard %+v and %+v", first, other)
	}
	if first.port != second.port || first.port == other.port || min(first.port, other.port) < firstSourcePort {
		t.Errorf("source ports %d and %d, %d", first.port, second.port, other.port)
	}
	if first.MyDiscriminator != second.MyDiscriminator || first.MyDiscriminator == other.MyDiscriminator || first.State != Down || first.DesiredMinTx != time.Second ||
		!first.ControlPlaneIndependent || other.ControlPlaneIndependent || first.RequiredMinEchoRx != 0 {
		t.Errorf("heard %+v, %+v, %+v", first.Packet, second.Packet, other.Packet)
	}
}

// free says whether nobody listens for BFD.
func free(d door) bool {
	l, err := d.listen()
	if err != nil {
		return false
	}
	_ = l.conn.Close()
	return true
}

func TestListensForPeersOnly(t *testing.T) {
	s := newTestServer(t)
	all := []door{{}, {v6: true}, {multihop: true}, {v6: true, multihop: true}}
	check := func(when string, listening ...door) {
		t.Helper()
		for _, d := range all {
			want := true
			for _, l := range listening {
				want = want && l != d
			}
			eventually(t, fmt.Sprintf("%s: door %+v is free: %v", when, d, want), func() bool { return free(d) == want })
		}
	}
	check("without peers")
	v4, far := single("v4", "10.0.1.2", ""), multihop("far", "fd00:3::2", "fd00:1::1")
	must(t, s.Set([]Peer{v4, far}))
	check("with two peers", door{}, door{v6: true, multihop: true})
	must(t, s.Set([]Peer{far}))
	check("with one peer", door{v6: true, multihop: true})
	must(t, s.Set(nil))
	check("without peers again")
	must(t, s.Set([]Peer{v4}))
	must(t, s.Close(t.Context()))
	check("closed")
	if err := s.Set([]Peer{v4}); !errors.Is(err, ErrClosed) {
		t.Errorf("Set of a closed server: %v", err)
	}
	must(t, s.Close(t.Context()))
}

// Another BFD daemon has the port: the peers of the other doors have sessions,
// and the next Set tries again.
func TestPortInUse(t *testing.T) {
	s := newTestServer(t)
	daemon, err := door{}.listen()
	must(t, err)
	quiet := newEar(t, "tor", door{})
	peers := []Peer{single("v4", "10.0.1.2", ""), single("v6", "fd00:1::2", "")}
	err = s.Set(peers)
	if !errors.Is(err, ErrPeers) || !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "UDP port 3784") {
		t.Errorf("Set: %v", err)
	}
	if p := s.state(t, "v4"); p.State != Down || p.Sent != 0 || !strings.Contains(p.Problem, "another program has UDP port 3784") {
		t.Errorf("state of v4: %+v", p)
	}
	if p := s.state(t, "v6"); p.Sent == 0 {
		t.Errorf("state of v6: %+v, want one that sends", p)
	}
	must(t, daemon.conn.Close())
	must(t, s.Set(peers))
	if h := quiet.next(t); h.MyDiscriminator == 0 || s.state(t, "v4").Problem != "" {
		t.Errorf("heard %+v, state %+v", h, s.state(t, "v4"))
	}
}

// A packet from one hop further away is nobody's (RFC 5881 section 5), nor is
// one that comes by another interface.
func TestPacketFromElsewhere(t *testing.T) {
	near, further := newRaw(t, "tor", "10.0.1.2:0", 255), newRaw(t, "tor", "10.0.1.2:0", 254)
	s := newTestServer(t, single("v4", "10.0.1.2", "eth1"))
	hello := Packet{State: Down, Multiplier: 3, MyDiscriminator: 5, DesiredMinTx: time.Second, RequiredMinRx: time.Second}
	further.send(t, "10.0.1.1:3784", hello.Append(nil))
	eventually(t, "it is discarded", func() bool { return s.Discards().TTL == 1 })
	if p := s.state(t, "v4"); p.State != Down || p.Received != 0 || !strings.Contains(p.Problem, "TTL 254, want at least 255") {
		t.Errorf("%+v", p)
	}
	must(t, s.Set([]Peer{single("v4", "10.0.1.2", "eth2")}))
	near.send(t, "10.0.1.1:3784", hello.Append(nil))
	eventually(t, "it is a stranger's", func() bool { return s.Discards().Strangers == 1 })
	must(t, s.Set([]Peer{single("v4", "10.0.1.2", "eth1")}))
	near.send(t, "10.0.1.1:3784", hello.Append(nil))
	s.are(t, Init)
}

// The interface goes away with its addresses and comes back as another one:
// packets leave again without a Set.
func TestInterfaceComesBack(t *testing.T) {
	ear := newEar(t, "tor", door{})
	link := func() {
		t.Helper()
		for _, line := range []string{"link add eth4 type veth peer name eth4 netns tor", "addr add 10.0.4.1/24 dev eth4", "link set eth4 up",
			"-n tor addr add 10.0.4.2/24 dev eth4", "-n tor link set eth4 up"} {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %v: %s", line, err, out)
			}
		}
	}
	cut := func() { must(t, exec.Command("ip", "link", "del", "eth4").Run()) }
	link()
	p := single("v4", "10.0.4.2", "eth4")
	p.Local = netip.MustParseAddr("10.0.4.1")
	s := newTestServer(t, p)
	port := ear.next(t).port
	cut()
	eventually(t, "a packet could not leave", func() bool { return s.state(t, "v4").Problem != "" })
	link()
	defer cut()
	sent := s.state(t, "v4").Sent
	eventually(t, "packets leave again", func() bool { return s.state(t, "v4").Sent > sent })
	if p := s.state(t, "v4"); p.Problem != "" {
		t.Errorf("the problem is still there: %+v", p)
	}
	for h := ear.next(t); ; h = ear.next(t) {
		if h.from.String() == "10.0.4.1" {
			if h.port != port {
				t.Errorf("source port %d, was %d", h.port, port)
			}
			return
		}
	}
}

// pair gives a server of the node and one of tor that are up with each other.
func pair(t *testing.T, ours, theirs Timers) (*Server, *Server) {
	t.Helper()
	near, far := single("tor", "10.0.1.2", ""), single("node", "10.0.1.1", "")
	near.Timers, far.Timers = ours, theirs
	a, b := newTestServer(t, near), newTestServer(t)
	must(t, inside("tor", func() error { return b.Set([]Peer{far}) }))
	a.are(t, Up)
	b.are(t, Up)
	eventually(t, "timers are settled", func() bool {
		return a.state(t, "tor").Detection == time.Duration(theirs.Multiplier)*theirs.MinTx && b.state(t, "node").Detection == time.Duration(ours.Multiplier)*ours.MinTx
	})
	return a, b
}

// This program is held up for longer than the Detection Time: packets have
// come all the while, and the session stays up.
func TestHeldUp(t *testing.T) {
	const detection = time.Second
	a, b := pair(t, Timers{MinTx: 50 * time.Millisecond, MinRx: 50 * time.Millisecond, Multiplier: 200},
		Timers{MinTx: 100 * time.Millisecond, MinRx: 50 * time.Millisecond, Multiplier: 10})
	before := a.State()
	a.mu.Lock()
	sent := b.state(t, "node").Sent
	held := time.After(2 * detection)
	eventually(t, "the peer has sent on", func() bool {
		select {
		case <-held:
			return b.state(t, "node").Sent > sent+10
		default:
			return false
		}
	})
	a.mu.Unlock()
	eventually(t, "packets are read again", func() bool { return a.state(t, "tor").Received > before[0].Received+6 })
	a.steady(t, before)
}

// Close waits for the peers that can't answer until its context ends, and
// says which ones those are.
func TestCloseWithoutAnAnswer(t *testing.T) {
	a, b := pair(t, patient(), patient())
	b.mu.Lock() // b is deaf, and for a it is up
	defer b.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "tor (10.0.1.2)") {
		t.Errorf("Close: %v", err)
	}
	if !free(door{}) {
		t.Error("it listens still")
	}
}

func TestImpossiblePeers(t *testing.T) {
	at := func(address string, change func(*Peer)) Peer {
		p := Peer{Name: "tor", Endpoint: Endpoint{Address: netip.MustParseAddr(address)}}
		if change != nil {
			change(&p)
		}
		return p
	}
	for words, p := range map[string]Peer{
		"plain unicast address":          {Name: "tor"},
		"plain unicast":                  at("0.0.0.0", nil),
		"plain":                          at("ff02::1%eth1", nil),
		"give a plain":                   at("::ffff:10.0.0.1", nil),
		"of the other family":            at("10.0.0.1", func(p *Peer) { p.Local = netip.MustParseAddr("fd00::1") }),
		"a multihop peer has none":       at("10.0.0.1", func(p *Peer) { p.Multihop, p.Interface = true, "eth1" }),
		"needs its interface":            at("fe80::1", nil),
		"zone eth1 and interface eth2":   at("fe80::1%eth1", func(p *Peer) { p.Interface = "eth2" }),
		"set it for multihop peers only": at("10.0.0.1", func(p *Peer) { p.MinTTL = 254 }),
		"interval 1ms: use 10ms to 1m0s": at("10.0.0.1", func(p *Peer) { p.MinTx = time.Millisecond }),
		"interval 2m0s":                  at("10.0.0.1", func(p *Peer) { p.MinRx = 2 * time.Minute }),
		"interval 10.0001ms: use 10ms":   at("10.0.0.1", func(p *Peer) { p.MinRx = 10*time.Millisecond + 100 }),
	} {
		if err := NewServer().Set([]Peer{p}); !errors.Is(err, ErrPeer) || !strings.Contains(err.Error(), words) {
			t.Errorf("%+v: error %v, want one with %q", p, err, words)
		}
	}
	twice := []Peer{at("10.0.0.1", nil), at("10.0.0.1", func(p *Peer) { p.Interface = "eth1" })}
	if out, err := normalPeers(twice); !errors.Is(err, ErrPeer) || !strings.Contains(err.Error(), "can't be told from") || len(out) != 1 || out[0].Interface != "" {
		t.Errorf("twice: %+v, %v", out, err)
	}
	apart := []Peer{at("fe80::1%eth1", nil), at("fe80::1%eth2", nil), at("10.0.0.1", nil), at("10.0.0.1", func(p *Peer) { p.Multihop = true })}
	if out, err := normalPeers(apart); err != nil || len(out) != 4 || out[0].Interface != "eth1" || out[0].Timers != (Timers{DefaultInterval, DefaultInterval, DefaultMultiplier}) {
		t.Errorf("got %+v, %v", out, err)
	}
}

func TestImpossiblePeerStopsNoOther(t *testing.T) {
	s := newTestServer(t)
	err := s.Set([]Peer{{Name: "nowhere"}, single("v4", "10.0.1.2", "")})
	if !errors.Is(err, ErrPeer) || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("error %v", err)
	}
	if state := s.State(); len(state) != 1 || state[0].Peer.Name != "v4" || state[0].Sent == 0 || state[0].Problem != "" {
		t.Errorf("state %+v", state)
	}
}
