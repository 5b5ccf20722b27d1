package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// maxMessages is how many routes one system call takes to the kernel.
	maxMessages = 512
	// maxBytes is what it takes, but for one route more: a socket refuses more than
	// its SO_SNDBUF, by default 208 KiB, all at once.
	maxBytes = 128 << 10
	// refusalBytes is what a refusal takes of the receive buffer, at most.
	refusalBytes = 1 << 10
	// receiveBuffer has room for as many refusals, each of which takes the kernel
	// close to a kilobyte.
	receiveBuffer = 4 << 20
	// answerTime bounds the wait for answers, which the kernel gives before the
	// call that sends the questions returns.
	answerTime = 5
)

// target is a next hop and the link that it is on.
type target struct {
	address netip.Addr
	link    int
}

// message is one change of one route.
type message struct {
	Config
	kind   uint16
	flags  uint16
	prefix netip.Prefix
	hops   []target // none for a deletion
}

// append writes m with a sequence number behind b, as rtnetlink(7) has it.
func (m message) append(b []byte, seq uint32) []byte {
	native := binary.NativeEndian
	begin := len(b)
	b = native.AppendUint32(b, 0) // the length, at last
	b = native.AppendUint16(b, m.kind)
	b = native.AppendUint16(b, unix.NLM_F_REQUEST|m.flags)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, 0) // to the kernel
	family, scope, kind := familyNumber(m.prefix.Addr()), byte(unix.RT_SCOPE_UNIVERSE), byte(unix.RTN_UNICAST)
	if m.kind == unix.RTM_DELROUTE {
		scope, kind = unix.RT_SCOPE_NOWHERE, unix.RTN_UNSPEC
	}
	b = append(b, byte(family), byte(m.prefix.Bits()), 0, 0, unix.RT_TABLE_UNSPEC, byte(m.Protocol), scope, kind)
	b = native.AppendUint32(b, 0) // flags
	b = attribute(b, unix.RTA_DST, func(b []byte) []byte { return appendAddr(b, m.prefix.Addr()) })
	b = attribute(b, unix.RTA_TABLE, func(b []byte) []byte { return native.AppendUint32(b, uint32(m.Table)) })
	b = attribute(b, unix.RTA_PRIORITY, func(b []byte) []byte { return native.AppendUint32(b, uint32(m.Metric)) })
	switch len(m.hops) {
	case 0:
	case 1:
		b = m.hops[0].append(b, family)
		if link := m.hops[0].linkIn(family); link != 0 {
			b = attribute(b, unix.RTA_OIF, func(b []byte) []byte { return native.AppendUint32(b, uint32(link)) })
		}
	default:
		b = attribute(b, unix.RTA_MULTIPATH, func(b []byte) []byte {
			for _, h := range m.hops {
				b = h.appendNextHop(b, family)
			}
			return b
		})
	}
	native.PutUint32(b[begin:], uint32(len(b)-begin))
	return b
}

// append writes the gateway of a route of a family.
func (t target) append(b []byte, family uint16) []byte {
	if familyNumber(t.address) == family {
		return attribute(b, unix.RTA_GATEWAY, func(b []byte) []byte { return appendAddr(b, t.address) })
	}
	return attribute(b, unix.RTA_VIA, func(b []byte) []byte { // RFC 8950: IPv4 over IPv6
		return appendAddr(binary.NativeEndian.AppendUint16(b, familyNumber(t.address)), t.address)
	})
}

// linkIn is the link that has to be named with a gateway; 0 leaves it to the
// kernel.
func (t target) linkIn(family uint16) int {
	if t.address.Zone() == "" && familyNumber(t.address) == family {
		return 0
	}
	return t.link
}

// appendNextHop writes one of several next hops, a struct rtnexthop.
func (t target) appendNextHop(b []byte, family uint16) []byte {
	begin := len(b)
	b = append(b, 0, 0, 0, 0) // length, flags, and a weight of one
	b = binary.NativeEndian.AppendUint32(b, uint32(t.linkIn(family)))
	b = t.append(b, family)
	binary.NativeEndian.PutUint16(b[begin:], uint16(len(b)-begin))
	return b
}

// attribute writes one with its header, aligned.
func attribute(b []byte, kind uint16, value func([]byte) []byte) []byte {
	begin := len(b)
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = value(b)
	binary.NativeEndian.PutUint16(b[begin:], uint16(len(b)-begin))
	for len(b)%unix.NLMSG_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

func familyNumber(a netip.Addr) uint16 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		four := a.As4()
		return append(b, four[:]...)
	}
	six := a.As16()
	return append(b, six[:]...)
}

// wire takes many messages to the kernel at once: all in one call, with an answer
// asked for the last alone. Those that the kernel refuses it names of itself.
type wire struct {
	socket *nl.NetlinkSocket
	port   uint32 // the kernel's name of the socket
	next   uint32 // sequence number of the first message in batch
	batch  []byte
	last   int // where the last message begins
	count  int
	most   int // messages of a batch, so that all their refusals can wait
	in     []byte
}

func newWire(ns netns.NsHandle) (*wire, error) {
	s, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	fail := func(err error) (*wire, error) {
		s.Close()
		return nil, fmt.Errorf("prepare a netlink socket: %w", err)
	}
	port, err := s.GetPid()
	if err != nil {
		return fail(err)
	}
	fd := s.GetFd()
	most, err := widen(fd)
	if err != nil {
		return fail(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return fail(err) // refusals would repeat the question
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerTime}); err != nil {
		return fail(err)
	}
	return &wire{socket: s, port: port, next: 1, most: most, in: make([]byte, 64<<10)}, nil
}

// widen gives a socket a large receive buffer, as large as the system allows where
// the process has no rights outside of its user namespace, and says how many
// messages it is good for.
func widen(fd int) (messages int, err error) {
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if err != nil {
		return 0, err
	}
	return messagesFor(fd)
}

// messagesFor is how many refusals a socket has room for.
func messagesFor(fd int) (int, error) {
	size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	return max(1, min(size/refusalBytes, maxMessages)), err
}

func (w *wire) close() { w.socket.Close() }

func (w *wire) add(m message) {
	w.last = len(w.batch)
	w.batch = m.append(w.batch, w.next+uint32(w.count))
	w.count++
}

// full says that what was added is to be flushed before more is.
func (w *wire) full() bool { return w.count >= w.most || len(w.batch) >= maxBytes }

// flush sends what was added and calls fail with the place of each message that
// was refused.
func (w *wire) flush(fail func(i int, err error)) {
	if w.count == 0 {
		return
	}
	native := binary.NativeEndian
	flags := native.Uint16(w.batch[w.last+6:])
	native.PutUint16(w.batch[w.last+6:], flags|unix.NLM_F_ACK)
	answered := make([]bool, w.count)
	err := unix.Sendto(w.socket.GetFd(), w.batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = w.answers(func(i int, err error) {
			answered[i] = true
			if err != nil {
				fail(i, err)
			}
		})
	}
	if err != nil { // of those without an answer nothing is known
		for i := range answered {
			if !answered[i] {
				fail(i, fmt.Errorf("netlink: %w", err))
			}
		}
	}
	w.next += uint32(w.count)
	w.batch, w.count = w.batch[:0], 0
}

// answers reads until the last message of the batch is answered.
func (w *wire) answers(each func(i int, err error)) error {
	for {
		n, _, err := unix.Recvfrom(w.socket.GetFd(), w.in, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return os.ErrDeadlineExceeded
		case err != nil:
			return err
		}
		for b := w.in[:n]; len(b) >= unix.SizeofNlMsghdr+4; {
			native := binary.NativeEndian
			length, kind, seq := int(native.Uint32(b)), native.Uint16(b[4:]), native.Uint32(b[8:])
			if length < unix.SizeofNlMsghdr+4 || length > len(b) {
				return fmt.Errorf("an answer of %d bytes in %d", length, len(b))
			}
			// One of an earlier batch was late.
			if i := seq - w.next; kind == unix.NLMSG_ERROR && i < uint32(w.count) {
				var refused error
				if code := int32(native.Uint32(b[unix.SizeofNlMsghdr:])); code != 0 {
					refused = unix.Errno(-code)
				}
				each(int(i), refused)
				if int(i) == w.count-1 {
					return nil
				}
			}
			b = b[min(len(b), (length+3)&^3):]
		}
	}
}
