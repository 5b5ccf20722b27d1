package server

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/discovery"
	"github.com/fairway-network/fairway/speaker"

	api "github.com/osrg/gobgp/v3/api"
)

// lookout is for the router on an interface.
type lookout struct {
	*discovery.Link
	lost int // of its State, as it was looked at last
}

// nowhere stands for the address of a router that was not found yet on an interface:
// one that no router has, and none of another interface.
func nowhere(name string) netip.Addr { return standIn(name).WithZone(name) }

// isFound says whether the peer has an address to speak with.
func isFound(p speaker.Peer) bool { return p.Interface == "" || p.Address != nowhere(p.Interface) }

// placeOf is where the peer is, for people.
func placeOf(p speaker.Peer) string {
	if !isFound(p) {
		return p.Interface
	}
	return p.Address.String()
}

// checkInterface says what is wrong with an unnumbered peer.
func checkInterface(p speaker.Peer, fail func(format string, args ...any)) {
	switch {
	case p.Interface == "":
		return
	case len(p.Interface) > 15:
		fail("interface %q: the kernel's names have at most 15 characters", p.Interface)
	case p.Address.Zone() != p.Interface:
		fail("it has the address %s and the interface %s: give it one of them", p.Address, p.Interface)
	}
	if p.LocalAddress.IsValid() {
		fail("local address %s: a session on an interface is between link-local addresses: drop the address", p.LocalAddress)
	}
	if p.Multihop > 0 {
		fail("multihop %d: a router on an interface is no hop away: drop the option", p.Multihop)
	}
}

// locate gives peers with the addresses of the routers that were found on their
// interfaces, and looks for routers on those interfaces and on no others.
func (s *Server) locate(peers []speaker.Peer) []speaker.Peer {
	peers = slices.Clone(peers)
	wanted := make(map[string]bool)
	for i, p := range peers {
		if p.Interface == "" || p.Address.IsValid() || len(p.Interface) > 15 {
			continue
		}
		wanted[p.Interface] = true
		l := s.lookouts[p.Interface]
		if l == nil {
			l = &lookout{Link: discovery.Watch(discovery.Config{Interface: p.Interface, Changed: s.lookAgain, Holds: s.speaksWith})}
			if s.lookouts == nil {
				s.lookouts = make(map[string]*lookout)
			}
			s.lookouts[p.Interface] = l
		}
		if peers[i].Address = l.State().Router; !peers[i].Address.IsValid() {
			peers[i].Address = nowhere(p.Interface)
		}
	}
	maps.DeleteFunc(s.lookouts, func(name string, l *lookout) bool {
		if !wanted[name] {
			l.Close()
		}
		return !wanted[name]
	})
	return peers
}

// lookAgain has tend look at what was found.
func (s *Server) lookAgain() {
	if r := s.run.Load(); r != nil {
		r.ledger.callTend()
	}
}

// speaksWith says whether there is a session with a router.
func (s *Server) speaksWith(a netip.Addr) bool {
	r := s.run.Load()
	if r == nil {
		return false
	}
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	session := r.ledger.sessions[a.String()]
	return session != nil && session.up
}

// relocate does what follows from what happened on the links: it gives peers the
// addresses that were found, and ends sessions over a link that was lost, which both
// ends would otherwise hold for their hold time (and the router's end is gone, if it
// saw the same).
func (s *Server) relocate(ctx context.Context, r *run) {
	if len(s.lookouts) == 0 {
		return
	}
	d := s.wish
	for _, p := range s.locate(d.Peers) {
		l := s.lookouts[p.Interface]
		if l == nil {
			continue
		}
		if old, has := r.peerOn(p.Interface); has && old.Address != p.Address {
			s.log.Info("BGP router found", "peer", p.Name, "address", p.Address)
			if err := s.conform(ctx, r, d, r.asked); err != nil {
				s.log.Warn("cannot speak with a router that was found", "peer", p.Name, "err", err)
			}
		}
		if st := l.State(); st.Lost != l.lost {
			l.lost = st.Lost
			r.cut(ctx, p, fmt.Sprintf("the link %s was lost", p.Interface))
		}
	}
	s.shun(ctx, r)
	r.negotiate(ctx)
	s.explain(r)
}

// peerOn gives the peer on an interface.
func (r *run) peerOn(name string) (p speaker.Peer, has bool) {
	for _, p := range r.peers {
		if p.Interface == name {
			return p, true
		}
	}
	return speaker.Peer{}, false
}

// explain has State and the log say what is wrong with the links.
func (s *Server) explain(r *run) {
	for _, p := range r.peers {
		l := s.lookouts[p.Interface]
		if l == nil || p.Down {
			continue
		}
		if st := l.State(); r.ledger.troubled(p.Address.String(), st.Trouble, !st.Up) {
			s.log.Warn("no BGP session", "peer", p.Name, "interface", p.Interface, "reason", st.Trouble)
		}
	}
}

// troubled records why the link to a peer is of no use, and whether it is down, and
// says whether that is news.
func (l *ledger) troubled(address, why string, down bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil || s.up {
		return false
	}
	was := s.stranded
	if s.stranded = down; was && !down {
		s.trouble = why
	}
	if why == "" || s.trouble == why {
		return false
	}
	s.trouble = why
	return true
}

// cut ends the session of a peer, if it has one, that the router can't be told of.
func (r *run) cut(ctx context.Context, p speaker.Peer, why string) {
	if !r.ledger.condemn(p.Address.String(), why) {
		return
	}
	// An error is that there is no such peer any more.
	_ = r.bgp.ResetPeer(ctx, &api.ResetPeerRequest{Address: p.Address.String(), Communication: why})
}

// condemn records why a session is about to be ended, and says whether there is one.
func (l *ledger) condemn(address, why string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil || !s.up {
		return false
	}
	s.verdict = why
	return true
}

// closeLookouts ends the search for routers.
func (s *Server) closeLookouts() {
	for _, l := range s.lookouts {
		l.Close()
	}
	s.lookouts = nil
}

// introduce takes note of the ASN in the OPEN of a router of which any was to be
// taken but this node's.
func (l *ledger) introduce(address string, asn uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil || asn != localASN(s.peer.Session, speaker.Local{ASN: l.asn}) {
		return
	}
	s.unwanted = true
	s.verdict = fmt.Sprintf("the router's ASN %d is this node's own, and the peer is to be another's: set its ASN if iBGP is meant", asn)
	l.callTend()
}

// shun shuts the sessions with routers that have this node's ASN, for a while.
func (s *Server) shun(ctx context.Context, r *run) {
	for _, p := range r.ledger.takeUnwanted() {
		if err := r.bgp.DisablePeer(ctx, &api.DisablePeerRequest{Address: p.Address.String(), Communication: "this is an eBGP session"}); err != nil {
			s.log.Warn("cannot end the session", "peer", p.Name, "err", err)
		}
	}
}

// takeUnwanted takes the peers whose ASN is this node's. They are tried again like
// those that sent too many prefixes.
func (l *ledger) takeUnwanted() []speaker.Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	var peers []speaker.Peer
	for _, s := range l.sessions {
		if s.unwanted {
			s.unwanted, s.limited = false, time.Now()
			peers = append(peers, s.peer)
		}
	}
	return peers
}
