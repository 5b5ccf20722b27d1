package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/routes"
	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// memorySink is a kernel in memory.
type memorySink struct {
	mu      sync.Mutex
	table   map[netip.Prefix][]netip.Addr
	events  []string // "+prefix hops", "=prefix hops", "-prefix"
	refuses map[netip.Prefix]bool
	changed func()
	broken  error // why it can't be opened or read
}

func newMemorySink(old ...string) *memorySink {
	m := &memorySink{table: make(map[netip.Prefix][]netip.Addr), refuses: make(map[netip.Prefix]bool)}
	for _, text := range old {
		p, hops := routeWords(text)
		m.table[p] = hops
	}
	return m
}

func routeWords(text string) (netip.Prefix, []netip.Addr) {
	words := strings.Fields(text)
	var hops []netip.Addr
	for _, w := range words[1:] {
		hops = append(hops, netip.MustParseAddr(w))
	}
	return netip.MustParsePrefix(words[0]), hops
}

func (m *memorySink) open() (Sink, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m, m.broken
}

// breaks makes it fail, or work again with nil.
func (m *memorySink) breaks(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = err
}

func (m *memorySink) Held(context.Context) (list []routes.Route, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return nil, m.broken
	}
	for p, hops := range m.table {
		list = append(list, routes.Route{Prefix: p, Via: hops})
	}
	return list, nil
}

func (m *memorySink) Apply(_ context.Context, c routes.Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var e routes.SyncError
	put := func(sign string, want bool, list []routes.Route) {
		for _, r := range list {
			_, has := m.table[r.Prefix]
			if has != want || m.refuses[r.Prefix] {
				e.Missing, e.Err = append(e.Missing, r.Prefix), fmt.Errorf("%s%s: refused, there: %v", sign, r, has)
				continue
			}
			m.table[r.Prefix] = r.Via
			m.events = append(m.events, fmt.Sprint(sign, r.Prefix, r.Via))
		}
	}
	put("+", false, c.Add)
	put("=", true, c.Replace)
	for _, r := range c.Delete {
		delete(m.table, r.Prefix)
		m.events = append(m.events, "-"+r.Prefix.String())
	}
	if e.Err != nil {
		return &e
	}
	return nil
}

func (m *memorySink) Watch(ctx context.Context, changed func()) error {
	m.mu.Lock()
	m.changed = changed
	m.mu.Unlock()
	changed()
	<-ctx.Done()
	return nil
}

// changes says that it may hold something else by now, once somebody listens.
func (m *memorySink) changes(t *testing.T) {
	t.Helper()
	var changed func()
	eventually(t, "the sink is watched", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		changed = m.changed
		return changed != nil
	})
	changed()
}

// lines are the routes that it holds: "10.0.0.0/8 192.0.2.1".
func (m *memorySink) lines() (list []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, hops := range m.table {
		line := p.String()
		for _, h := range hops {
			line += " " + h.String()
		}
		list = append(list, line)
	}
	slices.Sort(list)
	return list
}

func (m *memorySink) has(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	var got []string
	deadline := time.After(soon)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if got = m.lines(); slices.Equal(got, want) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the sink holds %v, want %v", got, want)
		}
	}
}

func (m *memorySink) happened() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	events := m.events
	m.events = nil
	return events
}

func everything() speaker.Accept {
	return speaker.Accept{Prefixes: []speaker.PrefixRule{
		{Network: netip.MustParsePrefix("0.0.0.0/0"), AtMost: 32}, {Network: netip.MustParsePrefix("::/0"), AtMost: 128}}}
}

// An oracle reads all UPDATEs of a random history anew, in the dumb way.
func TestLessonsAgainstHistory(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 3))
		now := time.Unix(1, 0)
		table := newLessons()
		table.begin(speaker.Local{ASN: nodeASN, GracefulRestart: speaker.GracefulRestart{Enabled: true, Time: time.Minute, Deferral: time.Second}}, now)
		peers := make(map[netip.Addr]speaker.Peer)
		for i := range byte(3) {
			a := netip.AddrFrom4([4]byte{192, 0, 2, i})
			peers[a] = peerWithDefaults(speaker.Peer{Name: a.String(), Address: a, ASN: 65000 + uint32(i), Accept: everything()})
		}
		table.configure(peers, nil, prefixes("10.1.0.0/24"))
		table.holds(nil)
		now = now.Add(time.Hour) // nobody is waited for
		history := naiveHistory{}
		have := make(map[netip.Prefix][]netip.Addr)
		for range 150 {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(random.IntN(3))})
			history.step(random, table, a.String(), now)
			table.settle(now)
			change, _ := table.take(1000)
			applyTo(t, have, change)
			for i := range byte(6) {
				p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i / 2, 0, 0}), 24+int(i%2)*3)
				if got, want := have[p], history.want(p); !slices.Equal(got, want) {
					t.Fatalf("seed %d: %s goes to %v, want %v: %v", seed, p, got, want, history)
				}
			}
		}
	}
}

// A change of this node's own prefixes leaves the sink as all of them anew do, and looks at
// no other prefix again.
func TestOwnPrefixesByChange(t *testing.T) {
	t.Parallel()
	a, now := netip.MustParseAddr("192.0.2.1"), time.Unix(1, 0)
	peers := map[netip.Addr]speaker.Peer{a: peerWithDefaults(speaker.Peer{Name: "tor", Address: a, ASN: 65001, Accept: everything()})}
	var own []speaker.Announcement
	changed, whole := newLessons(), newLessons()
	sinks := map[*lessons]map[netip.Prefix][]netip.Addr{changed: {}, whole: {}}
	settle := func() {
		for table, have := range sinks {
			change, _ := table.take(1000)
			applyTo(t, have, change)
		}
	}
	var nlri []*bgp.IPAddrPrefix
	for i := range 4 {
		nlri = append(nlri, bgp.NewIPAddrPrefix(24, fmt.Sprintf("10.%d.0.0", i)), bgp.NewIPAddrPrefix(27, fmt.Sprintf("10.%d.0.32", i)))
	}
	for table := range sinks {
		table.begin(speaker.Local{ASN: nodeASN}, now)
		table.configure(peers, nil, nil)
		table.holds(nil)
		table.up(table.teacher(a.String()), now)
		table.update(a.String(), lessonOf(nil, nlri, attributesOf(a.String(), 65001)...), now)
		table.settle(now.Add(time.Hour)) // nobody is waited for
	}
	settle()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 5))
	for range 2000 {
		var c speaker.Change
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(random.IntN(4)), 0, 32}), []int{8, 16, 24, 27, 32}[random.IntN(5)]).Masked()
		if random.IntN(2) == 0 {
			c.Announced = announce(p.String())
		} else {
			c.Withdrawn = []netip.Prefix{p}
		}
		own = c.Apply(own)
		changed.ownChange(c)
		for _, e := range changed.dirty {
			if !p.Contains(e.prefix.Addr()) {
				t.Fatalf("%+v: %s is looked at", c, e.prefix)
			}
		}
		whole.configure(peers, nil, announcements{list: own}.prefixes())
		settle()
		if got, want := fmt.Sprint(sinks[changed]), fmt.Sprint(sinks[whole]); got != want {
			t.Fatalf("own prefixes %v: %s, want %s", own, got, want)
		}
	}
}

// After a start what stood is left alone until all routers have told what they know,
// and what came since is not.
func TestOnlyWhatStoodWaits(t *testing.T) {
	now := time.Unix(1, 0)
	table := newLessons()
	local := speaker.Local{ASN: nodeASN, GracefulRestart: speaker.GracefulRestart{Enabled: true, Time: time.Minute, Deferral: time.Second}}
	peers := make(map[netip.Addr]speaker.Peer)
	for i := range byte(2) {
		a := netip.AddrFrom4([4]byte{192, 0, 2, i + 1})
		peers[a] = peerWithDefaults(speaker.Peer{Name: a.String(), Address: a, ASN: 65001, Accept: everything()})
	}
	have := map[netip.Prefix][]netip.Addr{netip.MustParsePrefix("10.0.0.0/24"): {netip.MustParseAddr("192.0.2.2")}}
	begin := func() {
		table.begin(local, now)
		table.configure(peers, nil, nil)
		var stood []routes.Route
		for p, via := range have {
			stood = append(stood, routes.Route{Prefix: p, Via: via})
		}
		table.holds(stood)
	}
	says := func(router string, l *lesson) {
		if r := table.teacher(router); !r.up {
			table.up(r, now)
		}
		table.update(router, l, now)
		table.settle(now)
		change, _ := table.take(1000)
		applyTo(t, have, change)
	}
	expect := func(want string) {
		t.Helper()
		if got := fmt.Sprint(have); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	nlri := []*bgp.IPAddrPrefix{bgp.NewIPAddrPrefix(24, "10.0.0.0"), bgp.NewIPAddrPrefix(24, "10.0.9.0")}
	tells := func(router string) *lesson { return lessonOf(nil, nlri, attributesOf(router, 65001)...) }
	begin()
	says("192.0.2.1", tells("192.0.2.1"))
	expect("map[10.0.0.0/24:[192.0.2.2] 10.0.9.0/24:[192.0.2.1]]")
	says("192.0.2.2", tells("192.0.2.2"))
	expect("map[10.0.0.0/24:[192.0.2.2] 10.0.9.0/24:[192.0.2.1 192.0.2.2]]")
	says("192.0.2.1", lessonOf(nlri[1:], nil))
	expect("map[10.0.0.0/24:[192.0.2.2] 10.0.9.0/24:[192.0.2.2]]")
	begin() // all that is there now stood before
	says("192.0.2.1", tells("192.0.2.1"))
	expect("map[10.0.0.0/24:[192.0.2.2] 10.0.9.0/24:[192.0.2.2]]")
	now = now.Add(time.Minute)
	says("192.0.2.1", tells("192.0.2.1"))
	expect("map[10.0.0.0/24:[192.0.2.1] 10.0.9.0/24:[192.0.2.1]]")
	begin()
	says("192.0.2.1", tells("192.0.2.1")) // as they stood
	says("192.0.2.1", lessonOf(nlri[1:], nil))
	expect("map[10.0.0.0/24:[192.0.2.1]]")
}

func applyTo(t *testing.T, have map[netip.Prefix][]netip.Addr, c routes.Change) {
	t.Helper()
	for _, r := range c.Add {
		if _, has := have[r.Prefix]; has {
			t.Fatalf("%s is added twice", r)
		}
		have[r.Prefix] = r.Via
	}
	for _, r := range c.Replace {
		if old, has := have[r.Prefix]; !has || slices.Equal(old, r.Via) {
			t.Fatalf("%s replaces %v", r, old)
		}
		have[r.Prefix] = r.Via
	}
	for _, r := range c.Delete {
		if _, has := have[r.Prefix]; !has {
			t.Fatalf("%s is deleted twice", r)
		}
		delete(have, r.Prefix)
	}
}

// naiveHistory is what each router said last of each prefix, and in which of its
// sessions.
type naiveHistory map[string]*naiveRouter

type naiveRouter struct {
	up   bool
	said map[netip.Prefix]naiveRoute
}

type naiveRoute struct {
	length int
	stale  bool
}

func (h naiveHistory) step(random *rand.Rand, table *lessons, address string, now time.Time) {
	r := h[address]
	if r == nil {
		r = &naiveRouter{said: make(map[netip.Prefix]naiveRoute)}
		h[address] = r
	}
	if !r.up {
		r.up = true
		table.up(table.teacher(address), now)
		return
	}
	i := byte(random.IntN(6))
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i / 2, 0, 0}), 24+int(i%2)*3)
	nlri := []*bgp.IPAddrPrefix{bgp.NewIPAddrPrefix(uint8(p.Bits()), p.Addr().String())}
	switch n := random.IntN(20); {
	case n < 12:
		length := 1 + random.IntN(2)
		r.said[p] = naiveRoute{length: length}
		table.update(address, lessonOf(nil, nlri, attributesOf(address, slices.Repeat([]uint32{65009}, length)...)...), now)
	case n < 15:
		delete(r.said, p)
		table.update(address, lessonOf(nlri, nil), now)
	case n < 16: // this node's own ASN: a loop
		delete(r.said, p)
		table.update(address, lessonOf(nil, nlri, attributesOf(address, 65009, nodeASN)...), now)
	case n < 17:
		r.up = false
		for p, route := range r.said {
			r.said[p] = naiveRoute{route.length, true}
		}
		table.down(table.teachers[address], true, now)
	case n < 18:
		r.up = false
		clear(r.said)
		table.down(table.teachers[address], false, now)
	default:
		for p, route := range r.said {
			if route.stale {
				delete(r.said, p)
			}
		}
		table.update(address, lessonOf(nil, nil), now) // End-of-RIB
	}
}

// lessonOf is what is learned of an UPDATE.
func lessonOf(withdrawn, nlri []*bgp.IPAddrPrefix, attributes ...bgp.PathAttributeInterface) *lesson {
	agreed := &bgp.MarshallingOption{AddPath: map[bgp.RouteFamily]bgp.BGPAddPathMode{bgp.RF_IPv4_UC: bgp.BGP_ADD_PATH_BOTH}}
	for _, n := range slices.Concat(withdrawn, nlri) {
		n.SetPathLocalIdentifier(n.PathIdentifier()) // the one that is written
	}
	b, err := bgp.NewBGPUpdateMessage(withdrawn, attributes, nlri).Body.Serialize(agreed)
	u := new(lesson)
	if err := errors.Join(err, u.read(b, agreed)); err != nil {
		panic(err)
	}
	return u
}

func attributesOf(hop string, path ...uint32) []bgp.PathAttributeInterface {
	return []bgp.PathAttributeInterface{
		bgp.NewPathAttributeOrigin(0), bgp.NewPathAttributeNextHop(hop),
		bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, path)}),
	}
}

func (h naiveHistory) want(p netip.Prefix) (hops []netip.Addr) {
	if netip.MustParsePrefix("10.1.0.0/24").Contains(p.Addr()) {
		return nil
	}
	shortest := 100
	for _, r := range h {
		if route, has := r.said[p]; has {
			shortest = min(shortest, route.length)
		}
	}
	for address, r := range h {
		if route, has := r.said[p]; has && route.length == shortest {
			hops = append(hops, netip.MustParseAddr(address))
		}
	}
	slices.SortFunc(hops, netip.Addr.Compare)
	return hops
}

func TestBestWays(t *testing.T) {
	hop := func(s string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(s)} }
	base := way{preference: 100, length: 2, neighbor: 65001, external: true}
	for _, c := range []struct {
		name string
		is   string
		edit func(a, b *way)
	}{
		{"equal", "both", func(*way, *way) {}},
		{"another neighbor", "both", func(_, b *way) { b.neighbor = 65002 }},
		{"preference", "b", func(_, b *way) { b.preference = 101 }},
		{"path", "a", func(_, b *way) { b.length = 3 }},
		{"origin", "a", func(_, b *way) { b.origin = 2 }},
		{"MED", "a", func(_, b *way) { b.med = 7 }},
		{"MED of another neighbor", "both", func(_, b *way) { b.med, b.neighbor = 7, 65002 }},
		{"internal", "b", func(a, _ *way) { a.external = false }},
	} {
		a, b := base, base
		a.hops, b.hops = hop("192.0.2.1"), hop("192.0.2.2")
		c.edit(&a, &b)
		e := &entry{paths: []report{{from: &teacher{accept: everything().Prefixes}, way: &b, accepted: true}, {from: &teacher{accept: everything().Prefixes}, way: &a, accepted: true}}}
		got := fmt.Sprint(newLessons().want(netip.MustParsePrefix("10.0.0.0/8"), e))
		if want := map[string]string{"a": "[192.0.2.1]", "b": "[192.0.2.2]", "both": "[192.0.2.1 192.0.2.2]"}[c.is]; got != want {
			t.Errorf("%s: %s, want %s", c.name, got, want)
		}
	}
}

func TestPrefixRules(t *testing.T) {
	net := netip.MustParsePrefix
	for _, c := range []struct {
		rule    speaker.PrefixRule
		takes   string
		refuses string
	}{
		{speaker.PrefixRule{Network: net("10.0.0.0/8")}, "10.0.0.0/8", "10.0.0.0/9 0.0.0.0/0 11.0.0.0/8 a00::/8"},
		{speaker.PrefixRule{Network: net("10.0.0.0/8"), AtLeast: 16}, "10.1.0.0/16 10.1.1.1/32", "10.0.0.0/8 10.0.0.0/15"},
		{speaker.PrefixRule{Network: net("10.0.0.0/8"), AtMost: 16}, "10.0.0.0/8 10.1.0.0/16", "10.1.0.0/17"},
		{speaker.PrefixRule{Network: net("10.0.0.0/8"), AtLeast: 12, AtMost: 16}, "10.0.0.0/12 10.1.0.0/16", "10.0.0.0/11 10.1.0.0/17"},
		{speaker.PrefixRule{Network: net("0.0.0.0/0")}, "0.0.0.0/0", "10.0.0.0/8 ::/0"},
		{speaker.PrefixRule{Network: net("::/0")}, "::/0", "2001:db8::/32 0.0.0.0/0"},
		{speaker.PrefixRule{Network: net("2001:db8::/32"), AtMost: 64}, "2001:db8::/32 2001:db8:1::/64", "2001:db8::/65 2001:db9::/32"},
	} {
		if err := checkRule(c.rule); err != nil {
			t.Error(err)
		}
		for word := range strings.FieldsSeq(c.takes) {
			if !ruleAccepts(c.rule, net(word)) {
				t.Errorf("%+v does not take %s", c.rule, word)
			}
		}
		for word := range strings.FieldsSeq(c.refuses) {
			if ruleAccepts(c.rule, net(word)) {
				t.Errorf("%+v takes %s", c.rule, word)
			}
		}
	}
	for _, wrong := range []speaker.PrefixRule{
		{}, {Network: net("10.0.0.1/8")}, {Network: net("10.0.0.0/8"), AtLeast: 7}, {Network: net("10.0.0.0/8"), AtMost: 33},
		{Network: net("10.0.0.0/8"), AtLeast: 20, AtMost: 16}, {Network: net("::ffff:10.0.0.0/104")},
	} {
		if checkRule(wrong) == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
}

// tells makes a router announce or withdraw a prefix.
func (r *router) tells(t *testing.T, prefix string, announce bool) {
	t.Helper()
	path, err := pathOf(netip.MustParsePrefix(prefix), nil)
	must(t, err)
	if announce {
		_, err = r.bgp.AddPath(context.Background(), &api.AddPathRequest{Path: path})
	} else {
		err = r.bgp.DeletePath(context.Background(), &api.DeletePathRequest{Path: path})
	}
	must(t, err)
}

// A node between two routers learns from both, and tells neither what it learned:
// whatever is accepted, and whatever changes.
func TestLearnedRoutesNeverLeak(t *testing.T) {
	t.Parallel()
	one, two := startRouter(t, "10.0.0.2", routerASN), startRouter(t, "10.0.0.3", routerASN+1)
	for _, r := range []*router{one, two} {
		r.accept(t, "10.0.0.1", "", speaker.IPv4)
	}
	one.tells(t, "172.16.1.0/24", true)
	one.tells(t, "172.16.3.0/24", true)
	two.tells(t, "172.16.2.0/24", true)
	two.tells(t, "172.16.3.0/24", true)
	sink := newMemorySink("172.31.0.0/16 10.0.0.9", "172.16.1.0/24 10.0.0.2")
	s := newTestServer(t)
	s.Learn(sink.open)
	d := speaker.Desired{Local: local(), Announcements: announce("10.64.0.0/24"), Peers: []speaker.Peer{one.peer("one"), two.peer("two")}}
	for i := range d.Peers {
		d.Peers[i].Accept = everything()
	}
	must(t, s.Set(within(t, soon), d))
	all := []string{"172.16.1.0/24 10.0.0.2", "172.16.2.0/24 10.0.0.3", "172.16.3.0/24 10.0.0.2 10.0.0.3"}
	sink.has(t, all...)
	if got := sink.happened(); slices.Contains(got, "-172.16.1.0/24") || slices.Contains(got, "=172.16.1.0/24[10.0.0.2]") {
		t.Errorf("a route that was right was touched: %v", got)
	}
	if st, err := s.State(within(t, soon)); err != nil || st.Learned != 3 || st.LearnedTrouble != "" {
		t.Errorf("state %+v, %v", st, err)
	}

	// Other rules count at once, for the same sessions.
	since := stateOf(t, s, "one").Since
	d.Peers[0].Accept.Prefixes = []speaker.PrefixRule{{Network: netip.MustParsePrefix("172.16.3.0/24")}}
	must(t, s.Set(within(t, soon), d))
	sink.has(t, all[1], all[2])
	if f := stateOf(t, s, "one").Families; len(f) != 1 || f[0].Received != 2 || f[0].Accepted != 1 {
		t.Errorf("%+v: want one of two accepted", f)
	}
	d.Peers[0].Accept = everything()
	must(t, s.Set(within(t, soon), d))
	sink.has(t, all...)
	if stateOf(t, s, "one").Since != since {
		t.Error("the session was dropped")
	}

	// What this node holds itself is not learned, nor anything inside.
	d.Announcements = announce("10.64.0.0/24", "172.16.0.0/22")
	must(t, s.Set(within(t, soon), d))
	sink.has(t)
	d.Announcements = announce("10.64.0.0/24")
	must(t, s.Set(within(t, soon), d))
	sink.has(t, all...)
	inside := netip.MustParsePrefix("172.16.2.0/23")
	must(t, s.Announce(within(t, soon), speaker.Change{Announced: announce(inside.String())}))
	sink.has(t, all[0])
	one.has(t, "10.64.0.0/24", "172.16.1.0/24", "172.16.2.0/23", "172.16.3.0/24")
	must(t, s.Announce(within(t, soon), speaker.Change{Withdrawn: []netip.Prefix{inside}}))
	sink.has(t, all...)
	one.has(t, "10.64.0.0/24", "172.16.1.0/24", "172.16.3.0/24")

	one.tells(t, "172.16.1.0/24", false)
	one.tells(t, "172.16.3.0/24", false)
	sink.has(t, all[1], "172.16.3.0/24 10.0.0.3")
	one.has(t, "10.64.0.0/24") // which is what it heard of this node, beside its own
	two.has(t, "10.64.0.0/24", "172.16.2.0/24", "172.16.3.0/24")
	for r, others := range map[*router]string{one: "172.16.2.0/24", two: "172.16.1.0/24"} {
		if slices.Contains(r.log(), "+"+others) {
			t.Errorf("a learned route was told: %v", r.log())
		}
	}

	// A peer that is none any more, and one without rules.
	d.Peers = d.Peers[:1]
	must(t, s.Set(within(t, soon), d))
	sink.has(t)
}

// What somebody takes out of the sink comes back, and what it refused is tried
// again.
func TestSinkIsLookedAt(t *testing.T) {
	t.Parallel()
	one := startRouter(t, "10.0.0.4", routerASN)
	one.accept(t, "10.0.0.1", "", speaker.IPv4)
	one.tells(t, "172.16.1.0/24", true)
	one.tells(t, "172.16.2.0/24", true)
	sink := newMemorySink()
	refused := netip.MustParsePrefix("172.16.2.0/24")
	sink.refuses[refused] = true
	s := newTestServer(t)
	s.Learn(sink.open)
	p := one.peer("one")
	p.Accept = everything()
	must(t, s.Set(within(t, soon), speaker.Desired{Local: local(), Peers: []speaker.Peer{p}}))
	sink.has(t, "172.16.1.0/24 10.0.0.4")
	eventually(t, "the state names the trouble", func() bool {
		st, err := s.State(within(t, soon))
		return err == nil && st.Learned == 1 && strings.Contains(st.LearnedTrouble, "172.16.2.0/24")
	})
	sink.mu.Lock()
	clear(sink.table)
	sink.table[netip.MustParsePrefix("172.30.0.0/16")] = []netip.Addr{one.address}
	delete(sink.refuses, refused)
	sink.mu.Unlock()
	sink.changes(t)
	sink.has(t, "172.16.1.0/24 10.0.0.4", "172.16.2.0/24 10.0.0.4")
	must(t, s.Close(within(t, soon), speaker.Withdraw))
	sink.has(t)
}

// Settings that fail at the start alone bring the old ones back, and of what stood the
// routes go that no router tells again then.
func TestLearnedAfterFailedRestart(t *testing.T) {
	t.Parallel()
	const port = 1795
	tor := startRaw(t, "tor", "127.0.3.20")
	tor.peer.Accept = everything()
	taken, err := net.Listen("tcp", "127.0.3.21:1795")
	must(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	sink := newMemorySink()
	s := newTestServer(t)
	s.Learn(sink.open)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{tor.peer}}
	d.Local.Listen, d.Local.Port = []netip.Addr{netip.MustParseAddr("127.0.3.22")}, port
	d.Local.GracefulRestart = speaker.GracefulRestart{Enabled: true, Time: time.Second, Deferral: time.Second}
	must(t, s.Set(within(t, soon), d))
	must(t, writeMessage(<-tor.sessions, announcement(0, 2)))
	sink.has(t, "100.64.0.0/32 127.0.0.7", "100.64.0.1/32 127.0.0.7")
	d.Local.Listen = []netip.Addr{netip.IPv4Unspecified()}
	if err := s.Set(within(t, soon), d); !errors.Is(err, speaker.ErrLocal) {
		t.Errorf("Set of a listen address that is taken in part: %v", err)
	}
	comesUp(t, s, "tor")
	must(t, writeMessage(<-tor.sessions, announcement(0, 1)))
	sink.has(t, "100.64.0.0/32 127.0.0.7")
}

// What is learned of an UPDATE before GoBGP refuses it goes with the session that it ends,
// and with all that was learned of that.
func TestLearnedOfRefusedUpdate(t *testing.T) {
	t.Parallel()
	tor := newRaw(t, "tor", "127.0.3.24")
	tor.helps, tor.notifications, tor.peer.Accept = true, true, everything()
	close(tor.gate)
	tor.listen(t)
	sink := newMemorySink()
	s := newTestServer(t)
	s.Learn(sink.open)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{tor.peer}}
	d.Local.GracefulRestart = speaker.GracefulRestart{Enabled: true, Time: time.Minute, Deferral: time.Second}
	must(t, s.Set(within(t, soon), d))
	conn := <-tor.sessions
	must(t, writeMessage(conn, announcement(0, 2)))
	sink.has(t, "100.64.0.0/32 127.0.0.7", "100.64.0.1/32 127.0.0.7")
	m := announcement(2, 1)
	u := m.Body.(*bgp.BGPUpdate)
	u.PathAttributes = append(u.PathAttributes, bgp.NewPathAttributeUnknown(bgp.BGP_ATTR_FLAG_TRANSITIVE, 99, nil)) // well-known, and nobody knows it
	must(t, writeMessage(conn, m))
	sink.has(t)
}
