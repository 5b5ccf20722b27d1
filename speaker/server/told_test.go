package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// A chronicler is a router that remembers what it was told of each prefix in a session, in
// its order: the terms of it, or absent.
type chronicler struct {
	*raw
	mu   sync.Mutex
	conn net.Conn                  // of the session
	told map[netip.Prefix][]string // without repetitions
}

// The terms by which a chronicler tells announcements apart.
const (
	absent = "absent"
	med    = "med"
	tagged = "tagged"
)

func startChronicler(t *testing.T, address string) *chronicler {
	t.Helper()
	r := &chronicler{raw: newRaw(t, "tor", address)}
	l, err := r.door.Listen(t.Context(), "tcp", netip.AddrPortFrom(r.peer.Address, r.peer.Port).String())
	must(t, err)
	attendAll(t, l, r.attend)
	return r
}

// attend is one session.
func (r *chronicler) attend(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	open := bgp.NewBGPOpenMessage(routerASN, r.hold, "192.0.2.45", []bgp.OptionParameterInterface{
		bgp.NewOptionParameterCapability([]bgp.ParameterCapabilityInterface{
			bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC), bgp.NewCapRouteRefresh(), bgp.NewCapFourOctetASNumber(routerASN)})})
	for _, m := range []*bgp.BGPMessage{open, bgp.NewBGPKeepAliveMessage()} {
		if _, err := readMessage(conn); err != nil || writeMessage(conn, m) != nil {
			return
		}
	}
	r.mu.Lock()
	r.conn, r.told = conn, make(map[netip.Prefix][]string)
	r.mu.Unlock()
	for {
		m, err := readMessage(conn)
		if err != nil {
			return
		}
		if u, is := m.Body.(*bgp.BGPUpdate); is {
			r.note(u)
		}
	}
}

func (r *chronicler) note(u *bgp.BGPUpdate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	add := func(n bgp.AddrPrefixInterface, what string) {
		if list := r.told[prefixOf(n)]; len(list) == 0 || list[len(list)-1] != what {
			r.told[prefixOf(n)] = append(list, what)
		}
	}
	words := ""
	switch v := variantIn(u.PathAttributes); {
	case v.med >= 0:
		words = med
	case v.communities != "":
		words = tagged
	}
	for _, n := range u.NLRI {
		add(n, words)
	}
	for _, n := range u.WithdrawnRoutes {
		add(n, absent)
	}
}

// holds says what the router has of a prefix.
func (r *chronicler) holds(p netip.Prefix) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if list := r.told[p]; len(list) > 0 {
		return list[len(list)-1]
	}
	return absent
}

// refresh asks for all again.
func (r *chronicler) refresh(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	must(t, writeMessage(r.conn, bgp.NewBGPRouteRefreshMessage(bgp.AFI_IP, 0, bgp.SAFI_UNICAST)))
}

// lose ends the session, if there is one.
func (r *chronicler) lose(*testing.T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.conn.Close()
}

// A drama is a speaker, its router and what some prefixes were to be, one after the other.
type drama struct {
	*testing.T
	random  *rand.Rand
	server  *Server
	router  *chronicler
	moving  []netip.Prefix
	desired speaker.Desired
	still   []speaker.Announcement
	was     map[netip.Prefix][]string
	from    map[netip.Prefix]int // what the router had of it when its past was looked at last
}

func newDrama(t *testing.T, address string, still int) *drama {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	a := &drama{T: t, random: rand.New(rand.NewPCG(seed, 1)), router: startChronicler(t, address), server: newTestServer(t),
		was: make(map[netip.Prefix][]string), from: make(map[netip.Prefix]int)}
	for i := range 12 {
		p := netip.MustParsePrefix(fmt.Sprintf("172.16.%d.0/26", i))
		a.moving, a.was[p] = append(a.moving, p), []string{absent}
	}
	a.still = speaker.Plainly(manyPrefixes(still)...)
	a.desired = speaker.Desired{Local: local(), Peers: []speaker.Peer{a.router.peer}, Announcements: a.still,
		Terms: map[string]speaker.Terms{med: {"tor": {MED: number(7)}}, tagged: {"tor": {Communities: []speaker.Community{1<<16 | 7}}}}}
	must(t, a.server.Set(t.Context(), a.desired))
	comesUp(t, a.server, "tor")
	must(t, a.server.Flush(within(t, soon), a.desired.Prefixes()))
	return a
}

func (a *drama) now(p netip.Prefix) string { return a.was[p][len(a.was[p])-1] }

// set changes some prefixes.
func (a *drama) set() {
	a.Helper()
	a.desired.Announcements = slices.Clone(a.still)
	for _, p := range a.moving {
		next := a.now(p)
		if a.random.IntN(3) == 0 {
			next = []string{absent, absent, "", med, tagged}[a.random.IntN(5)]
		}
		if next != a.now(p) {
			a.was[p] = append(a.was[p], next)
		}
		if next != absent {
			a.desired.Announcements = append(a.desired.Announcements, speaker.Announcement{Prefix: p, Terms: next})
		}
	}
	must(a.T, a.server.Set(a.Context(), a.desired))
}

// flush waits until the router was told, looks whether it was, and at all that it was told
// since then: the same as was wanted, in the same order, although some may be left out.
func (a *drama) flush() {
	a.Helper()
	must(a.T, a.server.Flush(within(a.T, soon), a.moving))
	for _, p := range a.moving {
		eventually(a.T, fmt.Sprintf("the router has %s as %q", p, a.now(p)), func() bool { return a.router.holds(p) == a.now(p) })
	}
	a.router.mu.Lock()
	defer a.router.mu.Unlock()
	for _, p := range a.moving {
		at := a.from[p]
		for _, told := range a.router.told[p] {
			for at < len(a.was[p]) && a.was[p][at] != told {
				at++
			}
		}
		if at >= len(a.was[p]) {
			a.Errorf("the router was told of %s %q, which was to be %q", p, a.router.told[p], a.was[p][a.from[p]:])
		}
		a.from[p] = len(a.was[p]) - 1
		a.router.told[p] = []string{a.now(p)}
	}
}

// play has a number of acts, before which the router may do something.
func (a *drama) play(acts int, does func(*testing.T)) {
	a.Helper()
	for range acts {
		if a.random.IntN(2) == 0 {
			does(a.T)
		}
		wait, cancel := context.WithTimeout(a.Context(), time.Duration(a.random.IntN(3000))*time.Microsecond)
		<-wait.Done() // anything may be under way then
		cancel()
		for range a.random.IntN(4) {
			a.set()
		}
		if a.random.IntN(2) == 0 {
			a.flush()
		}
	}
	a.flush()
}

// The same holds over sessions that are lost, and begin with what is wanted then.
func TestToldInOrderOverSessions(t *testing.T) {
	t.Parallel()
	a := newDrama(t, "127.0.3.79", 300)
	a.play(4, a.router.lose)
}

// Whatever is set, and whenever the router asks for all again: it is told of each prefix what
// was wanted, in that order, and what was flushed stays.
func TestToldInOrder(t *testing.T) {
	t.Parallel()
	a := newDrama(t, "127.0.3.77", 3000)
	a.play(150, a.router.refresh)
	must(t, a.server.Flush(within(t, soon), a.desired.Prefixes()))
	a.router.mu.Lock()
	defer a.router.mu.Unlock()
	for p := range maps.Keys(a.router.told) {
		if !slices.ContainsFunc(a.still, func(s speaker.Announcement) bool { return s.Prefix == p }) && !slices.Contains(a.moving, p) {
			t.Errorf("the router was told of %s, which was never wanted", p)
		}
	}
}

// A Set that nobody waits for any more changes nothing: another may have come after it.
func TestSetThatIsGivenUp(t *testing.T) {
	t.Parallel()
	r := startChronicler(t, "127.0.3.78")
	s := newTestServer(t)
	stays := announce("10.1.0.0/26")
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}, Announcements: stays}
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()))
	over, end := context.WithCancel(t.Context())
	end()
	for i := range 20 {
		d.Announcements = announce(fmt.Sprintf("10.2.%d.0/26", i))
		if err := s.Set(over, d); !errors.Is(err, context.Canceled) {
			t.Fatalf("Set: %v", err)
		}
	}
	last := prefixes("10.3.0.0/26")[0] // comes after anything else
	d.Announcements = append(slices.Clone(stays), speaker.Announcement{Prefix: last})
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()))
	eventually(t, "the router has the last one", func() bool { return r.holds(last) != absent })
	r.mu.Lock()
	defer r.mu.Unlock()
	if want := map[netip.Prefix][]string{d.Prefixes()[0]: {""}, last: {""}}; !maps.EqualFunc(r.told, want, slices.Equal) {
		t.Errorf("the router was told %q, want %q", r.told, want)
	}
}
