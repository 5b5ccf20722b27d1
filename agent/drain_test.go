package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/speaker"
)

// A drain that waits serves no new pod, lets go of each block with its last pod, and
// closes the sessions after that.
func TestDrainWhenEmpty(t *testing.T) {
	h := newHost(t)
	a := h.start(settings(t, pool(t, "web", 4, "10.1.0.0/24"), pool(t, "other", 4, "10.2.0.0/24")))
	web, other := lease(t, a, request("web", 1)), lease(t, a, request("other", 2))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- a.DrainWhenEmpty(ctx) }()
	awaitClosed(t, a)
	if again := lease(t, a, request("web", 1)); again != web {
		t.Errorf("a pod that has %s is told %s", web, again)
	}
	release(t, a, request("web", 1))
	h.await("the empty block alone is withdrawn", func() bool { return !h.peer.Contains(web) && h.peer.Contains(other) && h.kernel.Contains(other) })
	h.update(func() {
		if len(h.closed) > 0 {
			t.Error("the sessions were closed before the last pod was gone")
		}
	})
	release(t, a, request("other", 2))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(h.closed) != 1 || h.closed[0] != speaker.Withdraw || len(h.kernel.Ranges()) != 0 {
		t.Errorf("closed %v, kernel %v", h.closed, h.kernel.Prefixes())
	}
}

// awaitClosed waits until the agent serves no new pod.
func awaitClosed(t *testing.T, a running) {
	t.Helper()
	eventually(t, "no new pod is served", func() bool {
		_, err := a.desk.Lease(t.Context(), request("web", 3))
		if err == nil {
			release(t, a, request("web", 3))
		}
		return errors.Is(err, cni.ErrTryAgain)
	})
}

// A drain that is given up leaves the node as it was.
func TestDrainGivenUp(t *testing.T) {
	_, a, _ := withLease(t, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.DrainWhenEmpty(ctx) }()
	awaitClosed(t, a)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the drain: %v", err)
	}
	lease(t, a, request("web", 4))
}

// Of two drains that wait one is given up: the other's node serves no new pod, and says
// that it is not ready.
func TestOneOfTwoDrainsGivenUp(t *testing.T) {
	h, a, _ := withLease(t, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	waits := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d drains wait", n), func() bool {
			a.desk.mu.Lock()
			defer a.desk.mu.Unlock()
			return a.desk.leaving == n
		})
	}
	var cancels []context.CancelFunc
	done := make(chan error, 1)
	for n := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		cancels = append(cancels, cancel)
		go func() { done <- a.DrainWhenEmpty(ctx) }()
		waits(n + 1)
	}
	cancels[0]()
	if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "another drain waits") {
		t.Errorf("the first drain: %v", err)
	}
	if _, err := a.desk.Lease(t.Context(), request("web", 3)); !errors.Is(err, cni.ErrTryAgain) {
		t.Errorf("a new pod while a drain waits: %v", err)
	}
	if code, body := h.get(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "serves no new pods") {
		t.Errorf("while a drain waits: %d %q", code, body)
	}
	cancels[1]()
	if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "are served again") {
		t.Errorf("the second drain: %v", err)
	}
	lease(t, a, request("web", 4))
	if code, body := h.get(t, "/readyz"); code != http.StatusOK {
		t.Errorf("after both: %d %q", code, body)
	}
}
