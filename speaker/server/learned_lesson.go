package server

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// lesson is what an UPDATE says of IPv4 and IPv6 routes (RFC 4271, section 4.3; RFC
// 4760). It is read from the wire beside GoBGP, which makes each route anew in several
// forms before it gives it away: that takes longer than all else together. Reading
// another one into it takes its memory.
type lesson struct {
	withdrawn []telling
	told      []telling // by way of NEXT_HOP
	reached   []telling // by way of the next hops in MP_REACH_NLRI
	end       speaker.Family
	attributes
}

// telling is a prefix, with its number where a router tells several ways to one (RFC 7911).
type telling struct {
	prefix netip.Prefix
	number uint32
}

// attributes are those that a choice is made by. They are zero where an UPDATE does not
// have them, and the paths last as long as the message that they are of.
type attributes struct {
	origin          uint8
	path, path4     asPath
	hop             netip.Addr // NEXT_HOP
	global, local   netip.Addr // the next hops in MP_REACH_NLRI
	med, preference uint32
	originator      netip.Addr
	shut            bool   // RFC 8326
	has             uint64 // a bit for each type of RFC 4271 and after
	// wrong says that one of them can't be relied on: what the UPDATE announces counts
	// as withdrawn (RFC 7606).
	wrong bool
}

func (a *attributes) carries(kind bgp.BGPAttrType) bool { return a.has&(1<<kind) != 0 }

// errUnreadable is about an UPDATE whose prefixes are not to be told: GoBGP ends the
// session over it.
var errUnreadable = errors.New("the prefixes of an UPDATE cannot be read")

// read makes it what the body of an UPDATE says, under the terms of its session; nil for
// none.
func (u *lesson) read(body []byte, agreed *bgp.MarshallingOption) error {
	*u = lesson{withdrawn: u.withdrawn[:0], told: u.told[:0], reached: u.reached[:0]}
	withdrawn, rest, whole := counted(body)
	list, nlri, fits := counted(rest)
	if !whole || !fits {
		return errUnreadable
	}
	ok := appendTellings(&u.withdrawn, withdrawn, speaker.IPv4, agreed) && appendTellings(&u.told, nlri, speaker.IPv4, agreed)
	for ok && len(list) > 0 {
		kind, value, rest, cut := attribute(list)
		if !cut {
			u.wrong = true
			break
		}
		ok = u.take(kind, bgp.BGPAttrFlag(list[0]), value, agreed)
		list = rest
	}
	if !ok {
		return errUnreadable
	}
	if len(body) == minUpdate-bgp.BGP_HEADER_LENGTH {
		u.end = speaker.IPv4
	}
	if u.wrong || u.lacks() {
		u.withdrawn = append(append(u.withdrawn, u.told...), u.reached...)
		u.told, u.reached = u.told[:0], u.reached[:0]
	}
	return nil
}

// lacks says whether an attribute is missing that routes have to come with (RFC 4271,
// section 6.3).
func (u *lesson) lacks() bool {
	needs := func(kind bgp.BGPAttrType) bool { return !u.carries(kind) }
	return len(u.told)+len(u.reached) > 0 && (needs(bgp.BGP_ATTR_TYPE_ORIGIN) || needs(bgp.BGP_ATTR_TYPE_AS_PATH)) ||
		len(u.told) > 0 && needs(bgp.BGP_ATTR_TYPE_NEXT_HOP)
}

// take enters an attribute. It gives false where prefixes in it cannot be told.
func (u *lesson) take(kind bgp.BGPAttrType, flags bgp.BGPAttrFlag, value []byte, agreed *bgp.MarshallingOption) bool {
	carriesPrefixes := kind == bgp.BGP_ATTR_TYPE_MP_REACH_NLRI || kind == bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI
	if kind < 64 {
		if u.carries(kind) {
			return !carriesPrefixes // RFC 7606, section 3: the first one counts
		}
		u.has |= 1 << kind
	}
	if want, known := bgp.PathAttrFlags[kind]; known && flags&^(bgp.BGP_ATTR_FLAG_EXTENDED_LENGTH|bgp.BGP_ATTR_FLAG_PARTIAL) != want {
		u.wrong = true
		return !carriesPrefixes
	}
	switch kind {
	case bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI:
		return u.takeUnreach(value, agreed)
	case bgp.BGP_ATTR_TYPE_MP_REACH_NLRI:
		return u.takeReach(value, agreed)
	}
	u.wrong = !u.takePlain(kind, value) || u.wrong
	return true
}

// takePlain enters an attribute without prefixes, and says whether it is well-formed.
func (u *lesson) takePlain(kind bgp.BGPAttrType, value []byte) (ok bool) {
	switch kind {
	case bgp.BGP_ATTR_TYPE_ORIGIN:
		if ok = len(value) == 1 && value[0] <= bgp.BGP_ORIGIN_ATTR_TYPE_INCOMPLETE; ok {
			u.origin = value[0]
		}
	case bgp.BGP_ATTR_TYPE_AS_PATH:
		u.path, ok = readPath(value)
	case bgp.BGP_ATTR_TYPE_AS4_PATH:
		u.path4, ok = readSegments(value, 4)
	case bgp.BGP_ATTR_TYPE_NEXT_HOP:
		u.hop, ok = netip.AddrFromSlice(value)
		ok = ok && u.hop.Is4() && value[0] != 0 && value[0] < 224
	case bgp.BGP_ATTR_TYPE_MULTI_EXIT_DISC:
		u.med, ok = numberOf(value)
	case bgp.BGP_ATTR_TYPE_LOCAL_PREF:
		u.preference, ok = numberOf(value)
	case bgp.BGP_ATTR_TYPE_ORIGINATOR_ID:
		u.originator, ok = netip.AddrFromSlice(value)
		ok = ok && u.originator.Is4()
	case bgp.BGP_ATTR_TYPE_COMMUNITIES:
		ok = len(value)%4 == 0
		for list := value; ok && len(list) > 0; list = list[4:] {
			u.shut = u.shut || binary.BigEndian.Uint32(list) == uint32(speaker.GracefulShutdown)
		}
	case bgp.BGP_ATTR_TYPE_CLUSTER_LIST:
		ok = len(value)%4 == 0
	case bgp.BGP_ATTR_TYPE_EXTENDED_COMMUNITIES:
		ok = len(value)%8 == 0
	case bgp.BGP_ATTR_TYPE_LARGE_COMMUNITY:
		ok = len(value)%12 == 0
	default:
		ok = true // no choice is made by it
	}
	return ok
}

func numberOf(value []byte) (uint32, bool) {
	if len(value) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(value), true
}

// family is that of the prefixes of MP_REACH_NLRI or MP_UNREACH_NLRI; empty for others
// than those of routes.
func family(value []byte) speaker.Family {
	switch bgp.AfiSafiToRouteFamily(binary.BigEndian.Uint16(value), value[2]) {
	case bgp.RF_IPv4_UC:
		return speaker.IPv4
	case bgp.RF_IPv6_UC:
		return speaker.IPv6
	}
	return ""
}

func (u *lesson) takeUnreach(value []byte, agreed *bgp.MarshallingOption) bool {
	if len(value) < 3 {
		return false
	}
	f := family(value)
	if f == "" {
		return true
	}
	if only := uint64(1) << bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI; len(value) == 3 && u.has == only && len(u.withdrawn)+len(u.told) == 0 {
		u.end = f
	}
	return appendTellings(&u.withdrawn, value[3:], f, agreed)
}

func (u *lesson) takeReach(value []byte, agreed *bgp.MarshallingOption) bool {
	if len(value) < 5 || len(value) < 5+int(value[3]) {
		return false
	}
	f, hops, prefixes := family(value), value[4:4+value[3]], value[5+value[3]:]
	if f == "" {
		return true
	}
	switch len(hops) {
	case 0, net4, net6, 2 * net6:
	default:
		return false
	}
	u.global = addrOf(hops[:min(len(hops), net6)])
	if len(hops) == 2*net6 {
		u.local = addrOf(hops[net6:])
	}
	return appendTellings(&u.reached, prefixes, f, agreed)
}

// Bytes of an address.
const (
	net4 = 4
	net6 = 16
)

// appendTellings reads prefixes of a family to their end.
func appendTellings(list *[]telling, b []byte, f speaker.Family, agreed *bgp.MarshallingOption) bool {
	six, kind := f == speaker.IPv6, bgp.RF_IPv4_UC
	if six {
		kind = bgp.RF_IPv6_UC
	}
	numbered := agreed != nil && agreed.AddPath[kind]&bgp.BGP_ADD_PATH_RECEIVE != 0
	for len(b) > 0 {
		var t telling
		if numbered {
			if len(b) < 5 {
				return false
			}
			t.number, b = binary.BigEndian.Uint32(b), b[4:]
		}
		p, rest, ok := cutPrefix(b, six)
		if !ok {
			return false
		}
		t.prefix = p.Masked()
		*list, b = append(*list, t), rest
	}
	return true
}

// asPath is an AS path as it is on the wire, of whole segments.
type asPath struct {
	segments []byte
	width    int    // bytes of an ASN
	length   int    // RFC 4271, section 9.1.2.2
	first    uint32 // of the ASNs; 0 if it begins with a set, or there is none
	confed   bool   // it has segments of a confederation (RFC 5065)
}

// readPath takes the wide ASNs of RFC 6793, or narrow ones where it is made of those.
func readPath(value []byte) (asPath, bool) {
	if p, ok := readSegments(value, 4); ok {
		return p, true
	}
	return readSegments(value, 2)
}

func readSegments(value []byte, width int) (asPath, bool) {
	p := asPath{segments: value, width: width}
	for b := value; len(b) > 0; {
		if len(b) < 2 || b[1] == 0 || len(b) < 2+int(b[1])*width {
			return asPath{}, false
		}
		switch b[0] {
		case bgp.BGP_ASPATH_ATTR_TYPE_SEQ:
			if len(b) == len(value) {
				p.first = asnAt(b[2:], width)
			}
			p.length += int(b[1])
		case bgp.BGP_ASPATH_ATTR_TYPE_SET:
			p.length++
		case bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SEQ, bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SET:
			p.confed = true
		default:
			return asPath{}, false
		}
		b = b[2+int(b[1])*width:]
	}
	return p, true
}

func asnAt(b []byte, width int) uint32 {
	if width == 2 {
		return uint32(binary.BigEndian.Uint16(b))
	}
	return binary.BigEndian.Uint32(b)
}

// contains says whether an ASN is in any segment.
func (p asPath) contains(asn uint32) bool {
	for b := p.segments; len(b) > 0; {
		n := 2 + int(b[1])*p.width
		for list := b[2:n]; len(list) > 0; list = list[p.width:] {
			if asnAt(list, p.width) == asn {
				return true
			}
		}
		b = b[n:]
	}
	return false
}

// along enters the AS path in a way, and says whether this node is not in it. A router
// that knows narrow ASNs alone passes on the wide ones beside, of the path's end (RFC
// 6793, section 4.2.3).
func (w *way) along(path, wide asPath, own uint32) bool {
	w.length, w.neighbor = path.length, path.first
	if wide.length > path.length {
		return !path.contains(own)
	}
	if wide.length == path.length && wide.length > 0 {
		w.neighbor = wide.first
	}
	return !slices.ContainsFunc([]asPath{path, wide}, func(p asPath) bool { return p.contains(own) })
}
