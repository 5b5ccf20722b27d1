package speaker

import (
	"context"
	"log/slog"
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
