package bfd

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// frrConfig is FRR's side of all kinds of sessions on tor.
func frrConfig(multiplier int) string {
	timers := fmt.Sprintf("  receive-interval 50\n  transmit-interval 50\n  detect-multiplier %d\n", multiplier)
	return "bfd\n peer 10.0.1.1 interface eth1\n" + timers +
		" peer fd00:1::1 local-address fd00:1::2 interface eth1\n" + timers +
		" peer fe80::1 local-address fe80::2 interface eth1\n" + timers +
		" peer 10.0.9.1 multihop local-address 10.0.9.2\n" + timers
}

func frrPeers() []Peer {
	return []Peer{single("v4", "10.0.1.2", ""), single("v6", "fd00:1::2", "eth1"), single("ll", "fe80::2%eth1", ""), multihop("far", "10.0.9.2", "10.0.9.1")}
}

// upWith waits until FRR is up with all of the node's addresses.
func (f *frr) upWith(t *testing.T) {
	t.Helper()
	for _, a := range []string{"10.0.1.1", "fd00:1::1", "fe80::1", "10.0.9.1"} {
		eventually(t, "FRR is up with "+a, func() bool { return f.peer(t, a).Status == "up" })
	}
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
func TestFRRTimersAndPeersChange(t *testing.T) {
	f := startFRR(t, "tor", frrConfig(20))
	peers := frrPeers()
	s := newTestServer(t, peers...)
	s.are(t, Up)
	f.upWith(t)
	before := s.State()

	for i := range peers {
		peers[i].Timers = Timers{MinTx: 120 * time.Millisecond, MinRx: 80 * time.Millisecond, Multiplier: 21}
	}
	must(t, s.Set(peers))
	eventually(t, "FRR has the new timers", func() bool {
		p := f.peer(t, "fe80::1")
		return p.RemoteTransmitInterval == 120 && p.RemoteReceiveInterval == 80 && p.RemoteMultiplier == 21
	})
	eventually(t, "both count", func() bool {
		st := s.state(t, "far")
		return st.Interval == 120*time.Millisecond && st.Detection == 20*80*time.Millisecond
	})
	f.configure(t, "bfd", "peer 10.0.1.1 interface eth1", "transmit-interval 200", "receive-interval 300")
	eventually(t, "FRR's new timers count", func() bool {
		st := s.state(t, "v4")
		return st.Interval == 300*time.Millisecond && st.Detection == 20*200*time.Millisecond
	})
	s.steady(t, before)

	must(t, s.Set(peers[1:]))
	eventually(t, "FRR knows that v4 was taken down", func() bool {
		p := f.peer(t, "10.0.1.1")
		return p.Status == "down" && p.RemoteDiagnostic == "administratively down"
	})
	s.steady(t, before[1:])
	must(t, s.Set(peers))
	s.are(t, Up)
	s.steady(t, before[1:])

	must(t, s.Close(t.Context()))
	for _, a := range []string{"10.0.1.1", "fd00:1::1", "fe80::1", "10.0.9.1"} {
		if p := f.peer(t, a); p.Status != "down" || p.RemoteDiagnostic != "administratively down" {
			t.Errorf("FRR after Close: %+v", p)
		}
	}
}

// bfdd is killed: every session knows within its Detection Time of the last
// packet that it had. Then it starts again.
func TestFRRKilled(t *testing.T) {
	f := startFRR(t, "tor", frrConfig(20))
	s := newTestServer(t, frrPeers()...)
	s.are(t, Up)
	f.upWith(t)
	f.bfdd.kill()
	s.are(t, Down)
	for _, p := range s.State() {
		const detection = 20 * 50 * time.Millisecond
		took := p.Since.Sub(p.Heard)
		t.Logf("%s: down %s after the last packet", p.Peer.Name, took)
		if p.Diagnostic != DetectionExpired || p.Failures != 1 || took < detection || took > detection+5*time.Second {
			t.Errorf("%+v, %s after the last packet: want %s and what the machine takes", p, took, detection)
		}
	}
	startFRR(t, "tor", frrConfig(20))
	s.are(t, Up)
}

// What FRR does on purpose is no failure.
func TestFRRAdminDown(t *testing.T) {
	f := startFRR(t, "tor", frrConfig(20))
	s := newTestServer(t, frrPeers()...)
	s.are(t, Up)
	f.upWith(t)
	f.configure(t, "bfd", "peer 10.0.1.1 interface eth1", "shutdown")
	s.await(t, "v4 is down", func() bool { return s.state(t, "v4").State == Down })
	if p := s.state(t, "v4"); p.RemoteState != AdminDown || p.Failures != 0 {
		t.Errorf("FRR shut the session down: %+v", p)
	}
	f.configure(t, "bfd", "peer 10.0.1.1 interface eth1", "no shutdown")
	s.are(t, Up)
}

// BFD packets that are none, or nobody's, or come from too far, in a flood
// from FRR's own address: the sessions don't notice.
func TestFRRBehindGarbage(t *testing.T) {
	f := startFRR(t, "tor", frrConfig(20))
	s := newTestServer(t, frrPeers()...)
	s.are(t, Up)
	f.upWith(t)
	before := s.State()
	good := Packet{State: Down, Multiplier: 3, MyDiscriminator: 1, DesiredMinTx: time.Second, RequiredMinRx: time.Second}
	stale, stray := good, good
	stale.YourDiscriminator = 0xdead
	stray.State = Up
	payloads := [][]byte{nil, {0x20}, slices.Repeat([]byte{0xff}, 1400), make([]byte, packetLength), stale.Append(nil), stray.Append(nil)}
	for _, c := range []struct {
		ttl  int
		from string
		to   string
	}{{255, "10.0.1.2:0", "10.0.1.1:3784"}, {64, "10.0.1.2:0", "10.0.1.1:3784"}, {255, "[fd00:1::2]:0", "[fd00:1::1]:3784"}, {255, "10.0.9.2:0", "10.0.9.1:4784"}, {255, "10.0.3.1:0", "10.0.1.1:3784"}} {
		raw := newRaw(t, "tor", c.from, c.ttl)
		for range 300 {
			for _, p := range payloads {
				raw.send(t, c.to, p)
			}
			if c.ttl != 255 {
				raw.send(t, c.to, good.Append(nil))
			}
		}
	}
	eventually(t, "all kinds were seen", func() bool {
		d := s.Discards()
		return d.Malformed > 0 && d.Discriminator > 0 && d.TTL > 0 && d.Strangers > 0
	})
	s.steady(t, before)
	t.Logf("%+v", s.Discards())
}
