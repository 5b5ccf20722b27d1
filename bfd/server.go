package bfd

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ErrClosed: the server was closed.
var ErrClosed = errors.New("BFD server is closed")

// ErrPeers: some peers have no session that can work at present; the others
// are as desired. Another Set tries again.
var ErrPeers = errors.New("not all BFD peers are as configured")

// PeerState is a desired peer and what is.
type PeerState struct {
	Peer Peer // with its defaults, and a zone as Interface
	Status
	Sent, Received uint64 // packets of the session
	// Problem says in words what keeps packets from going either way: why there
	// is no session, why the last packet could not leave, or why one that came
	// since the session was last made or came up was discarded.
	Problem string
}

// Discards counts packets that no session took.
type Discards struct {
	Strangers     uint64 // from an address, or by an interface, that is no peer's
	TTL           uint64 // travelled too far
	Malformed     uint64 // refused by Parse
	Discriminator uint64 // for a session that is no more
}

// Server runs the sessions. Its methods may be called by several goroutines.
type Server struct {
	changes chan struct{}
	left    chan struct{}  // a signal after a session is gone
	running sync.WaitGroup // readers and what closes listeners

	setting sync.Mutex // held by whoever opens or closes listeners; before mu

	mu        sync.Mutex
	closed    bool
	wanted    []Peer
	refused   map[door]string // why a door has no listener
	listeners map[door]*listener
	links     map[Endpoint]*link // those that say farewell included
	byAddress map[netip.Addr][]*link
	discards  Discards
}

// NewServer gives a server without peers, which listens nowhere.
func NewServer() *Server {
	return &Server{
		changes:   make(chan struct{}, 1),
		left:      make(chan struct{}, 1),
		refused:   map[door]string{},
		listeners: map[door]*listener{},
		links:     map[Endpoint]*link{},
		byAddress: map[netip.Addr][]*link{},
	}
}

// Changes has a value when a session's state changed since it was last read:
// look at State. For one reader.
func (s *Server) Changes() <-chan struct{} { return s.changes }

// Set makes the peers those that there are sessions with. A peer that stays is
// left alone but for what changed of it; one that goes is told AdminDown. It
// may be called again with the same peers. One that is impossible, or can't be
// told from one before it, is left out, and the error wraps ErrPeer; with what the
// machine refuses to a peer it wraps ErrPeers. Neither stops the others.
func (s *Server) Set(peers []Peer) error {
	desired, err := normalPeers(peers)
	return errors.Join(err, s.apply(desired, false))
}

// apply makes desired what is, for the last time if the server closes.
func (s *Server) apply(desired []Peer, last bool) error {
	s.setting.Lock()
	defer s.setting.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.closed = last
	s.wanted = desired
	s.shutOthers(desired)
	errs := s.open(desired)
	for _, p := range desired {
		errs = append(errs, s.keep(p))
	}
	unused := s.unused()
	s.mu.Unlock()
	for _, l := range unused {
		errs = append(errs, l.conn.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrPeers, err)
	}
	return nil
}

// shutOthers ends the sessions that are not desired any more.
func (s *Server) shutOthers(desired []Peer) {
	stays := map[Endpoint]bool{}
	for _, p := range desired {
		stays[p.Endpoint] = true
	}
	for e, l := range s.links {
		if !stays[e] {
			s.act(l, l.session.Shut(time.Now()))
		}
	}
}

// open opens the listeners that are missing.
func (s *Server) open(desired []Peer) (errs []error) {
	clear(s.refused)
	for _, p := range desired {
		d := p.door()
		if s.listeners[d] != nil || s.refused[d] != "" {
			continue
		}
		l, err := d.listen()
		if err != nil {
			s.refused[d] = err.Error()
			errs = append(errs, err)
			continue
		}
		s.listeners[d] = l
		s.running.Go(func() { s.read(d, l) })
	}
	return errs
}

// keep makes or updates the session with a peer. Without a listener there is
// none: it could not come up, and would disturb the program that listens.
func (s *Server) keep(p Peer) error {
	l := s.links[p.Endpoint]
	if l != nil && l.session.Status().State != AdminDown {
		l.update(p)
		s.act(l, Step{})
		return nil
	}
	if l != nil { // back before its farewell is over
		s.remove(l)
	}
	if s.listeners[p.door()] == nil {
		return nil // open said why
	}
	l = s.begin(p)
	s.act(l, l.session.Tick(time.Now()))
	if l.unsent != "" {
		return fmt.Errorf("BFD peer %s (%s): %s", p.Name, p.Address, l.unsent)
	}
	return nil
}

// begin adds a session.
func (s *Server) begin(p Peer) *link {
	l := &link{peer: p, local: s.freshDiscriminator()}
	l.session = NewSession(time.Now(), l.local, p.Timers, p.ControlPlaneIndependent, rand.Float64)
	l.timer = time.AfterFunc(time.Hour, func() { s.tick(l) })
	s.links[p.Endpoint] = l
	s.byAddress[p.Address] = append(s.byAddress[p.Address], l)
	return l
}

// freshDiscriminator gives one that nobody can guess and no session has (RFC
// 5880 section 6.8.1).
func (s *Server) freshDiscriminator() uint32 {
	for {
		var b [4]byte
		_, _ = crand.Read(b[:]) // it never fails
		d := binary.NativeEndian.Uint32(b[:])
		taken := func() bool {
			for _, l := range s.links {
				if l.local == d {
					return true
				}
			}
			return false
		}
		if d != 0 && !taken() {
			return d
		}
	}
}

// remove takes a session away without a word.
func (s *Server) remove(l *link) {
	l.gone = true
	l.timer.Stop()
	l.hangUp()
	delete(s.links, l.peer.Endpoint)
	others := slices.DeleteFunc(s.byAddress[l.peer.Address], func(o *link) bool { return o == l })
	if s.byAddress[l.peer.Address] = others; len(others) == 0 {
		delete(s.byAddress, l.peer.Address)
	}
	signal(s.left)
}

// unused takes the listeners that no session needs out of the server. Whoever
// asks closes them without holding mu: a reader may wait for it.
func (s *Server) unused() (out []*listener) {
	needed := map[door]bool{}
	for _, l := range s.links {
		needed[l.peer.door()] = true
	}
	for d, l := range s.listeners {
		if !needed[d] {
			out = append(out, l)
			delete(s.listeners, d)
		}
	}
	return out
}

// tidy closes the listeners that no session needs any more.
func (s *Server) tidy() {
	s.setting.Lock()
	defer s.setting.Unlock()
	s.mu.Lock()
	unused := s.unused()
	s.mu.Unlock()
	for _, l := range unused {
		_ = l.conn.Close() // it only read
	}
}

// act does what a step says and plans the next tick.
func (s *Server) act(l *link, step Step) {
	if step.Send {
		l.transmit(step.Packet)
	}
	if step.Changed {
		if l.session.Status().State == Up {
			l.refused = ""
		}
		signal(s.changes)
	}
	now := time.Now()
	if l.session.Over(now) {
		s.remove(l)
		s.running.Go(s.tidy)
		return
	}
	if deadline := l.session.Deadline(); deadline.IsZero() {
		l.timer.Stop()
	} else {
		l.timer.Reset(deadline.Sub(now))
	}
}

// tick is what a link's timer calls. A session whose time is over gets the
// packets first that have come while nobody read them: that this program was
// held up is not the peer's failure.
func (s *Server) tick(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !l.gone && l.session.Expired(time.Now()) {
		s.drain(l.peer.door())
	}
	if !l.gone {
		s.act(l, l.session.Tick(time.Now()))
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// State gives every desired peer, in the order of the last Set.
func (s *Server) State() []PeerState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]PeerState, 0, len(s.wanted))
	for _, p := range s.wanted {
		if l := s.links[p.Endpoint]; l != nil {
			out = append(out, PeerState{Peer: p, Status: l.session.Status(), Sent: l.sent, Received: l.received, Problem: l.problem()})
		} else {
			out = append(out, PeerState{Peer: p, Status: Status{State: Down, RemoteState: Down}, Problem: s.refused[p.door()]})
		}
	}
	return out
}

// Discards gives what was discarded so far.
func (s *Server) Discards() Discards {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.discards
}

// Close tells every peer AdminDown and waits until they know, at most for
// their Detection Times and until ctx ends. Whatever it returns, the server
// has ended; the error names the peers that may not know.
func (s *Server) Close(ctx context.Context) error {
	applyErr := s.apply(nil, true)
	if errors.Is(applyErr, ErrClosed) {
		return nil
	}
	for s.linked() > 0 && ctx.Err() == nil {
		select {
		case <-s.left:
		case <-ctx.Done():
		}
	}
	var errs []error
	s.mu.Lock()
	for _, l := range s.links {
		errs = append(errs, fmt.Errorf("BFD peer %s (%s) may not know that its session was taken down: %w", l.peer.Name, l.peer.Address, ctx.Err()))
		s.remove(l)
	}
	s.mu.Unlock()
	s.tidy()
	s.running.Wait()
	return errors.Join(append(errs, applyErr)...)
}

func (s *Server) linked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.links)
}
