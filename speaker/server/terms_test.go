package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/interop"
	routers "github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
)

func number(n uint32) *uint32 { return &n }

// shown is a route as a test reads it: what terms say of it to eBGP peers.
func shown(r routers.Route) string {
	med := "-"
	if r.MED != nil && *r.MED != 0 { // OpenBGPD shows 0 for none
		med = fmt.Sprint(*r.MED)
	}
	return fmt.Sprintf("%v %v %v %s %s", r.ASPath, r.Communities, r.LargeCommunities, med, r.NextHop)
}

// tells waits until the router has exactly these routes, with what is shown of
// them.
func (f *fabric) tells(t *testing.T, want map[string]string) {
	t.Helper()
	routers.Await(t, fmt.Sprintf("%s has %v", f.tor.Implementation, want), soon, func() error {
		got := make(map[string]string)
		for _, r := range f.tor.Routes(t) {
			if r.From.IsValid() {
				got[r.Prefix.String()] = shown(r)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("it has %v", got)
		}
		return nil
	})
}

// All attributes arrive at every implementation, over IPv4 and IPv6, change
// without a new session, and go.
func TestTermsAttributes(t *testing.T) {
	t.Parallel()
	table := interop.Open(t)
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			for _, attribute := range []string{"communities", "large communities", "graceful shutdown community", "MED", "AS path prepending", "next hop that is given", "told to other peers alone"} {
				table.Try(t, attribute, i, both()...)
			}
			t.Parallel()
			f := join(t, i, nil)
			hop4, hop6 := f.node4.Next().Next(), f.node6.Next().Next() // in the subnet, and nobody's
			full := speaker.Attributes{
				Communities: []speaker.Community{64512<<16 | 7, speaker.GracefulShutdown}, LargeCommunities: []speaker.LargeCommunity{{Global: 64512, Local1: 1, Local2: 2}, {Global: 64512, Local1: 1, Local2: 1}},
				LocalPreference: number(7), MED: number(9), Prepend: 2, NextHops: []netip.Addr{hop4, hop6},
			}
			d := speaker.Desired{Local: local(), Peers: f.peers(routerASN, speaker.Session{}), Terms: map[string]speaker.Terms{
				"full": {"tor4": full, "tor6": full},
				"none": {"tor4": {}, "tor6": {}}, "others": {"another": {}},
			}}
			c := newTestChild(t)
			d.Announcements = []speaker.Announcement{{Prefix: prefixes(ours4)[0], Terms: "full"}, {Prefix: prefixes(ours6)[0], Terms: "full"}}
			must(t, c.Set(t.Context(), d))
			must(t, c.Flush(within(t, soon), d.Prefixes()))
			first, second := stateOf(t, c, "tor4"), stateOf(t, c, "tor6")
			words := "[64512 64512 64512] [64512:7 65535:0] [64512:1:1 64512:1:2] 9 "
			f.tells(t, map[string]string{ours4: words + hop4.String(), ours6: words + hop6.String()})
			d.Announcements = []speaker.Announcement{{Prefix: prefixes(ours4)[0], Terms: "none"}, {Prefix: prefixes(ours6)[0], Terms: "full"}}
			must(t, c.Set(t.Context(), d))
			must(t, c.Flush(within(t, soon), d.Prefixes()))
			plain := "[64512] [] [] - "
			f.tells(t, map[string]string{ours4: plain + f.node4.String(), ours6: words + hop6.String()})
			for _, name := range []string{"others", "none"} {
				d.Announcements = withTerms(name, ours4, ours6)
				must(t, c.Set(t.Context(), d))
				want := map[string]string{}
				if name == "none" {
					want = map[string]string{ours4: plain + f.node4.String(), ours6: plain + f.node6.String()}
				}
				f.tells(t, want)
			}
			d.Announcements = nil
			must(t, c.Set(t.Context(), d))
			must(t, c.Flush(within(t, soon), prefixes(ours4, ours6)))
			f.tor.Has(t)
			undisturbed(t, c, first)
			undisturbed(t, c, second)
		})
	}
}

// To iBGP peers goes local preference, 0 included, and no prepending, which they
// would take for a loop.
func TestTermsInternal(t *testing.T) {
	t.Parallel()
	table := interop.Open(t)
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			table.Try(t, "local preference", i, both()...)
			t.Parallel()
			f := join(t, i, func(c *routers.Config, _, _ *routers.Neighbor) { c.ASN = nodeASN })
			d := speaker.Desired{Local: local(), Peers: f.peers(nodeASN, speaker.Session{})}
			d.Announcements = []speaker.Announcement{{Prefix: prefixes(ours4)[0], Terms: "t"}, {Prefix: prefixes(ours6)[0], Terms: "t"}}
			c := newTestChild(t)
			for _, preference := range []*uint32{nil, number(0), number(300), number(0)} {
				a := speaker.Attributes{Prepend: 3, LocalPreference: preference}
				d.Terms = map[string]speaker.Terms{"t": {"tor4": a, "tor6": a}}
				must(t, c.Set(t.Context(), d))
				must(t, c.Flush(within(t, soon), d.Prefixes()))
				want := uint32(100)
				if preference != nil {
					want = *preference
				}
				f.prefers(t, want, ours4, ours6)
			}
		})
	}
}

// prefers waits until the router has prefixes with a local preference, and nothing else
// that terms say.
func (f *fabric) prefers(t *testing.T, want uint32, list ...string) {
	t.Helper()
	for _, prefix := range list {
		routers.Await(t, fmt.Sprintf("%s with local preference %d", prefix, want), soon, func() error {
			r, ok := f.tor.Route(t, prefix)
			if !ok || len(r.ASPath) != 0 || r.LocalPref == nil || *r.LocalPref != want || len(r.LargeCommunities) != 0 {
				return fmt.Errorf("it has %v: %+v", ok, r)
			}
			return nil
		})
	}
}

// scene is a speaker with two GoBGP routers.
type scene struct {
	a, b *router
	s    *Server
	d    speaker.Desired
}

func newScene(t *testing.T, address string) *scene {
	t.Helper()
	c := &scene{a: startRouter(t, address+"1", routerASN), b: startRouter(t, address+"2", routerASN), s: newTestServer(t)}
	c.a.accept(t, "127.0.0.1", "")
	c.b.accept(t, "127.0.0.1", "")
	c.d = speaker.Desired{Local: local(), Peers: []speaker.Peer{c.a.peer("a"), c.b.peer("b")}, Terms: make(map[string]speaker.Terms)}
	return c
}

// set makes the announcements "prefix terms".
func (c *scene) set(t *testing.T, announcements ...string) {
	t.Helper()
	c.d.Announcements = nil
	for _, a := range announcements {
		p, terms, _ := strings.Cut(a, " ")
		c.d.Announcements = append(c.d.Announcements, speaker.Announcement{Prefix: prefixes(p)[0], Terms: terms})
	}
	must(t, c.s.Set(t.Context(), c.d))
}

// Prefixes go to the peers that their terms name. Terms that become narrower
// withdraw, those that become wider announce, and no session is touched.
func TestTermsPeers(t *testing.T) {
	t.Parallel()
	c := newScene(t, "127.0.2.")
	c.d.Terms = map[string]speaker.Terms{"x": {"a": {}}, "y": {"b": {}}, "z": {"a": {}, "b": {}}, "nobody": {}}
	c.set(t, "10.0.0.0/24", "10.1.0.0/24 x", "10.2.0.0/24 y", "10.3.0.0/24 z", "10.4.0.0/24 nobody")
	comesUp(t, c.s, "a")
	comesUp(t, c.s, "b")
	before, other := stateOf(t, c.s, "a"), stateOf(t, c.s, "b")
	c.a.has(t, "10.0.0.0/24", "10.1.0.0/24", "10.3.0.0/24")
	c.b.has(t, "10.0.0.0/24", "10.2.0.0/24", "10.3.0.0/24")
	c.d.Terms = map[string]speaker.Terms{"x": {"b": {}}, "y": {"b": {}}, "z": {"a": {}}, "nobody": {"a": {}}} // and now otherwise
	c.set(t, "10.0.0.0/24 y", "10.1.0.0/24 x", "10.2.0.0/24", "10.3.0.0/24 z", "10.4.0.0/24 nobody")
	must(t, c.s.Flush(within(t, soon), c.d.Prefixes()))
	c.a.has(t, "10.2.0.0/24", "10.3.0.0/24", "10.4.0.0/24")
	c.b.has(t, "10.0.0.0/24", "10.1.0.0/24", "10.2.0.0/24")
	undisturbed(t, c.s, before)
	undisturbed(t, c.s, other)
	if n := len(c.s.run.Load().classes); n != 2 { // of y and x, and of z and nobody
		t.Errorf("%d classes are kept: want those in use", n)
	}
}

// A prefix that takes another's place for a peer is there before the other goes,
// also where the other stays for somebody else.
func TestTermsOrder(t *testing.T) {
	t.Parallel()
	c := newScene(t, "127.0.2.4")
	c.d.Terms = map[string]speaker.Terms{"a": {"a": {}}, "b": {"b": {}}}
	c.set(t, "10.0.0.0/25", "10.0.0.128/25")
	c.a.has(t, "10.0.0.0/25", "10.0.0.128/25")
	c.b.has(t, "10.0.0.0/25", "10.0.0.128/25")
	heard := len(c.a.log())
	c.set(t, "10.0.0.0/25 b", "10.0.0.128/25 b", "10.0.0.0/24 a")
	c.a.has(t, "10.0.0.0/24")
	if got := c.a.log()[heard:]; len(got) != 3 || got[0] != "+10.0.0.0/24" {
		t.Errorf("the router heard %v", got)
	}
	c.b.has(t, "10.0.0.0/25", "10.0.0.128/25")
}

// A peer that gets another name, or comes later, is told what its name says.
func TestTermsFollowNames(t *testing.T) {
	t.Parallel()
	c := newScene(t, "127.0.2.1")
	c.d.Terms = map[string]speaker.Terms{"x": {"a": {}}, "y": {"b": {}, "late": {}}}
	c.d.Peers = []speaker.Peer{c.a.peer("a")}
	c.set(t, "10.1.0.0/24 x", "10.2.0.0/24 y")
	c.a.has(t, "10.1.0.0/24")
	before := stateOf(t, c.s, "a")
	c.d.Peers = []speaker.Peer{c.a.peer("b"), c.b.peer("late")}
	heard := len(c.a.log())
	must(t, c.s.Set(t.Context(), c.d))
	c.a.has(t, "10.2.0.0/24")
	c.b.has(t, "10.2.0.0/24")
	before.Name = "b"
	undisturbed(t, c.s, before)
	if got := c.a.log()[heard:]; len(got) != 2 {
		t.Errorf("the router heard %v", got)
	}
	heard = len(c.a.log())
	c.d.Peers = []speaker.Peer{c.a.peer("b")}
	must(t, c.s.Set(t.Context(), c.d))
	c.d.Peers = []speaker.Peer{c.a.peer("b"), c.b.peer("late")}
	c.d.Terms = map[string]speaker.Terms{"x": {"a": {}}, "y": {"b": {}, "late": {Prepend: 1}}}
	must(t, c.s.Set(t.Context(), c.d))
	comesUp(t, c.s, "late")
	must(t, c.s.Flush(within(t, soon), c.d.Prefixes()[1:]))
	if got := c.a.log()[heard:]; len(got) != 0 {
		t.Errorf("a peer that comes and goes: the other router heard %v", got)
	}
}

// A Flush waits for who is to be told, and for nobody else.
func TestTermsFlush(t *testing.T) {
	t.Parallel()
	r := startRouter(t, "127.0.2.31", routerASN)
	r.accept(t, "127.0.0.1", "")
	s := newTestServer(t)
	away := nobody("127.0.2.32")
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer("tor"), away}, Terms: map[string]speaker.Terms{"away": {"nobody": {}}, "tor": {"tor": {}}, "none": {"unknown": {}}}}
	d.Announcements = []speaker.Announcement{{Prefix: prefixes("10.1.0.0/24")[0], Terms: "tor"}, {Prefix: prefixes("10.2.0.0/24")[0], Terms: "away"}, {Prefix: prefixes("10.3.0.0/24")[0], Terms: "none"}}
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()[:1]))
	r.has(t, "10.1.0.0/24")
	err := s.Flush(within(t, 50*time.Millisecond), d.Prefixes()[1:2])
	if !errors.Is(err, speaker.ErrNoPeer) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "10.2.0.0/24") {
		t.Errorf("Flush of what only a peer that is away is told: %v", err)
	}
	if err := s.Flush(t.Context(), d.Prefixes()[2:]); !errors.Is(err, speaker.ErrNoPeer) || !strings.Contains(err.Error(), "10.3.0.0/24") {
		t.Errorf("Flush of what nobody is told: %v", err)
	}
}

// Terms name ranges, and a peer inside of one is told its own.
func TestTermsRange(t *testing.T) {
	t.Parallel()
	f := join(t, routers.BIRD, func(_ *routers.Config, v4, v6 *routers.Neighbor) { v4.Dials, v6.Dials = true, true })
	network, err := f.tor4.Prefix(24)
	must(t, err)
	network6, err := f.tor6.Prefix(64)
	must(t, err)
	d := speaker.Desired{Local: local(), Ranges: []speaker.Range{{Name: "rack", Network: network, ASN: routerASN}, {Name: "rack6", Network: network6, ASN: routerASN}}}
	d.Local.Listen = []netip.Addr{f.node4, f.node6}
	d.Terms = map[string]speaker.Terms{"x": {"rack": {MED: number(5)}}, "y": {"rack6": {MED: number(6)}, "tor6": {MED: number(7)}}, "z": {"rack6": {}}}
	d.Announcements = []speaker.Announcement{{Prefix: prefixes(ours4)[0], Terms: "x"}, {Prefix: prefixes(ours6)[0], Terms: "y"}, {Prefix: prefixes("2001:db8:2::/64")[0], Terms: "z"}}
	c := newTestChild(t)
	must(t, c.Set(t.Context(), d))
	must(t, c.Flush(within(t, soon), d.Prefixes()))
	plain := "[64512] [] [] "
	f.tells(t, map[string]string{
		ours4: plain + "5 " + f.node4.String(), ours6: plain + "6 " + f.node6.String(), "2001:db8:2::/64": plain + "- " + f.node6.String()})
}

// Whatever terms say, no route of a router reaches another: not with terms for the
// same prefix, nor when it has the communities that classes are told apart by.
func TestTermsLeakNothing(t *testing.T) {
	t.Parallel()
	c := newScene(t, "127.0.2.6")
	c.d.Terms = map[string]speaker.Terms{"x": {"a": {}, "b": {NextHops: []netip.Addr{netip.MustParseAddr("192.0.2.77")}}}}
	c.set(t, "10.1.0.0/24 x", "10.2.0.0/24")
	c.a.has(t, "10.1.0.0/24", "10.2.0.0/24")
	c.b.has(t, "10.1.0.0/24", "10.2.0.0/24")
	number := c.s.run.Load().classes[0].number
	for i, tag := range []*class{{number: number}, {number: number + 1}, {}} {
		for _, p := range []string{fmt.Sprintf("10.9.%d.0/24", i), "10.1.0.0/24", "10.2.0.0/24", "10.1.0.0/25", "0.0.0.0/0"} {
			tag.told = map[netip.Prefix]variant{}
			path, err := pathOf(prefixes(p)[0], tag)
			must(t, err)
			_, err = c.a.bgp.AddPath(t.Context(), &api.AddPathRequest{Path: path})
			must(t, err)
		}
	}
	eventually(t, "the routes have come", func() bool { return stateOf(t, c.s, "a").Received >= 7 })
	c.set(t, "10.1.0.0/24", "10.3.0.0/24 x") // 10.2.0.0/24 is the router's alone now
	must(t, c.s.Flush(within(t, soon), prefixes("10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24")))
	c.b.has(t, "10.1.0.0/24", "10.3.0.0/24")
	for _, line := range c.b.log() {
		if p := line[1:]; p != "10.1.0.0/24" && p != "10.2.0.0/24" && p != "10.3.0.0/24" {
			t.Errorf("the other router heard %s", line)
		}
	}
}

// A router that sends several paths of a prefix and would take several is told in other
// words, and withdrawn what its terms name no more, like others: no path identifier is
// sent, which it would take for a part of the prefix.
func TestTermsAddPath(t *testing.T) {
	t.Parallel()
	for _, i := range routers.All() {
		t.Run(string(i), func(t *testing.T) {
			t.Parallel()
			f := join(t, i, func(_ *routers.Config, v4, v6 *routers.Neighbor) {
				for _, n := range []*routers.Neighbor{v4, v6} {
					n.SendPaths, n.ReceivePaths = true, true
				}
			})
			d := speaker.Desired{Local: local(), Peers: f.peers(routerASN, speaker.Session{ReceivePaths: true}), Announcements: announce(ours4, ours6),
				Terms: map[string]speaker.Terms{"none": {}, "med": {"tor4": {MED: number(5)}, "tor6": {MED: number(6)}}}}
			s := newTestChild(t)
			must(t, s.Set(t.Context(), d))
			f.tor.Has(t, ours4, ours6)
			first, second := stateOf(t, s, "tor4"), stateOf(t, s, "tor6")
			d.Announcements = withTerms("med", ours4, ours6)
			must(t, s.Set(t.Context(), d))
			f.tells(t, map[string]string{ours4: "[64512] [] [] 5 " + f.node4.String(), ours6: "[64512] [] [] 6 " + f.node6.String()})
			d.Announcements = append(withTerms("none", ours4), withTerms("med", ours6)...)
			must(t, s.Set(t.Context(), d))
			f.tor.Has(t, ours6)
			d.Announcements = nil
			must(t, s.Set(t.Context(), d))
			f.tor.Has(t)
			undisturbed(t, s, first)
			undisturbed(t, s, second)
		})
	}
}

// withTerms announces prefixes with terms of a name.
func withTerms(name string, list ...string) (all []speaker.Announcement) {
	for _, p := range prefixes(list...) {
		all = append(all, speaker.Announcement{Prefix: p, Terms: name})
	}
	return all
}

// What terms can't be is refused, and says why.
func TestTermsRefused(t *testing.T) {
	t.Parallel()
	s := New(testLog(t))
	for _, c := range []struct {
		d    speaker.Desired
		want string
	}{
		{speaker.Desired{Announcements: []speaker.Announcement{{Prefix: prefixes(ours4)[0], Terms: "x"}}}, `its terms "x"`},
		{speaker.Desired{Announcements: []speaker.Announcement{{Prefix: prefixes(ours4)[0], Terms: "x"}, {Prefix: prefixes(ours4)[0], Terms: ""}}, Terms: map[string]speaker.Terms{"x": {}}}, "want it once"},
		{speaker.Desired{Terms: map[string]speaker.Terms{"x": {"a": {NextHops: []netip.Addr{netip.IPv4Unspecified()}}}}}, "next hop 0.0.0.0"},
		{speaker.Desired{Terms: map[string]speaker.Terms{"x": {"a": {NextHops: make([]netip.Addr, 1)}}}}, "next hop invalid IP"},
		{speaker.Desired{Terms: map[string]speaker.Terms{"x": {"a": {NextHops: []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")}}}}}, "one of each family"},
		{speaker.Desired{Terms: map[string]speaker.Terms{"x": {"a": {LargeCommunities: []speaker.LargeCommunity{{Global: tagASN, Local1: 1}}}}}}, "4294967295:1:0"},
		{speaker.Desired{Terms: map[string]speaker.Terms{"x": {"a": {Communities: make([]speaker.Community, 1000)}}}}, "octets"},
	} {
		c.d.Local = local()
		if err := s.Set(t.Context(), c.d); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: want it to speak of %s", err, c.want)
		}
	}
}
