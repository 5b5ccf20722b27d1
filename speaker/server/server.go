// Package server is the BGP speaker itself. It wraps GoBGP whole: nothing of GoBGP's
// API leaves it, and whatever the configuration says, a Server exports only the
// prefixes of its last Set and never becomes a transit for what it learned.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fairway-network/fairway/internal/deadline"
	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
	gobgp "github.com/osrg/gobgp/v3/pkg/server"
)

const (
	// limitRetry is how long a session that was shut for its peer's flood of
	// prefixes stays down.
	limitRetry = time.Minute
	// stopTime bounds the wait for GoBGP to let go of a peer.
	stopTime = 5 * time.Second
	// lastWordsTime is what Close leaves of its time for the Cease.
	lastWordsTime = time.Second
	// listenTime bounds the wait for GoBGP's API to listen.
	listenTime = 5 * time.Second
)

// Server is a Speaker in this process. A malformed header from a peer ends the
// process (GoBGP issue 3325): unless that is wanted, use
// speaker.Child.
//
// A process that sets passwords and listens must run with multipath TCP off
// (//go:debug multipathtcp=0 in package main, or GODEBUG): otherwise sessions
// that the peer opens never get past its signature. Set says so.
//
// Close with Forward can't cut the sessions without a Cease while the process
// lives: they end when it exits, which has to follow at once.
type Server struct {
	log        *slog.Logger
	limitRetry time.Duration

	turn   chan struct{} // of size one: serialises what changes GoBGP
	closed atomic.Bool
	run    atomic.Pointer[run] // nil until the first Set
	// later says that a run was ended with a Cease: those after it restart
	// nothing.
	later   bool
	learned *learned
	thrift  *thrift
	failed  *failure // the last start in place of another, if it failed
	// wish is all but the announcements of the last Set whose Local was not refused.
	wish     speaker.Desired
	granted  bool                // all of it
	lookouts map[string]*lookout // by interface
	// holders are the peers that the last run had no session to tell with, see
	// ledger.inherited.
	holders map[string]time.Time
}

// run is one life of the BGP server inside: from a start to a change of Local.
type run struct {
	log    *slog.Logger
	local  speaker.Local
	peers  map[netip.Addr]speaker.Peer
	told   map[netip.Addr]*api.Peer // what GoBGP was told of each of them
	ranges map[string]speaker.Range
	asked  announcements // of the last Set
	bgp    *gobgp.BgpServer
	ledger *ledger
	guards *guards
	thrift *thrift
	ends   *endpoints
	begun  time.Time
	stop   context.CancelFunc // ends tend
	tended chan struct{}
	// ceased are the peers that were told of the end of a session in this run:
	// for them the next one is no restart.
	ceased map[netip.Addr]bool

	export    exportPolicy
	targets   []target            // that it is about
	classes   []*class            // that paths are of, or were when GoBGP was last asked
	found     map[classKey]*class // of the terms of the last Set, as far as they were asked for
	lastClass uint32
}

var _ speaker.Speaker = (*Server)(nil)

// New makes a speaker that does nothing until its first Set.
func New(log *slog.Logger) *Server {
	return &Server{log: log, limitRetry: limitRetry, turn: make(chan struct{}, 1), learned: newLearned(nil, log), thrift: &thrift{collector: newCollector()}}
}

// acquire waits for the turn to change GoBGP, which release ends.
func (s *Server) acquire(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("another call of the BGP speaker takes its time: %w", ctx.Err())
	}
}

func (s *Server) release() { <-s.turn }

// Set implements Speaker. It keeps the announcements, which are the Server's from then on.
func (s *Server) Set(ctx context.Context, d speaker.Desired) error {
	asked, err := checkAnnouncements(d)
	if err != nil {
		return fmt.Errorf("BGP settings: %w", err)
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.release()
	r, localErr := s.running(ctx, d.Local)
	if r == nil {
		return localErr
	}
	if localErr != nil {
		if err := r.setAnnouncements(ctx, asked, r.peers, r.ranges); err != nil {
			// Not ErrLocal, which says that the prefixes are as desired.
			return fmt.Errorf("%v; %w", localErr, err)
		}
		return localErr
	}
	if !s.granted || !reflect.DeepEqual(wishOf(d), s.wish) {
		s.wish = wishOf(d)
		return s.conform(ctx, r, d, asked)
	}
	r.ledger.overLimit(s.learned.configure(r.peers, r.ranges, asked.prefixes())...)
	return errors.Join(r.setAnnouncements(ctx, asked, r.peers, r.ranges), r.tidy(ctx))
}

// Announce implements speaker.Announcer.
func (s *Server) Announce(ctx context.Context, c speaker.Change) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.release()
	r := s.run.Load()
	if r == nil {
		return errors.New("the BGP speaker has no announcements yet that could change")
	}
	if err := r.asked.checkAll(c.Announced); err != nil {
		return fmt.Errorf("BGP settings: %w", err)
	}
	if !s.granted {
		return s.conform(ctx, r, s.wish, r.asked.with(c))
	}
	err := r.changeAnnouncements(ctx, c)
	if s.learned.open != nil { // else there is nothing to keep the prefixes out of
		// The router need not wait for it: learned routes follow in their own time, before or
		// after, and one by a prefix that is taken back would send its packets back to a router
		// that has not heard of that.
		r.ledger.overLimit(s.learned.own(c)...)
	}
	return errors.Join(err, r.tidy(ctx))
}

// begin is acquire for a Set or a change, unless that is not wanted any more.
func (s *Server) begin(ctx context.Context) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	err := ctx.Err() // another Set may have come after this one
	if err != nil {
		err = fmt.Errorf("the BGP speaker's settings were given up before their turn came: %w", err)
	} else if s.closed.Load() {
		err = speaker.ErrClosed
	}
	if err != nil {
		s.release()
	}
	return err
}

// wishOf is all of d but the announcements.
func wishOf(d speaker.Desired) speaker.Desired {
	return speaker.Desired{Local: d.Local, Peers: slices.Clone(d.Peers), Ranges: slices.Clone(d.Ranges)}
}

// conform makes r what d says, with these announcements.
func (s *Server) conform(ctx context.Context, r *run, d speaker.Desired, asked announcements) (err error) {
	s.granted = false
	defer func() { s.granted = err == nil }()
	d.Peers = s.locate(d.Peers)
	peers, peersErr := checkPeers(d.Peers, d.Local)
	r.keepRefused(d.Peers, peers)
	ranges, rangesErr := checkRanges(d.Ranges, d.Peers, d.Local)
	r.keepRefusedRanges(d.Ranges, ranges)
	r.ledger.configure(d.Peers, d.Ranges)
	r.ledger.overLimit(s.learned.configure(peers, ranges, asked.prefixes())...)
	prefixesErr := r.setAnnouncements(ctx, asked, peers, ranges)
	peersErr = errors.Join(peersErr, rangesErr, r.setPeers(ctx, peers), r.setRanges(ctx, ranges))
	prefixesErr = errors.Join(prefixesErr, r.tidy(ctx))
	s.explain(r)
	if peersErr != nil && prefixesErr == nil {
		return fmt.Errorf("%w: %w", speaker.ErrPeers, peersErr)
	}
	return errors.Join(prefixesErr, peersErr)
}

// keepRefused leaves the session of a peer whose new settings were refused as
// it is.
func (r *run) keepRefused(asked []speaker.Peer, good map[netip.Addr]speaker.Peer) {
	for _, p := range asked {
		old, had := r.peers[p.Address]
		if _, ok := good[p.Address]; had && !ok {
			good[p.Address] = old
		}
	}
}

// keepRefusedRanges does the same for ranges.
func (r *run) keepRefusedRanges(asked []speaker.Range, good map[string]speaker.Range) {
	for _, rg := range asked {
		old, had := r.ranges[rg.Name]
		if _, ok := good[rg.Name]; had && !ok {
			good[rg.Name] = old
		}
	}
}

// change makes one prefix one of a class, or withdraws it with nil; routers may have been
// told ahead.
func (r *run) change(ctx context.Context, p netip.Prefix, c *class, told *ahead) error {
	path, err := pathOf(p, c)
	if err != nil {
		return err
	}
	was := told.before(p, r.ledger.expect(p, c))
	if c != nil {
		_, err = r.bgp.AddPath(ctx, &api.AddPathRequest{Path: path})
	} else {
		err = r.bgp.DeletePath(ctx, &api.DeletePathRequest{Path: path})
	}
	if err != nil {
		r.ledger.expect(p, was)
		return fmt.Errorf("prefix %s: %w", p, err)
	}
	return nil
}

// setPeers removes what is gone or changed, then adds what is new or changed.
func (r *run) setPeers(ctx context.Context, peers map[netip.Addr]speaker.Peer) error {
	var errs []error
	for address, old := range r.peers {
		p, keep := peers[address]
		if keep && sameSession(p, old) {
			errs = append(errs, r.adjust(ctx, old, p))
			continue
		}
		errs = append(errs, r.removePeer(ctx, old, whyRemoved(old, peers)))
	}
	for _, address := range slices.SortedFunc(maps.Keys(peers), netip.Addr.Compare) {
		if _, has := r.peers[address]; !has {
			errs = append(errs, r.addPeer(ctx, peers[address]))
		}
	}
	return errors.Join(errs...)
}

func (r *run) addPeer(ctx context.Context, p speaker.Peer) error {
	return r.addPeerAs(ctx, p, r.restarting() && !r.ceased[p.Address])
}

// addPeerAs is addPeer, with the restart bit or without. The router may be in by a
// range, or get in while the peer is away for a moment.
func (r *run) addPeerAs(ctx context.Context, p speaker.Peer, restarting bool) error {
	err := r.introduce(ctx, p, restarting)
	if r.ledger.isMember(p.Address.String()) {
		err = r.takeOver(ctx, p, restarting)
	}
	if err != nil {
		return fmt.Errorf("peer %s (%s): %w", p.Name, p.Address, err)
	}
	return nil
}

// introduce adds a peer to the ledger and to GoBGP, to both or to none.
func (r *run) introduce(ctx context.Context, p speaker.Peer, restarting bool) error {
	takeBack, err := r.ledger.add(p, restarting)
	if err != nil {
		return err
	}
	if !isFound(p) {
		r.peers[p.Address] = p
		return nil
	}
	told := peerOf(p, r.local, restarting)
	if err := r.bgp.AddPeer(ctx, &api.AddPeerRequest{Peer: told}); err != nil {
		takeBack()
		return err
	}
	r.peers[p.Address], r.told[p.Address] = p, told
	return nil
}

// restarting says whether a peer may still hold routes of this node's life
// before: the restart bit is a lie once the restart time is over.
func (r *run) restarting() bool {
	g := r.local.GracefulRestart
	return g.Enabled && g.Restarting && time.Since(r.begun) < g.Kept()
}

// Why this node ends sessions, for people to read.
const (
	settingsChanged = "its settings changed: a new session begins"
	passwordChanged = "its password changed: a new session begins"
	noPeer          = "it is no peer of this node any more"
)

// whyRemoved says why a peer goes that peers have not, or otherwise.
func whyRemoved(old speaker.Peer, peers map[netip.Addr]speaker.Peer) string {
	if _, keep := peers[old.Address]; keep {
		return settingsChanged
	}
	for _, p := range peers {
		if old.Interface != "" && p.Interface == old.Interface {
			return "it is not found on " + old.Interface + " any more, or another router is"
		}
	}
	return noPeer
}

// logEnd says that this node has ended a session by itself.
func (r *run) logEnd(p speaker.Peer, why string) {
	r.log.Info("BGP session ended", append(transition(p, bgp.BGP_FSM_ESTABLISHED, bgp.BGP_FSM_IDLE), "reason", why)...)
}

// removePeer returns when GoBGP has let go of the peer, so that what it still
// reports is not taken for the next session with that address. The log says why, if
// there was a session.
func (r *run) removePeer(ctx context.Context, p speaker.Peer, why string) error {
	address := p.Address.String()
	if !isFound(p) {
		r.ledger.forget(address)
		delete(r.peers, p.Address)
		return nil
	}
	freed, wasUp := r.ledger.leave(address)
	if wasUp {
		r.ceased[p.Address] = true
		r.logEnd(p, why)
	}
	if err := r.bgp.DeletePeer(ctx, &api.DeletePeerRequest{Address: address}); err != nil {
		return fmt.Errorf("peer %s (%s): %w", p.Name, p.Address, err)
	}
	delete(r.peers, p.Address)
	delete(r.told, p.Address)
	if p.Password != "" && len(r.local.Listen) > 0 {
		if err := setListenerKey(ctx, r.bgp, p.Address, ""); err != nil {
			return fmt.Errorf("peer %s (%s): %w", p.Name, p.Address, err)
		}
	}
	return r.awaitEnd(ctx, p, freed)
}

// awaitEnd waits until the session with a peer that was removed has ended, which freed
// says.
func (r *run) awaitEnd(ctx context.Context, p speaker.Peer, freed <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	select {
	case <-freed:
		return nil
	case <-ctx.Done():
		r.ledger.forget(p.Address.String())
		return fmt.Errorf("peer %s (%s): the old session does not end: %w", p.Name, p.Address, ctx.Err())
	}
}

// Close implements Speaker. See Server for what Forward asks of the caller.
func (s *Server) Close(ctx context.Context, how speaker.Stop) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	r := s.run.Load()
	if s.closed.Swap(true) || r == nil {
		return nil
	}
	defer s.closeLookouts()
	if how == speaker.Forward {
		r.ledger.replace()
		r.stop()
		return errors.Join(s.learned.close(ctx, how), r.ends.close())
	}
	telling, cancel := deadline.Before(ctx, lastWordsTime)
	defer cancel()
	err := r.setAnnouncements(telling, announcements{}, r.peers, r.ranges)
	if err == nil {
		err = r.waitTold(telling)
	}
	return errors.Join(err, s.learned.close(ctx, how), s.stop(ctx, r))
}

// current is the BGP server of the last Set, nil before it.
func (s *Server) current() (*run, error) {
	if s.closed.Load() {
		return nil, speaker.ErrClosed
	}
	return s.run.Load(), nil
}
