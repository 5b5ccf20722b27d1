package server

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// Random sequences of Set: the router's table always becomes the last set, no
// prefix that two sets share is ever withdrawn, and within a change the new
// ones come before the old ones go.
func TestConverges(t *testing.T) {
	t.Parallel()
	r := startRouter(t, "127.0.0.11", routerASN)
	r.accept(t, "127.0.0.1", "")
	s := newTestServer(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer("tor")}}
	must(t, s.Set(t.Context(), d))
	comesUp(t, s, "tor")
	all := candidates()
	for range 60 {
		before := d.Prefixes()
		d.Announcements = speaker.Plainly(randomSet(random)...)
		heard := len(r.log())
		must(t, s.Set(t.Context(), d))
		flushed := random.IntN(3) > 0
		if flushed {
			must(t, s.Flush(within(t, soon), all))
			r.has(t, names(d.Prefixes())...)
			checkOrder(t, r.log()[heard:], before, d.Prefixes())
			continue
		}
		changed := d.Prefixes()
		d.Announcements = speaker.Plainly(before...) // taken back, perhaps before it was written
		must(t, s.Set(t.Context(), d))
		must(t, s.Flush(within(t, soon), all))
		eventually(t, "the router hears the change and its reversal", func() bool {
			return len(r.log()) == heard+2*differences(before, changed)
		})
		r.has(t, names(before)...)
	}
}

// differences counts the prefixes that are in one of two sets only.
func differences(a, b []netip.Prefix) int {
	n := 0
	for _, name := range names(append(slices.Clone(a), b...)) {
		p := netip.MustParsePrefix(name)
		if slices.Contains(a, p) != slices.Contains(b, p) {
			n++
		}
	}
	return n
}

// candidates are what randomSet draws from.
func candidates() []netip.Prefix {
	var set []netip.Prefix
	for i := range 12 {
		set = append(set, netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", i)))
	}
	return set
}

func randomSet(random *rand.Rand) []netip.Prefix {
	var set []netip.Prefix
	for _, p := range candidates() {
		if random.IntN(2) == 0 {
			set = append(set, p)
		}
	}
	random.Shuffle(len(set), func(i, j int) { set[i], set[j] = set[j], set[i] })
	return append(set, set...) // duplicates do not matter
}

func names(set []netip.Prefix) []string {
	list := []string{}
	for _, p := range set {
		if s := p.String(); !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

func checkOrder(t *testing.T, heard []string, before, after []netip.Prefix) {
	t.Helper()
	withdrawing := false
	for _, h := range heard {
		p := netip.MustParsePrefix(h[1:])
		if strings.HasPrefix(h, "-") {
			withdrawing = true
			if slices.Contains(after, p) {
				t.Fatalf("from %v to %v withdrew %s", before, after, p)
			}
		} else if withdrawing || slices.Contains(before, p) {
			t.Fatalf("from %v to %v: %v", before, after, heard)
		}
	}
}

// naiveOutbox is what an outbox counts, the dumb way: the list of UPDATEs that
// are on their way.
type naiveOutbox struct{ queue []naiveUpdate }

type naiveUpdate struct {
	prefix netip.Prefix
	med    int // -1 for a withdrawal
}

func outboxPrefix(i byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i, 0, 0}), 24)
}

// classesOf are none, one that is not told to a target, and some that are told to
// it with the MED of their place.
func classesOf(at netip.Prefix) []*class {
	all := []*class{nil, {number: 1, family: speaker.IPv4}}
	for n := range uint32(3) {
		words := variantOf(speaker.Attributes{MED: &n}, speaker.IPv4, false)
		all = append(all, &class{number: n + 2, family: speaker.IPv4, told: map[netip.Prefix]variant{at: words}})
	}
	return all
}

// An outbox is settled exactly when nothing is on its way, and a prefix
// when nothing of it is.
func TestOutboxAgainstQueue(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 2))
		l := newLedger(speaker.GracefulRestart{})
		l.asn = 64512
		p := peerWithDefaults(speaker.Peer{Name: "tor", Address: netip.MustParseAddr("192.0.2.1"), ASN: 64513})
		l.add(p, false)
		l.established(p.Address.String())
		classes := classesOf(whereabouts(p.Address))
		is := make(map[netip.Prefix]int) // a prefix's place among the classes
		var naive naiveOutbox
		for range 200 {
			if random.IntN(2) == 0 && len(naive.queue) > 0 {
				naive.deliver(l, p.Address.String())
			} else {
				x, next := outboxPrefix(byte(random.IntN(4))), random.IntN(len(classes))
				l.expect(x, classes[next])
				if was := is[x]; was != next && (was > 1 || next > 1) { // as GoBGP does
					naive.queue = append(naive.queue, naiveUpdate{x, max(next-2, -1)})
				}
				is[x] = next
			}
			naive.compare(t, l, seed)
		}
	}
}

// deliver writes the oldest UPDATE.
func (n *naiveOutbox) deliver(l *ledger, address string) {
	u := n.queue[0]
	n.queue = n.queue[1:]
	if u.med < 0 {
		l.update(address, nil, []netip.Prefix{u.prefix}, nil)
		return
	}
	l.update(address, []netip.Prefix{u.prefix}, nil, []bgp.PathAttributeInterface{
		bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{64512})}),
		bgp.NewPathAttributeMultiExitDisc(uint32(u.med)),
	})
}

func (n *naiveOutbox) compare(t *testing.T, l *ledger, seed uint64) {
	t.Helper()
	behind, _ := l.untold(time.Now())
	if missing := len(behind) > 0; missing != (len(n.queue) > 0) {
		t.Fatalf("seed %d: missing is %v with %d UPDATEs on their way", seed, missing, len(n.queue))
	}
	for i := range byte(4) {
		p := outboxPrefix(i)
		queued := slices.ContainsFunc(n.queue, func(u naiveUpdate) bool { return u.prefix == p })
		if (l.lacking(p, time.Now()) != nil) != queued {
			t.Fatalf("seed %d: %s is on its way: %v, not %v", seed, p, queued, !queued)
		}
	}
}
