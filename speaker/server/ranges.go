package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
)

const (
	defaultMost = 100
	// lostTime is for how long State names a router of a Range without a session.
	lostTime = 10 * time.Minute
	// refusalTime is how often the log says that a Range is full.
	refusalTime = time.Minute
)

// mostSessions is how many sessions there may be at a time.
func mostSessions(rg speaker.Range) int { return cmp.Or(rg.Most, defaultMost) }

// checkRange says what is wrong with a range as seen from local.
func checkRange(rg speaker.Range, local speaker.Local) error {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("range %s: "+format, append([]any{rg.Name}, args...)...))
	}
	if rg.Name == "" {
		fail("network %s has no name", rg.Network)
	}
	if n := rg.Network; !n.IsValid() || n != n.Masked() || n.Addr().Is4In6() || n.Addr().IsMulticast() {
		fail("network %q: want the network of the routers, without host bits", n)
		return errors.Join(errs...) // the rest asks for its family
	}
	if rg.ASN == 0 {
		fail("ASN 0 is reserved (RFC 7607): set the routers' ASN")
	}
	if rg.Most < 0 {
		fail("%d sessions at most: want at least 1, or 0 for %d", rg.Most, defaultMost)
	}
	s := rg.Session
	s.Passive = true
	checkSession(s, fail, rg.Network.Addr(), rg.ASN, local)
	checkAccept(rg.Accept, fail)
	return errors.Join(errs...)
}

// checkRanges splits ranges, by name, into those to have and what is wrong with
// the others.
func checkRanges(ranges []speaker.Range, peers []speaker.Peer, local speaker.Local) (map[string]speaker.Range, error) {
	var errs []error
	good := make(map[string]speaker.Range, len(ranges))
	networks := make(map[netip.Prefix]string, len(ranges))
	for _, rg := range ranges {
		if err := checkRange(rg, local); err != nil {
			errs = append(errs, err)
			continue
		}
		_, twice := good[rg.Name]
		if twice || slices.ContainsFunc(peers, func(p speaker.Peer) bool { return p.Name == rg.Name }) {
			errs = append(errs, fmt.Errorf("range %s: another range or a peer has this name", rg.Name))
			continue
		}
		if other, taken := networks[rg.Network]; taken {
			errs = append(errs, fmt.Errorf("range %s: network %s is that of range %s already", rg.Name, rg.Network, other))
			continue
		}
		networks[rg.Network] = rg.Name
		rg.Session = sessionWithDefaults(rg.Session, rg.Network.Addr())
		rg.Passive = true
		good[rg.Name] = rg
	}
	return good, errors.Join(errs...)
}

// sameRange says whether rg and q differ in nothing that the sessions depend on that
// there are.
func sameRange(rg, q speaker.Range) bool {
	if rg.Password != q.Password || rg.Down != q.Down {
		return false
	}
	rg.Accept, rg.Most, rg.Session = speaker.Accept{}, 0, lastingSession(rg.Session)
	q.Accept, q.Most, q.Session = speaker.Accept{}, 0, lastingSession(q.Session)
	return reflect.DeepEqual(rg, q)
}

// memberOf is the router of an address as a peer.
func memberOf(rg speaker.Range, a netip.Addr) speaker.Peer {
	return speaker.Peer{Name: rg.Name + "/" + a.String(), Address: a, ASN: rg.ASN, Session: rg.Session, Accept: rg.Accept}
}

// groupName is the name of GoBGP's peer group.
func groupName(rg speaker.Range) string { return "range " + rg.Name }

// groupOf is GoBGP's form of rg. GoBGP has no setting for the restart bit of RFC 4724
// of its dynamic neighbours: see forwardsTo.
func groupOf(rg speaker.Range, l speaker.Local) *api.PeerGroup {
	p := peerOf(memberOf(rg, rg.Network.Addr()), l, false)
	return &api.PeerGroup{
		Conf: &api.PeerGroupConf{
			PeerGroupName: groupName(rg), PeerAsn: p.Conf.PeerAsn, LocalAsn: p.Conf.LocalAsn,
			AuthPassword: p.Conf.AuthPassword, Description: rg.Name,
		},
		Timers: p.Timers, Transport: p.Transport, GracefulRestart: p.GracefulRestart, RouteReflector: p.RouteReflector,
		EbgpMultihop: p.EbgpMultihop, TtlSecurity: p.TtlSecurity, AfiSafis: p.AfiSafis,
	}
}

// setRanges removes what is gone or changed, then adds what is new or changed.
func (r *run) setRanges(ctx context.Context, ranges map[string]speaker.Range) error {
	var errs []error
	for name, old := range r.ranges {
		if rg, keep := ranges[name]; keep && sameRange(rg, old) {
			errs = append(errs, r.updateRange(ctx, old, rg))
			continue
		}
		errs = append(errs, r.removeRange(ctx, old, ranges[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(ranges)) {
		if _, has := r.ranges[name]; !has && !ranges[name].Down {
			errs = append(errs, r.addRange(ctx, ranges[name]))
		}
	}
	return errors.Join(errs...)
}

func (r *run) addRange(ctx context.Context, rg speaker.Range) error {
	if err := r.bgp.AddPeerGroup(ctx, &api.AddPeerGroupRequest{PeerGroup: groupOf(rg, r.local)}); err != nil {
		return fmt.Errorf("range %s (%s): %w", rg.Name, rg.Network, err)
	}
	r.ranges[rg.Name] = rg
	r.ledger.open(rg)
	err := r.bgp.AddDynamicNeighbor(ctx, &api.AddDynamicNeighborRequest{
		DynamicNeighbor: &api.DynamicNeighbor{Prefix: rg.Network.String(), PeerGroup: groupName(rg)}})
	if err != nil {
		return fmt.Errorf("range %s (%s): %w", rg.Name, rg.Network, err)
	}
	return nil
}

// updateRange changes what counts for the sessions to come.
func (r *run) updateRange(ctx context.Context, old, rg speaker.Range) error {
	r.ranges[rg.Name] = rg
	r.ledger.open(rg)
	if sameTimers(memberOf(old, netip.Addr{}), memberOf(rg, netip.Addr{})) {
		return nil
	}
	if _, err := r.bgp.UpdatePeerGroup(ctx, &api.UpdatePeerGroupRequest{PeerGroup: groupOf(rg, r.local)}); err != nil {
		return fmt.Errorf("range %s (%s): change its timers: %w", rg.Name, rg.Network, err)
	}
	return nil
}

// removeRange ends the sessions of a range. next is what takes its place, with
// the words for those that it shuts.
func (r *run) removeRange(ctx context.Context, rg, next speaker.Range) error {
	wrap := func(err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("range %s (%s): %w", rg.Name, rg.Network, err)
	}
	r.ledger.shutRange(rg.Name)
	errs := []error{r.bgp.DeleteDynamicNeighbor(ctx, &api.DeleteDynamicNeighborRequest{Prefix: rg.Network.String(), PeerGroup: groupName(rg)})}
	why := noPeer
	switch {
	case next.Down:
		why = shutWords(speaker.Peer{Session: next.Session})
	case next.Name != "":
		why = settingsChanged
	}
	for _, p := range r.ledger.members(rg.Name) {
		if next.Down {
			r.negotiate(ctx)
			if hard, up := r.ledger.shut(p.Address.String(), shutWords(p)); up {
				_ = r.sayCease(p, ceaseShutdown, hard, communication(next.DownMessage))
			}
		}
		errs = append(errs, r.removeMember(ctx, p, why))
	}
	errs = append(errs, r.bgp.DeletePeerGroup(ctx, &api.DeletePeerGroupRequest{Name: groupName(rg)}))
	delete(r.ranges, rg.Name)
	return wrap(errors.Join(errs...))
}

// removeMember takes a router of a range from GoBGP, which may have done so by
// itself. The log says why, if there was a session.
func (r *run) removeMember(ctx context.Context, p speaker.Peer, why string) error {
	address := p.Address.String()
	freed, wasUp := r.ledger.leave(address)
	if wasUp {
		r.ceased[p.Address] = true
		r.logEnd(p, why)
	}
	if r.bgp.DeletePeer(ctx, &api.DeletePeerRequest{Address: address}) != nil {
		r.ledger.forget(address) // GoBGP has none
		return nil
	}
	return r.awaitEnd(ctx, p, freed)
}

// takeOver makes a peer of a router that is in by a range. No range lets it in
// meanwhile, which it would be at once.
func (r *run) takeOver(ctx context.Context, p speaker.Peer, restarting bool) (err error) {
	for _, rg := range r.ranges {
		if !rg.Network.Contains(p.Address) {
			continue
		}
		door := &api.DynamicNeighbor{Prefix: rg.Network.String(), PeerGroup: groupName(rg)}
		if err := r.bgp.DeleteDynamicNeighbor(ctx, &api.DeleteDynamicNeighborRequest{Prefix: door.Prefix, PeerGroup: door.PeerGroup}); err != nil {
			return fmt.Errorf("shut range %s for a moment: %w", rg.Name, err)
		}
		defer func() {
			again := r.bgp.AddDynamicNeighbor(context.WithoutCancel(ctx), &api.AddDynamicNeighborRequest{DynamicNeighbor: door})
			if again != nil {
				err = errors.Join(err, fmt.Errorf("open range %s again: %w", rg.Name, again))
			}
		}()
	}
	r.ledger.pardon(p.Address.String())
	if err := r.removeMember(ctx, p, "it is a peer of its own now: a new session begins"); err != nil {
		return err
	}
	return r.introduce(ctx, p, restarting && !r.ceased[p.Address])
}

// isMember says whether the record of an address is that of a router of a range.
func (l *ledger) isMember(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	return s != nil && s.within != ""
}

// open lets the routers of a range in.
func (l *ledger) open(rg speaker.Range) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ranges[rg.Name] = rg
	for _, s := range l.sessions {
		if s.within == rg.Name {
			s.peer = memberOf(rg, s.peer.Address)
		}
	}
}

// shutRange lets no more of them in.
func (l *ledger) shutRange(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ranges, name)
	delete(l.suspicions, name)
}

// members gives the routers of a range, with a session or not.
func (l *ledger) members(name string) []speaker.Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	var peers []speaker.Peer
	for _, s := range l.sessions {
		if s.within == name {
			peers = append(peers, s.peer)
		}
	}
	return peers
}

// welcome begins the record of a router of a range whose connection GoBGP has
// accepted, and says why there is none for it, if it is one too many: tend then
// cuts it.
func (l *ledger) welcome(address string) (refused string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	rg, ok := l.rangeOf(a)
	if !ok {
		return ""
	}
	s := &session{peer: memberOf(rg, a), at: rg.Network, within: rg.Name, holds: l.inherited[address]}
	if old := l.sessions[address]; old != nil {
		s.follow(old, time.Now())
	}
	s.excess = s.barred != nil || l.busy(rg.Name, address) >= mostSessions(rg)
	l.sessions[address] = s
	delete(l.suspicions, rg.Name)
	l.wake()
	if !s.excess {
		return ""
	}
	l.callTend()
	if s.barred != nil || time.Since(l.refusals[rg.Name]) < refusalTime {
		return ""
	}
	l.refusals[rg.Name] = time.Now()
	return fmt.Sprintf("range %s has its %d sessions already", rg.Name, mostSessions(rg))
}

// follow begins a router's record with what is known of it from the one before. The
// ledger's lock is held.
func (s *session) follow(old *session, now time.Time) {
	ceased := old.freed != nil
	if ceased {
		close(old.freed)
		old.freed = nil
	}
	if old.barred != nil { // and so had no session, nor a Cease
		old, ceased = old.barred, false
	}
	s.since, s.ended, s.flaps, s.limited, s.damped = old.since, old.ended, old.flaps, old.limited, old.damped
	if !ceased && old.holds.After(s.holds) {
		s.holds = old.holds
	}
	if old.tooMuch != "" || old.damped.rests(now) {
		s.barred = old
	}
}

// forwardsTo says whether the OPEN to a router is to say that this node went on
// forwarding where GoBGP does not say it, which can do so of a peer that it was just told
// of, and has forgotten the routes of: to the routers of a range, which may hold
// routes of this node's life before this run until restart, and to those and the ones of
// which routes are accepted after a session that was lost.
func (l *ledger) forwardsTo(address string, restart time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, now := l.sessions[address], time.Now()
	switch {
	case s == nil:
		return false
	case s.within != "" && !s.came && now.Before(restart):
		return true
	}
	return (s.within != "" || len(s.peer.Accept.Prefixes) > 0) && s.mayHold(now)
}

// rangeOf is the range of the longest network that an address is in. The lock is
// held.
func (l *ledger) rangeOf(a netip.Addr) (best speaker.Range, ok bool) {
	for _, rg := range l.ranges {
		if rg.Network.Contains(a) && (!ok || rg.Network.Bits() > best.Network.Bits()) {
			best, ok = rg, true
		}
	}
	return best, ok
}

// busy counts the sessions of a range that there are or are being made, but for
// one's. The lock is held.
func (l *ledger) busy(name, but string) int {
	n := 0
	for address, s := range l.sessions {
		if s.within == name && address != but && !s.excess && (s.up || !s.came) {
			n++
		}
	}
	return n
}

// spent takes the routers of ranges whose connections came to nothing or are too
// many: GoBGP would wait for them for ever.
func (l *ledger) spent() []speaker.Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []speaker.Peer
	for _, s := range l.sessions {
		if s.within != "" && s.freed == nil && (s.excess || s.failed && !s.came) {
			list = append(list, s.peer)
		}
	}
	return list
}

// vacate drops a record; one that was in excess since its router is kept out has that of
// the session before in its place. The lock is held.
func (l *ledger) vacate(address string) {
	s := l.sessions[address]
	delete(l.sessions, address)
	if s == nil || s.barred == nil {
		return
	}
	if _, open := l.ranges[s.within]; open {
		l.sessions[address] = s.barred
	}
}

// pardon lets a router of a range have a session that was kept out, as it is to be a peer.
func (l *ledger) pardon(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.sessions[address]; s != nil {
		s.barred = nil
	}
}

// forgetLost drops the records of routers of ranges that have been gone for long.
func (l *ledger) forgetLost(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.sessions, func(_ string, s *session) bool {
		return s.within != "" && s.freed == nil && s.came && !s.up && now.Sub(s.since) > lostTime && !s.mayHold(now)
	})
}
