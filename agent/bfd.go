package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairway-network/fairway/bfd"
	"github.com/fairway-network/fairway/speaker"
)

const (
	// failTime bounds the end of a BGP session whose path is lost.
	failTime = 5 * time.Second
	// searchTime is how often BGP is asked for routers that the settings give no
	// address of.
	searchTime = time.Second
)

// BFD is how the path to a peer is watched (RFC 5882): with a BFD session of
// these timers, whose failure ends the BGP session. What is 0 gets the default of
// package bfd.
type BFD struct {
	Interval        time.Duration // between packets that this node likes to send
	ReceiveInterval time.Duration // the least between packets that it can take
	Multiplier      uint8         // of packets in a row that the peer must miss
}

// paths watches the paths to peers by BFD, and ends the BGP session of a peer
// whose path was lost. A peer whose path was never seen to work has its BGP
// session as without BFD.
type paths struct {
	server  *bfd.Server
	bgp     speaker.Speaker
	log     *slog.Logger
	working sync.WaitGroup // what watch began

	missing  chan struct{} // of size one: there are routers to search for
	setting  sync.Mutex    // held by whoever changes what is watched; before mu
	settings *Settings     // the last

	mu      sync.Mutex
	seen    map[bfd.Endpoint]bfd.Status // as react saw them last
	near    map[netip.Addr]bool         // routers that were seen on a link of this node
	learned map[string]router           // by name, those whose addresses BGP told
}

func newPaths(bgp speaker.Speaker, log *slog.Logger) *paths {
	return &paths{
		server: bfd.NewServer(), bgp: bgp, log: log, missing: make(chan struct{}, 1),
		seen: map[bfd.Endpoint]bfd.Status{}, near: map[netip.Addr]bool{},
	}
}

// router is one whose path is to be watched.
type router struct {
	name    string // of its BGP session
	setting string // the name of its Peer or Range
	address netip.Addr
	asn     uint32
	session speaker.Session
	how     BFD
}

// set watches the paths to those peers of s that are to be watched, and no
// others. One path's failure does not stop the others. It has to come before the
// speaker is told of s: routers take a BFD session that begins under a BGP session
// for a failure.
func (w *paths) set(ctx context.Context, s *Settings) error {
	w.setting.Lock()
	defer w.setting.Unlock()
	w.settings = s
	if _, unknown := watched(s); len(unknown) > 0 {
		select {
		case w.missing <- struct{}{}:
		default:
		}
	}
	return w.apply(ctx)
}

// search looks for routers that the settings give no address of, for as long as there
// are such settings, until ctx ends.
func (w *paths) search(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.missing:
		}
		for pause(ctx, searchTime) && w.seek(ctx) {
		}
	}
}

// seek looks for them once, and says whether there is anything to look for. What goes
// wrong the next set will say.
func (w *paths) seek(ctx context.Context) bool {
	w.setting.Lock()
	defer w.setting.Unlock()
	if _, unknown := watched(w.settings); len(unknown) == 0 {
		return false
	}
	_ = w.apply(ctx)
	return true
}

// apply watches what the settings say. The setting lock is held.
func (w *paths) apply(ctx context.Context) error {
	known, unknown := watched(w.settings)
	if len(known)+len(unknown) == 0 && w.idle() {
		return nil
	}
	var errs []error
	var bgp speaker.State
	if len(unknown) > 0 {
		var err error
		bgp, err = w.bgp.State(ctx)
		errs = append(errs, err)
	}
	links, err := net.InterfaceAddrs()
	errs = append(errs, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.learn(unknown, bgp, w.server.State())
	routers := slices.Concat(known, slices.Collect(maps.Values(w.learned)))
	errs = append(errs, w.server.Set(w.peers(routers, w.settings.Local.ASN, links)))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("BFD: %w", err)
	}
	return nil
}

// idle says whether no path is watched, nor was meant to be.
func (w *paths) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.near) == 0 && len(w.server.State()) == 0
}

// watched gives the routers of s that have an address, and by the name of their
// setting the others: those of a Range, or on an interface.
func watched(s *Settings) (known []router, unknown map[string]router) {
	unknown = map[string]router{}
	for _, p := range s.Peers {
		how, yes := s.BFD[p.Name]
		r := router{p.Name, p.Name, p.Address, p.ASN, p.Session, how}
		switch {
		case !yes || p.Down:
		case p.Address.IsValid():
			known = append(known, r)
		default:
			unknown[p.Name] = r
		}
	}
	for _, rg := range s.Ranges {
		if how, yes := s.BFD[rg.Name]; yes && !rg.Down {
			unknown[rg.Name] = router{setting: rg.Name, asn: rg.ASN, session: rg.Session, how: how}
		}
	}
	return known, unknown
}

// learn takes from what BGP says which routers there are of the settings that
// name no address. One that BGP does not list, as while its process starts anew,
// stays for as long as BFD reaches it: AdminDown would make the router drop what it
// keeps for that restart. sessions are those of BFD. The lock is held.
func (w *paths) learn(unknown map[string]router, bgp speaker.State, sessions []bfd.PeerState) {
	before := w.learned
	w.learned = map[string]router{}
	for _, p := range bgp.Peers {
		setting := p.Name
		if p.Range != "" {
			setting = p.Range
		}
		if r, is := unknown[setting]; is && p.Address.IsValid() {
			r.name, r.address = p.Name, p.Address
			w.learned[p.Name] = r
		}
	}
	for _, p := range sessions {
		old, was := before[p.Peer.Name]
		r, is := unknown[old.setting]
		if _, listed := w.learned[p.Peer.Name]; was && is && !listed && p.State == bfd.Up {
			r.name, r.address = old.name, old.address
			w.learned[old.name] = r
		}
	}
}

// peers makes BFD peers of routers, and forgets what it knew of others. The lock
// is held.
func (w *paths) peers(routers []router, asn uint32, links []net.Addr) []bfd.Peer {
	near, seen := map[netip.Addr]bool{}, map[bfd.Endpoint]bfd.Status{}
	out := make([]bfd.Peer, len(routers))
	for i, r := range routers {
		near[r.address] = w.near[r.address] || r.oneHop(asn) || onLink(r.address, links)
		out[i] = r.peer(near[r.address])
		if status, has := w.seen[out[i].Endpoint]; has {
			seen[out[i].Endpoint] = status
		}
	}
	w.near, w.seen = near, seen
	return out
}

// oneHop says whether the BGP packets of the session travel one hop only.
func (r router) oneHop(asn uint32) bool {
	if r.session.LocalASN != 0 {
		asn = r.session.LocalASN
	}
	return r.address.IsLinkLocalUnicast() || r.asn != asn && r.session.Multihop <= 1 && r.session.TTLSecurity <= 1
}

// onLink says whether a is in a network of this node's links. A router that once
// was stays a neighbour: that the link's address is gone is no other way to it.
func onLink(a netip.Addr, links []net.Addr) bool {
	return slices.ContainsFunc(links, func(l net.Addr) bool {
		p, err := netip.ParsePrefix(l.String())
		return err == nil && p.Contains(a)
	})
}

func (r router) peer(near bool) bfd.Peer {
	return bfd.Peer{
		Name: r.name,
		Endpoint: bfd.Endpoint{
			Address: r.address.WithZone(""), Interface: r.address.Zone(),
			Local: r.session.LocalAddress.WithZone(""), Multihop: !near,
		},
		Timers: bfd.Timers{MinTx: r.how.Interval, MinRx: r.how.ReceiveInterval, Multiplier: r.how.Multiplier},
	}
}

// watch ends BGP sessions whose path was lost, until ctx ends.
func (w *paths) watch(ctx context.Context) {
	defer w.working.Wait()
	w.working.Go(func() { w.search(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.server.Changes():
			w.mu.Lock()
			w.react(ctx, w.server.State())
			w.mu.Unlock()
		}
	}
}

// react looks at what changed. BGP sessions are ended side by side, so that none
// waits for another. The lock is held.
func (w *paths) react(ctx context.Context, sessions []bfd.PeerState) {
	for _, p := range sessions {
		last := w.seen[p.Peer.Endpoint]
		w.seen[p.Peer.Endpoint] = p.Status
		w.tell(p, last)
		if p.Failures > last.Failures {
			w.working.Go(func() { w.fail(ctx, p) })
		}
	}
}

// fail ends the BGP session with a peer.
func (w *paths) fail(ctx context.Context, p bfd.PeerState) {
	ctx, cancel := context.WithTimeout(ctx, failTime)
	defer cancel()
	err := w.bgp.Fail(ctx, p.Peer.Name)
	if err != nil && ctx.Err() == nil && !errors.Is(err, speaker.ErrUnknownPeer) {
		w.log.Warn("the BGP session does not end though BFD is down", "peer", p.Peer.Name, "address", p.Peer.Address, "err", err)
	}
}

// tell logs a session that came up or went down.
func (w *paths) tell(p bfd.PeerState, last bfd.Status) {
	switch {
	case p.Failures > last.Failures:
		w.log.Warn("BFD session lost; ending the BGP session", "peer", p.Peer.Name, "address", p.Peer.Address,
			"reason", p.Diagnostic.String(), "lastHeard", p.Since.Sub(p.Heard).Round(time.Millisecond))
	case last.State == bfd.Up && p.State != bfd.Up:
		w.log.Info("BFD session taken down by the router; BGP goes on without it", "peer", p.Peer.Name, "address", p.Peer.Address)
	}
	if p.State == bfd.Up && p.Since != last.Since {
		w.log.Info("BFD session up", "peer", p.Peer.Name, "address", p.Peer.Address, "interval", p.Interval, "detection", p.Detection)
	}
}

// BFDStatus is the BFD session that watches the path to a peer.
type BFDStatus struct {
	State    string    `json:"state"` // of RFC 5880: AdminDown, Down, Init, Up
	Since    time.Time `json:"since"`
	Multihop bool      `json:"multihop,omitempty"`
	// Interval between packets to the router, and Detection, after which of
	// silence its path counts as lost; both in nanoseconds, as agreed.
	Interval  time.Duration `json:"interval"`
	Detection time.Duration `json:"detection"`
	Failures  uint64        `json:"failures"` // how often the path was lost
	// Problem is what keeps the session from coming up, or took it down last.
	Problem string `json:"problem,omitempty"`
}

// states gives the sessions by the names of the peers.
func (w *paths) states() map[string]*BFDStatus {
	out := map[string]*BFDStatus{}
	for _, p := range w.server.State() {
		s := &BFDStatus{
			State: p.State.String(), Since: p.Since, Multihop: p.Peer.Multihop,
			Interval: p.Interval, Detection: p.Detection, Failures: p.Failures, Problem: p.Problem,
		}
		if s.Problem == "" && p.State == bfd.Down && p.Diagnostic != bfd.NoDiagnostic {
			s.Problem = p.Diagnostic.String()
		}
		out[p.Peer.Name] = s
	}
	return out
}

// close tells the routers that BFD goes, which is no failure. BGP sessions that
// routers are to keep routes of have to be cut before.
func (w *paths) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	if err := w.server.Close(ctx); err != nil {
		w.log.Warn("BFD did not end as it should", "err", err)
	}
}
