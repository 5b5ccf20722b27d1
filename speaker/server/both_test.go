package server

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/interop"
	routers "github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/speaker"
)

// A session is from the local address that is configured, where the kernel would take
// another.
func TestLocalAddress(t *testing.T) {
	t.Parallel()
	table := interop.Open(t)
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			table.Try(t, "local address", i, both()...)
			t.Parallel()
			second := func(a netip.Addr) netip.Addr { return a.Next().Next() } // the router's is between
			f := join(t, i, func(_ *routers.Config, v4, v6 *routers.Neighbor) {
				v4.Address, v6.Address = second(v4.Address), second(v6.Address)
			})
			d := speaker.Desired{Local: local(), Peers: f.peers(routerASN, speaker.Session{}), Announcements: announce(ours4, ours6)}
			for n, one := range f.sides() {
				a := second(one.near)
				f.here.Run(t, "ip", "addr", "add", fmt.Sprintf("%s/%d", a, a.BitLen()), "dev", f.link)
				d.Peers[n].LocalAddress = a
			}
			s := newTestChild(t)
			must(t, s.Set(t.Context(), d))
			f.tor.Has(t, ours4, ours6)
			for _, prefix := range []string{ours4, ours6} {
				want := map[string]netip.Addr{ours4: second(f.node4), ours6: second(f.node6)}[prefix]
				if route, _ := f.tor.Route(t, prefix); route.NextHop != want || route.From != want {
					t.Errorf("%s is %+v, want it of %s", prefix, route, want)
				}
			}
		})
	}
}

// A router that tells more prefixes than it may is told so, and the other session goes on.
func TestMaximum(t *testing.T) {
	t.Parallel()
	reason := map[routers.Implementation]string{routers.FRR: "Maximum Number of Prefixes Reached",
		routers.BIRD: "Maximum number of prefixes reached", routers.OpenBGPD: "received max-prefix exceeded"}
	table := interop.Open(t)
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			table.Try(t, "maximum of prefixes", i, both()...)
			t.Parallel()
			f := join(t, i, func(c *routers.Config, _, _ *routers.Neighbor) {
				c.Originates = prefixes(theirs4, "10.9.1.0/24", theirs6, "2001:db8:99::/64")
			})
			s, d := f.up(t, speaker.Desired{Local: local()})
			for n, one := range f.sides() {
				eventually(t, "all is received", func() bool { return stateOf(t, s, one.peer).Received >= 2 })
				other := stateOf(t, s, one.other)
				d.Peers = slices.Clone(d.Peers)
				d.Peers[n].Accept.Max = 1
				must(t, s.Set(t.Context(), d))
				eventually(t, "the session is shut", func() bool {
					p := stateOf(t, s, one.peer)
					return !p.Established() && strings.Contains(p.LastError, "prefixes")
				})
				f.tor.Has(t, one.stays)
				if said := f.tor.Neighbor(t, one.near).Said; !strings.Contains(said, reason[i]) {
					t.Errorf("%s says %s", i, said)
				}
				undisturbed(t, s, other)
				d.Peers = slices.Clone(d.Peers)
				d.Peers[n].Down = true // or it would come back after a minute
				must(t, s.Set(t.Context(), d))
				d.Peers = slices.Clone(d.Peers)
				d.Peers[n].Down, d.Peers[n].Accept.Max = false, 2
				must(t, s.Set(t.Context(), d))
				f.tor.Has(t, ours4, ours6)
				undisturbed(t, s, other)
			}
		})
	}
}

// A session that is ended with a NOTIFICATION which is no hard reset, here over the hold
// timer, is a restart to a router that knows RFC 8538: it keeps the routes until the session
// is back. To others it is the end.
func TestNotification(t *testing.T) {
	t.Parallel()
	const option = "graceful restart after a notification"
	table := interop.Open(t)
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			keeps := i == routers.FRR || i == routers.GoBGP
			if keeps {
				table.Try(t, option, i, both()...)
			} else {
				table.Lacks(t, option, i, "does not know RFC 8538")
			}
			t.Parallel()
			f := join(t, i, func(c *routers.Config, v4, v6 *routers.Neighbor) {
				if i == routers.FRR {
					c.Extra = " bgp graceful-restart\n bgp graceful-restart notification\n"
				}
				v4.GracefulRestart, v6.GracefulRestart = time.Minute, time.Minute
			})
			s, _ := f.up(t, speaker.Desired{Local: local(), Peers: f.peers(routerASN, speaker.Session{HoldTime: 6 * time.Second})})
			f.mute(t, "add", "table", "netdev", f.link)
			f.mute(t, "add", "chain", "netdev", f.link, "in", fmt.Sprintf("{ type filter hook ingress device %s priority 0; }", f.link))
			f.mute(t, "add", "rule", "netdev", f.link, "in", "meta", "l4proto", "tcp", "drop")
			for _, one := range f.sides() {
				eventually(t, "the hold timer ends the session", func() bool {
					return strings.Contains(stateOf(t, s, one.peer).LastError, "sent NOTIFICATION code 4(hold timer expired)")
				})
			}
			if !keeps {
				f.tor.Has(t)
			} else {
				f.stale(t, true)
			}
			f.mute(t, "delete", "table", "netdev", f.link)
			f.tor.Has(t, ours4, ours6)
			f.stale(t, false)
		})
	}
}

// mute runs nft where the node is.
func (f *fabric) mute(t *testing.T, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skipf("packets can't be dropped: %v", err)
	}
	f.here.Run(t, append([]string{"nft"}, args...)...)
}

// stale waits until the router's routes are stale, or are not, and are there meanwhile.
func (f *fabric) stale(t *testing.T, stale bool) {
	t.Helper()
	routers.Await(t, fmt.Sprintf("the router's routes are stale: %v", stale), soon, func() error {
		for _, prefix := range []string{ours4, ours6} {
			route, has := f.tor.Route(t, prefix)
			if !has {
				t.Fatalf("%s is gone", prefix)
			}
			if route.Stale != stale {
				return fmt.Errorf("it has %+v", route)
			}
		}
		return nil
	})
}
