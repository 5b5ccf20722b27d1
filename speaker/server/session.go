package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/proto"
)

const (
	// defaultMaxPrefixes is how many prefixes of a family a peer may send before
	// its session is shut: some 5 MB, and far above a fabric's own routes.
	defaultMaxPrefixes = 10_000
	// defaultConnectRetry is how long GoBGP waits (once to twice this) between
	// attempts to reach a peer. A node is the side that dials.
	defaultConnectRetry = 2 * time.Second
	maxConnectRetry     = time.Hour
	maxPassword         = 80  // TCP_MD5SIG_MAXKEYLEN of Linux
	maxDownMessage      = 255 // RFC 9003, section 2
	asTrans             = 23456
)

// localASN is this node's towards the router.
func localASN(s speaker.Session, l speaker.Local) uint32 { return cmp.Or(s.LocalASN, l.ASN) }

// mostPrefixes is how many prefixes of a family the router may send.
func mostPrefixes(a speaker.Accept) int { return cmp.Or(a.Max, defaultMaxPrefixes) }

// sessionWithDefaults fills in what zero values stand for, so that a default that is
// written out is not taken for a change. far is an address of the router.
func sessionWithDefaults(s speaker.Session, far netip.Addr) speaker.Session {
	s.Port = cmp.Or(s.Port, defaultPort)
	s.HoldTime = cmp.Or(s.HoldTime, speaker.DefaultHoldTime)
	s.Keepalive = cmp.Or(s.Keepalive, max(s.HoldTime/3, time.Second).Truncate(time.Second))
	s.ConnectRetry = cmp.Or(s.ConnectRetry, defaultConnectRetry)
	if len(s.Families) == 0 {
		s.Families = []speaker.Family{familyOf(far)}
	}
	return s
}

// checkSession says what is wrong with a session between local and a router of an
// address (any of its, for a Range) and an ASN.
func checkSession(s speaker.Session, fail func(format string, args ...any), far netip.Addr, asn uint32, local speaker.Local) {
	checkTimers(s, fail)
	checkEnds(s, fail, far, local)
	checkPassword(s, fail, far, local)
	checkFamilies(s, fail, far)
	if s.Multihop > 0 && s.TTLSecurity > 0 {
		fail("multihop %d and TTL security %d: the one lets packets from afar in, the other keeps them out: set one of them", s.Multihop, s.TTLSecurity)
	}
	if s.LocalASN == asTrans {
		fail("local ASN %d is AS_TRANS and nobody's (RFC 6793)", asTrans)
	}
	if s.RouteReflectorClient && asn != localASN(s, local) {
		fail("a route reflector client is an iBGP peer (RFC 4456), and its ASN %d is not this node's %d: drop the option or set the ASN", asn, localASN(s, local))
	}
	if len(s.DownMessage) > maxDownMessage || !utf8.ValidString(s.DownMessage) {
		fail("shutdown message of %d bytes: want at most %d bytes of UTF-8 (RFC 9003)", len(s.DownMessage), maxDownMessage)
	}
}

func checkTimers(s speaker.Session, fail func(string, ...any)) {
	seconds := func(what string, d, low, high time.Duration) {
		if d == 0 {
			return
		}
		if err := checkSeconds(what, d, low, high); err != nil {
			fail("%w", err)
		}
	}
	seconds("hold time", s.HoldTime, minHoldTime, maxHoldTime)
	seconds("keepalive time", s.Keepalive, time.Second, maxHoldTime)
	seconds("connect retry time", s.ConnectRetry, time.Second, maxConnectRetry)
	if hold := cmp.Or(s.HoldTime, speaker.DefaultHoldTime); s.Keepalive >= hold {
		fail("keepalive time %v: want less than the hold time of %v, a third of it as a rule", s.Keepalive, hold)
	}
}

func checkEnds(s speaker.Session, fail func(string, ...any), far netip.Addr, local speaker.Local) {
	if a := s.LocalAddress; a.IsValid() {
		switch {
		case a.Is4In6() || a.IsUnspecified() || a.IsMulticast():
			fail("local address %s: want an address of this node", a)
		case a.Is4() != far.Is4():
			fail("local address %s is of another family than the router's %s", a, far)
		}
	}
	if s.Passive && len(local.Listen) == 0 {
		fail("passive, and this node does not listen: nobody would open the session: set listen addresses, or let the node dial")
	}
	if s.Passive && s.ConnectRetry != 0 {
		fail("connect retry time %v for a passive session, which never connects: drop one of them", s.ConnectRetry)
	}
}

func checkPassword(s speaker.Session, fail func(string, ...any), far netip.Addr, local speaker.Local) {
	if s.Password == "" {
		return
	}
	if far.Zone() != "" {
		fail("TCP MD5 does not work with the link-local address %s: use a global address or no password", far)
	}
	if len(s.Password) > maxPassword {
		fail("password of %d bytes: TCP MD5 takes at most %d", len(s.Password), maxPassword)
	}
	if len(local.Listen) > 0 && new(net.ListenConfig).MultipathTCP() {
		fail("a password needs listeners without multipath TCP: run with GODEBUG=multipathtcp=0 or put //go:debug multipathtcp=0 in package main")
	}
}

func checkFamilies(s speaker.Session, fail func(string, ...any), far netip.Addr) {
	for i, f := range s.Families {
		switch {
		case f != speaker.IPv4 && f != speaker.IPv6:
			fail("family %q: want %s or %s", f, speaker.IPv4, speaker.IPv6)
		case i > 0 && f == s.Families[0]:
			fail("family %s is listed twice", f)
		case f == speaker.IPv6 && far.Is4():
			fail("%s prefixes over the IPv4 session with %s would have an IPv4-mapped next hop, which routers drop: "+
				"add a peer with the router's IPv6 address for them", f, far)
		}
	}
}

// sameSession says whether p and q differ in nothing but what adjust changes in
// the session that is.
func sameSession(p, q speaker.Peer) bool {
	return reflect.DeepEqual(lastingPeer(p), lastingPeer(q))
}

// lastingPeer is p without what adjust changes, with its families in one order.
func lastingPeer(p speaker.Peer) speaker.Peer {
	p.Name, p.Accept = "", speaker.Accept{}
	p.Session = lastingSession(p.Session)
	return p
}

func lastingSession(s speaker.Session) speaker.Session {
	s.HoldTime, s.Keepalive, s.ConnectRetry = 0, 0, 0
	s.Password, s.Down, s.DownMessage = "", false, ""
	s.Families = slices.Clone(s.Families)
	slices.Sort(s.Families)
	return s
}

// adjust changes what can be changed of a peer without a new session: timers,
// which count from the next session on, the password, and whether the session is
// shut.
func (r *run) adjust(ctx context.Context, old, p speaker.Peer) error {
	if old.Down != p.Down && !isFound(p) || old.Down && !p.Down {
		return errors.Join(r.removePeer(ctx, old, settingsChanged), r.addPeer(ctx, p))
	}
	r.peers[p.Address] = p
	r.ledger.rename(p)
	var errs []error
	if !sameTimers(old, p) {
		errs = append(errs, r.updatePeer(ctx, p))
	}
	if old.Password != p.Password {
		errs = append(errs, r.rekey(ctx, old, p))
	}
	if p.Down && !old.Down {
		errs = append(errs, r.shut(ctx, p))
	}
	return errors.Join(errs...)
}

// sameTimers is about what updatePeer changes.
func sameTimers(p, q speaker.Peer) bool {
	return p.HoldTime == q.HoldTime && p.Keepalive == q.Keepalive && p.ConnectRetry == q.ConnectRetry
}

// updatePeer hands GoBGP new timers. It resets the session over
// any other difference, a description's included, and over another TTL it would look for
// a TCP connection where the guard is, and panic: so all else is as it was.
func (r *run) updatePeer(ctx context.Context, p speaker.Peer) error {
	was := r.told[p.Address]
	if was == nil {
		return nil
	}
	now := proto.CloneOf(was)
	now.Timers = timersOf(p.Session)
	if _, err := r.bgp.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: now}); err != nil {
		return fmt.Errorf("peer %s (%s): change its timers: %w", p.Name, p.Address, err)
	}
	r.told[p.Address] = now
	return nil
}

// rekey makes the next connection with a peer use its new password. A session
// that is up keeps the old one as long as it lasts: a router to which the password
// is changed ends the session by itself, and the Cease that it signs with the old
// one has to be understood here. With the new key on the live connection, the loss
// would be noticed by the hold timer alone.
func (r *run) rekey(ctx context.Context, old, p speaker.Peer) error {
	if !r.ledger.rekey(p.Address.String()) {
		return errors.Join(r.removePeer(ctx, old, passwordChanged), r.addPeer(ctx, p))
	}
	if len(r.local.Listen) == 0 {
		return nil
	}
	if err := setListenerKey(ctx, r.bgp, p.Address, p.Password); err != nil {
		return fmt.Errorf("peer %s (%s): %w", p.Name, p.Address, err)
	}
	return nil
}

// shut ends the session of a peer and keeps it so.
func (r *run) shut(ctx context.Context, p speaker.Peer) error {
	address := p.Address.String()
	r.negotiate(ctx)
	if hard, up := r.ledger.shut(address, shutWords(p)); up {
		// GoBGP's own stands in for this one on a connection that takes nothing
		// more.
		_ = r.sayCease(p, ceaseShutdown, hard, communication(p.DownMessage))
	}
	if err := r.bgp.DisablePeer(ctx, &api.DisablePeerRequest{Address: address, Communication: p.DownMessage}); err != nil {
		return fmt.Errorf("peer %s (%s): shut the session: %w", p.Name, p.Address, err)
	}
	return nil
}

// shutWords say why a peer that is kept down has no session.
func shutWords(p speaker.Peer) string {
	const why = "shut down on this node, by its configuration or by command"
	if p.DownMessage == "" {
		return why
	}
	return fmt.Sprintf("%s: %q", why, p.DownMessage)
}

// peerOf is GoBGP's form of p. restarting sets the restart bit of RFC 4724.
func peerOf(p speaker.Peer, l speaker.Local, restarting bool) *api.Peer {
	g := l.GracefulRestart
	peer := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: p.Address.String(),
			PeerAsn:         p.ASN,
			LocalAsn:        p.LocalASN,
			AuthPassword:    string(p.Password),
			Description:     p.Name,
			AdminDown:       p.Down,
		},
		// GoBGP reads the families only where there is a state.
		State:     &api.PeerState{},
		Timers:    timersOf(p.Session),
		Transport: &api.Transport{RemotePort: uint32(p.Port), PassiveMode: p.Passive},
		GracefulRestart: &api.GracefulRestart{
			Enabled:             g.Enabled,
			RestartTime:         uint32(g.Time / time.Second),
			DeferralTime:        uint32(g.Deferral / time.Second),
			NotificationEnabled: true,
			LocalRestarting:     g.Enabled && restarting,
			LonglivedEnabled:    g.Enabled && g.LongLived > 0,
		},
	}
	switch {
	case p.LocalAddress.IsValid():
		peer.Transport.LocalAddress = p.LocalAddress.String()
	case p.Address.Zone() != "":
		peer.Transport.LocalAddress = "::"
	}
	switch {
	case p.TTLSecurity > 0:
		peer.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 256 - uint32(p.TTLSecurity)}
	case p.Multihop > 0 && p.ASN != localASN(p.Session, l):
		peer.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(p.Multihop)}
	}
	if p.RouteReflectorClient {
		peer.RouteReflector = &api.RouteReflector{RouteReflectorClient: true, RouteReflectorClusterId: l.RouterID.String()}
	}
	for _, f := range p.Families {
		peer.AfiSafis = append(peer.AfiSafis, familyConfig(p, f, g))
	}
	return peer
}

// familyConfig is GoBGP's form of one family of a session.
func familyConfig(p speaker.Peer, f speaker.Family, g speaker.GracefulRestart) *api.AfiSafi {
	c := &api.AfiSafi{
		Config:                   &api.AfiSafiConfig{Family: unicast(f), Enabled: true},
		MpGracefulRestart:        &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: g.Enabled}},
		LongLivedGracefulRestart: longLivedOf(g),
	}
	// To send several paths is not offered: GoBGP does not withdraw from such a peer what
	// the policy lets out no more, and there is one path to send.
	if p.ReceivePaths {
		c.AddPaths = &api.AddPaths{Config: &api.AddPathsConfig{Receive: true}}
	}
	return c
}

func timersOf(s speaker.Session) *api.Timers {
	return &api.Timers{Config: &api.TimersConfig{
		HoldTime:          uint64(s.HoldTime / time.Second),
		KeepaliveInterval: uint64(s.Keepalive / time.Second),
		ConnectRetry:      uint64(s.ConnectRetry / time.Second),
		// After Fail the session may come back at once.
		IdleHoldTimeAfterReset: 1,
	}}
}
