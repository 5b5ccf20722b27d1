package server

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// extendedGreeting is that of a router that offers extended messages.
func extendedGreeting() []byte {
	open := framed(bgp.BGP_MSG_OPEN, 4, 0, 1, 0, 90, 1, 2, 3, 4, 4, bgp.BGP_OPT_CAPABILITY, 2, capabilityExtended, 0)
	return append(open, header(bgp.BGP_MSG_KEEPALIVE)...)
}

// longUpdate withdraws prefixes in so many octets.
func longUpdate(octets int) []byte {
	var list []byte
	for i := 0; len(list)+4 <= octets-minUpdate; i++ {
		list = append(list, 24, 10, byte(i>>8), byte(i))
	}
	list = append(list, make([]byte, octets-minUpdate-len(list))...) // 0.0.0.0/0
	body := binary.BigEndian.AppendUint16(nil, uint16(len(list)))
	return framed(bgp.BGP_MSG_UPDATE, append(append(body, list...), 0, 0)...)
}

// Where both sides have offered them, long messages go through whole, and the memory for
// them is there once one comes.
func TestGuardLetsExtendedIn(t *testing.T) {
	some := longUpdate(100)
	long := [][]byte{longUpdate(bgp.BGP_MAX_MESSAGE_LENGTH + 1), longUpdate(mostExtended), some, longUpdate(mostExtended - 1),
		framed(bgp.BGP_MSG_ROUTE_REFRESH, append([]byte{0, 1, 0, 1}, make([]byte, 5000)...)...),
		framed(bgp.BGP_MSG_NOTIFICATION, append([]byte{6, 2}, make([]byte, 9000)...)...)}
	saying := slices.Concat(append([][]byte{some}, long...)...)
	g, _ := greeted(t, nil, opening{extended: true}, extendedGreeting(), saying)
	got := make([]byte, len(some))
	if _, err := io.ReadFull(g, got); err != nil || g.in.Size() > 2*bgp.BGP_MAX_MESSAGE_LENGTH {
		t.Errorf("%v; room for %d octets before a long message came", err, g.in.Size())
	}
	rest, err := io.ReadAll(g)
	if err != nil || !bytes.Equal(append(got, rest...), saying) {
		t.Errorf("read %d octets, %v, want the %d that were said", len(got)+len(rest), err, len(saying))
	}
}

// A long message is of a bad length where one side has not offered them, and so is one of
// a kind that stays short.
func TestGuardRefusesLong(t *testing.T) {
	long := func(kind byte) []byte { return framed(kind, make([]byte, 5000)...) }
	for name, c := range map[string]struct {
		ours     bool
		greeting []byte
		message  []byte
	}{
		"this node has not":  {false, extendedGreeting(), longUpdate(5019)},
		"the router has not": {true, greeting(), longUpdate(5019)},
		"neither has":        {false, greeting(), longUpdate(5019)},
		"OPEN":               {true, extendedGreeting(), long(bgp.BGP_MSG_OPEN)},
		"KEEPALIVE":          {true, extendedGreeting(), long(bgp.BGP_MSG_KEEPALIVE)},
	} {
		t.Run(name, func(t *testing.T) {
			g, conn := greeted(t, nil, opening{extended: c.ours}, c.greeting, c.message)
			got, err := io.ReadAll(g)
			if err != nil || len(got) != bgp.BGP_HEADER_LENGTH || new(bgp.BGPHeader).DecodeFromBytes(got) == nil {
				t.Fatalf("read %d octets, %v, want a header that is refused", len(got), err)
			}
			_, err = g.Write(framed(bgp.BGP_MSG_NOTIFICATION, 1, 2))
			must(t, err)
			if want := framed(bgp.BGP_MSG_NOTIFICATION, 1, 2, 5019>>8, 5019&0xff); !bytes.Equal(conn.wrote.Bytes(), want) {
				t.Errorf("answered %x, want %x", conn.wrote.Bytes(), want)
			}
		})
	}
}

// What GoBGP's OPEN lacks is added to it, and all else stays.
func TestOpening(t *testing.T) {
	gr := bgp.NewCapGracefulRestart(false, true, 60, []*bgp.CapGracefulRestartTuple{bgp.NewCapGracefulRestartTuple(bgp.RF_IPv4_UC, false)})
	open, err := bgp.NewBGPOpenMessage(64512, 90, "192.0.2.1", []bgp.OptionParameterInterface{
		bgp.NewOptionParameterCapability([]bgp.ParameterCapabilityInterface{bgp.NewCapRouteRefresh(), gr})}).Serialize()
	must(t, err)
	for _, o := range []opening{{}, {forwards: true}, {extended: true}, {forwards: true, extended: true}} {
		b, err := o.apply(open)
		must(t, err)
		m, err := bgp.ParseBGPMessage(b)
		if err != nil || int(m.Header.Len) != len(b) {
			t.Fatalf("%+v: %x, %v", o, b, err)
		}
		all := capabilities(m.Body.(*bgp.BGPOpen))
		if offers(b, offersExtended) != o.extended || restartBit(m.Body.(*bgp.BGPOpen)) != o.forwards {
			t.Errorf("%+v: %v", o, all)
		}
		if all[0].Code() != bgp.BGP_CAP_ROUTE_REFRESH || o == (opening{}) && !bytes.Equal(b, open) {
			t.Errorf("%+v: %x was made of %x", o, b, open)
		}
	}
}

// What is answered fits into what every router takes, however long the message was that
// it is about.
func TestNotificationFits(t *testing.T) {
	b, err := fault{code: 7, subcode: 1, data: make([]byte, mostExtended)}.notification()
	if err != nil || len(b) != bgp.BGP_MAX_MESSAGE_LENGTH {
		t.Errorf("%d octets, %v", len(b), err)
	}
}

// startLong starts a raw router that offers extended messages, of a node that does.
func startLong(t *testing.T, address string) *raw {
	t.Helper()
	r := newRaw(t, "tor", address)
	r.extended = true
	close(r.gate)
	r.listen(t)
	r.peer.ExtendedMessages = true
	r.peer.Accept = speaker.Accept{Prefixes: []speaker.PrefixRule{{Network: netip.MustParsePrefix("10.0.0.0/8"), AtLeast: 8, AtMost: 24}}, Max: 20_000}
	return r
}

// longAnnouncement announces n prefixes in one UPDATE with so many communities.
func longAnnouncement(n, communities int) []byte {
	attributes := []byte{0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, byte(routerASN >> 8), byte(routerASN & 0xff), 0x40, 3, 4, 192, 0, 2, 77}
	attributes = binary.BigEndian.AppendUint16(append(attributes, 0xd0, 8), uint16(4*communities))
	for i := range communities {
		attributes = append(attributes, 1, 1, byte(i>>8), byte(i))
	}
	body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(attributes)))
	body = append(body, attributes...)
	for i := range n {
		body = append(body, 24, 10, byte(i>>8), byte(i))
	}
	return framed(bgp.BGP_MSG_UPDATE, body...)
}

// GoBGP and the learner have all of a long UPDATE, one with attributes that are too long
// for any other message among them. A router that sends a long one without having offered
// it, or to a node that has not, loses its session.
func TestExtendedMessages(t *testing.T) {
	t.Parallel()
	r := startLong(t, "127.0.9.1")
	s, sink := newTestServer(t), newMemorySink()
	s.Learn(sink.open)
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}}
	must(t, s.Set(t.Context(), d))
	conn := <-r.sessions
	if open := r.nextOpen(t); !slices.ContainsFunc(capabilities(open), offersExtended) {
		t.Errorf("the OPEN offers %v", capabilities(open))
	}
	for _, b := range [][]byte{longAnnouncement(15_000, 3), longAnnouncement(16, 16_000)} {
		_, err := conn.Write(b)
		must(t, err)
	}
	eventually(t, "all prefixes are learned, and in GoBGP", func() bool { return len(sink.lines()) == 15_000 && stateOf(t, s, "tor").Received == 15_000 })
	_, err := conn.Write(longUpdate(minUpdate + 4*10_000))
	must(t, err)
	eventually(t, "those that were withdrawn are gone", func() bool { return len(sink.lines()) == 5_000 && stateOf(t, s, "tor").Received == 5_000 })
	if p := stateOf(t, s, "tor"); !p.Established() || p.Flaps > 0 {
		t.Errorf("%+v", p)
	}
	d.Peers[0].ExtendedMessages = false
	must(t, s.Set(t.Context(), d))
	conn = <-r.sessions
	_, err = conn.Write(longUpdate(5000))
	must(t, err)
	eventually(t, "the session ends over the length", func() bool { return strings.Contains(stateOf(t, s, "tor").LastError, "bad message length") })
}

// A router that comes by a range is offered them, too.
func TestExtendedMessagesOfRange(t *testing.T) {
	t.Parallel()
	node := netip.AddrPortFrom(netip.MustParseAddr("127.0.9.3"), nodePort)
	r := newRaw(t, "", "127.0.9.4")
	r.extended = true
	close(r.gate)
	s := newTestServer(t)
	d := speaker.Desired{Local: local(), Ranges: []speaker.Range{{Name: "rack", Network: netip.PrefixFrom(r.peer.Address, 32), ASN: routerASN,
		Session: speaker.Session{ExtendedMessages: true}, Accept: speaker.Accept{Max: 20_000}}}}
	d.Local.Listen, d.Local.Port = []netip.Addr{node.Addr()}, node.Port()
	must(t, s.Set(t.Context(), d))
	conn := r.dial(t, node)
	if open := r.nextOpen(t); !slices.ContainsFunc(capabilities(open), offersExtended) {
		t.Errorf("the OPEN offers %v", capabilities(open))
	}
	comesUp(t, s, "rack/"+r.peer.Address.String())
	_, err := conn.Write(longAnnouncement(15_000, 3))
	must(t, err)
	eventually(t, "all prefixes are there", func() bool { return stateOf(t, s, "rack/"+r.peer.Address.String()).Received == 15_000 })
}

// An attribute that is wrong, and longer than GoBGP answers with, ends the session with a
// NOTIFICATION all the same.
func TestLongAttributeIsAnswered(t *testing.T) {
	t.Parallel()
	r := startLong(t, "127.0.9.2")
	s := newTestServer(t)
	must(t, s.Set(t.Context(), speaker.Desired{Local: local(), Peers: []speaker.Peer{r.peer}}))
	conn := <-r.sessions
	// Well-known by its flags, with a number that nobody knows.
	attribute := append(binary.BigEndian.AppendUint16([]byte{0x50, 200}, 5000), make([]byte, 5000)...)
	body := append(binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(attribute))), attribute...)
	_, err := conn.Write(framed(bgp.BGP_MSG_UPDATE, body...))
	must(t, err)
	select {
	case n := <-r.notes:
		if n.ErrorCode != bgp.BGP_ERROR_UPDATE_MESSAGE_ERROR || n.ErrorSubcode != bgp.BGP_ERROR_SUB_UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE || !bytes.HasPrefix(attribute, n.Data) {
			t.Errorf("answered %d/%d with %d octets", n.ErrorCode, n.ErrorSubcode, len(n.Data))
		}
	case <-within(t, soon).Done():
		t.Error("no NOTIFICATION came")
	}
}
