package bfd

import (
	"fmt"
	"strings"
	"testing"
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

// birdEnd is BIRD on far.
func birdEnd(t *testing.T) end {
	b := startBIRD(t, "far", birdConfig(50, 20))
	return end{
		daemon: b, peers: birdPeers(), addresses: []string{"10.0.2.1", "fd00:2::1", "fe80::1", "10.0.1.1", "fd00:1::1"},
		heard: func(t *testing.T) bool { // 21 * 120 ms
			return strings.Count(b.ask(t, "show", "bfd", "sessions"), "2.520") == len(birdPeers())
		},
		change: func(t *testing.T) {
			b.write(t, birdConfig(200, 20))
			b.ask(t, "configure")
		},
		changed: []string{"v4", "v6", "ll", "far4", "far6"},
		again:   func(t *testing.T) { startBIRD(t, "far", birdConfig(50, 20)) },
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
