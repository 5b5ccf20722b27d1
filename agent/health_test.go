package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/speaker"
)

func dialUnix(socket string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
}

// An agent is ready while it has a session, and says which one it lacks; it is alive
// all the time.
func TestReadiness(t *testing.T) {
	h := newHost(t)
	a := h.start(settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	<-a.Started()
	for path, want := range map[string]string{"/readyz": "ready\n", "/healthz": "alive\n"} {
		if code, body := h.get(t, path); code != http.StatusOK || body != want {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	if code, body := h.get(t, "/metrics"); code != http.StatusOK || !strings.Contains(body, "fairway_ready 1\n") {
		t.Errorf("/metrics: %d %q", code, body)
	}
	h.update(func() { h.established = false })
	if code, body := h.get(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.HasPrefix(body, "not ready:\n0 BGP sessions are established; missing: tor (") {
		t.Errorf("without a session: %d %q", code, body)
	}
	if code, body := h.get(t, "/healthz"); code != http.StatusOK {
		t.Errorf("without a session: %d %q", code, body)
	}
	s := *a.settings.Load()
	s.Healthy = NoPeers
	if err := a.Reload(s); err != nil {
		t.Fatal(err)
	}
	if code, body := h.get(t, "/readyz"); code != http.StatusOK {
		t.Errorf("without a session, which none is needed of: %d %q", code, body)
	}
	h.update(func() { h.kernelErr = errors.New("the kernel is out of order") })
	a.call()
	eventually(t, "not ready with a pass that fails, which the answer names", func() bool {
		code, body := h.get(t, "/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "kernel routes: the kernel is out of order")
	})
}

// Which sessions have to be there, by the settings.
func TestPeerless(t *testing.T) {
	up := func(name string) speaker.PeerState { return speaker.PeerState{Name: name, Session: "Established"} }
	down := func(name, why string) speaker.PeerState {
		return speaker.PeerState{Name: name, Address: netip.MustParseAddr("10.0.0.1"), Session: "Idle", LastError: why}
	}
	guest := func(p speaker.PeerState) speaker.PeerState { p.Range = "lan"; return p }
	left := guest(down("lan/10.0.0.9", ""))
	for name, c := range map[string]struct {
		healthy HealthyPeers
		shut    string
		bgp     []speaker.PeerState
		want    string // "" for ready
	}{
		"any, one of two":   {AnyPeer, "", []speaker.PeerState{up("a"), down("b", "x")}, ""},
		"any, none":         {AnyPeer, "", []speaker.PeerState{down("a", "hold timer expired"), down("b", "")}, "0 BGP sessions are established; missing: a (10.0.0.1): hold timer expired; b (10.0.0.1): no session yet"},
		"any, all shut":     {AnyPeer, "a", []speaker.PeerState{down("a", "shut")}, "0 BGP sessions are established; missing: a (10.0.0.1): shut"},
		"all, one of two":   {AllPeers, "", []speaker.PeerState{up("a"), down("b", "x")}, "1 BGP sessions are established; missing: b (10.0.0.1): x"},
		"all, other shut":   {AllPeers, "b", []speaker.PeerState{up("a"), down("b", "shut")}, ""},
		"all, a guest left": {AllPeers, "", []speaker.PeerState{up("a"), up("b"), left}, ""},
		"all, all shut":     {AllPeers, "a", []speaker.PeerState{down("a", "shut")}, "0 BGP sessions are established; missing: a (10.0.0.1): shut"},
		"any, a range":      {AnyPeer, "", nil, "no BGP session is established: no router has come yet"},
		"all, a range":      {AllPeers, "", nil, "no BGP session is established: no router has come yet"},
		"any, a guest":      {AnyPeer, "", []speaker.PeerState{guest(up("lan/10.0.0.8")), left}, ""},
		"all, a guest":      {AllPeers, "", []speaker.PeerState{guest(up("lan/10.0.0.8")), left}, ""},
		"all, guests alone": {AllPeers, "", []speaker.PeerState{left}, "0 BGP sessions are established; missing: lan/10.0.0.9 (10.0.0.1): no session yet"},
		"all, guest and b":  {AllPeers, "", []speaker.PeerState{guest(up("lan/10.0.0.8")), down("b", "x")}, "1 BGP sessions are established; missing: b (10.0.0.1): x"},
		"an interface":      {AnyPeer, "", []speaker.PeerState{{Name: "a", Interface: "eth1", Session: "Idle"}}, "0 BGP sessions are established; missing: a (eth1): no session yet"},
		"none":              {NoPeers, "", []speaker.PeerState{down("a", "x")}, ""},
	} {
		a := &Agent{Parts: Parts{Speaker: statedSpeaker{state: speaker.State{Peers: c.bgp}}}, upkeep: newUpkeep(t.TempDir(), "")}
		s := &Settings{Healthy: c.healthy, Ranges: []speaker.Range{{Name: "lan"}}}
		for _, n := range []string{"a", "b"} {
			s.Peers = append(s.Peers, speaker.Peer{Name: n, Session: speaker.Session{Down: n == c.shut}})
		}
		a.settings.Store(s)
		got := ""
		if err := a.peerless(t.Context()); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Why no router of a range gets in is said where it is asked for: by readiness and status.
func TestRangeTrouble(t *testing.T) {
	h := newHost(t)
	parts, store := h.parts()
	parts.Speaker = statedSpeaker{parts.Speaker, speaker.State{RangeTrouble: "lan: segments were dropped"}}
	a := h.startWith(parts, store, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	<-a.Started()
	if code, body := h.get(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.HasSuffix(body, "no router has come yet: lan: segments were dropped\n") {
		t.Errorf("%d %q", code, body)
	}
	if s, err := a.status(t.Context()); err != nil || s.Trouble != "ranges of routers: lan: segments were dropped" {
		t.Errorf("%q, %v", s.Trouble, err)
	}
}

// statedSpeaker has a state and does nothing.
type statedSpeaker struct {
	speaker.Speaker
	state speaker.State
}

func (s statedSpeaker) State(context.Context) (speaker.State, error) { return s.state, nil }

// Learned routes that are not in force are trouble, and no reason to send pods
// elsewhere.
func TestLearnedTrouble(t *testing.T) {
	h := newHost(t)
	parts, store := h.parts()
	parts.Speaker = troubledSpeaker{parts.Speaker}
	a := h.startWith(parts, store, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	<-a.Started()
	if code, body := h.get(t, "/readyz"); code != http.StatusOK {
		t.Errorf("%d %q", code, body)
	}
	s, err := a.status(t.Context())
	if err != nil || s.Trouble != "learned routes: the kernel is full" || s.Learned != 7 || s.LearnedRefused != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	wants(t, scrape(t, a.metrics), "fairway_trouble 1", "fairway_learned_routes 7", "fairway_learned_routes_refused 2")
}

// troubledSpeaker has learned routes that the kernel does not take.
type troubledSpeaker struct{ speaker.Speaker }

func (s troubledSpeaker) State(ctx context.Context) (speaker.State, error) {
	st, err := s.Speaker.State(ctx)
	st.Learned, st.LearnedRefused, st.LearnedTrouble = 7, 2, "the kernel is full"
	return st, err
}

// While the speaker's process does not answer, nobody says that it does, nor how many
// learned routes there are.
func TestSilentSpeakerIsDown(t *testing.T) {
	h := newHost(t)
	parts, store := h.parts()
	parts.Speaker = statedSpeaker{parts.Speaker, speaker.State{Silent: "speaker restarting: it exited"}}
	a := h.startWith(parts, store, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	<-a.Started()
	text := scrape(t, a.metrics)
	wants(t, text, "fairway_speaker_up 0")
	if strings.Contains(text, "\nfairway_learned_routes") {
		t.Errorf("learned routes that nobody counts:\n%s", ours(text))
	}
}

// A loop that does not come back is no agent that lives; a start that waits is.
func TestStuck(t *testing.T) {
	a := &Agent{metrics: newMetrics(""), serving: make(chan struct{}), stop: make(chan struct{})}
	now := time.Now()
	if err := a.stuck(now); err != nil {
		t.Errorf("while it starts: %v", err)
	}
	close(a.serving)
	a.servingSince.Store(now.UnixNano())
	if err := a.stuck(now.Add(stuckTime)); err != nil {
		t.Errorf("before a first pass: %v", err)
	}
	a.metrics.looked.Store(now.Add(time.Hour).UnixNano())
	if err := a.stuck(now.Add(time.Hour + stuckTime + time.Second)); err == nil {
		t.Error("a loop that stands still is healthy")
	}
}

// Metrics and health are served on addresses of their own, from the first moment; one
// that somebody else has keeps no agent from serving pods.
func TestFront(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	h := newHost(t)
	parts, store := h.parts()
	parts.MetricsAddress = netip.MustParseAddrPort(taken.Addr().String())
	parts.HealthAddress = freePort(t)
	a := h.startWith(parts, store, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	lease(t, a, request("web", 1))
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	eventually(t, "ready over TCP", func() bool {
		code, _ := fetch(t, client, "http://"+parts.HealthAddress.String()+"/readyz")
		return code == http.StatusOK
	})
	if code, body := fetch(t, client, "http://"+parts.HealthAddress.String()+"/metrics"); code != http.StatusNotFound {
		t.Errorf("metrics at the address of health: %d %s", code, body)
	}
	stop(t, a)
	if code, body := fetch(t, client, "http://"+parts.HealthAddress.String()+"/readyz"); code != 0 {
		t.Errorf("after the end: %d %s", code, body)
	}
}

// freePort is an address that nothing listens on.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return netip.MustParseAddrPort(l.Addr().String())
}
