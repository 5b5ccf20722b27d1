package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/routes"
	"github.com/fairway-network/fairway/speaker"
	"go4.org/netipx"
)

// portion is what a pool has on this node: the blocks, and of their addresses those
// that this node may announce. What it does announce of them is for others to say.
type portion struct {
	pool   string
	blocks []netip.Prefix
	set    *netipx.IPSet
}

// treatment is what the rules make of a pool for one peer.
type treatment struct {
	withhold   bool
	attributes speaker.Attributes
	ownHop     bool
	aggregate  Aggregate
}

// key is the same for treatments that are.
func (t treatment) key() string {
	number := func(n *uint32) string {
		if n == nil {
			return "-"
		}
		return fmt.Sprint(*n)
	}
	a := t.attributes
	return fmt.Sprint(t.withhold, a.Communities, a.LargeCommunities, number(a.LocalPreference), " ", number(a.MED), " ", a.Prepend, a.NextHops, t.ownHop, t.aggregate)
}

// told is every peer and range that can be told something, by name.
func (s *Settings) told() []string {
	var names []string
	for _, p := range s.Peers {
		names = append(names, p.Name)
	}
	for _, r := range s.Ranges {
		names = append(names, r.Name)
	}
	return names
}

// ruled says whether peers are not all told alike.
func (s *Settings) ruled() bool {
	return len(s.Rules) > 0 || s.Maintenance.Node || len(s.Maintenance.Peers) > 0
}

// treat is how a peer is told of a pool.
func (s *Settings) treat(pool, peer string) treatment {
	var t treatment
	if i := slices.IndexFunc(s.Rules, func(r Rule) bool { return r.about(pool, peer) }); i >= 0 {
		r := s.Rules[i]
		if r.Withhold {
			return treatment{withhold: true}
		}
		t = treatment{attributes: r.Attributes, ownHop: r.OwnNextHop, aggregate: r.Aggregate}
	}
	if s.Maintenance.Node || slices.Contains(s.Maintenance.Peers, peer) {
		t.attributes.Communities = append(slices.Clip(t.attributes.Communities), speaker.GracefulShutdown)
		t.attributes.LocalPreference = new(uint32)
	}
	return t
}

// attributesOf are those of a treatment, with this node's own addresses where they are
// the next hops.
func (s *Settings) attributesOf(t treatment) speaker.Attributes {
	a := t.attributes
	if !t.ownHop {
		return a
	}
	for _, f := range []pools.Family{pools.IPv4, pools.IPv6} {
		of := func(h netip.Addr) bool { return pools.FamilyOf(h) == f }
		if i := slices.IndexFunc(s.own, of); i >= 0 && !slices.ContainsFunc(a.NextHops, of) {
			a.NextHops = append(slices.Clip(a.NextHops), s.own[i])
		}
	}
	return a
}

// heard says whether a peer is configured that is told of a pool's addresses of a
// family, be it one that is awaited.
func (s *Settings) heard(pool string, f pools.Family) bool {
	peers := s.Peers
	if s.awaits(f) {
		peers = s.Awaited
	}
	for _, p := range peers {
		if carriesFamily(p.Session, f) && !s.treat(pool, p.Name).withhold {
			return true
		}
	}
	return slices.ContainsFunc(s.Ranges, func(r speaker.Range) bool {
		return carriesFamily(r.Session, f) && !s.treat(pool, r.Name).withhold
	})
}

// telling works out what the speaker is to announce, and to whom in which words.
type telling struct {
	settings *Settings
	portions []portion
	joined   map[string][]netip.Prefix // by aggregate and the places of portions
	// said is what each prefix is told with: a word for each peer that is told.
	said  map[netip.Prefix][]int
	words []word
}

// word is what one peer is told with some prefixes.
type word struct {
	peer       string
	attributes speaker.Attributes
	plain      bool
}

// tell gives the announcements of these prefixes, no address more and none less but
// for what rules withhold. Each peer is told of pools that it is told of alike as if
// they were one.
func tell(s *Settings, announce []netip.Prefix, portions []portion) ([]speaker.Announcement, map[string]speaker.Terms) {
	if !s.ruled() || len(s.told()) == 0 {
		return speaker.Plainly(routes.Aggregate(announce)...), nil
	}
	t := &telling{settings: s, joined: make(map[string][]netip.Prefix), said: make(map[netip.Prefix][]int)}
	all := setOf(announce)
	for _, p := range portions {
		if slices.ContainsFunc(p.set.Ranges(), func(r netipx.IPRange) bool { return !all.ContainsRange(r) }) {
			p.set = common(p.set, all)
		}
		if len(p.set.Ranges()) > 0 {
			t.portions = append(t.portions, p)
		}
	}
	for _, peer := range s.told() {
		t.add(peer)
	}
	return t.announcements()
}

// add says what one peer is told.
func (t *telling) add(peer string) {
	places := make(map[string][]int)
	treatments := make(map[string]treatment)
	for i, p := range t.portions {
		how := t.settings.treat(p.pool, peer)
		if how.withhold {
			continue
		}
		key := how.key()
		treatments[key] = how
		places[key] = append(places[key], i)
	}
	for key, how := range treatments {
		a := t.settings.attributesOf(how)
		plain := treatment{attributes: a}.key() == treatment{}.key()
		for _, p := range t.prefixes(how.aggregate, places[key]) {
			t.said[p] = append(t.said[p], len(t.words))
		}
		t.words = append(t.words, word{peer, a, plain})
	}
}

// prefixes are those of some portions.
func (t *telling) prefixes(how Aggregate, places []int) []netip.Prefix {
	key := fmt.Sprint(how, places)
	if list, known := t.joined[key]; known {
		return list
	}
	var pieces []netip.Prefix
	for _, i := range places {
		if p := t.portions[i]; how == (Aggregate{}) {
			pieces = append(pieces, p.set.Prefixes()...)
		} else {
			pieces = append(pieces, p.pieces()...)
		}
	}
	list := routes.AggregateTo(pieces, how.IPv4, how.IPv6)
	if how.Specifics {
		list = append(list, pieces...)
		slices.SortFunc(list, netip.Prefix.Compare)
		list = slices.Compact(list)
	}
	t.joined[key] = list
	return list
}

// pieces are the prefixes of the portion, of which none goes beyond a block.
func (p portion) pieces() []netip.Prefix {
	var out []netip.Prefix
	var rest netipx.IPSetBuilder
	rest.AddSet(p.set)
	for _, b := range p.blocks {
		rest.RemovePrefix(b)
		switch {
		case p.set.ContainsPrefix(b):
			out = append(out, b)
		case p.set.OverlapsPrefix(b):
			out = append(out, within([]netip.Prefix{b}, p.set)...)
		}
	}
	out = append(out, built(&rest).Prefixes()...)
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// announcements names the terms in the order of the prefixes.
func (t *telling) announcements() ([]speaker.Announcement, map[string]speaker.Terms) {
	var out []speaker.Announcement
	terms := make(map[string]speaker.Terms)
	names := make(map[string]string)
	for _, p := range slices.SortedFunc(maps.Keys(t.said), netip.Prefix.Compare) {
		said := t.said[p]
		key := fmt.Sprint(said)
		name, known := names[key]
		if !known {
			name = t.name(said, terms)
			names[key] = name
		}
		out = append(out, speaker.Announcement{Prefix: p, Terms: name})
	}
	return out, terms
}

// name gives terms for some words, "" for those that need none.
func (t *telling) name(said []int, terms map[string]speaker.Terms) string {
	if len(said) == len(t.settings.told()) && !slices.ContainsFunc(said, func(n int) bool { return !t.words[n].plain }) {
		return ""
	}
	name := fmt.Sprintf("terms %d", len(terms)+1)
	terms[name] = make(speaker.Terms, len(said))
	for _, n := range said {
		terms[name][t.words[n].peer] = t.words[n].attributes
	}
	return name
}
