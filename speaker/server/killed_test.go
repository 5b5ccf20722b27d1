package server

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/interop"
	routers "github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/speaker"
)

// The speaker's process is killed: its peers, which help with graceful restart, have the
// routes whenever they are asked, and fresh ones of the next process in the end.
func TestRoutesOutliveProcess(t *testing.T) {
	t.Parallel()
	table := interop.Open(t)
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			table.Try(t, "graceful restart", i, both()...)
			t.Parallel()
			f := join(t, i, func(_ *routers.Config, v4, v6 *routers.Neighbor) {
				v4.GracefulRestart, v6.GracefulRestart = time.Minute, time.Minute
			})
			s, d := f.up(t, speaker.Desired{Local: local()})
			pid := s.signal(t, syscall.SIGKILL)
			routers.Await(t, "fresh routes of the next process", soon, func() error {
				if stale := f.keeps(t); stale != "" {
					return fmt.Errorf("%s is stale", stale)
				}
				for name, near := range map[string]netip.Addr{"tor4": f.node4, "tor6": f.node6} {
					if s.pid() == pid || !stateOf(t, s, name).Established() || !f.tor.Neighbor(t, near).Established() {
						return fmt.Errorf("no session of the next process with %s", name)
					}
				}
				return nil
			})
			must(t, s.Flush(within(t, soon), d.Prefixes()))
			f.tor.Has(t, ours4, ours6)
		})
	}
}

// keeps fails the test unless the router has the routes that the process announced which
// was killed, and returns one that it has marked as stale, if there is one.
func (f *fabric) keeps(t *testing.T) (stale string) {
	t.Helper()
	for _, prefix := range []string{ours4, ours6} {
		r, has := f.tor.Route(t, prefix)
		if !has {
			t.Fatalf("%s went with the process", prefix)
		}
		if r.Stale {
			stale = prefix
		}
	}
	return stale
}
