package server

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/interop"
	routers "github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/speaker"
)

// llgrStale is the community of RFC 9494, section 4.6.
const llgrStale = "65535:6"

// A node that is away for longer than the restart time: routers that know
// long-lived graceful restart use its routes as a last resort, and have them fresh
// when it is back.
func TestLongLivedRestart(t *testing.T) {
	t.Parallel()
	table := interop.Open(t)
	table.Lacks(t, "long-lived graceful restart", routers.OpenBGPD, "does not know RFC 9494")
	none := func(*routers.Config, *routers.Neighbor, *routers.Neighbor) {}
	for i, change := range map[routers.Implementation]func(c *routers.Config, v4, v6 *routers.Neighbor){
		routers.FRR: func(c *routers.Config, _, _ *routers.Neighbor) {
			c.Extra = " bgp long-lived-graceful-restart stale-time 60\n"
		},
		routers.BIRD: none, // it helps unless it is told not to
		routers.GoBGP: func(_ *routers.Config, v4, v6 *routers.Neighbor) {
			v4.GracefulRestart, v6.GracefulRestart, v4.LongLived, v6.LongLived = time.Minute, time.Minute, time.Minute, time.Minute
		},
	} {
		t.Run(string(i), func(t *testing.T) {
			table.Try(t, "long-lived graceful restart", i, both()...)
			t.Parallel()
			f := join(t, i, change)
			d := speaker.Desired{Local: local(), Peers: f.peers(routerASN, speaker.Session{}), Announcements: announce(ours4, ours6)}
			d.Local.Time, d.Local.LongLived, d.Local.Deferral = time.Second, time.Minute, time.Second
			killedAgent(t, d, func() { f.tor.Has(t, ours4, ours6) })
			kept := func(long bool) {
				t.Helper()
				routers.Await(t, fmt.Sprintf("the router's routes are long-lived stale ones: %v", long), soon, func() error {
					for _, p := range []string{ours4, ours6} {
						r, ok := f.tor.Route(t, p)
						if !ok {
							t.Fatalf("%s is gone", p)
						}
						if slices.Contains(r.Communities, llgrStale) != long || !long && r.Stale {
							return fmt.Errorf("route %+v", r)
						}
					}
					return nil
				})
			}
			kept(true)
			d.Local.Restarting = true
			c := newTestChild(t)
			must(t, c.Set(t.Context(), d))
			kept(false)
		})
	}
}

// A router that knows graceful restart and no long-lived one forgets what it was told
// after the restart time: what it can't be told any more holds up nothing for longer.
func TestLongLivedRestartIsNotEverybodys(t *testing.T) {
	t.Parallel()
	stays := startRaw(t, "stays", "127.0.3.50")
	lost := newRaw(t, "lost", "127.0.3.51")
	lost.helps, lost.hold, lost.peer.HoldTime = true, 3, 3*time.Second
	close(lost.gate)
	listener := lost.listen(t)
	c := newTestChild(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{stays.peer, lost.peer}, Announcements: announce("10.1.0.0/26", "10.2.0.0/26")}
	d.Local.Time, d.Local.LongLived = time.Second, time.Hour
	must(t, c.Set(t.Context(), d))
	comesUp(t, c, "stays")
	comesUp(t, c, "lost")
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	must(t, listener.Close())
	must(t, (<-lost.sessions).Close())
	eventually(t, "the session is lost", func() bool { return !stateOf(t, c, "lost").Established() })
	d.Announcements = announce("10.1.0.0/26")
	must(t, c.Set(t.Context(), d))
	must(t, c.Flush(within(t, soon), prefixes("10.2.0.0/26")))
}
