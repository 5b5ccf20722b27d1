package server

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// said is a connection on which something is said, and what is written is kept.
type said struct {
	net.Conn
	in    io.Reader
	wrote bytes.Buffer
}

func (s *said) Read(b []byte) (int, error)  { return s.in.Read(b) }
func (s *said) Write(b []byte) (int, error) { return s.wrote.Write(b) }
func (s *said) Close() error                { return nil }
func (s *said) LocalAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 179} }

// greeting is what a router says before anything of interest.
func greeting() []byte {
	return append(framed(bgp.BGP_MSG_OPEN, 4, 0, 1, 0, 90, 1, 2, 3, 4, 0), header(bgp.BGP_MSG_KEEPALIVE)...)
}

// guarded is a guard on a connection on which a router says something after its
// greeting, which was read.
func guarded(t testing.TB, agreed *bgp.MarshallingOption, saying []byte) (*guard, *said) {
	t.Helper()
	return greeted(t, agreed, opening{}, greeting(), saying)
}

// greeted is guarded with what this node offers and the router's greeting.
func greeted(t testing.TB, agreed *bgp.MarshallingOption, o opening, greeting, saying []byte) (*guard, *said) {
	t.Helper()
	conn := &said{in: bytes.NewReader(slices.Concat(greeting, saying))}
	g := newGuard(conn, func() *bgp.MarshallingOption { return agreed })
	g.opening = o
	got := make([]byte, len(greeting))
	if _, err := io.ReadFull(g, got); err != nil || !bytes.Equal(got, greeting) {
		t.Fatalf("read %x of the greeting %x: %v", got, greeting, err)
	}
	return g, conn
}

// What is good goes through as it came, piece by piece.
func TestGuardLetsIn(t *testing.T) {
	update, err := bgp.NewTestBGPUpdateMessage().Serialize()
	must(t, err)
	saying := bytes.Join([][]byte{header(bgp.BGP_MSG_KEEPALIVE), update, framed(bgp.BGP_MSG_ROUTE_REFRESH, 0, 1, 0, 1), framed(bgp.BGP_MSG_NOTIFICATION, 6, 2)}, nil)
	g, conn := guarded(t, nil, saying)
	got, err := io.ReadAll(g)
	if err != nil || !bytes.Equal(got, saying) {
		t.Errorf("read %x, %v, want %x", got, err, saying)
	}
	for _, b := range [][]byte{header(bgp.BGP_MSG_KEEPALIVE), framed(bgp.BGP_MSG_NOTIFICATION, 6, 4)} {
		if n, err := g.Write(b); n != len(b) || err != nil {
			t.Errorf("Write: %d, %v", n, err)
		}
	}
	if want := append(header(bgp.BGP_MSG_KEEPALIVE), framed(bgp.BGP_MSG_NOTIFICATION, 6, 4)...); !bytes.Equal(conn.wrote.Bytes(), want) {
		t.Errorf("wrote %x, want %x", conn.wrote.Bytes(), want)
	}
}

// An OPEN that comes twice in a row is passed over once; with anything else in it, or later,
// it is out of turn.
func TestGuardPassesOverARepeatedOpen(t *testing.T) {
	open, other := framed(bgp.BGP_MSG_OPEN, 4, 0, 1, 0, 90, 1, 2, 3, 4, 0), framed(bgp.BGP_MSG_OPEN, 4, 0, 1, 0, 91, 1, 2, 3, 4, 0)
	alive := header(bgp.BGP_MSG_KEEPALIVE)
	for name, c := range map[string]struct {
		says, lets [][]byte
		refused    bool
	}{
		"once":             {[][]byte{open, alive, alive}, [][]byte{open, alive, alive}, false},
		"twice":            {[][]byte{open, open, alive, alive}, [][]byte{open, alive, alive}, false},
		"three times":      {[][]byte{open, open, open, alive}, [][]byte{open}, true},
		"another":          {[][]byte{open, other, alive}, [][]byte{open}, true},
		"after KEEPALIVE":  {[][]byte{open, alive, open, alive}, [][]byte{open, alive}, true},
		"cut short":        {[][]byte{open, open[:20]}, [][]byte{open}, false},
		"nothing after it": {[][]byte{open}, [][]byte{open}, false},
	} {
		g := newGuard(&said{in: bytes.NewReader(slices.Concat(c.says...))}, func() *bgp.MarshallingOption { return nil })
		got, err := io.ReadAll(g)
		lets, refused := slices.Concat(c.lets...), g.fault.Load() != nil
		if refused {
			got = got[:max(0, len(got)-bgp.BGP_HEADER_LENGTH)] // what GoBGP refuses in its place
		}
		if refused != c.refused || err != nil || !bytes.Equal(got, lets) {
			t.Errorf("%s: read %x, want %x; %v, refused %v", name, got, lets, err, refused)
		}
	}
}

// In the place of a message that GoBGP would not survive comes one that it refuses,
// nothing comes after it, and GoBGP's answer is made the one that is due.
func TestGuardRefuses(t *testing.T) {
	unsynchronised := header(bgp.BGP_MSG_KEEPALIVE)
	unsynchronised[3] = 0
	short := header(bgp.BGP_MSG_KEEPALIVE)
	short[17] = 18
	for name, c := range map[string]struct{ message, answer []byte }{
		"marker":         {unsynchronised, framed(bgp.BGP_MSG_NOTIFICATION, 1, 1)},
		"length":         {short, framed(bgp.BGP_MSG_NOTIFICATION, 1, 2, 0, 18)},
		"type":           {header(6), framed(bgp.BGP_MSG_NOTIFICATION, 1, 3, 6)},
		"second OPEN":    {framed(bgp.BGP_MSG_OPEN, 4, 0, 1, 0, 90, 1, 2, 3, 4, 0), framed(bgp.BGP_MSG_NOTIFICATION, 5, 3, 1)},
		"VPN routes":     {framed(bgp.BGP_MSG_UPDATE, 0, 0, 0, 10, 0x80, 15, 7, 0, 1, 128, 0x5b, 0x96, 0x5c, 0x33), framed(bgp.BGP_MSG_NOTIFICATION, 3, 9)},
		"short MP_REACH": {framed(bgp.BGP_MSG_UPDATE, 0, 0, 0, 6, 0x80, 14, 3, 0, 2, 1), framed(bgp.BGP_MSG_NOTIFICATION, 3, 9)},
	} {
		t.Run(name, func(t *testing.T) {
			g, conn := guarded(t, nil, append(c.message, header(bgp.BGP_MSG_KEEPALIVE)...))
			got, err := io.ReadAll(g)
			if err != nil || len(got) != bgp.BGP_HEADER_LENGTH || new(bgp.BGPHeader).DecodeFromBytes(got) == nil {
				t.Fatalf("read %x, %v, want a header that is refused", got, err)
			}
			if n, err := g.Write(framed(bgp.BGP_MSG_NOTIFICATION, 1, 2)); n != 21 || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
			if !bytes.Equal(conn.wrote.Bytes(), c.answer) {
				t.Errorf("answered %x, want %x", conn.wrote.Bytes(), c.answer)
			}
		})
	}
}

// What a guard lets in, GoBGP's parser survives, whatever was agreed on, and finds
// nothing wrong with it that GoBGP could not answer.
func FuzzGuard(f *testing.F) {
	some, err := bgp.NewTestBGPUpdateMessage().Serialize()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(some, false, false)
	f.Add(header(bgp.BGP_MSG_KEEPALIVE), true, false)
	f.Add(framed(bgp.BGP_MSG_UPDATE, 0, 4, 24, 10, 9, 0, 0, 14, 0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 10, 0, 0, 2, 24, 10, 1, 0), true, false)
	f.Add(framed(bgp.BGP_MSG_UPDATE, 0, 0, 0, 6, 0x80, 14, 3, 0, 2, 1), false, false)
	f.Add(framed(bgp.BGP_MSG_UPDATE, 0, 0, 0, 10, 0x80, 15, 7, 0, 1, 128, 0x5b, 0x96, 0x5c, 0x33), true, false)
	f.Add(framed(bgp.BGP_MSG_OPEN, 4, 0, 1, 0, 90, 1, 2, 3, 4, 8, 2, 6, 1, 4, 0, 1, 0, 1), false, false)
	f.Add(framed(bgp.BGP_MSG_ROUTE_REFRESH, 0, 1, 0, 1), false, false)
	f.Add(longUpdate(5000), true, true)
	f.Add(longUpdate(mostExtended), false, true)
	f.Add(longUpdate(mostExtended), false, false)
	f.Add(framed(bgp.BGP_MSG_ROUTE_REFRESH, make([]byte, 5000)...), false, true)
	paths := &bgp.MarshallingOption{AddPath: map[bgp.RouteFamily]bgp.BGPAddPathMode{
		bgp.RF_IPv4_UC: bgp.BGP_ADD_PATH_RECEIVE, bgp.RF_IPv6_UC: bgp.BGP_ADD_PATH_RECEIVE}}
	f.Fuzz(func(t *testing.T, saying []byte, addPath, extended bool) {
		var agreed *bgp.MarshallingOption
		if addPath {
			agreed = paths
		}
		g, _ := greeted(t, agreed, opening{extended: extended}, extendedGreeting(), saying)
		for {
			message, err := readOne(g)
			if errors.Is(err, errCutShort) {
				t.Fatal(err)
			}
			if err != nil {
				return
			}
			if len(message) > bgp.BGP_MAX_MESSAGE_LENGTH && (!extended || message[18] == bgp.BGP_MSG_KEEPALIVE) {
				t.Fatalf("%d octets came of a message of type %d", len(message), message[18])
			}
			m, err := bgp.ParseBGPMessage(message, agreed)
			if _, known := err.(*bgp.MessageError); err != nil && !known {
				t.Fatalf("%x: %v, which GoBGP has no answer to", message, err)
			}
			if err == nil {
				_ = bgp.ValidateBGPMessage(m)
			}
		}
	})
}

// readOne reads one message that GoBGP takes for one.
func readOne(r io.Reader) ([]byte, error) {
	head := make([]byte, bgp.BGP_HEADER_LENGTH)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	h := new(bgp.BGPHeader)
	if err := h.DecodeFromBytes(head); err != nil {
		return nil, err
	}
	body := make([]byte, int(h.Len)-len(head))
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, errors.Join(errCutShort, err)
	}
	return append(head, body...), nil
}

var errCutShort = errors.New("a message was cut short")

// A second Close is no failure, and a failure of the first is.
func TestGuardCloses(t *testing.T) {
	for _, want := range []error{nil, io.ErrUnexpectedEOF} {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = far.Close() })
		g := newGuard(closing{near, want}, nil)
		if err := g.Close(); !errors.Is(err, want) {
			t.Errorf("Close: %v, want %v", err, want)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	conn, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	g := newGuard(conn, nil)
	must(t, errors.Join(g.Close(), g.Close()))
}

// closing is a connection whose end fails with an error.
type closing struct {
	net.Conn
	err error
}

func (c closing) Close() error { return errors.Join(c.Conn.Close(), c.err) }
