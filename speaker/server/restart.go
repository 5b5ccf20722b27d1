package server

import (
	"context"
	"maps"
	"time"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
)

// longLivedOf is GoBGP's form of RFC 9494 for one family.
func longLivedOf(g speaker.GracefulRestart) *api.LongLivedGracefulRestart {
	return &api.LongLivedGracefulRestart{Config: &api.LongLivedGracefulRestartConfig{
		Enabled: g.Enabled && g.LongLived > 0, RestartTime: uint32(g.LongLived / time.Second),
	}}
}

// helpsLongLived says whether a peer offered in its OPEN to keep this node's routes
// as stale ones after its restart time (RFC 9494).
func helpsLongLived(p *api.Peer) bool {
	for _, c := range p.GetState().GetRemoteCap() {
		if c.MessageIs(new(api.LongLivedGracefulRestartCapability)) {
			return true
		}
	}
	return false
}

// comesBack says whether the next OPEN after the loss of s is to say that this node
// has gone on forwarding: its peer would drop what it keeps otherwise (RFC 4724,
// section 4.2), and have it again a moment later. GoBGP can say it of a new peer
// alone, and drops what it has learned of the one before: so it is not said where
// routes are accepted. The ledger's lock is held.
func (s *session) comesBack() bool {
	return !s.holds.IsZero() && s.within == "" && s.limited.IsZero() && len(s.peer.Accept.Prefixes) == 0
}

// comeBack has the next OPEN to a peer without a session carry the restart bit, if
// the peer may keep routes of this node.
func (r *run) comeBack(ctx context.Context, p speaker.Peer) error {
	was, ok := r.ledger.beginSwap(p)
	if !ok || !was.mayHold(time.Now()) && (!r.restarting() || r.ceased[p.Address]) {
		r.ledger.endSwap(session{})
		return nil
	}
	err := r.removePeer(ctx, p, settingsChanged)
	if err == nil {
		err = r.addPeerAs(ctx, p, true)
	}
	r.ledger.endSwap(was)
	return err
}

// beginSwap gives what is known of a peer that has no session, and keeps waiters
// from taking it for one that holds nothing while it is away.
func (l *ledger) beginSwap(p speaker.Peer) (was session, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.swapping = true
	s := l.sessions[p.Address.String()]
	if s == nil || s.up || s.opening {
		return session{}, false
	}
	was = *s
	l.swapped = &was
	return was, true
}

// shown are the sessions as people see them: a peer that is being put back is what
// it was. The lock is held.
func (l *ledger) shown() map[string]*session {
	if l.swapped == nil {
		return l.sessions
	}
	out := maps.Clone(l.sessions)
	out[l.swapped.peer.Address.String()] = l.swapped
	return out
}

// endSwap has a peer that was put back be what it was.
func (l *ledger) endSwap(was session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.swapping, l.swapped = false, nil
	if s := l.sessions[was.peer.Address.String()]; s != nil && s.freed == nil {
		s.ended, s.flaps, s.damped = was.ended, was.flaps, was.damped
		if !s.up {
			s.since, s.trouble, s.holds = was.since, was.trouble, was.holds
		}
	}
	l.wake()
}
