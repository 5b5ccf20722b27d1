package bfd

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// link is a session with its socket and its timer. The server's mutex guards
// it.
type link struct {
	peer    Peer
	session *Session
	local   uint32 // discriminator
	timer   *time.Timer
	out     *sender // nil until a packet is to leave, and after an error
	port    uint16  // source port; 0 until there is one
	gone    bool    // no part of the server any more

	unsent  string // why the last packet did not leave; empty if it did
	refused string // why a packet was not taken; empty since the session came up

	sent, received uint64
	buffer         [packetLength]byte
}

// takes says whether a packet with these addresses may be the session's.
func (l *link) takes(d door, g datagram) bool {
	if l.peer.door() != d || l.peer.Local.IsValid() && l.peer.Local != g.to {
		return false
	}
	return l.peer.Interface == "" || l.out != nil && l.out.index == g.index
}

// trusts says whether a packet has come as few hops as it must (RFC 5881
// section 5).
func (l *link) trusts(g datagram) bool {
	least := ttlOut
	if l.peer.Multihop {
		least = int(l.peer.MinTTL)
	}
	if g.ttl >= least {
		return true
	}
	l.refused = fmt.Sprintf("packet discarded: TTL %d, want at least %d", g.ttl, least)
	return false
}

// transmit sends a packet. After an error the socket is made anew for the next
// one: the address may be back by then, or the interface another one.
func (l *link) transmit(p Packet) {
	var err error
	if l.out == nil {
		l.out, l.port, err = dial(l.peer, l.port)
	}
	if err == nil {
		err = l.out.send(p.Append(l.buffer[:0]))
	}
	if err == nil {
		l.sent++
		l.unsent = ""
		return
	}
	l.unsent = fmt.Sprintf("packet not sent: %v", err)
	if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) {
		l.hangUp()
	}
}

// problem is what a person should know first.
func (l *link) problem() string {
	if l.unsent != "" {
		return l.unsent
	}
	return l.refused
}

// hangUp closes the socket.
func (l *link) hangUp() {
	if l.out != nil {
		_ = l.out.conn.Close() // nothing is buffered in it
		l.out = nil
	}
}

// update takes over what may change of a peer without a new session.
func (l *link) update(p Peer) {
	l.session.SetControlPlaneIndependent(p.ControlPlaneIndependent)
	if p.Timers != l.peer.Timers {
		l.session.Adjust(p.Timers)
	}
	l.peer = p
}
