package server

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/speaker"
)

// tagASN is the global administrator of the large community that says inside of
// GoBGP which class a path is of. It is nobody's ASN (RFC 7300), and no
// announcement may carry it (RFC 8092, section 5, reserves it).
const tagASN = math.MaxUint32

// maxAttributes bounds the octets of what is added to a prefix, so that it fits
// into an UPDATE (RFC 4271, section 4).
const maxAttributes = 3000

// announcements are those of a Set, each once.
type announcements struct {
	list  []speaker.Announcement
	named map[string]speaker.Terms
}

// prefixes of all of them.
func (a announcements) prefixes() []netip.Prefix {
	return speaker.Desired{Announcements: a.list}.Prefixes()
}

// with is what c makes of them, which stay as they are.
func (a announcements) with(c speaker.Change) announcements {
	a.list = c.Apply(slices.Clone(a.list))
	return a
}

// check says what is wrong with one.
func (a announcements) check(one speaker.Announcement) error {
	p := one.Prefix
	if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
		return fmt.Errorf("prefix %q: want a network without host bits", p)
	}
	if _, known := a.named[one.Terms]; !known && one.Terms != "" {
		return fmt.Errorf("prefix %s: nothing is said of its terms %q", p, one.Terms)
	}
	return nil
}

// checkAll says what is wrong with some that come to them.
func (a announcements) checkAll(list []speaker.Announcement) error {
	for _, one := range list {
		if err := a.check(one); err != nil {
			return err
		}
	}
	return nil
}

// checkAnnouncements gives them as a set.
func checkAnnouncements(d speaker.Desired) (announcements, error) {
	a := announcements{list: d.Announcements, named: d.Terms}
	seen := make(map[netip.Prefix]string, len(d.Announcements))
	for _, one := range d.Announcements {
		if err := a.check(one); err != nil {
			return a, err
		}
		p := one.Prefix
		if other, twice := seen[p]; twice && other != one.Terms {
			return a, fmt.Errorf("prefix %s: announced with the terms %q and %q: want it once", p, other, one.Terms)
		}
		seen[p] = one.Terms
	}
	if len(seen) < len(a.list) {
		a.list = make([]speaker.Announcement, 0, len(seen))
		for p, terms := range seen {
			a.list = append(a.list, speaker.Announcement{Prefix: p, Terms: terms})
		}
	}
	var errs []error
	for name, terms := range d.Terms {
		for peer, attributes := range terms {
			if err := checkAttributes(attributes); err != nil {
				errs = append(errs, fmt.Errorf("terms %q for peer %s: %w", name, peer, err))
			}
		}
	}
	return a, errors.Join(errs...)
}

// checkAttributes says what is wrong with attributes.
func checkAttributes(a speaker.Attributes) error {
	for _, c := range a.LargeCommunities {
		if c.Global == tagASN {
			return fmt.Errorf("large community %d:%d:%d: the ASN %d is reserved (RFC 8092): use this network's", c.Global, c.Local1, c.Local2, c.Global)
		}
	}
	if err := checkNextHops(a.NextHops); err != nil {
		return err
	}
	if n := 4*len(a.Communities) + 12*len(a.LargeCommunities) + 4*int(a.Prepend); n > maxAttributes {
		return fmt.Errorf("%d octets of attributes: want at most %d, so that they fit into a message", n, maxAttributes)
	}
	return nil
}

func checkNextHops(hops []netip.Addr) error {
	for i, h := range hops {
		if !h.IsValid() || h.IsUnspecified() || h.IsMulticast() || h.Is4In6() || h.Zone() != "" {
			return fmt.Errorf("next hop %s: want an IPv4 or IPv6 address of this node", h)
		}
		if slices.ContainsFunc(hops[:i], func(other netip.Addr) bool { return familyOf(other) == familyOf(h) }) {
			return fmt.Errorf("next hops %s: want one of each family at most", hops)
		}
	}
	return nil
}

// target is who can be told something else than others: a peer, or the routers
// of a range.
type target struct {
	at       netip.Prefix // whereabouts of the peer, or the range's network
	name     string
	asn      uint32 // this node's towards it
	internal bool   // iBGP
	families []speaker.Family
	down     bool
}

func (n target) carries(f speaker.Family) bool { return slices.Contains(n.families, f) }

// targetsOf are peers, and after them ranges from the longest network to the
// shortest: the first that an address is in is the one that counts.
func targetsOf(l speaker.Local, peers map[netip.Addr]speaker.Peer, ranges map[string]speaker.Range) []target {
	var list []target
	add := func(p speaker.Peer, name string, at netip.Prefix) {
		if slices.ContainsFunc(list, func(n target) bool { return n.at == at }) {
			return // a range of the one address that is a peer's
		}
		list = append(list, target{
			at: at, name: name, asn: localASN(p.Session, l), internal: p.ASN == localASN(p.Session, l),
			families: p.Families, down: p.Down,
		})
	}
	for _, a := range slices.SortedFunc(maps.Keys(peers), netip.Addr.Compare) {
		add(peers[a], peers[a].Name, whereabouts(a))
	}
	byLength := slices.SortedFunc(maps.Values(ranges), func(a, b speaker.Range) int {
		return cmp.Or(b.Network.Bits()-a.Network.Bits(), a.Network.Addr().Compare(b.Network.Addr()))
	})
	for _, rg := range byLength {
		add(memberOf(rg, rg.Network.Addr()), rg.Name, rg.Network)
	}
	return list
}

// variant is how a prefix is told: Attributes as they come out in an UPDATE of one
// session.
type variant struct {
	communities string     // four octets each, sorted
	large       string     // twelve octets each, sorted
	preference  int64      // -1 for none
	med         int64      // -1 for none
	length      int        // of the AS path
	hop         netip.Addr // zero for this node's end of the session
}

// variantOf is what attributes make of a prefix of a family for a neighbor, which
// is an iBGP peer or not.
func variantOf(a speaker.Attributes, f speaker.Family, internal bool) variant {
	v := variant{communities: packed(a.Communities), large: packedLarge(a.LargeCommunities), preference: -1, med: -1}
	if a.MED != nil {
		v.med = int64(*a.MED)
	}
	if i := slices.IndexFunc(a.NextHops, func(h netip.Addr) bool { return familyOf(h) == f }); i >= 0 {
		v.hop = a.NextHops[i]
	}
	switch {
	case !internal:
		v.length = 1 + int(a.Prepend)
	case a.LocalPreference != nil: // and no prepending: iBGP peers take their own ASN for a loop
		v.preference = int64(*a.LocalPreference)
	default:
		v.preference = usualPreference
	}
	return v
}

func packed(list []speaker.Community) string {
	list = slices.Clone(list)
	slices.Sort(list)
	var b []byte
	for _, c := range slices.Compact(list) {
		b = binary.BigEndian.AppendUint32(b, uint32(c))
	}
	return string(b)
}

func packedLarge(list []speaker.LargeCommunity) string {
	var each []string
	for _, c := range list {
		b := binary.BigEndian.AppendUint32(nil, c.Global)
		b = binary.BigEndian.AppendUint32(b, c.Local1)
		each = append(each, string(binary.BigEndian.AppendUint32(b, c.Local2)))
	}
	slices.Sort(each)
	var b []byte
	for _, c := range slices.Compact(each) {
		b = append(b, c...)
	}
	return string(b)
}

// class is what GoBGP's export policy tells apart: paths of one class are told to
// the same neighbors in the same words. What a class says to a neighbor never
// changes as long as that has a session: GoBGP finds out whom it told of a path by
// asking the policy about it again.
type class struct {
	number uint32 // never used for another one in the life of a run
	family speaker.Family
	// told is for everybody with the plain class, whose number is 0. Changed under
	// the ledger's lock alone.
	told map[netip.Prefix]variant
	// audience says that a configured peer, or more, is told. Of the plain class
	// the ledger's families say so.
	audience bool
}

func (c *class) plain() bool { return c.number == 0 }

// covers says whether everybody that another class is told to is told c.
func (c *class) covers(other *class) bool {
	if c.plain() || other.plain() {
		return c.plain()
	}
	for at := range other.told {
		if _, told := c.told[at]; !told {
			return false
		}
	}
	return true
}

// speech is what a class is to say, and to whom.
type speech struct {
	told     map[netip.Prefix]variant
	audience bool
}

// speechOf says what terms mean for prefixes of a family.
func speechOf(t speaker.Terms, f speaker.Family, list []target) speech {
	o := speech{told: make(map[netip.Prefix]variant)}
	for _, n := range list {
		if a, told := t[n.name]; told && n.carries(f) {
			o.told[n.at] = variantOf(a, f, n.internal)
			o.audience = o.audience || !n.down
		}
	}
	return o
}

// serves says whether c can say o: it does so already to all that have a session
// which goes on.
func (c *class) serves(o speech, lasting map[netip.Prefix]bool) bool {
	for at := range lasting {
		was, told := c.told[at]
		if is, tell := o.told[at]; told != tell || was != is {
			return false
		}
	}
	return true
}

// classifier finds classes for the terms of a Set.
type classifier struct {
	targets []target
	lasting map[netip.Prefix]bool // that have sessions which go on
	known   []*class
	last    uint32
	taken   map[*class]speech
	found   map[classKey]*class
}

type classKey struct {
	terms  string
	family speaker.Family
}

// find gives the class of terms. What it is to say is in taken.
func (k *classifier) find(name string, t speaker.Terms, f speaker.Family) *class {
	key := classKey{name, f}
	if c := k.found[key]; c != nil {
		return c
	}
	o := speechOf(t, f, k.targets)
	c := k.suitable(o, f)
	if c == nil {
		k.last++
		c = &class{number: k.last, family: f}
		k.known = append(k.known, c)
	}
	k.taken[c], k.found[key] = o, c
	return c
}

// suitable is a known class for a speech, nil if there is none. One that is taken
// serves the same speech only.
func (k *classifier) suitable(o speech, f speaker.Family) *class {
	for _, c := range k.known {
		if c.plain() || c.family != f {
			continue
		}
		other, taken := k.taken[c]
		if taken && maps.Equal(other.told, o.told) || !taken && c.serves(o, k.lasting) {
			return c
		}
	}
	return nil
}
