package agent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/speaker"
	"go4.org/netipx"
)

// field is a small world of addresses for announcements: 64 of each family, dealt
// to pools.
type field struct {
	settings *Settings
	portions []portion
	announce []netip.Prefix
}

// plot is one of the 64 addresses of a family.
func plot(f pools.Family, n int) netip.Addr {
	if f == pools.IPv4 {
		return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
	}
	a := netip.MustParseAddr("fd00::").As16()
	a[15] = byte(n)
	return netip.AddrFrom16(a)
}

func randomField(r *rand.Rand) field {
	names := []string{"a", "b", "c", "d"}
	some := func() []string {
		var out []string
		for _, n := range names {
			if r.IntN(3) == 0 {
				out = append(out, n)
			}
		}
		return out
	}
	s := &Settings{own: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}
	for _, n := range names[:r.IntN(4)] {
		s.Peers = append(s.Peers, speaker.Peer{Name: n})
	}
	if r.IntN(2) == 0 {
		s.Ranges = []speaker.Range{{Name: "d"}}
	}
	for range r.IntN(5) {
		s.Rules = append(s.Rules, Rule{
			Pools: some(), Peers: some(), Withhold: r.IntN(4) == 0, OwnNextHop: r.IntN(4) == 0,
			Attributes: speaker.Attributes{NextHops: randomHops(r), Prepend: uint8(r.IntN(3)), Communities: make([]speaker.Community, r.IntN(2))},
			Aggregate:  Aggregate{IPv4: r.IntN(33), IPv6: 124 - r.IntN(5)*r.IntN(20), Specifics: r.IntN(2) == 0},
		})
	}
	s.Maintenance = Maintenance{Node: r.IntN(6) == 0, Peers: some()}
	f := field{settings: s}
	for _, family := range []pools.Family{pools.IPv4, pools.IPv6} {
		f.deal(r, family, names)
	}
	return f
}

// randomHops are addresses of no family, one or both.
func randomHops(r *rand.Rand) []netip.Addr {
	var out []netip.Addr
	for _, a := range []string{"192.0.2.9", "2001:db8::9"} {
		if r.IntN(4) == 0 {
			out = append(out, netip.MustParseAddr(a))
		}
	}
	return out
}

// deal gives cells of four addresses to pools, and holes and smaller blocks to them.
func (f *field) deal(r *rand.Rand, family pools.Family, names []string) {
	for cell := 0; cell < 64; cell += 4 {
		if r.IntN(4) == 0 {
			continue
		}
		at := plot(family, cell)
		block := netip.PrefixFrom(at, at.BitLen()-2)
		set := setOf([]netip.Prefix{block})
		if r.IntN(3) == 0 { // part of it is another node's
			set = without(set, setOf([]netip.Prefix{netip.PrefixFrom(plot(family, cell+r.IntN(4)), at.BitLen())}))
		}
		name := names[r.IntN(len(names))]
		i := slices.IndexFunc(f.portions, func(p portion) bool { return p.pool == name })
		if i < 0 {
			i, f.portions = len(f.portions), append(f.portions, portion{pool: name, set: &netipx.IPSet{}})
		}
		p := &f.portions[i]
		p.blocks = append(p.blocks, block)
		p.set = setOf(p.set.Prefixes(), set.Prefixes())
		if r.IntN(8) > 0 { // else it is being withdrawn
			f.announce = append(f.announce, set.Prefixes()...)
		}
	}
}

// mayTell is the dumb way: what a peer is to be told of one address, nil for
// nothing.
func (f field) mayTell(peer string, a netip.Addr) *speaker.Attributes {
	if !setOf(f.announce).Contains(a) {
		return nil
	}
	for _, p := range f.portions {
		if !p.set.Contains(a) {
			continue
		}
		var out speaker.Attributes
		for _, r := range f.settings.Rules {
			if (len(r.Pools) > 0 && !slices.Contains(r.Pools, p.pool)) || (len(r.Peers) > 0 && !slices.Contains(r.Peers, peer)) {
				continue
			}
			if r.Withhold {
				return nil
			}
			if out = r.Attributes; r.OwnNextHop && !hopFor(out, a).IsValid() {
				out.NextHops = f.settings.own
			}
			break
		}
		if f.settings.Maintenance.Node || slices.Contains(f.settings.Maintenance.Peers, peer) {
			out.Communities = append(slices.Clip(out.Communities), speaker.GracefulShutdown)
			out.LocalPreference = new(uint32)
		}
		return &out
	}
	return nil
}

// What is told to each peer is exactly what the rules say of each address, with
// the attributes that they say, whatever the rules.
func TestTellAgainstEachAddress(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		f := randomField(rand.New(rand.NewPCG(seed, 4)))
		announcements, terms := tell(f.settings, f.announce, f.portions)
		for _, peer := range append(f.settings.told(), "stranger") {
			told := make(map[netip.Addr]bool)
			for _, one := range announcements {
				attributes, is := terms[one.Terms][peer]
				if !is && one.Terms != "" || peer == "stranger" && one.Terms == "" {
					continue
				}
				for a := one.Prefix.Addr(); one.Prefix.Contains(a); a = a.Next() {
					want := f.mayTell(peer, a)
					if want == nil || fmt.Sprint(words(*want, a)) != fmt.Sprint(words(attributes, a)) {
						t.Fatalf("seed %d: peer %s is told of %s with %v in %s: want %v", seed, peer, a, attributes, one.Prefix, want)
					}
					told[a] = true
				}
			}
			for _, family := range []pools.Family{pools.IPv4, pools.IPv6} {
				for n := range 64 {
					if a := plot(family, n); peer != "stranger" && f.mayTell(peer, a) != nil && !told[a] {
						t.Fatalf("seed %d: peer %s is not told of %s", seed, peer, a)
					}
				}
			}
		}
	}
}

// words are attributes as they compare, for one address.
func words(a speaker.Attributes, of netip.Addr) []any {
	return []any{len(a.Communities), a.Prepend, hopFor(a, of), a.LocalPreference != nil}
}

// hopFor is the next hop that attributes give to prefixes of an address's family.
func hopFor(a speaker.Attributes, of netip.Addr) netip.Addr {
	for _, hop := range a.NextHops {
		if hop.Is4() == of.Is4() {
			return hop
		}
	}
	return netip.Addr{}
}

func prefixesOf(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// Blocks of pools that are told alike become one prefix, for each peer as far as its
// rule says.
func TestTellAggregates(t *testing.T) {
	t.Parallel()
	pool := func(name string, list ...string) portion {
		return portion{pool: name, blocks: prefixesOf(list...), set: setOf(prefixesOf(list...))}
	}
	portions := []portion{pool("web", "10.0.0.0/26", "10.0.0.64/26"), pool("db", "10.0.0.128/25")}
	announce := prefixesOf("10.0.0.0/26", "10.0.0.64/26", "10.0.0.128/25")
	both := func(rules ...Rule) *Settings {
		return &Settings{Peers: []speaker.Peer{{Name: "a"}, {Name: "b"}}, Rules: rules}
	}
	for _, c := range []struct {
		name string
		s    *Settings
		want map[string]string // the prefixes of each peer
	}{
		{"no rules", both(), map[string]string{"a": "[10.0.0.0/24]", "b": "[10.0.0.0/24]"}},
		{"up to a length", both(Rule{Peers: []string{"a"}, Aggregate: Aggregate{IPv4: 25}}), map[string]string{"a": "[10.0.0.0/25 10.0.0.128/25]", "b": "[10.0.0.0/24]"}},
		{"with the blocks", both(Rule{Aggregate: Aggregate{Specifics: true}}), map[string]string{
			"a": "[10.0.0.0/24 10.0.0.0/26 10.0.0.64/26 10.0.0.128/25]", "b": "[10.0.0.0/24 10.0.0.0/26 10.0.0.64/26 10.0.0.128/25]"}},
		{"one pool withheld", both(Rule{Pools: []string{"db"}, Peers: []string{"b"}, Withhold: true}), map[string]string{"a": "[10.0.0.0/24]", "b": "[10.0.0.0/25]"}},
		{"pools apart", both(Rule{Pools: []string{"db"}, Attributes: speaker.Attributes{Prepend: 1}}), map[string]string{
			"a": "[10.0.0.0/25 10.0.0.128/25]", "b": "[10.0.0.0/25 10.0.0.128/25]"}},
		{"the first rule counts", both(Rule{Pools: []string{"db"}}, Rule{Withhold: true}), map[string]string{"a": "[10.0.0.128/25]", "b": "[10.0.0.128/25]"}},
	} {
		announcements, terms := tell(c.s, announce, portions)
		got := map[string][]netip.Prefix{}
		for _, one := range announcements {
			for _, peer := range []string{"a", "b"} {
				if _, told := terms[one.Terms][peer]; told || one.Terms == "" {
					got[peer] = append(got[peer], one.Prefix)
				}
			}
		}
		for peer, want := range c.want {
			if fmt.Sprint(got[peer]) != want {
				t.Errorf("%s: peer %s is told of %v, want %s", c.name, peer, got[peer], want)
			}
		}
	}
}

// What needs no terms has none, and what is under maintenance says so.
func TestTellMaintenance(t *testing.T) {
	t.Parallel()
	portions := []portion{{pool: "web", blocks: prefixesOf("10.0.0.0/26"), set: setOf(prefixesOf("10.0.0.0/26"))}}
	s := &Settings{Peers: []speaker.Peer{{Name: "a"}, {Name: "b"}}, Rules: []Rule{{Aggregate: Aggregate{IPv4: 30}}}}
	announcements, terms := tell(s, prefixesOf("10.0.0.0/26"), portions)
	if !reflect.DeepEqual(announcements, speaker.Plainly(prefixesOf("10.0.0.0/26")...)) || len(terms) != 0 {
		t.Errorf("%v, %v", announcements, terms)
	}
	s.Maintenance.Peers = []string{"b"}
	announcements, terms = tell(s, prefixesOf("10.0.0.0/26"), portions)
	want := map[string]speaker.Terms{"terms 1": {"a": {}, "b": {Communities: []speaker.Community{speaker.GracefulShutdown}, LocalPreference: new(uint32)}}}
	if len(announcements) != 1 || announcements[0].Terms != "terms 1" || !reflect.DeepEqual(terms, want) {
		t.Errorf("%v, %v", announcements, terms)
	}
}

// Pods of a pool that nobody is told of wait for nobody; those of another do. Once
// the rule is gone, the pool is announced.
func TestLeaseOfWithheldPool(t *testing.T) {
	h := newHost(t)
	h.established = false
	s := settings(t, pool(t, "web", 4, "10.1.0.0/24"), pool(t, "db", 4, "10.2.0.0/24"))
	s.Rules = []Rule{{Pools: []string{"web"}, Withhold: true}}
	a := h.start(s)
	web := lease(t, a, request("web", 1))
	h.update(func() {
		if len(h.bgp.Ranges()) > 0 {
			t.Errorf("announced: %v", h.bgp.Prefixes())
		}
		h.established = true
	})
	db := lease(t, a, request("db", 2))
	h.await("the other pool is announced", func() bool { return h.peer.Contains(db) && !h.bgp.Contains(web) })
	s.Rules = nil
	if err := a.Reload(s); err != nil {
		t.Fatal(err)
	}
	h.await("both are announced", func() bool { return h.peer.Contains(db) && h.bgp.Contains(web) })
	s.Rules = []Rule{{Pools: []string{"db"}, Attributes: speaker.Attributes{Prepend: 2}}}
	if err := a.Reload(s); err != nil {
		t.Fatal(err)
	}
	h.await("db has terms", func() bool {
		return len(h.desired.Terms) == 1 && slices.ContainsFunc(h.desired.Announcements, func(one speaker.Announcement) bool {
			return one.Prefix.Contains(db) && h.desired.Terms[one.Terms]["tor"].Prepend == 2
		})
	})
}

// BenchmarkTell is the part of a pass that works out announcements: 1,000 blocks of
// 50 pools, eight peers, a rule for each pool.
func BenchmarkTell(b *testing.B) {
	s := &Settings{}
	for i := range 8 {
		s.Peers = append(s.Peers, speaker.Peer{Name: fmt.Sprint("peer", i)})
	}
	var portions []portion
	var announce []netip.Prefix
	for i := range 50 {
		name := fmt.Sprint("pool", i)
		var blocks []netip.Prefix
		for j := range 20 {
			blocks = append(blocks, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), byte(j), byte(j%4) << 6}), 26))
		}
		portions, announce = append(portions, portion{name, blocks, setOf(blocks)}), append(announce, blocks...)
		s.Rules = append(s.Rules, Rule{Pools: []string{name}, Attributes: speaker.Attributes{Prepend: uint8(i % 5)}, Aggregate: Aggregate{IPv4: 24, Specifics: i%2 == 0}})
	}
	for b.Loop() {
		tell(s, announce, portions)
	}
}
