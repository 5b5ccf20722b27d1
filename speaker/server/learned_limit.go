package server

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// maxEchoes is how many routes of a family a router may send back: they are of no
// use here, so that the settings' maximum is not about them, but each takes memory.
const maxEchoes = 100_000

// tally counts a router's routes of one family.
type tally struct {
	told     int
	echoes   int // of them: had been through this node, or another of its ASN
	accepted int // of them: by its rules
}

// flood is a router that told more of a family than it may.
type flood struct {
	address string // as GoBGP writes it
	family  speaker.Family
	most    int
	echoes  bool // of what it sends back
}

// count enters in the router's tally that a route of it came or went.
func (one *report) count(p netip.Prefix, n int) {
	f := familyOf(p.Addr())
	c := one.from.counts[f]
	if c == nil {
		c = new(tally)
		one.from.counts[f] = c
	}
	c.told += n
	if one.way.echo {
		c.echoes += n
	}
	if one.accepted {
		c.accepted += n
	}
}

// checkFlood notes a router that has told too much, once in a session. GoBGP could
// count as well, by a walk over all of the router's routes with each UPDATE.
func (t *lessons) checkFlood(address string, r *teacher) {
	for f, c := range r.counts {
		if !r.up || r.flooded {
			return
		}
		switch {
		case c.told-c.echoes > r.most:
			t.floods = append(t.floods, flood{address, f, r.most, false})
		case c.echoes > maxEchoes:
			t.floods = append(t.floods, flood{address, f, maxEchoes, true})
		default:
			continue
		}
		r.flooded = true
	}
}

// takeFloods gives those that nobody was told of yet.
func (t *lessons) takeFloods() []flood {
	list := t.floods
	t.floods = nil
	return list
}

func (f flood) String() string {
	if f.echoes {
		return fmt.Sprintf("the peer sent more than %d prefixes back (%s-unicast) that it has from nodes of this ASN: have it not announce them to this node", f.most, f.family)
	}
	return fmt.Sprintf("the peer sent more than %d prefixes (%s-unicast): filter what it announces to this node", f.most, f.family)
}

// notice is the data of the NOTIFICATION (RFC 4486, section 4).
func (f flood) notice() []byte {
	afi, safi := bgp.RouteFamilyToAfiSafi(bgp.RF_IPv4_UC)
	if f.family == speaker.IPv6 {
		afi, safi = bgp.RouteFamilyToAfiSafi(bgp.RF_IPv6_UC)
	}
	return binary.BigEndian.AppendUint32(append(binary.BigEndian.AppendUint16(nil, afi), safi), uint32(f.most))
}

// overLimit records that sessions are to be shut for the number of their prefixes,
// and calls for it.
func (l *ledger) overLimit(floods ...flood) {
	if len(floods) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range floods {
		if s := l.sessions[f.address]; s != nil {
			s.limited, s.verdict, s.shut, s.flood, s.tooMuch = time.Now(), f.String(), true, &f, f.String()
		}
	}
	select {
	case l.flooded <- struct{}{}:
	default:
	}
	l.callTend()
}

// takeFloods takes the peers whose sessions are to be shut, by what they sent.
func (l *ledger) takeFloods() map[flood]session {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := make(map[flood]session)
	for _, s := range l.sessions {
		if s.flood != nil {
			found[*s.flood] = *s
			s.flood = nil
		}
	}
	return found
}

// endFloods shuts the sessions of routers that send too much until ctx ends. It
// waits for no other call: meanwhile the flood would go on.
func (s *Server) endFloods(ctx context.Context, r *run) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.ledger.flooded:
		}
		r.negotiate(ctx)
		for f, one := range r.ledger.takeFloods() {
			if err := r.endFlood(ctx, f, one); err != nil {
				s.log.Warn("cannot shut the session of a peer that sent too many prefixes", "peer", one.peer.Name, "err", err)
			}
		}
	}
}

// endFlood shuts a session; Server.tend opens it again.
func (r *run) endFlood(ctx context.Context, f flood, one session) error {
	// GoBGP's own stands in for this one on a connection that takes nothing more.
	_ = r.sayCease(one.peer, bgp.BGP_ERROR_SUB_MAXIMUM_NUMBER_OF_PREFIXES_REACHED, one.hard, f.notice())
	if err := r.bgp.DisablePeer(ctx, &api.DisablePeerRequest{Address: f.address}); err != nil || !r.ledger.isFresh(f.address) {
		return err
	}
	return r.bgp.EnablePeer(ctx, &api.EnablePeerRequest{Address: f.address})
}

// isFresh says whether a peer that is to have a session is not known for too many
// prefixes: a Set may have put it in the place of the one that was, for which
// Server.tend has no reason to open it.
func (l *ledger) isFresh(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	return s != nil && s.within == "" && !s.peer.Down && s.limited.IsZero()
}
