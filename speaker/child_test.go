package speaker

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// awaitDeath returns when a process has died, or with ctx.
func (c *Child) awaitDeath(ctx context.Context) {
	for {
		c.mu.Lock()
		reason, changed := c.reason, c.changed
		c.mu.Unlock()
		if reason != "" {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func TestChildThatIsNone(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	c := NewChild(Spawn{Path: "/bin/sh", Args: []string{"-c", "echo no such command >&2; exit 3"}, Log: log})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() { c.awaitDeath(ctx); cancel() }()
	d := Desired{Peers: []Peer{{Name: "tor"}}}
	err := c.Set(ctx, d)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such command") {
		t.Errorf("Set of a program that is no speaker: %v", err)
	}
	st, err := c.State(t.Context())
	if err != nil || !strings.Contains(st.Silent, "exit status 3") || len(st.Peers) != 1 || st.Peers[0].LastError != st.Silent {
		t.Errorf("the state is %+v, %v", st, err)
	}
	if err := c.Close(context.Background(), Forward); err != nil {
		t.Error(err)
	}
}

// Routers of a range may hold routes like peers: a Withdraw that no process could carry
// out says so.
func TestWithdrawWithoutProcess(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	c := NewChild(Spawn{Path: "/bin/false", Log: log})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() { c.awaitDeath(ctx); cancel() }()
	d := Desired{Ranges: []Range{{Name: "rack", Network: netip.MustParsePrefix("192.0.2.0/24")}}}
	d.Local.Restarting = true
	if err := c.Set(ctx, d); err == nil {
		t.Error("Set of a program that is no speaker succeeds")
	}
	if err := c.Close(ctx, Withdraw); err == nil || !strings.Contains(err.Error(), "peer rack (192.0.2.0/24): not told") {
		t.Errorf("Close: %v", err)
	}
}
