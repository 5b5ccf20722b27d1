package main

import (
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent"
)

// The tables say why nothing is known of sessions, and nothing of it while they are.
func TestStatusOfSilentSpeaker(t *testing.T) {
	for silent, want := range map[string]bool{"": false, "speaker restarting: it exited\nwith status 3": true} {
		var b strings.Builder
		if err := show(&b, agent.Status{Node: "n1", Silent: silent}, time.Now()); err != nil {
			t.Fatal(err)
		}
		got := strings.Contains(b.String(), "SPEAKER   can't be asked for its sessions and routes: speaker restarting: it exited; with status 3\n")
		if got != want || strings.Contains(b.String(), "SPEAKER") != want {
			t.Errorf("silent %q:\n%s", silent, &b)
		}
	}
}
