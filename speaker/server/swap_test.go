package server

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fairway-network/fairway/speaker"
)

// A peer that is removed and added again on its own account is seen as what it was.
func TestStateOfAPeerThatIsPutBack(t *testing.T) {
	p := peerWithDefaults(speaker.Peer{Name: "tor", Address: netip.MustParseAddr("192.0.2.1"), ASN: routerASN})
	l := newLedger(speaker.GracefulRestart{Enabled: true, Time: time.Minute})
	if _, err := l.add(p, false); err != nil {
		t.Fatal(err)
	}
	lost := time.Now()
	s := l.sessions[p.Address.String()]
	s.flaps, s.since, s.ended = 3, lost, "hold timer expired"
	was, ok := l.beginSwap(p)
	if !ok {
		t.Fatal("a peer without a session can't be put back")
	}
	seen := func(when string) {
		t.Helper()
		st := l.state(nil, nil)
		if len(st.Peers) != 1 || st.Peers[0].Flaps != 3 || !st.Peers[0].Since.Equal(lost) || st.Peers[0].LastError != "hold timer expired" {
			t.Errorf("%s: %+v", when, st.Peers)
		}
	}
	l.forget(p.Address.String())
	seen("while it is away")
	if _, err := l.add(p, true); err != nil {
		t.Fatal(err)
	}
	seen("while it is added")
	l.endSwap(was)
	seen("after that")
}
