package agent

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/speaker"
)

// session is what the speaker was last told of a peer.
func (h *host) session(name string) (s speaker.Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.desired.Peers {
		if p.Name == name {
			return p.Session
		}
	}
	h.t.Errorf("no peer %s among %v", name, h.desired.Peers)
	return s
}

// What is disabled by hand outlives reloads and the agent, and not the boot.
func TestDisabledPeer(t *testing.T) {
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24"))
	h, a, _ := withLease(t, s)
	if err := a.Disable(t.Context(), "tor", "new optics"); err != nil {
		t.Fatal(err)
	}
	shut := func(when string) {
		t.Helper()
		if got := h.session("tor"); !got.Down || got.DownMessage != "new optics" {
			t.Errorf("%s the session is %+v", when, got)
		}
	}
	shut("at once")
	if s.Peers[0].Down {
		t.Error("the settings themselves were changed")
	}
	changed := settings(t, pool(t, "web", 4, "10.1.0.0/24"), pool(t, "other", 4, "10.2.0.0/24"))
	if err := a.Reload(changed); err != nil {
		t.Fatal(err)
	}
	if err := a.Maintain(t.Context(), true, ""); err != nil { // after the reload
		t.Fatal(err)
	}
	shut("after a reload")
	status, err := a.status(t.Context())
	if want := (Upkeep{Maintenance: Maintenance{Node: true}, Disabled: map[string]string{"tor": "new optics"}}); err != nil || !reflect.DeepEqual(status.Upkeep, want) {
		t.Errorf("status: %+v, %v, want %+v", status.Upkeep, err, want)
	}
	stop(t, a)
	h.update(func() { h.desired = speaker.Desired{} })
	a = h.start(changed)
	h.await("the next agent speaks", func() bool { return len(h.desired.Peers) > 0 })
	shut("after a restart")
	if err := a.Enable(t.Context(), "tor"); err != nil {
		t.Fatal(err)
	}
	if got := h.session("tor"); got.Down {
		t.Errorf("enabled, the session is %+v", got)
	}
	stop(t, a)
	h.boot = "boot-2"
	if u, _ := h.start(changed).upkeep.current(); !u.Idle() {
		t.Errorf("after a boot there is %+v", u)
	}
}

func TestMaintenanceOfOneAndOfAll(t *testing.T) {
	_, a, _ := withLease(t, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	for _, step := range []struct {
		on   bool
		peer string
		want Maintenance
		err  string
	}{
		{on: true, peer: "tor", want: Maintenance{Peers: []string{"tor"}}},
		{on: true, peer: "tor", want: Maintenance{Peers: []string{"tor"}}},
		{on: true, peer: "thor", want: Maintenance{Peers: []string{"tor"}}, err: "there are tor"},
		{on: false, peer: "thor", want: Maintenance{Peers: []string{"tor"}}, err: "these are tor"},
		{on: true, want: Maintenance{Node: true, Peers: []string{"tor"}}},
		{on: false, peer: "tor", want: Maintenance{Node: true, Peers: []string{"tor"}}, err: "the whole node"},
		{on: false},
		{on: false},
	} {
		err := a.Maintain(t.Context(), step.on, step.peer)
		if (err != nil) != (step.err != "") || err != nil && !strings.Contains(err.Error(), step.err) {
			t.Errorf("%+v: %v", step, err)
		}
		u, _ := a.upkeep.current()
		if got := u.onto(&Settings{}).Maintenance; !reflect.DeepEqual(got, step.want) {
			t.Errorf("%+v: maintenance %+v", step, got)
		}
	}
	if err := a.Disable(t.Context(), "thor", ""); !errors.Is(err, speaker.ErrUnknownPeer) {
		t.Errorf("disabled an unknown peer: %v", err)
	}
	if err := a.Disable(t.Context(), "tor", strings.Repeat("a", 256)); err == nil {
		t.Error("a message of 256 bytes was taken")
	}
	if err := a.Enable(t.Context(), "tor"); err == nil {
		t.Error("enabled what was not disabled")
	}
}

// A file that can't be read is no reason to open a session that somebody has shut.
func TestDamagedUpkeepStopsTheStart(t *testing.T) {
	h := newHost(t)
	path := filepath.Join(h.run, upkeepFile)
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	parts, store := h.parts()
	defer store.Close()
	if _, err := New(t.Context(), parts, settings(t)); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("start: %v", err)
	}
}

// What can't be kept is not done: it would be undone by the next agent.
func TestUpkeepThatCannotBeKept(t *testing.T) {
	h, a, _ := withLease(t, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	if err := os.Mkdir(filepath.Join(h.run, upkeepFile+".new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.Disable(t.Context(), "tor", ""); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("Disable: %v", err)
	}
	if h.session("tor").Down {
		t.Error("the session was shut")
	}
}

// Routers that came by a range go by its name, and whoever takes the name that status
// shows is told so.
func TestRouterOfARangeIsNotNamedAlone(t *testing.T) {
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24"))
	s.Ranges = []speaker.Range{{Name: "rack"}}
	a := newHost(t).start(s)
	err := a.Disable(t.Context(), "rack/10.0.1.1", "")
	if !errors.Is(err, speaker.ErrUnknownPeer) || !strings.Contains(err.Error(), "name rack for all of them") {
		t.Errorf("disabling a router of a range: %v", err)
	}
}
