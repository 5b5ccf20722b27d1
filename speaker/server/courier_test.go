package server

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// saidOf is what GoBGP writes of one prefix: an announcement with a community, or with 0 a
// withdrawal.
func saidOf(t testing.TB, p netip.Prefix, community uint32) []byte {
	t.Helper()
	var m *bgp.BGPMessage
	plain := bgp.NewIPAddrPrefix(uint8(p.Bits()), p.Addr().String())
	inside := []bgp.AddrPrefixInterface{bgp.NewIPv6AddrPrefix(uint8(p.Bits()), p.Addr().String())}
	origin := bgp.NewPathAttributeOrigin(0)
	path := bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{nodeASN})})
	communities := bgp.NewPathAttributeCommunities([]uint32{community})
	switch four := p.Addr().Is4(); {
	case four && community == 0:
		m = bgp.NewBGPUpdateMessage([]*bgp.IPAddrPrefix{plain}, nil, nil)
	case four:
		m = bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{origin, path, bgp.NewPathAttributeNextHop("192.0.2.2"), communities}, []*bgp.IPAddrPrefix{plain})
	case community == 0:
		m = bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{bgp.NewPathAttributeMpUnreachNLRI(inside)}, nil)
	default:
		m = bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{origin, path, communities, bgp.NewPathAttributeMpReachNLRI("2001:db8::2", inside)}, nil)
	}
	b, err := m.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wordsOf is how the ledger knows what saidOf writes. The next hop of IPv6 prefixes is
// a given one: the session is over IPv4.
func wordsOf(p netip.Prefix, community uint32) variant {
	a := speaker.Attributes{Communities: []speaker.Community{speaker.Community(community)}}
	if p.Addr().Is6() {
		a.NextHops = []netip.Addr{netip.MustParseAddr("2001:db8::2")}
	}
	return variantOf(a, familyOf(p.Addr()), false)
}

// listener is a router that keeps what it is told.
type listener struct{ holds map[netip.Prefix]variant }

// hear takes in whole messages and says how many there were, and what was announced and
// withdrawn in them, in order.
func (r *listener) hear(t testing.TB, b []byte) (messages int, changes []string) {
	t.Helper()
	for in := bytes.NewReader(b); in.Len() > 0; messages++ {
		m := readUpdate(t, in)
		u := m.Body.(*bgp.BGPUpdate)
		words := variantIn(u.PathAttributes)
		gain := func(p netip.Prefix) { r.holds[p] = words; changes = append(changes, "+"+p.String()) }
		lose := func(p netip.Prefix) { delete(r.holds, p); changes = append(changes, "-"+p.String()) }
		for _, n := range u.WithdrawnRoutes {
			lose(prefixOf(n))
		}
		for _, n := range u.NLRI {
			gain(prefixOf(n))
		}
		for _, a := range u.PathAttributes {
			switch a := a.(type) {
			case *bgp.PathAttributeMpReachNLRI:
				for _, n := range a.Value {
					gain(prefixOf(n))
				}
			case *bgp.PathAttributeMpUnreachNLRI:
				for _, n := range a.Value {
					lose(prefixOf(n))
				}
			}
		}
	}
	return messages, changes
}

// readUpdate reads one message.
func readUpdate(t testing.TB, from io.Reader) *bgp.BGPMessage {
	t.Helper()
	b, err := readOne(from)
	if err != nil {
		t.Fatal(err)
	}
	m, err := bgp.ParseBGPMessage(b)
	if err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return m
}

// bothFamilies are some prefixes of each.
func bothFamilies(n int) []netip.Prefix {
	var list []netip.Prefix
	for i := range n {
		list = append(list, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/26", i>>8, i&255)), netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::/64", i)))
	}
	return list
}

func newTestCourier() (*courier, *said) {
	conn := new(said)
	return newCourier(conn, func() *bgp.MarshallingOption { return nil }), conn
}

// gobgpWrites writes a message as GoBGP does, and reports it.
func gobgpWrites(c *courier, message []byte) error {
	err := c.update(message)
	c.reported()
	return err
}

// play is a courier and its router, the changes that GoBGP has not written yet, and what it
// was to say in the end.
type play struct {
	*testing.T
	random  *rand.Rand
	courier *courier
	wire    *said
	router  *listener
	want    map[netip.Prefix]uint32 // the community of each; 0 is not announced
	queue   []line
	late    map[netip.Prefix]int // how much is queued that was not said ahead
}

// line is what GoBGP says of some prefixes.
type line struct {
	messages [][]byte
	prefix   netip.Prefix // that changes, and whether it does the long way
	late     bool
}

func newPlay(t *testing.T, random *rand.Rand) *play {
	c, conn := newTestCourier()
	return &play{T: t, random: random, courier: c, wire: conn, router: &listener{holds: make(map[netip.Prefix]variant)},
		want: make(map[netip.Prefix]uint32), late: make(map[netip.Prefix]int)}
}

// change makes some prefixes something else, and runs the errand of it.
func (y *play) change() {
	y.Helper()
	next := maps.Clone(y.want)
	e := errand{whole: len(y.late) == 0}
	var changed []netip.Prefix
	for _, p := range bothFamilies(6) {
		if next[p] = y.other(y.want[p]); next[p] == y.want[p] {
			continue
		}
		changed = append(changed, p)
		switch {
		case y.late[p] > 0:
			e.whole = false
		case next[p] != 0:
			e.announced = append(e.announced, notice{p, wordsOf(p, next[p])})
		default:
			e.withdrawn = append(e.withdrawn, p)
		}
	}
	d, _ := y.courier.run(e)
	y.hear(func(p netip.Prefix) bool { return y.want[p] != 0 && next[p] != 0 && y.late[p] == 0 })
	for _, p := range changed {
		ahead := slices.Contains(d.withdrawn, p) || slices.ContainsFunc(d.announced, func(n notice) bool { return n.prefix == p })
		if !ahead {
			y.late[p]++
		}
		y.queue = append(y.queue, line{[][]byte{saidOf(y, p, next[p])}, p, !ahead})
	}
	y.want = next
}

// other is what something that is so may become.
func (y *play) other(community uint32) uint32 {
	switch y.random.IntN(6) {
	case 0, 1:
		return 1 + y.random.Uint32N(2)
	case 2:
		return 0
	}
	return community
}

// refresh has the router ask for all again.
func (y *play) refresh() {
	y.courier.refresh()
	all := line{}
	for p, community := range y.want {
		if community != 0 {
			all.messages = append(all.messages, saidOf(y, p, community))
		}
	}
	y.queue = append(y.queue, all)
}

// follow has GoBGP write some of what it has to say. Nothing that is wanted, and of which
// all was said ahead, is something else meanwhile.
func (y *play) follow(n int) {
	y.Helper()
	for _, now := range y.queue[:min(n, len(y.queue))] {
		for _, m := range now.messages {
			must(y.T, gobgpWrites(y.courier, m))
		}
		if now.late {
			if y.late[now.prefix]--; y.late[now.prefix] == 0 {
				delete(y.late, now.prefix)
			}
		}
		y.hear(func(netip.Prefix) bool { return false })
	}
	y.queue = y.queue[min(n, len(y.queue)):]
	for p, community := range y.want {
		got, has := y.router.holds[p]
		if y.late[p] == 0 && (has != (community != 0) || has && !wordsOf(p, community).is(got, y.courier.self)) {
			y.Fatalf("the router was told of %s with %d, and then %v %v", p, community, has, got)
		}
	}
}

// hear has the router read. It is not to be told that what stays is withdrawn.
func (y *play) hear(stays func(netip.Prefix) bool) {
	y.Helper()
	_, changes := y.router.hear(y, y.wire.wrote.Bytes())
	y.wire.wrote.Reset()
	for _, change := range changes {
		if p := netip.MustParsePrefix(change[1:]); change[0] == '-' && stays(p) {
			y.Fatalf("%s was withdrawn and stays: %q", p, changes)
		}
	}
}

// Whatever changes, and whenever GoBGP gets to it: a router holds what it was told ahead
// until something else is said ahead, and in the end what GoBGP told. A prefix that stays is
// never withdrawn in between.
func TestCourierAgainstOracle(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 200 {
		y := newPlay(t, random)
		for range 30 {
			if random.IntN(4) == 0 {
				y.refresh()
			}
			y.change()
			y.follow(random.IntN(len(y.queue) + 2))
		}
		y.follow(len(y.queue))
		if len(y.courier.told) != 0 {
			t.Fatalf("%d prefixes are awaited", len(y.courier.told))
		}
	}
}

// What has words goes out at once in few messages, GoBGP's own are kept back then, and
// what it says once more is not.
func TestCourierRunsAhead(t *testing.T) {
	c, conn := newTestCourier()
	router := &listener{holds: make(map[netip.Prefix]variant)}
	all := bothFamilies(2000)
	slices.SortFunc(all, netip.Prefix.Compare)
	e := errand{whole: true}
	for _, p := range all {
		e.announced = append(e.announced, notice{p, wordsOf(p, 7)})
	}
	if _, begun := c.run(e); begun {
		t.Error("something was said before GoBGP had said anything")
	}
	must(t, gobgpWrites(c, saidOf(t, all[0], 7)))
	must(t, gobgpWrites(c, saidOf(t, all[len(all)-1], 7)))
	conn.wrote.Reset()
	if d, begun := c.run(e); !begun || len(d.announced) != len(all) {
		t.Fatalf("%d of %d were announced", len(d.announced), len(all))
	}
	if messages, _ := router.hear(t, conn.wrote.Bytes()); messages > 12 || len(router.holds) != len(all) {
		t.Errorf("%d messages for %d prefixes, want 12 for %d", messages, len(router.holds), len(all))
	}
	conn.wrote.Reset()
	for _, p := range all {
		must(t, gobgpWrites(c, saidOf(t, p, 7)))
	}
	if conn.wrote.Len() > 0 || c.told != nil {
		t.Errorf("%d bytes were written again, %d prefixes are awaited", conn.wrote.Len(), len(c.told))
	}
	must(t, gobgpWrites(c, saidOf(t, all[0], 7)))
	if !bytes.Equal(conn.wrote.Bytes(), saidOf(t, all[0], 7)) {
		t.Error("what GoBGP said once more was kept back")
	}
	conn.wrote.Reset()
	if d, _ := c.run(errand{withdrawn: all, whole: true}); len(d.withdrawn) != len(all) {
		t.Errorf("%d of %d were withdrawn", len(d.withdrawn), len(all))
	}
	if messages, _ := router.hear(t, conn.wrote.Bytes()); messages > 12 || len(router.holds) != 0 {
		t.Errorf("%d messages, %d prefixes are left", messages, len(router.holds))
	}
}

// What GoBGP had to say of a prefix before it says what was said ahead is of before: the
// router hears of the other prefixes of that message alone.
func TestCourierKeepsBackWhatIsOfBefore(t *testing.T) {
	c, conn := newTestCourier()
	gone, stays := netip.MustParsePrefix("10.0.0.0/26"), netip.MustParsePrefix("10.1.0.0/26")
	must(t, gobgpWrites(c, saidOf(t, gone, 1)))
	conn.wrote.Reset()
	u, _ := dissect(saidOf(t, gone, 1))
	w := newWording(u, variant{})
	var both parcel
	both.announce(gone, w)
	both.announce(stays, w)
	if _, begun := c.run(errand{withdrawn: []netip.Prefix{gone}, whole: true}); !begun {
		t.Fatal("nothing was withdrawn")
	}
	must(t, gobgpWrites(c, both.end()))
	if kept := c.keptBack(); !slices.Equal(kept, []netip.Prefix{gone}) {
		t.Errorf("%v were kept back", kept)
	}
	must(t, gobgpWrites(c, saidOf(t, gone, 0)))
	if _, changes := (&listener{make(map[netip.Prefix]variant)}).hear(t, conn.wrote.Bytes()); !slices.Equal(changes, []string{"-10.0.0.0/26", "+10.1.0.0/26"}) {
		t.Errorf("said %q", changes)
	}
}

// A router that asks for all again hears once more of what it was told ahead before: it may
// have let go of it since.
func TestCourierRepeatsWhatIsAskedFor(t *testing.T) {
	c, conn := newTestCourier()
	first, second := netip.MustParsePrefix("10.0.0.0/26"), netip.MustParsePrefix("10.1.0.0/26")
	must(t, gobgpWrites(c, saidOf(t, first, 1)))
	if _, begun := c.run(errand{announced: []notice{{second, wordsOf(second, 1)}}, whole: true}); !begun {
		t.Fatal("nothing was announced")
	}
	conn.wrote.Reset()
	c.refresh()
	must(t, gobgpWrites(c, saidOf(t, first, 1))) // before GoBGP has the second
	must(t, gobgpWrites(c, saidOf(t, second, 1)))
	if _, changes := (&listener{make(map[netip.Prefix]variant)}).hear(t, conn.wrote.Bytes()); !slices.Equal(changes, []string{"+10.0.0.0/26", "+10.1.0.0/26"}) {
		t.Errorf("said %q", changes)
	}
}

// Nothing is told ahead between a message of GoBGP and its report: the ledger would take
// them the wrong way round.
func TestCourierWaitsForReport(t *testing.T) {
	c, _ := newTestCourier()
	p := netip.MustParsePrefix("10.0.0.0/26")
	must(t, c.update(saidOf(t, p, 1)))
	if _, begun := c.run(errand{withdrawn: []netip.Prefix{p}, whole: true}); begun {
		t.Error("something was told before the report")
	}
	c.reported()
	if _, begun := c.run(errand{withdrawn: []netip.Prefix{p}, whole: true}); !begun {
		t.Error("nothing was told after the report")
	}
}

// Nothing is withdrawn ahead as long as something that may take its place was not
// announced.
func TestCourierWithdrawsLast(t *testing.T) {
	c, conn := newTestCourier()
	old, unheardOf := netip.MustParsePrefix("10.0.0.0/26"), netip.MustParsePrefix("10.0.0.0/25")
	must(t, gobgpWrites(c, saidOf(t, old, 1)))
	conn.wrote.Reset()
	if _, begun := c.run(errand{announced: []notice{{unheardOf, wordsOf(unheardOf, 2)}}, withdrawn: []netip.Prefix{old}, whole: true}); begun {
		t.Errorf("said %x without words for %s", conn.wrote.Bytes(), unheardOf)
	}
	if _, begun := c.run(errand{announced: []notice{{unheardOf, wordsOf(unheardOf, 1)}}, withdrawn: []netip.Prefix{old}}); !begun {
		t.Error("nothing was announced")
	}
	if _, changes := (&listener{make(map[netip.Prefix]variant)}).hear(t, conn.wrote.Bytes()); !slices.Equal(changes, []string{"+10.0.0.0/25"}) {
		t.Errorf("said %q while something else is still to be announced", changes)
	}
}

// A router that does not read keeps nobody waiting, hears whole messages when it does,
// and is not taken for one that was told.
func TestCourierDoesNotWait(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	far, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer func() { _ = far.Close() }()
	near, err := l.Accept()
	must(t, err)
	defer func() { _ = near.Close() }()
	must(t, near.(*net.TCPConn).SetWriteBuffer(4096))
	must(t, far.(*net.TCPConn).SetReadBuffer(4096))
	c := newCourier(near, func() *bgp.MarshallingOption { return nil })
	c.self = netip.MustParseAddr("192.0.2.2")
	p := netip.MustParsePrefix("10.0.0.0/26")
	must(t, gobgpWrites(c, saidOf(t, p, 1)))
	e := errand{whole: true}
	for _, p := range manyPrefixes(200_000) {
		e.announced = append(e.announced, notice{p, wordsOf(p, 1)})
	}
	d, begun := c.run(e)
	if !begun || len(d.rest) == 0 {
		t.Fatalf("begun %v, %d octets left for a router that does not read", begun, len(d.rest))
	}
	told := make(chan struct{})
	go c.finish(d, func() { close(told) })
	if _, begun := c.run(e); begun {
		t.Error("something was said in the middle of a message")
	}
	followed := make(chan error, 1)
	go func() { followed <- gobgpWrites(c, saidOf(t, e.announced[0].prefix, 1)) }()
	router := &listener{holds: make(map[netip.Prefix]variant)}
	must(t, far.SetReadDeadline(time.Now().Add(soon)))
	for len(router.holds) < len(e.announced)+1 {
		for _, n := range readUpdate(t, far).Body.(*bgp.BGPUpdate).NLRI {
			router.holds[prefixOf(n)] = variant{}
		}
	}
	<-told
	must(t, <-followed)
}

// A session is ended in which GoBGP does not say what was said before it, and no other.
func TestCourierIsConfirmed(t *testing.T) {
	for _, confirmed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			defer func() { _ = far.Close() }()
			go func() { _, _ = io.Copy(io.Discard, far) }()
			c := newCourier(near, func() *bgp.MarshallingOption { return nil })
			c.self = netip.MustParseAddr("192.0.2.2")
			first, second := netip.MustParsePrefix("10.0.0.0/26"), netip.MustParsePrefix("10.1.0.0/26")
			must(t, gobgpWrites(c, saidOf(t, first, 1)))
			if _, begun := c.run(errand{announced: []notice{{second, wordsOf(second, 1)}}, whole: true}); !begun {
				t.Fatal("nothing was announced")
			}
			if confirmed {
				must(t, gobgpWrites(c, saidOf(t, second, 1)))
			}
			time.Sleep(2 * confirmTime)
			err := gobgpWrites(c, saidOf(t, first, 0))
			if ended := err != nil; ended == confirmed {
				t.Errorf("the session ended: %v, and GoBGP had said the same: %v", err, confirmed)
			}
			_ = near.Close()
		})
	}
}

// What GoBGP writes is taken apart as GoBGP's parser does, and anything else is let be.
func FuzzDissect(f *testing.F) {
	for _, p := range bothFamilies(1) {
		f.Add(saidOf(f, p, 1))
		f.Add(saidOf(f, p, 0))
	}
	f.Add(framed(bgp.BGP_MSG_UPDATE, 0, 0, 0, 0))
	f.Add(framed(bgp.BGP_MSG_UPDATE, 0, 4, 24, 10, 9, 0, 0, 14, 0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 10, 0, 0, 2, 24, 10, 1, 0))
	f.Fuzz(func(t *testing.T, message []byte) {
		u, ok := dissect(message)
		if !ok {
			return
		}
		gains, losses := slices.Collect(u.announced.all()), slices.Collect(u.withdrawn.all())
		if len(gains) == 0 || len(losses) > 0 || u.family() == "" {
			return
		}
		// In the same words, another message says the same of the same prefixes.
		var out parcel
		w := newWording(u, variant{})
		for _, p := range gains {
			out.announce(p, w)
		}
		for again := out.end(); len(again) > 0; {
			n := int(again[16])<<8 | int(again[17])
			if n > bgp.BGP_MAX_MESSAGE_LENGTH && len(message) <= bgp.BGP_MAX_MESSAGE_LENGTH {
				t.Fatalf("%x became a message of %d octets", message, n)
			}
			v, ok := dissect(again[:n])
			if !ok || !w.equal(v.words) {
				t.Fatalf("%x became %x", message, again[:n])
			}
			for p := range v.announced.all() {
				if p != gains[0] {
					t.Fatalf("%s became %s", gains[0], p)
				}
				gains = gains[1:]
			}
			again = again[n:]
		}
		if len(gains) > 0 {
			t.Fatalf("%v were lost", gains)
		}
	})
}
