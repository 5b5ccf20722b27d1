package discovery

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	allNodes   = "ff02::1"
	allRouters = "ff02::2"
	// addressFile lists this namespace's IPv6 addresses. Asking for one interface's
	// alone is cheaper nowhere.
	addressFile   = "/proc/thread-self/net/if_inet6"
	scopeLink     = 0x20
	maxPacket     = 1500
	unusableFlags = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED
)

// look says how the interface is. An end that is not usable comes with why. Of
// several addresses it is own, if that is among them, or else the lowest.
func look(name string, own netip.Addr) (end, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return end{}, fmt.Errorf("interface %s: %w", name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	r, err := unix.NewIfreq(name)
	if err != nil {
		return end{}, fmt.Errorf("interface %s: no interface can have this name: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); errors.Is(err, unix.ENODEV) {
		return end{}, fmt.Errorf("interface %s is not there", name)
	} else if err != nil {
		return end{}, fmt.Errorf("interface %s: %w", name, err)
	}
	switch flags := r.Uint16(); {
	case flags&unix.IFF_UP == 0:
		return end{}, fmt.Errorf("interface %s is set down", name)
	case flags&unix.IFF_RUNNING == 0:
		return end{}, fmt.Errorf("interface %s has no carrier", name)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r); err != nil {
		return end{}, fmt.Errorf("interface %s: %w", name, err)
	}
	e := end{index: int(r.Uint32())}
	list, err := linkLocals(addressFile, e.index)
	if err != nil {
		return end{}, fmt.Errorf("interface %s: %w", name, err)
	}
	if len(list) == 0 {
		return end{}, fmt.Errorf("interface %s has no link-local address that may be used: is IPv6 off (net.ipv6.conf.%s.disable_ipv6)?", name, name)
	}
	if e.own = own; !slices.Contains(list, own.WithZone("")) {
		e.own = slices.MinFunc(list, netip.Addr.Compare).WithZone(name)
	}
	return e, nil
}

// linkLocals reads from addressFile the link-local addresses of an interface that
// may be used.
func linkLocals(file string, index int) ([]netip.Addr, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // a kernel without IPv6
	} else if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var out []netip.Addr
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if a, ok := linkLocal(lines.Text(), index); ok {
			out = append(out, a)
		}
	}
	return out, lines.Err()
}

// linkLocal reads a line of addressFile: address, index, prefix length, scope and
// flags in hex, and the interface's name.
func linkLocal(line string, index int) (netip.Addr, bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 {
		return netip.Addr{}, false
	}
	var numbers [3]uint64
	for i, at := range []int{1, 3, 4} {
		n, err := strconv.ParseUint(fields[at], 16, 32)
		if err != nil {
			return netip.Addr{}, false
		}
		numbers[i] = n
	}
	raw, err := hex.DecodeString(fields[0])
	a, ok := netip.AddrFromSlice(raw)
	if err != nil || !ok || !a.IsLinkLocalUnicast() || numbers[0] != uint64(index) || numbers[1] != scopeLink || numbers[2]&unusableFlags != 0 {
		return netip.Addr{}, false
	}
	return a, true
}

// socket sends and receives on one interface.
type socket struct {
	conn     *net.IPConn
	zone     string
	hardware net.HardwareAddr
}

// open opens a socket for the interface of an index.
func open(ctx context.Context, name string, index int) (*socket, error) {
	wrap := func(err error) error {
		return fmt.Errorf("interface %s: open an ICMPv6 socket, which needs CAP_NET_RAW: %w", name, err)
	}
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlErr := raw.Control(func(fd uintptr) { err = prepare(int(fd), name, index) })
		return errors.Join(controlErr, err)
	}}
	conn, err := c.ListenPacket(ctx, "ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, wrap(err)
	}
	s := &socket{conn: conn.(*net.IPConn), zone: name}
	if i, err := net.InterfaceByIndex(index); err == nil {
		s.hardware = i.HardwareAddr
	}
	return s, nil
}

// prepare sets what the socket hears and how it sends (RFC 3542).
func prepare(fd int, name string, index int) error {
	var filter unix.ICMPv6Filter
	for i := range filter.Data {
		filter.Data[i] = ^uint32(0) // nothing passes
	}
	for _, t := range []int{typeEchoReply, typeSolicitation, typeAdvertisement} {
		filter.Data[t>>5] &^= 1 << (t & 31)
	}
	errs := []error{
		unix.BindToDevice(fd, name),
		unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &filter),
	}
	for _, o := range [][2]int{
		{unix.IPV6_RECVHOPLIMIT, 1}, {unix.IPV6_MULTICAST_HOPS, nearHopLimit}, {unix.IPV6_UNICAST_HOPS, nearHopLimit},
		{unix.IPV6_MULTICAST_IF, index}, {unix.IPV6_MULTICAST_LOOP, 0},
	} {
		errs = append(errs, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, o[0], o[1]))
	}
	group := unix.IPv6Mreq{Multiaddr: netip.MustParseAddr(allRouters).As16(), Interface: uint32(index)}
	return errors.Join(append(errs, unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &group))...)
}

func (s *socket) close() { _ = s.conn.Close() }

func (s *socket) send(m message) error {
	to := allRouters
	if m == advert {
		to = allNodes
	}
	_, err := s.conn.WriteTo(m.bytes(s.hardware), &net.IPAddr{IP: net.ParseIP(to), Zone: s.zone})
	return err
}

// receive gives the next packet that says something, and its sender, which is a
// link-local address of this link.
func (s *socket) receive() (netip.Addr, kind, error) {
	var b [maxPacket]byte
	var control [64]byte
	for {
		n, controls, _, from, err := s.conn.ReadMsgIP(b[:], control[:])
		if err != nil {
			return netip.Addr{}, nothing, err
		}
		a, ok := netip.AddrFromSlice(from.IP)
		what := read(b[:n], hopLimit(control[:controls]))
		if ok && a.IsLinkLocalUnicast() && a.Is6() && what != nothing {
			return a.WithZone(s.zone), what, nil
		}
	}
}

// hopLimit of a packet, -1 if the kernel did not say.
func hopLimit(control []byte) int {
	list, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return -1
	}
	for _, m := range list {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT && len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return -1
}
