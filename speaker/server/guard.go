package server

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// guard stands between a router and GoBGP. GoBGP ends the process over messages of
// unknown type, over a second OPEN, and over attributes and families that it reads
// beyond their end. A guard hands it whole messages, and none that it would not
// survive: in the place of such a one it hands over a header that GoBGP refuses, and
// makes of GoBGP's NOTIFICATION the one that is due (RFC 4271, section 6; RFC 6608).
// So it is this session that ends, in GoBGP's own order of things, and no other.
//
// One goroutine at a time reads. A write may come from any.
type guard struct {
	net.Conn
	in *bufio.Reader
	// agreed is how UPDATEs of this session are to be read, as far as the OPENs say.
	agreed  func() *bgp.MarshallingOption
	opening opening
	open    []byte       // the router's, until there is something after it
	learner learner      // its zero value is nobody
	waiting bytes.Buffer // whole messages that were heard, and what is left of the one that GoBGP is reading
	latest  time.Time    // until when they may wait for their turn
	out     *courier     // what is written goes by it
	heard   int          // messages, up to established
	most    int          // octets of a message, see checkHeader
	left    int          // bytes of the message that GoBGP is reading
	closed  atomic.Bool
	// handled says that GoBGP has noted who handles the state that the guard was put in; nil
	// for always.
	handled func() bool
	fault   atomic.Pointer[fault]
	// takesHops says that the router's OPEN offered to take IPv6 next hops for IPv4.
	takesHops atomic.Bool
}

// fault is what is wrong with a message: the NOTIFICATION that is due, and in words.
type fault struct {
	code, subcode uint8
	data          []byte
	words         string
}

// notification is the one that is due, with as much of the data as has room.
func (f fault) notification() ([]byte, error) {
	data := f.data[:min(len(f.data), bgp.BGP_MAX_MESSAGE_LENGTH-minNotification)]
	return bgp.NewBGPNotificationMessage(f.code, f.subcode, data).Serialize()
}

// The messages that come first, see guard.heard.
const (
	openSent = iota
	openConfirm
	established
)

// Lengths of whole messages (RFC 4271, section 4).
const (
	minOpen         = 29
	minUpdate       = 23
	minNotification = 21
)

func newGuard(conn net.Conn, agreed func() *bgp.MarshallingOption) *guard {
	return &guard{Conn: conn, in: bufio.NewReaderSize(conn, 2*bgp.BGP_MAX_MESSAGE_LENGTH), agreed: agreed, out: newCourier(conn, agreed),
		most: bgp.BGP_MAX_MESSAGE_LENGTH}
}

// Read gives what the router says, as long as GoBGP can bear it.
func (g *guard) Read(b []byte) (int, error) {
	if g.left == 0 {
		if err := g.turn(); err != nil {
			return 0, err
		}
	}
	n, err := g.waiting.Read(b[:min(len(b), g.left)])
	g.left -= n
	return n, err
}

// next waits for a whole message and lets it wait for GoBGP, or what GoBGP refuses in its
// place.
func (g *guard) next() error {
	if err := g.passOver(); err != nil {
		return err
	}
	header, err := g.in.Peek(bgp.BGP_HEADER_LENGTH)
	if err != nil {
		return err
	}
	if g.heard == openSent {
		g.awaitHandler()
	}
	f := checkHeader(header, g.heard, g.most)
	var message []byte
	if f == nil {
		length := int(binary.BigEndian.Uint16(header[16:]))
		g.makeRoom(length)
		if message, err = g.in.Peek(length); err != nil {
			return err
		}
		message = message[:len(message):len(message)] // what lies behind it is not GoBGP's to read
		if f = g.checkBody(message); f == nil {
			g.hear(message)
		}
	}
	if f != nil {
		g.fault.Store(f)
		message = make([]byte, bgp.BGP_HEADER_LENGTH) // a message of no length
		g.in.Reset(bytes.NewReader(nil))
	}
	g.waiting.Write(message)
	g.heard = min(g.heard+1, established)
	_, err = g.in.Discard(min(len(message), g.in.Buffered()))
	return err
}

// passOver drops an OPEN that says once more what the last message has said: there is nothing
// new in it, nor another connection (RFC 4271, section 8.2.2, OpenConfirm). OpenBGPD repeats
// its own where its connection before was reset as it came about.
func (g *guard) passOver() error {
	first := g.open
	if first == nil || g.heard != openConfirm {
		return nil
	}
	g.open = nil
	again, err := g.in.Peek(bgp.BGP_HEADER_LENGTH)
	if err != nil || !bytes.Equal(again, first[:bgp.BGP_HEADER_LENGTH]) {
		return err
	}
	if again, err = g.in.Peek(len(first)); err == nil && bytes.Equal(again, first) {
		_, err = g.in.Discard(len(first))
	}
	return err
}

// hear takes note of a message before GoBGP has it.
func (g *guard) hear(message []byte) {
	switch {
	case g.heard == openSent:
		g.open = bytes.Clone(message)
		g.takesHops.Store(offers(message, takesIPv4ByIPv6))
		if g.opening.extended && offers(message, offersExtended) {
			g.most = mostExtended
		}
	case message[18] == bgp.BGP_MSG_ROUTE_REFRESH:
		g.out.refresh()
	case g.heard == established && message[18] == bgp.BGP_MSG_UPDATE && g.learner.tell != nil:
		g.learner.tell(message[bgp.BGP_HEADER_LENGTH:], g.agreed())
	}
}

// handlerTime bounds the wait for GoBGP to have entered a state, which takes microseconds.
const handlerTime = time.Second

// awaitHandler waits until GoBGP has noted who handles the state that it reads the OPEN
// in: until then it can't answer it with a NOTIFICATION, and closes the connection without
// a word.
func (g *guard) awaitHandler() {
	for begun := time.Now(); g.handled != nil && !g.handled() && time.Since(begun) < handlerTime; {
		time.Sleep(100 * time.Microsecond)
	}
}

// Write writes GoBGP's messages, one a call, and what is due in the place of its OPEN and
// of its NOTIFICATION.
func (g *guard) Write(b []byte) (int, error) {
	due, f := b, g.fault.Load()
	var err error
	switch {
	case len(b) < bgp.BGP_HEADER_LENGTH:
	case b[18] == bgp.BGP_MSG_UPDATE:
		if err := g.out.update(g.sayable(b)); err != nil {
			return 0, err
		}
		return len(b), nil
	case b[18] == bgp.BGP_MSG_OPEN:
		due, err = g.opening.apply(b)
	case b[18] == bgp.BGP_MSG_NOTIFICATION && f != nil:
		due, err = f.notification()
	}
	if err != nil {
		return 0, err
	}
	if err := g.out.write(due); err != nil {
		return 0, err
	}
	return len(b), nil
}

// The bits of RFC 4724, section 3, and RFC 9494, section 3.1, in GoBGP's form.
const (
	restartState   = 0x08
	forwardingKept = 0x80
)

// keepForwarding sets the restart bit, and that of forwarding kept for every family: the
// router goes on with the routes that it holds until fresh ones came.
func keepForwarding(c bgp.ParameterCapabilityInterface) {
	switch c := c.(type) {
	case *bgp.CapGracefulRestart:
		c.Flags |= restartState
		for _, t := range c.Tuples {
			t.Flags |= forwardingKept
		}
	case *bgp.CapLongLivedGracefulRestart:
		for _, t := range c.Tuples {
			t.Flags |= forwardingKept
		}
	}
}

// checkHeader says what is wrong with the header of a message after so many others
// of the session. Messages have longest octets at most, but for those that RFC 8654
// leaves as they were.
func checkHeader(header []byte, heard, longest int) *fault {
	for _, b := range header[:16] {
		if b != 0xff {
			return &fault{bgp.BGP_ERROR_MESSAGE_HEADER_ERROR, bgp.BGP_ERROR_SUB_CONNECTION_NOT_SYNCHRONIZED, nil, "what came is not BGP"}
		}
	}
	kind, length := header[18], binary.BigEndian.Uint16(header[16:])
	least, most := bgp.BGP_HEADER_LENGTH, longest
	switch kind {
	case bgp.BGP_MSG_OPEN:
		least, most = minOpen, bgp.BGP_MAX_MESSAGE_LENGTH
	case bgp.BGP_MSG_UPDATE:
		least = minUpdate
	case bgp.BGP_MSG_NOTIFICATION:
		least = minNotification
	case bgp.BGP_MSG_KEEPALIVE:
		most = bgp.BGP_HEADER_LENGTH
	case bgp.BGP_MSG_ROUTE_REFRESH: // RFC 7313 has errors of its own for it
	default:
		return &fault{bgp.BGP_ERROR_MESSAGE_HEADER_ERROR, bgp.BGP_ERROR_SUB_BAD_MESSAGE_TYPE, []byte{kind},
			fmt.Sprintf("a message of type %d came", kind)}
	}
	if int(length) < least || int(length) > most {
		return &fault{bgp.BGP_ERROR_MESSAGE_HEADER_ERROR, bgp.BGP_ERROR_SUB_BAD_MESSAGE_LENGTH, bytes.Clone(header[16:18]),
			fmt.Sprintf("a message of type %d came with %d bytes, and has %d to %d", kind, length, least, most)}
	}
	return checkTurn(kind, heard)
}

// checkTurn says whether a message may come after so many others (RFC 4271, section
// 8.2.2; RFC 6608 for the answers).
func checkTurn(kind uint8, heard int) *fault {
	awaited := kind != bgp.BGP_MSG_OPEN
	switch heard {
	case openSent:
		awaited = kind == bgp.BGP_MSG_OPEN || kind == bgp.BGP_MSG_NOTIFICATION
	case openConfirm:
		awaited = kind == bgp.BGP_MSG_KEEPALIVE || kind == bgp.BGP_MSG_NOTIFICATION
	}
	if awaited {
		return nil
	}
	return &fault{bgp.BGP_ERROR_FSM_ERROR, uint8(heard) + 1, []byte{kind}, fmt.Sprintf("a message of type %d came out of turn", kind)}
}

// checkBody says whether GoBGP survives a message with a good header.
func (g *guard) checkBody(message []byte) *fault {
	kind := message[18]
	switch {
	case kind == bgp.BGP_MSG_KEEPALIVE, kind == bgp.BGP_MSG_UPDATE && ordinary(message[bgp.BGP_HEADER_LENGTH:]):
		return nil
	}
	var agreed *bgp.MarshallingOption
	if g.heard == established {
		agreed = g.agreed()
	}
	err := tryParse(message, agreed)
	if err == nil {
		return unanswerable(message)
	}
	f := &fault{words: fmt.Sprintf("a message of type %d came that cannot be read: %v", kind, err)}
	switch kind {
	case bgp.BGP_MSG_OPEN:
		f.code = bgp.BGP_ERROR_OPEN_MESSAGE_ERROR
	case bgp.BGP_MSG_UPDATE: // the attribute is none of ordinary's
		f.code, f.subcode = bgp.BGP_ERROR_UPDATE_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_OPTIONAL_ATTRIBUTE_ERROR
	case bgp.BGP_MSG_ROUTE_REFRESH:
		f.code, f.subcode, f.data = bgp.BGP_ERROR_ROUTE_REFRESH_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_INVALID_MESSAGE_LENGTH, bytes.Clone(message)
	default:
		f.code, f.subcode = bgp.BGP_ERROR_MESSAGE_HEADER_ERROR, bgp.BGP_ERROR_SUB_BAD_MESSAGE_LENGTH
	}
	return f
}

// tryParse says whether GoBGP's parser panics over a message, or fails with an error
// that GoBGP takes for its own mistake. What else it finds wrong it can answer.
func tryParse(message []byte, agreed *bgp.MarshallingOption) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	m, err := bgp.ParseBGPMessage(message, agreed)
	if _, known := err.(*bgp.MessageError); known { // as GoBGP asks
		return nil
	}
	if err == nil {
		_ = bgp.ValidateBGPMessage(m) // GoBGP does not look at what it says either
	}
	return err
}

// ordinary says whether the body of an UPDATE holds nothing but the attributes and
// the families of a fabric. GoBGP's parser bears these, whatever is wrong with them,
// and the many are not to be parsed twice.
func ordinary(body []byte) bool {
	_, rest, whole := counted(body)
	attributes, _, fits := counted(rest)
	if !whole || !fits {
		return false
	}
	for len(attributes) > 0 {
		kind, value, rest, ok := attribute(attributes)
		if !ok || !ordinaryAttribute(kind, value) {
			return false
		}
		attributes = rest
	}
	return true
}

// counted cuts off what two bytes give the length of.
func counted(b []byte) (inside, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b)) + 2
	if len(b) < n {
		return nil, nil, false
	}
	return b[2:n], b[n:], true
}

// attribute cuts off the first path attribute (RFC 4271, section 4.3).
func attribute(b []byte) (kind bgp.BGPAttrType, value, rest []byte, ok bool) {
	if len(b) < 3 {
		return 0, nil, nil, false
	}
	if kind = bgp.BGPAttrType(b[1]); bgp.BGPAttrFlag(b[0])&bgp.BGP_ATTR_FLAG_EXTENDED_LENGTH != 0 {
		value, rest, ok = counted(b[2:])
		return kind, value, rest, ok
	}
	n := int(b[2]) + 3
	if len(b) < n {
		return 0, nil, nil, false
	}
	return kind, b[3:n], b[n:], true
}

func ordinaryAttribute(kind bgp.BGPAttrType, value []byte) bool {
	switch kind {
	case bgp.BGP_ATTR_TYPE_MP_REACH_NLRI, bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI:
		const head = 5 // family, length of the next hop, a byte that is reserved
		if kind == bgp.BGP_ATTR_TYPE_MP_REACH_NLRI && len(value) < head || len(value) < 3 {
			return false
		}
		f := bgp.AfiSafiToRouteFamily(binary.BigEndian.Uint16(value), value[2])
		return f == bgp.RF_IPv4_UC || f == bgp.RF_IPv6_UC
	case bgp.BGP_ATTR_TYPE_LARGE_COMMUNITY:
		return true
	}
	return kind >= bgp.BGP_ATTR_TYPE_ORIGIN && kind <= bgp.BGP_ATTR_TYPE_CLUSTER_LIST
}
