package bfd

import (
	"slices"
	"time"
)

const (
	// atATime is how many packets are read while nothing else is done: a flood
	// must not keep the timers from their turn.
	atATime = 32
	// heldUp is how many packets can have queued up in a socket.
	heldUp = 1024
)

// room is what a packet is read into: it holds the longest packet there is and
// both control messages that were asked for.
type room struct {
	payload [64]byte
	control [128]byte
}

// read takes what comes through a door until its socket is closed.
func (s *Server) read(d door, l *listener) {
	var r room
	// The function is called when there is something to read, and waits for
	// more when it returns false.
	for l.raw.Read(func(fd uintptr) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.take(d, int(fd), &r, atATime)
	}) == nil {
	}
}

// drain reads what is in a door's socket right now.
func (s *Server) drain(d door) {
	l := s.listeners[d]
	if l == nil {
		return
	}
	var r room
	_ = l.raw.Control(func(fd uintptr) { s.take(d, int(fd), &r, heldUp) }) // a closed socket has nothing
}

// take reads up to most packets and says whether there may be more.
func (s *Server) take(d door, fd int, r *room, most int) bool {
	for range most {
		g, err := receive(fd, r.payload[:], r.control[:])
		if err != nil {
			return false
		}
		s.handle(d, g)
	}
	return true
}

// handle gives a packet to its session (RFC 5880 section 6.8.6).
func (s *Server) handle(d door, g datagram) {
	candidates := s.byAddress[g.from]
	i := slices.IndexFunc(candidates, func(l *link) bool { return l.takes(d, g) })
	if i < 0 {
		s.discards.Strangers++
		return
	}
	l := candidates[i]
	if !l.trusts(g) {
		s.discards.TTL++
		return
	}
	p, err := Parse(g.payload)
	if err != nil {
		s.discards.Malformed++
		l.refused = err.Error()
		return
	}
	if p.YourDiscriminator != 0 && p.YourDiscriminator != l.local {
		s.discards.Discriminator++
		return
	}
	l.received++
	s.act(l, l.session.Receive(time.Now(), p))
}
