package speaker

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// A raw router speaks just enough BGP to be believed, and then says what a
// test wants to say.
type raw struct {
	peer     Peer
	sessions chan net.Conn // each after the OPEN and the KEEPALIVE
}

func startRaw(t *testing.T, name, address string) *raw {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	r := &raw{
		peer:     Peer{Name: name, Address: netip.MustParseAddr(address), ASN: routerASN, Port: uint16(l.Addr().(*net.TCPAddr).Port)},
		sessions: make(chan net.Conn, 8),
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go r.greet(conn)
		}
	}()
	return r
}

// greet completes the handshake and then reads whatever comes.
func (r *raw) greet(conn net.Conn) {
	open := bgp.NewBGPOpenMessage(routerASN, 90, "192.0.2.44", []bgp.OptionParameterInterface{
		bgp.NewOptionParameterCapability([]bgp.ParameterCapabilityInterface{
			bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC), bgp.NewCapFourOctetASNumber(routerASN)})})
	for _, m := range []*bgp.BGPMessage{open, bgp.NewBGPKeepAliveMessage()} {
		if readMessage(conn) != nil || writeMessage(conn, m) != nil {
			_ = conn.Close()
			return
		}
	}
	r.sessions <- conn
	for readMessage(conn) == nil {
	}
}

func readMessage(conn net.Conn) error {
	header := make([]byte, bgp.BGP_HEADER_LENGTH)
	if _, err := io.ReadFull(conn, header); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint16(header[16:]))-bgp.BGP_HEADER_LENGTH)
	return err
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
