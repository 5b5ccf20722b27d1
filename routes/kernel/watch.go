package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Watch calls changed when the kernel may no longer be as the last Sync left
// it: once it listens, when a route of ours goes or is replaced (by us as
// well, which is cheaper to look at again than to tell apart), when a
// connected subnet comes or goes, and when the kernel dropped messages. It
// returns nil when ctx ends, else an error after which it can be called again.
// changed must not block.
func (t *Table) Watch(ctx context.Context, changed func()) error {
	socket, err := nl.SubscribeAt(t.ns, netns.None(), unix.NETLINK_ROUTE, watched()...)
	if err != nil {
		return fmt.Errorf("watch the kernel's routes: %w", err)
	}
	stop := context.AfterFunc(ctx, socket.Close)
	defer func() {
		if stop() {
			socket.Close()
		}
	}()
	if t.receiveBuffer > 0 {
		if err := socket.SetReceiveBufferSize(t.receiveBuffer, false); err != nil {
			return fmt.Errorf("watch the kernel's routes: %w", err)
		}
	}
	if t.self != 0 {
		if err := ignore(socket.GetFd(), t.self); err != nil {
			return fmt.Errorf("watch the kernel's routes: %w", err)
		}
	}
	changed()
	for {
		messages, _, err := socket.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			changed() // messages were lost; the socket itself goes on
		case err != nil:
			return fmt.Errorf("watch the kernel's routes: %w", err)
		case t.concern(messages):
			changed()
		}
	}
}

// ignore has the kernel not deliver what a netlink port has done itself, as it
// does for each of 100,000 routes otherwise.
func ignore(fd int, port uint32) error {
	const nlmsgPid = 12 // where it is in the header
	loaded := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, port))
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nlmsgPid},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: loaded, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// watched are the multicast groups that Watch listens to.
func watched() []uint {
	return []uint{unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_LINK}
}

// concern says whether one of messages is worth a look at the table.
func (t *Table) concern(messages []syscall.NetlinkMessage) bool {
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_NEWLINK:
			if t.concernsLink(m.Data) {
				return true
			}
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			if t.concernsRoute(m) {
				return true
			}
		}
	}
	return false
}

// concernsLink: a link with a connected subnet went down, or one with next hops
// went down or came up. The kernel drops the IPv4 routes of a link that goes down
// without a word.
func (t *Table) concernsLink(data []byte) bool {
	if len(data) < unix.SizeofIfInfomsg {
		return false
	}
	link, carriers, routers := nl.DeserializeIfInfomsg(data), t.carriers.Load(), t.routers.Load()
	if routers != nil && (*routers)[int(link.Index)] && link.Change&(unix.IFF_UP|unix.IFF_RUNNING) != 0 {
		return true
	}
	return link.Change&unix.IFF_UP != 0 && link.Flags&unix.IFF_UP == 0 &&
		carriers != nil && (*carriers)[int(link.Index)]
}

func (t *Table) concernsRoute(m syscall.NetlinkMessage) bool {
	r, ok := parse(m.Data)
	if !ok || r.Table != t.Table {
		return false
	}
	if _, ok := connected(r); ok {
		return true
	}
	gone := m.Header.Type == unix.RTM_DELROUTE || m.Header.Flags&unix.NLM_F_REPLACE != 0
	return gone && (int(r.Protocol) == t.Protocol || r.Priority == t.Metric)
}

// parse reads as much of a route message as it takes to see whether it
// concerns us.
func parse(data []byte) (r netlink.Route, ok bool) {
	if len(data) < unix.SizeofRtMsg {
		return r, false
	}
	msg := nl.DeserializeRtMsg(data)
	attrs, err := nl.ParseRouteAttr(data[unix.SizeofRtMsg:])
	if err != nil {
		return r, false
	}
	r = netlink.Route{
		Family: int(msg.Family), Table: int(msg.Table), Protocol: netlink.RouteProtocol(msg.Protocol),
		Scope: netlink.Scope(msg.Scope), Type: int(msg.Type), Flags: int(msg.Flags),
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.RTA_TABLE:
			r.Table = int(number(a.Value))
		case unix.RTA_PRIORITY:
			r.Priority = int(number(a.Value))
		case unix.RTA_GATEWAY:
			r.Gw = a.Value
		case unix.RTA_DST:
			r.Dst = &net.IPNet{IP: a.Value, Mask: net.CIDRMask(int(msg.Dst_len), 8*len(a.Value))}
		}
	}
	return r, true
}

func number(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return nl.NativeEndian().Uint32(value)
}
