package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
)

// waitTold returns when every established session was written all it should
// hold, and every peer that may still hold routes of this node without a
// session has one.
func (r *run) waitTold(ctx context.Context) error {
	again := time.NewTicker(time.Second) // what a peer may hold ends with time
	defer again.Stop()
	for {
		r.negotiate(ctx)
		untold, changed := r.ledger.untold(time.Now())
		if len(untold) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			return untoldError(untold, ctx.Err())
		}
	}
}

// untoldError is about peers that may go on sending traffic here.
func untoldError(peers []speaker.Peer, cause error) error {
	peers = slices.Clone(peers)
	for i, p := range peers {
		if !isFound(p) {
			peers[i].Address = netip.Addr{}
		}
	}
	return speaker.Untold(speaker.Desired{Peers: peers}, cause)
}

// negotiate asks GoBGP for the families of the sessions that came up since.
func (r *run) negotiate(ctx context.Context) {
	for _, address := range r.ledger.unknownFamilies() {
		// A session that went away meanwhile stays unknown.
		_ = r.bgp.ListPeer(ctx, &api.ListPeerRequest{Address: address}, func(p *api.Peer) {
			r.ledger.mu.Lock()
			defer r.ledger.mu.Unlock()
			r.ledger.sessions[address].negotiate(p)
		})
	}
}

func (l *ledger) unknownFamilies() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var unknown []string
	for address, s := range l.sessions {
		if s.up && s.negotiated == nil {
			unknown = append(unknown, address)
		}
	}
	return unknown
}

// negotiate records what the peer offered for a session that came up; there
// may be no such session any more. The lock is held.
func (s *session) negotiate(p *api.Peer) {
	if s == nil || !s.up || s.negotiated != nil || p.GetState().GetSessionState() != api.PeerState_ESTABLISHED {
		return
	}
	s.negotiated, s.noHelper, s.brief, s.hard = carriedBy(p), !helpsRestart(p), !helpsLongLived(p), takesHardReset(p)
	s.self, _ = netip.ParseAddr(p.GetTransport().GetLocalAddress())
}

// State implements Speaker.
func (s *Server) State(ctx context.Context) (speaker.State, error) {
	r, err := s.current()
	if err != nil || r == nil {
		return speaker.State{}, err
	}
	peers := make(map[string]*api.Peer)
	err = r.bgp.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) {
		peers[p.GetState().GetNeighborAddress()] = p
	})
	if err != nil {
		return speaker.State{}, fmt.Errorf("list BGP peers: %w", err)
	}
	st := r.ledger.state(peers, s.learned.tallies())
	s.learned.describe(&st)
	return st, ctx.Err()
}

// state joins what GoBGP says of its peers, and the numbers of their routes, with the
// ledger.
func (l *ledger) state(peers map[string]*api.Peer, tallies map[string]map[speaker.Family]tally) speaker.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := speaker.State{Prefixes: len(l.want), RangeTrouble: l.rangeTrouble(time.Now())}
	for address, s := range l.shown() {
		p := peers[address]
		s.negotiate(p)
		ps := speaker.PeerState{
			Name:      s.peer.Name,
			Address:   s.peer.Address,
			Interface: s.peer.Interface,
			ASN:       s.peer.ASN,
			Session:   sessionWords(p.GetState().GetSessionState()),
			Since:     s.since,
			LastError: s.why() + s.damped.words(time.Now()),
		}
		if ps.Established() != s.up { // between two reports: the ledger's is what Flush goes by
			ps.Session = sessionWords(api.PeerState_IDLE)
			if s.up {
				ps.Session = sessionWords(api.PeerState_ESTABLISHED)
			}
		}
		if !isFound(s.peer) {
			ps.Address = netip.Addr{}
		}
		s.describe(&ps, p, tallies[address])
		if s.tooMuch != "" {
			st.LearnedTrouble += fmt.Sprintf("; %s: %s", ps.Name, s.tooMuch)
		}
		if !s.up && ps.LastError != "" && proposedNoHoldTime(p) {
			ps.LastError += "; the peer proposes hold time 0 (no keepalives), which this speaker can't hold: set one of at least 3 s there"
		}
		st.Peers = append(st.Peers, ps)
	}
	slices.SortFunc(st.Peers, func(a, b speaker.PeerState) int { return cmp.Compare(a.Name, b.Name) })
	return st
}

// proposedNoHoldTime says whether a session was agreed on without a hold
// timer: GoBGP then gives each write no time at all.
func proposedNoHoldTime(p *api.Peer) bool {
	return p.GetTimers().GetState().GetNegotiatedHoldTime() == 0 && p.GetState().GetMessages().GetReceived().GetOpen() > 0
}

// tend does what GoBGP leaves undone between two calls of Set: it opens a
// session again that was shut for a flood of prefixes, and restores the
// restart bit that one peer's progress took from another that is not up yet.
func (s *Server) tend(ctx context.Context, r *run) {
	defer close(r.tended)
	timer := time.NewTimer(s.limitRetry)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.ledger.tend:
		case <-timer.C:
		}
		timer.Reset(s.limitRetry / 4)
		s.tendOnce(ctx, r)
	}
}

func (s *Server) tendOnce(ctx context.Context, r *run) {
	if s.acquire(ctx) != nil {
		return
	}
	defer s.release()
	if s.closed.Load() || s.run.Load() != r {
		return
	}
	s.relocate(ctx, r)
	for _, p := range r.ledger.lostBits() {
		if err := r.comeBack(ctx, p); err != nil {
			s.log.Warn("cannot set the restart bit", "err", err)
		}
	}
	for _, p := range r.ledger.lostKeys() {
		if err := errors.Join(r.removePeer(ctx, p, passwordChanged), r.addPeer(ctx, p)); err != nil {
			s.log.Warn("cannot use the new password", "err", err)
		}
	}
	for _, p := range r.ledger.spent() {
		if err := r.removeMember(ctx, p, "it is one too many of its range"); err != nil {
			s.log.Warn("cannot let go of a router of a range", "err", err)
		}
	}
	r.ledger.forgetLost(time.Now())
	for _, p := range r.ledger.limitsOver(time.Now().Add(-s.limitRetry)) {
		s.log.Info("opening a session again that was shut for too many prefixes", "peer", p.Name, "address", p.Address)
		if err := r.bgp.EnablePeer(ctx, &api.EnablePeerRequest{Address: p.Address.String()}); err != nil {
			s.log.Warn("cannot open the session again", "peer", p.Name, "err", err)
		}
	}
}

// lostBits takes the peers without a session whose next OPEN lacks the restart bit.
func (l *ledger) lostBits() []speaker.Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	var peers []speaker.Peer
	for _, s := range l.sessions {
		if s.damped.rests(time.Now()) {
			continue // it would have a session at once
		}
		if s.lostBit && !s.up && !s.opening && s.freed == nil {
			peers = append(peers, s.peer)
		}
		s.lostBit = false
	}
	return peers
}

// limitsOver takes the peers whose sessions were shut before a time, but for those
// that are to stay down.
func (l *ledger) limitsOver(before time.Time) []speaker.Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	var peers []speaker.Peer
	for _, s := range l.sessions {
		if !s.limited.IsZero() && s.limited.Before(before) {
			s.limited, s.tooMuch = time.Time{}, ""
			if s.within == "" && !s.peer.Down { // of the routers of ranges GoBGP has let go
				peers = append(peers, s.peer)
			}
		}
	}
	return peers
}

// waitListening returns when something accepts connections at an address, or
// with what GoBGP said.
func waitListening(ctx context.Context, network, address string, l *ledger) error {
	ctx, cancel := context.WithTimeout(ctx, listenTime)
	defer cancel()
	retry := time.NewTicker(time.Millisecond)
	defer retry.Stop()
	for {
		if conn, err := new(net.Dialer).DialContext(ctx, network, address); err == nil {
			return conn.Close()
		}
		l.mu.Lock()
		err := l.apiError
		l.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return fmt.Errorf("the BGP API does not listen on %s: %w", address, ctx.Err())
		}
	}
}
