package bfd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Ports of RFC 5881 section 4 and RFC 5883 section 5.
const (
	singleHopPort   = 3784
	multihopPort    = 4784
	firstSourcePort = 49152
	lastSourcePort  = 65535
	ttlOut          = 255
)

// door is a kind of packets, with one listening socket each.
type door struct {
	v6       bool
	multihop bool
}

func (d door) network() string {
	if d.v6 {
		return "udp6"
	}
	return "udp4"
}

func (d door) port() uint16 {
	if d.multihop {
		return multihopPort
	}
	return singleHopPort
}

// option is a socket option by level and name.
type option struct{ level, name, value int }

// set sets options of a socket before it is bound.
func set(options []option) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlErr := raw.Control(func(fd uintptr) {
			for _, o := range options {
				if e := unix.SetsockoptInt(int(fd), o.level, o.name, o.value); e != nil {
					err = errors.Join(err, fmt.Errorf("socket option %d/%d: %w", o.level, o.name, e))
				}
			}
		})
		return errors.Join(controlErr, err)
	}
}

// listener is the socket that takes the packets of a door.
type listener struct {
	conn net.PacketConn
	raw  syscall.RawConn
}

func (d door) listen() (*listener, error) {
	options := []option{{unix.IPPROTO_IP, unix.IP_RECVTTL, 1}, {unix.IPPROTO_IP, unix.IP_PKTINFO, 1}}
	if d.v6 {
		options = []option{{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1}, {unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1}}
	}
	config := net.ListenConfig{Control: set(options)}
	conn, err := config.ListenPacket(context.Background(), d.network(), fmt.Sprintf(":%d", d.port()))
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("another program has UDP port %d, which is BFD's: stop it (FRR's bfdd, BIRD) or take BFD out of the configuration: %w", d.port(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for BFD: %w", err)
	}
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &listener{conn: conn, raw: raw}, nil
}

// datagram is a packet as it came.
type datagram struct {
	payload  []byte
	from, to netip.Addr // without zones
	ttl      int        // or hop limit; -1 when the kernel didn't say
	index    int        // of the interface it came in by
}

// receive takes one packet from the socket if there is one; payload and
// control are room for it. It never blocks.
func receive(fd int, payload, control []byte) (datagram, error) {
	n, controlLength, _, from, err := unix.Recvmsg(fd, payload, control, unix.MSG_DONTWAIT)
	if err != nil {
		return datagram{}, err
	}
	d := datagram{payload: payload[:n], ttl: -1}
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		d.from = netip.AddrFrom4(a.Addr)
	case *unix.SockaddrInet6:
		d.from = netip.AddrFrom16(a.Addr)
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlLength])
	if err != nil {
		return d, nil // without a TTL: nobody takes it
	}
	for _, m := range messages {
		d.annotate(int(m.Header.Level), int(m.Header.Type), m.Data)
	}
	return d, nil
}

// annotate takes over what the kernel says of a packet. The packet infos are
// struct in_pktinfo {ifindex, spec_dst, addr} and struct in6_pktinfo {addr,
// ifindex}.
func (d *datagram) annotate(level, kind int, data []byte) {
	number := func(at int) int { return int(int32(binary.NativeEndian.Uint32(data[at:]))) }
	switch {
	case level == unix.IPPROTO_IP && kind == unix.IP_TTL && len(data) >= 4,
		level == unix.IPPROTO_IPV6 && kind == unix.IPV6_HOPLIMIT && len(data) >= 4:
		d.ttl = number(0)
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		d.index = number(0)
		d.to, _ = netip.AddrFromSlice(data[8:12])
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		d.to, _ = netip.AddrFromSlice(data[:16])
		d.index = number(16)
	}
}

// sender is the socket of one session. Its source port is the session's for as
// long as it lasts (RFC 5881 section 4).
type sender struct {
	conn  net.PacketConn
	raw   syscall.RawConn
	to    unix.Sockaddr
	index int // of the peer's interface; 0 is any
}

// dial opens the socket for the packets to a peer, from the source port if it
// is not 0 and free. It returns the port it has.
func dial(p Peer, port uint16) (*sender, uint16, error) {
	s := &sender{}
	if p.Interface != "" {
		device, err := net.InterfaceByName(p.Interface)
		if err != nil {
			return nil, port, fmt.Errorf("interface %s: %w", p.Interface, err)
		}
		s.index = device.Index
	}
	s.to = sockaddr(p.Address, p.door().port(), s.index)
	err := error(unix.EADDRINUSE)
	for attempt := 0; errors.Is(err, unix.EADDRINUSE) && attempt < 16; attempt++ {
		if port == 0 || attempt > 0 {
			port = uint16(firstSourcePort + rand.IntN(lastSourcePort-firstSourcePort+1))
		}
		s.conn, err = p.bind(port)
	}
	if err != nil {
		return nil, port, fmt.Errorf("socket to send from: %w", err)
	}
	if s.raw, err = s.conn.(*net.UDPConn).SyscallConn(); err != nil {
		return nil, port, errors.Join(err, s.conn.Close())
	}
	return s, port, nil
}

// bind opens the socket itself. Nobody reads from it.
func (p Peer) bind(port uint16) (net.PacketConn, error) {
	options := []option{{unix.SOL_SOCKET, unix.SO_RCVBUF, 0}}
	if p.Address.Is6() {
		options = append(options, option{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttlOut}, option{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, precedence})
	} else {
		options = append(options, option{unix.IPPROTO_IP, unix.IP_TTL, ttlOut}, option{unix.IPPROTO_IP, unix.IP_TOS, precedence})
	}
	setOptions := set(options)
	config := net.ListenConfig{Control: func(network, address string, raw syscall.RawConn) error {
		err := setOptions(network, address, raw)
		if p.Interface == "" || err != nil {
			return err
		}
		controlErr := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), p.Interface) })
		return errors.Join(controlErr, err)
	}}
	local := ""
	if p.Local.IsValid() {
		local = p.Local.WithZone("").String()
		if p.Local.IsLinkLocalUnicast() && p.Local.Is6() {
			local = p.Local.WithZone(p.Interface).String()
		}
	}
	return config.ListenPacket(context.Background(), p.door().network(), net.JoinHostPort(local, fmt.Sprint(port)))
}

// precedence is DSCP CS6, network control, in the byte of the header.
const precedence = 48 << 2

func sockaddr(a netip.Addr, port uint16, index int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: int(port), Addr: a.As4()}
	}
	to := &unix.SockaddrInet6{Port: int(port), Addr: a.As16()}
	if a.IsLinkLocalUnicast() {
		to.ZoneId = uint32(index)
	}
	return to
}

// send hands a packet to the kernel. It never blocks: a packet for which there
// is no room is lost, as on the wire.
func (s *sender) send(payload []byte) error {
	var err error
	controlErr := s.raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), payload, unix.MSG_DONTWAIT, s.to) })
	return errors.Join(controlErr, err)
}
