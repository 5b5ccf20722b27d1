package server

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// A raw router speaks just enough BGP to be believed, and then says what a
// test wants to say.
type raw struct {
	peer  speaker.Peer
	hold  uint16 // seconds, as in its OPEN
	helps bool   // it offers graceful restart
	// notifications says that it keeps routes over them, too (RFC 8538).
	notifications bool
	closes        bool // the connection at once when it is told to
	extended      bool // it offers extended messages (RFC 8654)
	door          net.ListenConfig
	sessions      chan net.Conn // each after the OPEN and the KEEPALIVE
	opens         chan *bgp.BGPOpen
	assent        chan struct{} // it answers an OPEN once this is closed; nil for at once
	gate          chan struct{} // it reads on once this is closed
	heard         atomic.Int64  // prefixes announced to it
	ended         chan struct{} // one for each End-of-RIB that it was sent
	notes         chan *bgp.BGPNotification
}

func startRaw(t *testing.T, name, address string) *raw {
	t.Helper()
	r := newRaw(t, name, address)
	close(r.gate)
	r.listen(t)
	return r
}

// newRaw makes a router that does not listen yet.
func newRaw(t *testing.T, name, address string) *raw {
	t.Helper()
	return &raw{
		peer:     speaker.Peer{Name: name, Address: netip.MustParseAddr(address), ASN: routerASN, Session: speaker.Session{Port: routerPort}},
		hold:     90,
		sessions: make(chan net.Conn, 8),
		opens:    make(chan *bgp.BGPOpen, 8),
		gate:     make(chan struct{}),
		ended:    make(chan struct{}, 8),
		notes:    make(chan *bgp.BGPNotification, 8),
	}
}

// listen makes it answer until the test ends or what it returns is closed.
func (r *raw) listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := r.door.Listen(t.Context(), "tcp", netip.AddrPortFrom(r.peer.Address, r.peer.Port).String())
	must(t, err)
	attendAll(t, l, r.greet)
	return l
}

// attendAll has attend take each connection, and own it, until the test ends or l is
// closed.
func attendAll(t *testing.T, l net.Listener, attend func(net.Conn)) {
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go attend(conn)
		}
	}()
}

// greet completes the handshake and then reads whatever comes.
func (r *raw) greet(conn net.Conn) {
	offers := []bgp.ParameterCapabilityInterface{bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC), bgp.NewCapFourOctetASNumber(routerASN)}
	if r.helps {
		offers = append(offers, bgp.NewCapGracefulRestart(false, r.notifications, 60,
			[]*bgp.CapGracefulRestartTuple{bgp.NewCapGracefulRestartTuple(bgp.RF_IPv4_UC, true)}))
	}
	if r.extended {
		offers = append(offers, bgp.NewCapUnknown(capabilityExtended, nil))
	}
	open := bgp.NewBGPOpenMessage(routerASN, r.hold, "192.0.2.44", []bgp.OptionParameterInterface{
		bgp.NewOptionParameterCapability(offers)})
	for _, m := range []*bgp.BGPMessage{open, bgp.NewBGPKeepAliveMessage()} {
		got, err := readMessage(conn)
		if err != nil {
			_ = conn.Close()
			return
		}
		if o, is := got.Body.(*bgp.BGPOpen); is {
			offer(r.opens, o)
		}
		if r.assent != nil {
			<-r.assent
		}
		if writeMessage(conn, m) != nil {
			_ = conn.Close()
			return
		}
	}
	offer(r.sessions, conn)
	<-r.gate
	for {
		m, err := readMessage(conn)
		if err != nil {
			return
		}
		if n, is := m.Body.(*bgp.BGPNotification); is {
			offer(r.notes, n)
			if r.closes {
				_ = conn.Close()
				return
			}
		}
		if u, is := m.Body.(*bgp.BGPUpdate); is {
			r.heard.Add(int64(len(u.NLRI)))
			if end, _ := u.IsEndOfRib(); end {
				offer(r.ended, struct{}{})
			}
		}
	}
}

// offer leaves out what a test does not look at.
func offer[T any](ch chan T, v T) {
	select {
	case ch <- v:
	default:
	}
}

func readMessage(conn net.Conn) (*bgp.BGPMessage, error) {
	b := make([]byte, bgp.BGP_HEADER_LENGTH, bgp.BGP_MAX_MESSAGE_LENGTH)
	if _, err := io.ReadFull(conn, b); err != nil {
		return nil, err
	}
	b = b[:binary.BigEndian.Uint16(b[16:])]
	if _, err := io.ReadFull(conn, b[bgp.BGP_HEADER_LENGTH:]); err != nil {
		return nil, err
	}
	return bgp.ParseBGPMessage(b)
}

// restartBit says whether an OPEN has the restart bit of RFC 4724.
func restartBit(o *bgp.BGPOpen) bool {
	for _, p := range o.OptParams {
		capabilities, ok := p.(*bgp.OptionParameterCapability)
		if !ok {
			continue
		}
		for _, c := range capabilities.Capability {
			if gr, is := c.(*bgp.CapGracefulRestart); is {
				return gr.Flags&0x08 != 0
			}
		}
	}
	return false
}

func writeMessage(conn net.Conn, m *bgp.BGPMessage) error {
	b, err := m.Serialize()
	if err == nil {
		_, err = conn.Write(b)
	}
	return err
}

// header is a message without a body.
func header(kind byte) []byte {
	b := make([]byte, bgp.BGP_HEADER_LENGTH)
	for i := range 16 {
		b[i] = 0xff
	}
	b[17], b[18] = bgp.BGP_HEADER_LENGTH, kind
	return b
}
