package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/interop"
	routers "github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// up brings both sessions with a router up and gives the speaker and its state.
func (f *fabric) up(t *testing.T, d speaker.Desired) (*testChild, speaker.Desired) {
	t.Helper()
	if d.Peers == nil {
		d.Peers = f.peers(routerASN, speaker.Session{})
	}
	d.Announcements = announce(ours4, ours6)
	c := newTestChild(t)
	must(t, c.Set(t.Context(), d))
	f.tor.Has(t, ours4, ours6)
	return c, d
}

// side is one of the two sessions of a fabric.
type side struct {
	peer  string
	near  netip.Addr // this node's end
	other string     // the peer of the other session
	stays string     // what the router has by that one
}

// sides are the sessions over IPv4 and IPv6, as they are among the peers and among the
// router's neighbors.
func (f *fabric) sides() [2]side {
	return [2]side{{"tor4", f.node4, "tor6", ours6}, {"tor6", f.node6, "tor4", ours4}}
}

// undisturbed fails when a session is not the one of before.
func undisturbed(t *testing.T, s speaker.Speaker, before speaker.PeerState) {
	t.Helper()
	if now := stateOf(t, s, before.Name); !now.Established() || now.Since != before.Since || now.Flaps != before.Flaps {
		t.Errorf("the session with %s was touched: %+v, was %+v", before.Name, now, before)
	}
}

// A session that is shut says why to people on both sides, and stays shut; the
// other is not touched.
func TestShut(t *testing.T) {
	t.Parallel()
	const words = "Umbau an Gestell 7 ✂"
	table := interop.Open(t)
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			table.Try(t, "shutdown with words", i, both()...)
			t.Parallel()
			f := join(t, i, func(_ *routers.Config, v4, v6 *routers.Neighbor) {
				if i == routers.GoBGP { // the one that offers the N bit of RFC 8538
					v4.GracefulRestart, v6.GracefulRestart = time.Minute, time.Minute
				}
			})
			s, d := f.up(t, speaker.Desired{Local: local()})
			for n, one := range f.sides() {
				other := stateOf(t, s, one.other)
				d.Peers = slices.Clone(d.Peers)
				d.Peers[n].Down, d.Peers[n].DownMessage = true, words
				must(t, s.Set(t.Context(), d))
				eventually(t, "the session is down and says why", func() bool {
					p := stateOf(t, s, one.peer)
					return p.Session == "Idle" && strings.Contains(p.LastError, "shut down on this node") && strings.Contains(p.LastError, words)
				})
				f.tor.Has(t, one.stays)
				if i != routers.GoBGP { // which keeps no last error
					routers.Await(t, "the router shows the message", soon, func() error {
						if said := f.tor.Neighbor(t, one.near).Said; !strings.Contains(said, "Umbau an Gestell 7") {
							return errors.New(said)
						}
						return nil
					})
				}
				d.Peers = slices.Clone(d.Peers)
				d.Peers[n].Down = false
				must(t, s.Set(t.Context(), d))
				f.tor.Has(t, ours4, ours6)
				undisturbed(t, s, other)
			}
		})
	}
}

// A peer that is configured shut is not dialled, holds up no Flush of its family,
// and comes up when that changes.
func TestShutFromTheStart(t *testing.T) {
	t.Parallel()
	r := startRaw(t, "tor", "127.0.3.40")
	s := newTestServer(t)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}, Announcements: announce("10.1.0.0/26")}
	d.Peers[0].Down, d.Peers[0].DownMessage = true, "spare"
	must(t, s.Set(t.Context(), d))
	if p := stateOf(t, s, "tor"); p.Session != "Idle" || !strings.Contains(p.LastError, "spare") {
		t.Errorf("state %+v", p)
	}
	if err := s.Flush(t.Context(), d.Prefixes()); !errors.Is(err, speaker.ErrNoPeer) {
		t.Errorf("Flush: %v", err)
	}
	d.Peers = slices.Clone(d.Peers)
	d.Peers[0].Down = false
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()))
}

// What a router says when it shuts the session can be read in the state.
func TestShutByRouter(t *testing.T) {
	t.Parallel()
	say := map[routers.Implementation]func(t *testing.T, f *fabric, n int, near netip.Addr){
		routers.FRR: func(t *testing.T, f *fabric, _ int, near netip.Addr) {
			f.tor.Do(t, "configure terminal", "-c", fmt.Sprintf("router bgp %d", routerASN), "-c", fmt.Sprintf("neighbor %s shutdown message see ticket 42", near))
		},
		routers.BIRD: func(t *testing.T, f *fabric, n int, _ netip.Addr) {
			f.tor.Do(t, "disable", fmt.Sprintf("n%d", n), `"see ticket 42"`)
		},
		routers.OpenBGPD: func(t *testing.T, f *fabric, _ int, near netip.Addr) {
			f.tor.Do(t, "neighbor", near.String(), "down", "see ticket 42")
		},
		routers.GoBGP: func(t *testing.T, f *fabric, _ int, near netip.Addr) {
			f.tor.Do(t, "neighbor", near.String(), "shutdown", "--reason", "see ticket 42")
		},
	}
	table := interop.Open(t)
	for i, shut := range say {
		t.Run(string(i), func(t *testing.T) {
			table.Try(t, "shutdown by the router", i, both()...)
			t.Parallel()
			f := join(t, i, nil)
			s, _ := f.up(t, speaker.Desired{Local: local()})
			second := stateOf(t, s, "tor6")
			for n, one := range f.sides() {
				shut(t, f, n, one.near)
				eventually(t, "the state gives the router's words", func() bool {
					p := stateOf(t, s, one.peer)
					return p.Flaps == 1 && strings.Contains(p.LastError, "received NOTIFICATION") && strings.Contains(p.LastError, `code 6(cease) subcode 2(administrative shutdown): "see ticket 42"`)
				})
				if n == 0 {
					undisturbed(t, s, second)
				}
			}
		})
	}
}

// A password is changed here and then at the router: the session lasts until the
// router ends it, and comes back with the new one. The other is not touched.
func TestPasswordChange(t *testing.T) {
	t.Parallel()
	change := map[routers.Implementation]func(t *testing.T, f *fabric, n int, near netip.Addr){
		routers.FRR: func(t *testing.T, f *fabric, _ int, near netip.Addr) {
			f.tor.Do(t, "configure terminal", "-c", fmt.Sprintf("router bgp %d", routerASN), "-c", fmt.Sprintf("neighbor %s password new", near))
		},
		routers.BIRD: func(t *testing.T, f *fabric, n int, _ netip.Addr) {
			f.tor.Config.Neighbors[n].Password = "new"
			f.tor.Configure(t)
			f.tor.Do(t, "configure")
		},
		routers.GoBGP: func(t *testing.T, f *fabric, n int, _ netip.Addr) {
			f.tor.Config.Neighbors[n].Password = "new"
			f.tor.Configure(t)
			f.tor.Signal(t, "HUP")
		},
	}
	table := interop.Open(t)
	table.Lacks(t, "password changed", routers.OpenBGPD, "takes no TCP MD5 on Linux")
	for i, rekey := range change {
		for _, dials := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s dials=%v", i, dials), func(t *testing.T) {
				table.Try(t, "password changed", i, both()...)
				t.Parallel()
				f := join(t, i, func(_ *routers.Config, v4, v6 *routers.Neighbor) {
					v4.Password, v6.Password, v4.Dials, v6.Dials = "old", "old", dials, dials
				})
				d := speaker.Desired{Local: local(), Peers: f.peers(routerASN, speaker.Session{Password: "old", Passive: dials})}
				if dials {
					d.Local.Listen = []netip.Addr{f.node4, f.node6}
				}
				s, d := f.up(t, d)
				for n, one := range f.sides() {
					before, other := stateOf(t, s, one.peer), stateOf(t, s, one.other)
					d.Peers = slices.Clone(d.Peers)
					d.Peers[n].Password = "new"
					must(t, s.Set(t.Context(), d))
					undisturbed(t, s, before)
					rekey(t, f, n, one.near)
					eventually(t, "the session is back with the new password", func() bool {
						p := stateOf(t, s, one.peer)
						return p.Established() && p.Since != before.Since
					})
					f.tor.Has(t, ours4, ours6)
					undisturbed(t, s, other)
				}
			})
		}
	}
}

// Of what can be changed, timers and limits cost no session, and the rest that of
// its own peer alone.
func TestChangesOfOnePeer(t *testing.T) {
	t.Parallel()
	f := join(t, routers.BIRD, func(c *routers.Config, _, _ *routers.Neighbor) { c.Originates = prefixes(theirs4, theirs6) })
	s, d := f.up(t, speaker.Desired{Local: local()})
	first, other := stateOf(t, s, "tor4"), stateOf(t, s, "tor6")
	for _, change := range []func(*speaker.Peer){
		func(p *speaker.Peer) { p.HoldTime = 30 * time.Second },
		func(p *speaker.Peer) { p.Keepalive = 5 * time.Second },
		func(p *speaker.Peer) { p.ConnectRetry = time.Second },
		func(p *speaker.Peer) { p.Accept.Max = 5 },
		func(p *speaker.Peer) { p.DownMessage = "not yet" },
		func(p *speaker.Peer) { p.Families = []speaker.Family{speaker.IPv4} }, // the default
	} {
		d.Peers = slices.Clone(d.Peers)
		change(&d.Peers[0])
		must(t, s.Set(t.Context(), d))
	}
	undisturbed(t, s, first)
	for name, change := range map[string]func(*speaker.Peer){
		"multihop":      func(p *speaker.Peer) { p.Multihop = 3 },
		"local address": func(p *speaker.Peer) { p.LocalAddress = f.node4 },
		"ADD-PATH":      func(p *speaker.Peer) { p.ReceivePaths = true },
	} {
		before := stateOf(t, s, "tor4")
		d.Peers = slices.Clone(d.Peers)
		change(&d.Peers[0])
		must(t, s.Set(t.Context(), d))
		eventually(t, "a new session after a change of "+name, func() bool {
			p := stateOf(t, s, "tor4")
			return p.Established() && p.Since != before.Since
		})
	}
	if got := f.tor.Neighbor(t, f.node4).HoldTime; got != 30*time.Second {
		t.Errorf("the router holds for %v: want the new time", got)
	}
	undisturbed(t, s, other)
	d.Peers = slices.Clone(d.Peers)
	d.Peers[1].Accept.Max = 5
	must(t, s.Set(t.Context(), d))
	undisturbed(t, s, other)
}

// The router of a session that is known to be out of reach is told so, keeps
// nothing, and comes back.
func TestFail(t *testing.T) {
	t.Parallel()
	table := interop.Open(t)
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			table.Try(t, "end of a session by BFD", i, both()...)
			t.Parallel()
			f := join(t, i, func(c *routers.Config, v4, v6 *routers.Neighbor) {
				c.Originates = prefixes(theirs4, theirs6)
				v4.GracefulRestart, v6.GracefulRestart = time.Minute, time.Minute
			})
			s, _ := f.up(t, speaker.Desired{Local: local()})
			for _, one := range f.sides() {
				before, other := stateOf(t, s, one.peer), stateOf(t, s, one.other)
				begun := time.Now()
				must(t, s.Fail(within(t, soon), one.peer))
				eventually(t, "the session is ended, and nothing of the router's kept", func() bool {
					p := stateOf(t, s, one.peer)
					return p.Since != before.Since && !p.Established() && p.Received == 0 && p.Flaps == 1
				})
				took := time.Since(begun)
				if p := stateOf(t, s, one.peer); !strings.HasPrefix(p.LastError, bfdDown) || took > 3*time.Second {
					t.Errorf("after %v: %+v", took, p)
				}
				eventually(t, "the session comes back", func() bool { return stateOf(t, s, one.peer).Established() })
				f.tor.Has(t, ours4, ours6)
				undisturbed(t, s, other)
			}
			if err := s.Fail(t.Context(), "nobody"); !errors.Is(err, speaker.ErrUnknownPeer) || !strings.Contains(err.Error(), "nobody") {
				t.Errorf("Fail of an unknown peer: %v", err)
			}
		})
	}
}

// What a router is told by Fail and by a shutdown: the right subcode, as a hard
// reset where it would keep the routes otherwise.
func TestCeaseOnTheWire(t *testing.T) {
	end := map[string]struct {
		do   func(t *testing.T, s *Server, d speaker.Desired)
		want []byte // subcode and data
	}{
		"fail": {func(t *testing.T, s *Server, _ speaker.Desired) { must(t, s.Fail(t.Context(), "tor")) }, []byte{ceaseBFDDown}},
		"shut": {func(t *testing.T, s *Server, d speaker.Desired) {
			d.Peers = slices.Clone(d.Peers)
			d.Peers[0].Down, d.Peers[0].DownMessage = true, "bye"
			must(t, s.Set(t.Context(), d))
		}, []byte("\x02\x03bye")},
	}
	for name, c := range end {
		for _, notifications := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s notifications=%v", name, notifications), func(t *testing.T) {
				r := newRaw(t, "tor", "127.0.3.41") // one after the other
				r.closes = true
				r.helps, r.notifications = true, notifications
				close(r.gate)
				r.listen(t)
				s := newTestServer(t)
				d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}, Announcements: announce("10.1.0.0/26")}
				must(t, s.Set(t.Context(), d))
				must(t, s.Flush(within(t, soon), d.Prefixes()))
				must(t, writeMessage(<-r.sessions, announcement(0, 5)))
				eventually(t, "its prefixes arrive", func() bool { return stateOf(t, s, "tor").Received == 5 })
				c.do(t, s, d)
				want := c.want
				if notifications {
					want = append([]byte{ceaseHardReset, bgp.BGP_ERROR_CEASE}, want...)
				}
				select {
				case n := <-r.notes:
					if got := append([]byte{n.ErrorSubcode}, n.Data...); n.ErrorCode != bgp.BGP_ERROR_CEASE || !slices.Equal(got, want) {
						t.Errorf("told %d, %q: want a Cease with %q", n.ErrorCode, got, want)
					}
				case <-time.After(soon):
					t.Error("told nothing")
				}
				eventually(t, "what the router announced is dropped", func() bool { return stateOf(t, s, "tor").Received == 0 })
			})
		}
	}
}

// The state of a session is told in full.
func TestStateInFull(t *testing.T) {
	t.Parallel()
	f := join(t, routers.FRR, func(c *routers.Config, v4, _ *routers.Neighbor) {
		c.RouterID, c.Originates = netip.MustParseAddr("192.0.2.66"), prefixes(theirs4, theirs6)
		v4.HoldTime = 21 * time.Second
	})
	s, _ := f.up(t, speaker.Desired{Local: local()})
	eventually(t, "all is received", func() bool { return stateOf(t, s, "tor4").Received == 2 }) // with this node's own, sent back
	p := stateOf(t, s, "tor4")
	if p.RouterID != netip.MustParseAddr("192.0.2.66") || p.HoldTime != 21*time.Second || p.Range != "" || p.Flaps != 0 {
		t.Errorf("state %+v", p)
	}
	if len(p.Families) != 1 || p.Families[0].Family != speaker.IPv4 || p.Families[0].Received != 2 || p.Families[0].Advertised != 1 {
		t.Errorf("families %+v", p.Families)
	}
	for _, want := range []string{"route refresh", "four-octet ASNs", "graceful restart within 120 s", "extended messages", "host name tor"} {
		if !slices.Contains(p.Capabilities, want) {
			t.Errorf("capabilities %q: want %q among them", p.Capabilities, want)
		}
	}
}
