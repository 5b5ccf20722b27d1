package fabric

import (
	"slices"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/integration/lab/labtest"
)

// dialling is a router that opens the sessions itself, at once after it has lost them.
func (r router) dialling() router {
	files := make(map[string]string, len(r.files))
	for name, text := range r.files {
		text = strings.ReplaceAll(text, "2 passive\n", "2 timers connect 1\n")                               // FRR
		files[name] = strings.ReplaceAll(text, "passive on;", "connect retry time 1; connect delay time 1;") // BIRD
	}
	r.files = files
	return r
}

// The speaker's process, the agent and the connections end: a router that has come by a
// range, which this node does not dial, loses nothing either.
func TestNothingIsLostInRange(t *testing.T) {
	ranges := strings.NewReplacer("address: 10.0.1.1,", "range: 10.0.1.0/24,", `address: "fd00:0:1::1"`, `range: "fd00:0:1::/64"`).Replace(agentConfig)
	for _, r := range []router{frr(), bird()} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			f := newFabric(t, r.dialling())
			f.reload(ranges, "the router is in by the range", func(peers string) bool {
				return strings.Contains(peers, "tor4/10.0.1.1") && strings.Contains(peers, "tor6/fd00:0:1::1")
			})
			f.fresh()
			w := labtest.WatchRoutes(t, f.tor)
			tried := []string{"the agent is killed", "the speaker is killed twice", "the connections are cut"}
			for _, d := range disturbances() {
				if slices.Contains(tried, d.name) {
					f.disturb(t, w, d)
				}
			}
		})
	}
}
