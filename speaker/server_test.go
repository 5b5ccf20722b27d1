package speaker

import (
	"context"
	"errors"
	"testing"
	"time"
)

func newTestServer(t *testing.T) *Server {
	t.Helper()
	s := NewServer(testLog(t))
	t.Cleanup(func() {
		if err := s.Close(within(t, 5*time.Second), Withdraw); err != nil {
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
	d := Desired{Local: local(), Peers: []Peer{r.peer("tor")}, Prefixes: prefixes("10.1.0.0/26", "10.2.0.0/26")}
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, 10*time.Second)))
	r.has(t, "10.1.0.0/26", "10.2.0.0/26")

	d.Prefixes = prefixes("10.2.0.0/26", "10.3.0.0/26")
	must(t, s.Set(t.Context(), d))
	start := time.Now()
	must(t, s.Flush(within(t, 10*time.Second)))
	t.Logf("Flush took %v", time.Since(start))
	r.has(t, "10.2.0.0/26", "10.3.0.0/26")
	if p := stateOf(t, s, "tor"); !p.Established() || p.Advertised != 2 || p.Since.IsZero() {
		t.Errorf("state %+v", p)
	}
	heard := r.log()
	if n := len(heard); heard[n-2] != "+10.3.0.0/26" || heard[n-1] != "-10.1.0.0/26" {
		t.Errorf("the router heard %v: want the new prefix before the withdrawal", heard)
	}
	must(t, s.Close(within(t, 5*time.Second), Withdraw))
	r.has(t)
}

func TestFlushWithoutPeer(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	must(t, s.Set(t.Context(), Desired{Local: local(), Prefixes: prefixes("10.1.0.0/26")}))
	err := s.Flush(within(t, 50*time.Millisecond))
	if !errors.Is(err, ErrNoPeer) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Flush without a peer: %v", err)
	}
}

