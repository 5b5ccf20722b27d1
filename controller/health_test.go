package controller

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

func TestHealthIsForThisHostAlone(t *testing.T) {
	o := Options{Config: &rest.Config{Host: "https://127.0.0.1:1"}, Health: netip.MustParseAddrPort("0.0.0.0:9911")}
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "127.0.0.1:9911") {
		t.Errorf("health on all addresses: %v", err)
	}
	for _, address := range []string{"127.0.0.1:9911", "[::1]:9911"} {
		o.Health = netip.MustParseAddrPort(address)
		if _, err := New(o); err != nil {
			t.Errorf("health on %s: %v", address, err)
		}
	}
}

func TestALeaderIsReadyWhenItHasReadTheCluster(t *testing.T) {
	c, err := New(Options{Config: &rest.Config{Host: "https://127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	status := func(check func() error) int {
		w := httptest.NewRecorder()
		answer(check)(w, nil)
		return w.Code
	}
	if got := status(c.ready); got != http.StatusOK {
		t.Errorf("one that waits to lead: %d", got)
	}
	s := newCluster(c.clients, slog.New(slog.DiscardHandler))
	c.cluster.Store(s)
	if got := status(c.ready); got != http.StatusServiceUnavailable {
		t.Errorf("a leader that has read nothing: %d", got)
	}
	s.objects.since, s.blocks.since, s.pods.since, s.nodes.since = day(), day(), day(), day()
	if got := status(c.ready); got != http.StatusOK {
		t.Errorf("a leader that has read all: %d", got)
	}
	if got := status(c.healthy); got != http.StatusOK {
		t.Errorf("health: %d", got)
	}
}
