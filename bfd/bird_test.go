package bfd

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// birdConfig is BIRD's side of all kinds of sessions on far, which is behind
// tor in network 1.
func birdConfig(interval, multiplier int) string {
	timers := fmt.Sprintf("{ interval %d ms; multiplier %d; };\n", interval, multiplier)
	return "protocol bfd bfd1 {\n interface \"eth2\" " + timers + " multihop " + timers + ` neighbor 10.0.2.1 dev "eth2";
 neighbor fd00:2::1 dev "eth2";
 neighbor fe80::1 dev "eth2";
 neighbor 10.0.1.1 local 10.0.3.2 multihop;
 neighbor fd00:1::1 local fd00:3::2 multihop;
}
`
}

func birdPeers() []Peer {
	return []Peer{single("v4", "10.0.2.2", "eth2"), single("v6", "fd00:2::2", ""), single("ll", "fe80::2%eth2", ""),
		multihop("far4", "10.0.3.2", "10.0.1.1"), multihop("far6", "fd00:3::2", "fd00:1::1")}
}

func (b *bird) upWith(t *testing.T) {
	t.Helper()
	for _, a := range []string{"10.0.2.1", "fd00:2::1", "fe80::1", "10.0.1.1", "fd00:1::1"} {
		eventually(t, "BIRD is up with "+a, func() bool { return b.state(t, a) == "Up" })
	}
}

func TestBIRDTimersAndPeersChange(t *testing.T) {
	b := startBIRD(t, "far", birdConfig(50, 20))
	peers := birdPeers()
	s := newTestServer(t, peers...)
	s.are(t, Up)
	b.upWith(t)
	before := s.State()
	for i := range peers {
		peers[i].Timers = Timers{MinTx: 120 * time.Millisecond, MinRx: 80 * time.Millisecond, Multiplier: 21}
	}
	must(t, s.Set(peers))
	eventually(t, "BIRD has the new timers", func() bool {
		return strings.Count(b.ask(t, "show", "bfd", "sessions"), "2.520") == len(peers) // its Detection Time
	})
	b.write(t, birdConfig(200, 20))
	b.ask(t, "configure")
	eventually(t, "BIRD's new timers count", func() bool {
		for _, p := range s.State() {
			if p.Interval != 200*time.Millisecond || p.Detection != 20*200*time.Millisecond {
				return false
			}
		}
		return true
	})
	s.steady(t, before)

	must(t, s.Set(peers[1:]))
	eventually(t, "BIRD knows that v4 was taken down", func() bool { return b.state(t, "10.0.2.1") == "Down" })
	s.steady(t, before[1:])
	must(t, s.Set(peers))
	s.are(t, Up)
}

func TestBIRDKilled(t *testing.T) {
	b := startBIRD(t, "far", birdConfig(50, 20))
	s := newTestServer(t, birdPeers()...)
	s.are(t, Up)
	b.upWith(t)
	b.program.kill()
	s.are(t, Down)
	for _, p := range s.State() {
		const detection = 20 * 50 * time.Millisecond
		took := p.Since.Sub(p.Heard)
		t.Logf("%s: down %s after the last packet", p.Peer.Name, took)
		if p.Diagnostic != DetectionExpired || p.Failures != 1 || took < detection || took > detection+5*time.Second {
			t.Errorf("%+v, %s after the last packet: want %s and what the machine takes", p, took, detection)
		}
	}
}

// BIRD sends multihop packets with a TTL of 64, of which tor takes one.
func TestBIRDTooFar(t *testing.T) {
	startBIRD(t, "far", birdConfig(50, 20))
	peers := birdPeers()[3:]
	for i := range peers {
		peers[i].MinTTL = 64
	}
	s := newTestServer(t, peers...)
	eventually(t, "packets are discarded", func() bool {
		return s.Discards().TTL > 1 && strings.Contains(s.state(t, "far6").Problem, "TTL 63, want at least 64")
	})
	for i := range peers {
		peers[i].MinTTL = 63
	}
	must(t, s.Set(peers))
	s.are(t, Up)
	if p := s.state(t, "far6"); p.Problem != "" {
		t.Errorf("the problem is still there: %+v", p)
	}
}
