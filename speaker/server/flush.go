package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/speaker"
)

// errReplaced: a change of Local has put another run in the place of the one
// that was asked.
var errReplaced = errors.New("BGP was restarted")

// Flush implements Speaker.
func (s *Server) Flush(ctx context.Context, prefixes []netip.Prefix) error {
	if len(prefixes) == 0 {
		return nil
	}
	for {
		r, err := s.current()
		if err != nil {
			return err
		}
		if r == nil {
			return fmt.Errorf("%w: nothing was set yet", speaker.ErrNoPeer)
		}
		if err := r.flush(ctx, prefixes); !errors.Is(err, errReplaced) {
			return err
		}
		if err := s.acquire(ctx); err != nil { // until the Set that replaces it is done
			return fmt.Errorf("%w: %w: %w", speaker.ErrNoPeer, errReplaced, err)
		}
		s.release()
	}
}

// lookAgain is how often a Flush looks at what nobody reports: that the time is
// over for which a peer may hold routes, or what a peer has negotiated that came
// up since the last look.
const lookAgain = 100 * time.Millisecond

func (r *run) flush(ctx context.Context, prefixes []netip.Prefix) error {
	f := newFlush(prefixes)
	defer r.ledger.leaveFlush(f)
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		r.negotiate(ctx)
		done, changed, err := r.ledger.flushed(f)
		if done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			return r.ledger.unflushed(f, ctx.Err())
		}
	}
}

// flush is one wait for prefixes to be written.
type flush struct {
	prefixes []netip.Prefix // each once
	families []speaker.Family
	// written counts the first of the prefixes, which every session that was up
	// at the given number of comings has been told.
	written int
	comings int
	awaits  netip.Prefix // what it looks again for; zero for nothing
}

// newFlush puts last first: prefixes are written in their order, so that
// mostly one look more is enough.
func newFlush(prefixes []netip.Prefix) *flush {
	sorted := slices.Clone(prefixes)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int { return b.Compare(a) })
	f := &flush{prefixes: slices.Compact(sorted)}
	for _, p := range f.prefixes {
		if family := familyOf(p.Addr()); !slices.Contains(f.families, family) {
			f.families = append(f.families, family)
		}
	}
	return f
}

// flushed says whether f is done, or what to wait on if it is not.
func (l *ledger) flushed(f *flush) (done bool, changed <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.replaced {
		return false, nil, errReplaced
	}
	if l.families == nil || l.swapping {
		return false, l.changed, nil
	}
	for _, family := range f.families {
		if !l.families[family] {
			return false, nil, fmt.Errorf("%w for %s prefixes: no peer is configured for them: add the family to a peer", speaker.ErrNoPeer, family)
		}
	}
	l.await(f, netip.Prefix{})
	for _, family := range f.families {
		if !l.carried(family) {
			return false, l.changed, nil
		}
	}
	if p, configured := l.unheard(f); p.IsValid() {
		if !configured {
			return false, nil, fmt.Errorf("%w for %s: no peer is to be told of it: name one in its terms", speaker.ErrNoPeer, p)
		}
		return false, l.changed, nil
	}
	if f.comings != l.comings {
		f.written, f.comings = 0, l.comings
	}
	for ; f.written < len(f.prefixes); f.written++ {
		if p := f.prefixes[f.written]; l.lacking(p, time.Now()) != nil {
			l.await(f, p)
			return false, l.changed, nil
		}
	}
	return true, nil, nil
}

// await makes f look again when p is written, and no more for what it awaited
// before. The lock is held.
func (l *ledger) await(f *flush, p netip.Prefix) {
	if f.awaits.IsValid() {
		if l.awaited[f.awaits]--; l.awaited[f.awaits] == 0 {
			delete(l.awaited, f.awaits)
		}
	}
	if f.awaits = p; p.IsValid() {
		l.awaited[p]++
	}
}

func (l *ledger) leaveFlush(f *flush) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.await(f, netip.Prefix{})
}

// carried says whether an established session carries the family. The lock is
// held.
func (l *ledger) carried(family speaker.Family) bool {
	for _, s := range l.sessions {
		if s.up && !s.isEnding() && s.carries(family) {
			return true
		}
	}
	return false
}

// isEnding says whether this node is about to shut the session.
func (s *session) isEnding() bool { return s.unwanted || !s.limited.IsZero() }

// lack is what of a prefix has not reached a peer.
type lack struct {
	peer speaker.Peer
	why  string // "peer NAME (ADDRESS) WHY PREFIX"
}

// lacking gives a peer that what is wanted of a prefix has not reached, nil if
// there is none. The lock is held.
func (l *ledger) lacking(p netip.Prefix, now time.Time) *lack {
	class := l.want[p]
	family := familyOf(p.Addr())
	for _, s := range l.sessions {
		if !s.carries(family) {
			continue
		}
		_, wanted := l.tells(s, class)
		switch o := s.out[family]; {
		case s.up && !o.holds(p, wanted):
			return &lack{s.peer, "was not told yet of"}
		case class != nil: // a peer without a session is told, or not, when it has one
		case s.up && l.keeps > 0 && !s.noHelper && !o.ended:
			return &lack{s.peer, "was not sent the End-of-RIB yet, until which it may keep"}
		case s.mayHold(now):
			return &lack{s.peer, "has no session, and keeps forwarding for a graceful restart, perhaps also to"}
		}
	}
	return nil
}

// mayHold says whether the peer, which has no session, may hold routes of this
// node as a helper of its restart.
func (s *session) mayHold(now time.Time) bool {
	return !s.up && s.freed == nil && now.Before(s.holds)
}

// unflushed says why f ended early.
func (l *ledger) unflushed(f *flush, cause error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, family := range f.families {
		if !l.carried(family) {
			return fmt.Errorf("%w for %s prefixes: %w", speaker.ErrNoPeer, family, cause)
		}
	}
	if p, _ := l.unheard(f); p.IsValid() {
		return fmt.Errorf("%w that is to be told of %s%s: %w", speaker.ErrNoPeer, p, l.withoutHop(p), cause)
	}
	for _, p := range f.prefixes {
		if lack := l.lacking(p, time.Now()); lack != nil {
			return fmt.Errorf("peer %s (%s) %s %s: %w", lack.peer.Name, placeOf(lack.peer), lack.why, p, cause)
		}
	}
	return cause
}

// configure records which families the peers carry by configuration, those
// included whose settings were refused.
func (l *ledger) configure(peers []speaker.Peer, ranges []speaker.Range) {
	families := make(map[speaker.Family]bool)
	for _, p := range peers {
		for _, f := range peerWithDefaults(p).Families {
			families[f] = families[f] || !p.Down
		}
	}
	for _, rg := range ranges {
		for _, f := range sessionWithDefaults(rg.Session, rg.Network.Addr()).Families {
			families[f] = families[f] || !rg.Down
		}
	}
	l.carry(families)
}

func (l *ledger) carry(families map[speaker.Family]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.families = families
	l.wake()
}

// carriage are the families that are configured.
func (l *ledger) carriage() map[speaker.Family]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.families
}

// replace ends the waits for a run that another takes the place of.
func (l *ledger) replace() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replaced = true
	l.wake()
}

// untold gives the peers that hold, or may hold at the time, something else than
// they should, and what to wait on.
func (l *ledger) untold(now time.Time) (peers []speaker.Peer, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		if s.up && !s.settled() || s.mayHold(now) {
			peers = append(peers, s.peer)
		}
	}
	return peers, l.changed
}
