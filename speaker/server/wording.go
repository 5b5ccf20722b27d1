package server

import (
	"bytes"
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// update is an UPDATE of this node's, taken apart where it lies (RFC 4271, section 4.3;
// RFC 4760, sections 3 and 4).
type update struct {
	announced, withdrawn octets
	words                words
}

// octets are prefixes, encoded as in RFC 4271, section 4.3: some outside of the attributes, which
// are IPv4, and some inside.
type octets struct {
	outside, inside []byte
	inside6         bool
}

// words are the attributes of an UPDATE but for the prefixes in them.
type words struct {
	before, after []byte // of MP_REACH_NLRI; before is all where there is none
	flags         byte   // of MP_REACH_NLRI, but for the one that its length is long
	hop           []byte // what MP_REACH_NLRI has before its prefixes
}

// wording is how GoBGP put something in a session.
type wording struct {
	words
	family  speaker.Family
	variant variant
}

// Of path attributes (RFC 4271, section 4.3).
const (
	longLength       = byte(bgp.BGP_ATTR_FLAG_EXTENDED_LENGTH)
	mostOfAttributes = bgp.BGP_MAX_MESSAGE_LENGTH - minUpdate
)

func newWording(u update, v variant) *wording {
	w := &wording{family: u.family(), variant: v}
	w.words = words{bytes.Clone(u.words.before), bytes.Clone(u.words.after), u.words.flags, bytes.Clone(u.words.hop)}
	return w
}

// family is that of the prefixes which are announced.
func (u update) family() speaker.Family {
	if u.announced.inside6 {
		return speaker.IPv6
	}
	return speaker.IPv4
}

func (w words) equal(v words) bool {
	return w.flags == v.flags && bytes.Equal(w.hop, v.hop) && bytes.Equal(w.before, v.before) && bytes.Equal(w.after, v.after)
}

// puts says whether an UPDATE in these words says what w does: in its very words, or in
// such as are told apart by nobody. v is the wording that they are, nil if that is not known.
func (w *wording) puts(in words, v *wording) bool {
	return w != nil && (w == v || w.equal(in) || v != nil && w.family == v.family && w.variant == v.variant)
}

// without is an UPDATE without some of its prefixes, empty if none is left.
func (u update) without(prefixes []netip.Prefix) []byte {
	var out parcel
	w := &wording{words: u.words}
	for p := range u.announced.all() {
		if !slices.Contains(prefixes, p) {
			out.announce(p, w)
		}
	}
	for p := range u.withdrawn.all() {
		if !slices.Contains(prefixes, p) {
			out.withdraw(p)
		}
	}
	return out.end()
}

// dissect takes an UPDATE apart. It says no to one that is not well-formed, and to one
// that announces prefixes both inside and outside of its attributes, or of families that
// this node has none of.
func dissect(message []byte) (u update, ok bool) {
	rest := message[min(len(message), bgp.BGP_HEADER_LENGTH):]
	if u.withdrawn.outside, rest, ok = counted(rest); !ok {
		return u, false
	}
	attributes, rest, ok := counted(rest)
	if !ok || !u.read(attributes) {
		return u, false
	}
	u.announced.outside = rest
	if len(u.announced.outside) > 0 && len(u.words.hop) > 0 {
		return u, false
	}
	return u, u.announced.wellFormed() && u.withdrawn.wellFormed()
}

// read takes the attributes apart.
func (u *update) read(attributes []byte) bool {
	u.words.before = attributes
	for rest := attributes; len(rest) > 0; {
		at := len(attributes) - len(rest)
		kind, value, after, ok := attribute(rest)
		if !ok {
			return false
		}
		switch kind {
		case bgp.BGP_ATTR_TYPE_MP_REACH_NLRI:
			if len(u.words.hop) > 0 || !u.readReach(value) {
				return false
			}
			u.words.flags = rest[0] &^ longLength
			u.words.before, u.words.after = attributes[:at], after
		case bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI:
			if len(value) < 3 {
				return false
			}
			if u.withdrawn.inside6, ok = carries6(value[:3]); !ok {
				return false
			}
			u.withdrawn.inside = value[3:]
		}
		rest = after
	}
	return true
}

// readReach takes the value of MP_REACH_NLRI apart.
func (u *update) readReach(value []byte) (ok bool) {
	if len(value) < 4 {
		return false
	}
	n := 4 + int(value[3]) + 1 // the last one is reserved
	if len(value) < n {
		return false
	}
	if u.announced.inside6, ok = carries6(value[:3]); !ok {
		return false
	}
	u.words.hop, u.announced.inside = value[:n:n], value[n:]
	return true
}

// carries6 says whether AFI and SAFI are those of IPv6 unicast; ok that they are of
// unicast at all.
func carries6(family []byte) (six, ok bool) {
	afi := binary.BigEndian.Uint16(family)
	return afi == bgp.AFI_IP6, family[2] == bgp.SAFI_UNICAST && (afi == bgp.AFI_IP || afi == bgp.AFI_IP6)
}

func (o octets) empty() bool { return len(o.outside)+len(o.inside) == 0 }

func (o octets) wellFormed() bool {
	return wellFormed(o.outside, false) && wellFormed(o.inside, o.inside6)
}

func wellFormed(b []byte, six bool) bool {
	ok := true
	for ok && len(b) > 0 {
		_, b, ok = cutPrefix(b, six)
	}
	return ok
}

// all gives each prefix of well-formed ones.
func (o octets) all() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for rest := o.outside; len(rest) > 0; {
			var p netip.Prefix
			if p, rest, _ = cutPrefix(rest, false); !yield(p) {
				return
			}
		}
		for rest := o.inside; len(rest) > 0; {
			var p netip.Prefix
			if p, rest, _ = cutPrefix(rest, o.inside6); !yield(p) {
				return
			}
		}
	}
}

// cutPrefix takes the first of one or more prefixes (RFC 4271, section 4.3), whose host
// bits may be set. It says no to one that is too long or not all there.
func cutPrefix(b []byte, six bool) (p netip.Prefix, rest []byte, ok bool) {
	most := 8 * net4
	if six {
		most = 8 * net6
	}
	bits := int(b[0])
	n := 1 + (bits+7)/8
	if bits > most || len(b) < n {
		return p, nil, false
	}
	var octets [net6]byte
	copy(octets[:], b[1:n])
	a := netip.AddrFrom16(octets)
	if !six {
		a = netip.AddrFrom4([net4]byte(octets[:]))
	}
	return netip.PrefixFrom(a, bits), b[n:], true
}

func appendPrefix(b []byte, p netip.Prefix) []byte {
	b = append(b, byte(p.Bits()))
	n := (p.Bits() + 7) / 8
	if p.Addr().Is4() {
		a := p.Addr().As4()
		return append(b, a[:n]...)
	}
	a := p.Addr().As16()
	return append(b, a[:n]...)
}

// parcel is a row of UPDATEs, each as full as can be.
type parcel struct {
	messages []byte
	// The one that is being filled, if prefixes is not empty; with nil it withdraws.
	words    *wording
	six      bool
	prefixes []byte
}

// announce adds a prefix in the given words, and withdraw one to be withdrawn.
func (out *parcel) announce(p netip.Prefix, w *wording) { out.add(p, w) }

func (out *parcel) withdraw(p netip.Prefix) { out.add(p, nil) }

func (out *parcel) add(p netip.Prefix, w *wording) {
	six, room := p.Addr().Is6(), mostOfAttributes-8 // for the heads of attributes
	if w != nil {
		room -= len(w.before) + len(w.hop) + len(w.after)
	}
	if out.words != w || out.six != six || len(out.prefixes)+1+(p.Bits()+7)/8 > room {
		out.close()
	}
	out.words, out.six = w, six
	out.prefixes = appendPrefix(out.prefixes, p)
}

// end gives all messages.
func (out *parcel) end() []byte {
	out.close()
	return out.messages
}

// close ends the message that is being filled.
func (out *parcel) close() {
	if len(out.prefixes) == 0 {
		return
	}
	begun := len(out.messages)
	for range 16 {
		out.messages = append(out.messages, 0xff)
	}
	out.messages = append(out.messages, 0, 0, bgp.BGP_MSG_UPDATE)
	switch w := out.words; {
	case w == nil && !out.six:
		out.messages = appendCounted(out.messages, out.prefixes)
		out.messages = append(out.messages, 0, 0)
	case w == nil:
		out.messages = append(out.messages, 0, 0)
		family := []byte{0, bgp.AFI_IP6, bgp.SAFI_UNICAST}
		out.messages = appendCounted(out.messages, appendAttribute(nil, byte(bgp.BGP_ATTR_FLAG_OPTIONAL), bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI, family, out.prefixes))
	case len(w.hop) == 0:
		out.messages = append(out.messages, 0, 0)
		out.messages = append(appendCounted(out.messages, w.before), out.prefixes...)
	default:
		out.messages = append(out.messages, 0, 0)
		reach := appendAttribute(nil, w.flags, bgp.BGP_ATTR_TYPE_MP_REACH_NLRI, w.hop, out.prefixes)
		out.messages = appendCounted(out.messages, w.before, reach, w.after)
	}
	binary.BigEndian.PutUint16(out.messages[begun+16:], uint16(len(out.messages)-begun))
	out.prefixes = out.prefixes[:0]
}

// appendCounted adds the number of octets of all parts, and these.
func appendCounted(b []byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func appendAttribute(b []byte, flags byte, kind bgp.BGPAttrType, parts ...[]byte) []byte {
	return appendCounted(append(b, flags|longLength, byte(kind)), parts...)
}
