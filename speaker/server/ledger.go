package server

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairway-network/fairway/speaker"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// ledger holds what this node wants to announce against what was written to
// each peer. GoBGP reports every UPDATE after its write; nothing else in it
// says when a message has really left. Every method takes
// the lock and none calls GoBGP, which reports with its own locks held.
type ledger struct {
	mu       sync.Mutex
	want     map[netip.Prefix]*class
	sessions map[string]*session      // by the address, as GoBGP writes it
	ranges   map[string]speaker.Range // that routers may come by
	refusals map[string]time.Time     // when the log said last that one is full
	// suspicions are about those of them whose routers the kernel may keep out.
	suspicions map[string]suspicion
	families   map[speaker.Family]bool // that some peer of the last Set carries by configuration; nil until that is known
	awaited    map[netip.Prefix]int    // how many flushes look again when a prefix is written
	comings    int                     // sessions that came up so far
	replaced   bool                    // another run has taken over
	swapping   bool                    // a peer is about to be put back, see run.comeBack
	swapped    *session                // what that one was; nil while there is none
	changed    chan struct{}           // closed and replaced whenever a waiter should look again
	tend       chan struct{}           // of size one: a session needs a hand, see Server.tend
	flooded    chan struct{}           // of size one: a session has to be shut, see Server.endFloods
	patience   patience
	// keeps is how long peers keep forwarding without a session, and keepsStale
	// those that know long-lived graceful restart; 0 without graceful restart.
	keeps, keepsStale time.Duration
	// inherited is until when peers may keep routes of the run before, which
	// had no session to tell them.
	inherited map[string]time.Time
	asn       uint32                    // this node's
	everybody map[speaker.Family]*class // the plain classes
	apiError  error                     // why GoBGP could not serve its API; set once
}

// session is what is known of one peer since it was added.
type session struct {
	peer       speaker.Peer
	at         netip.Prefix // the neighbor's that it is told as
	self       netip.Addr   // this node's end; the zero address while that is unknown
	up         bool
	since      time.Time  // of the last change to or from Established
	ended      string     // why the last session ended
	trouble    string     // why no session came about since
	dropped    signatures // by the kernel, of this router or of others, while this one was waited for
	notice     string     // the last notification, explains the state change that follows
	restarting bool       // GoBGP sets the restart bit and defers its first UPDATE
	lostBit    bool       // the next OPEN lacks the restart bit, by another peer's progress or since a session was lost
	opening    bool       // an OPEN is under way
	bitOut     bool       // the bit was cleared after it had left in the OPEN that is under way
	limited    time.Time
	tooMuch    string // what the router sent too many of, as long as the session is shut for that
	flood      *flood // that the session is to be shut for; nil when somebody is about it
	noHelper   bool   // the peer of this session does not help restarts; false while that is unknown
	brief      bool   // and it knows no long-lived ones; false while that is unknown
	// holds is until when the peer, while it has no session, may keep routes
	// of this node as a helper of its restart; zero if it can't.
	holds      time.Time
	freed      chan struct{} // closed when GoBGP has let go of a deleted peer; nil while it is configured
	negotiated map[speaker.Family]bool
	out        map[speaker.Family]*outbox

	within string // the name of the Range that the peer came by; empty for a Peer
	came   bool   // there was a session since it came
	failed bool   // an attempt at one came to nothing
	excess bool   // it is one too many for the Range
	// barred is the session of before that was shut for too many prefixes or is damped:
	// this one is in excess for that, and the other's record stays.
	barred  *session
	damped  damping
	flaps   int    // sessions that were lost
	verdict string // why this node ends the session, whatever GoBGP says of it
	shut    bool   // and told the peer to keep nothing
	rekeyed bool   // the session that is up has a password of before
	// unwanted says that the router has this node's ASN, where any other would do.
	unwanted bool
	// hopless says that the router takes no IPv4 prefixes with IPv6 next hops, which
	// the session has unless others are given.
	hopless bool
	// stranded says that the link to the peer is down, which explains all else.
	stranded bool
	// hard says that the peer keeps routes over a NOTIFICATION that is no hard
	// reset; false while that is unknown.
	hard bool
}

// outbox is one family of one session.
type outbox struct {
	sent   map[netip.Prefix]struct{} // what the peer holds of us
	behind int                       // prefixes in exactly one of want and sent
	// extra counts the UPDATEs still to be written for a prefix that was
	// changed again before the first change was written.
	extra map[netip.Prefix]int
	// reworded is what the peer is told of and to be told of in other words, which
	// were not written yet.
	reworded map[netip.Prefix]variant
	// ended says that the End-of-RIB was written: a helper of a graceful
	// restart has dropped then what it kept of an earlier session.
	ended bool
}

func newLedger(g speaker.GracefulRestart) *ledger {
	l := &ledger{
		want:       make(map[netip.Prefix]*class),
		everybody:  map[speaker.Family]*class{speaker.IPv4: {family: speaker.IPv4}, speaker.IPv6: {family: speaker.IPv6}},
		sessions:   make(map[string]*session),
		ranges:     make(map[string]speaker.Range),
		refusals:   make(map[string]time.Time),
		suspicions: make(map[string]suspicion),
		awaited:    make(map[netip.Prefix]int),
		changed:    make(chan struct{}),
		tend:       make(chan struct{}, 1),
		flooded:    make(chan struct{}, 1),
		patience:   usualPatience(),
	}
	if g.Enabled {
		l.keeps, l.keepsStale = g.Time, g.Kept()
	}
	return l
}

// wake makes every waiter look again. The lock is held.
func (l *ledger) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *ledger) callTend() {
	select {
	case l.tend <- struct{}{}:
	default:
	}
}

// errMember: the router is in by a range.
var errMember = errors.New("the router has come by a range")

// add begins the record of a peer that is about to be added to GoBGP; takeBack is
// for when GoBGP does not take it. The record of a router that is in by a range is
// that of a peer which GoBGP has, and stays: removeMember comes first.
func (l *ledger) add(p speaker.Peer, restarting bool) (takeBack func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	address := p.Address.String()
	old := l.sessions[address]
	if old != nil && old.within != "" {
		return nil, errMember
	}
	s := &session{peer: p, at: whereabouts(p.Address), restarting: restarting, holds: l.inherited[address]}
	if restarting {
		s.holds = l.holdsFromNow(s)
	}
	if old != nil {
		s.since, s.ended, s.flaps = old.since, old.ended, old.flaps
	}
	if p.Down {
		s.trouble = shutWords(p)
	}
	l.sessions[address] = s
	l.wake()
	return func() { l.restore(address, s, old) }, nil
}

// restore puts the record of before, if there was one, in the place of s, unless
// the router has come by a range meanwhile.
func (l *ledger) restore(address string, s, before *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sessions[address] != s {
		return
	}
	if delete(l.sessions, address); before != nil {
		l.sessions[address] = before
	}
	l.wake()
}

// holdsFromNow is until when the peer of a session that is lost now may keep this
// node's routes: it can take the hold time until the peer notices.
func (l *ledger) holdsFromNow(s *session) time.Time {
	if l.keeps == 0 {
		return time.Time{}
	}
	keeps := l.keepsStale
	if s.brief {
		keeps = l.keeps
	}
	return time.Now().Add(s.peer.HoldTime + keeps)
}

// holders gives until when peers without a session may keep this node's routes.
func (l *ledger) holders() map[string]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	holders := make(map[string]time.Time)
	for address, s := range l.sessions {
		if !s.up && !s.holds.IsZero() {
			holders[address] = s.holds
		}
	}
	return holders
}

// rename gives a peer its new name.
func (l *ledger) rename(p speaker.Peer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.sessions[p.Address.String()]; s != nil {
		s.peer = p
	}
}

// leave marks a peer as deleted. It returns what is closed when GoBGP is done
// with it, since until then its last reports still come, and whether there was
// a session.
func (l *ledger) leave(address string) (freed <-chan struct{}, wasUp bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil {
		done := make(chan struct{})
		close(done)
		return done, false
	}
	s.freed = make(chan struct{})
	wasUp = s.up
	if wasUp {
		s.since = time.Now()
	}
	s.up = false
	l.wake()
	return s.freed, wasUp
}

// gone ends the wait of leave.
func (l *ledger) gone(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.sessions[address]; s != nil && s.freed != nil {
		close(s.freed)
		s.freed = nil
		l.vacate(address)
	}
}

// forget drops the record of a peer.
func (l *ledger) forget(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.vacate(address)
	l.wake()
}

// expect counts p in. queued says that GoBGP queues an UPDATE for each change
// rather than gathering them for its first one.
func (o *outbox) expect(p netip.Prefix, wanted, queued bool) {
	_, sent := o.sent[p]
	n := o.extra[p]
	if wanted != sent {
		o.behind++
	} else {
		o.behind--
		n = max(n, 1) // the UPDATE that is taken back is still to be written
	}
	if queued && n > 0 {
		o.extra[p] = n + 1
	}
}

// wrote records one prefix of an UPDATE that was written to a peer.
func (o *outbox) wrote(p netip.Prefix, announced, wanted bool) {
	if n := o.extra[p]; n > 1 {
		o.extra[p] = n - 1
	} else if n == 1 {
		delete(o.extra, p)
	}
	if _, sent := o.sent[p]; sent == announced {
		return
	}
	if announced {
		o.sent[p] = struct{}{}
	} else {
		delete(o.sent, p)
	}
	if announced == wanted {
		o.behind--
	} else {
		o.behind++
	}
}

func (o *outbox) settled() bool { return o.behind == 0 && len(o.extra) == 0 && len(o.reworded) == 0 }

// holds says whether a peer was written what is wanted of one prefix.
func (o *outbox) holds(p netip.Prefix, wanted bool) bool {
	_, sent := o.sent[p]
	_, reworded := o.reworded[p]
	return sent == wanted && o.extra[p] == 0 && !reworded
}

// update records an UPDATE that was written to a peer, and wakes the waiters
// when one waits for a prefix in it or nothing more is queued for the peer.
func (l *ledger) update(address string, announced, withdrawn []netip.Prefix, attributes []bgp.PathAttributeInterface) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil || !s.up {
		return
	}
	s.restarting = false
	if s.withheld(announced, attributes) {
		announced, withdrawn = nil, announced
	}
	awaited := false
	for _, p := range withdrawn {
		l.wrote(s, p, false)
		awaited = awaited || l.awaited[p] > 0
	}
	for _, p := range announced {
		l.wrote(s, p, true)
		awaited = awaited || l.awaited[p] > 0
	}
	for _, o := range s.out {
		o.worded(announced, attributes, s.self)
	}
	if awaited || s.settled() {
		l.wake()
	}
}

// endOfRIB records that the End-of-RIB of a family was written to a peer.
func (l *ledger) endOfRIB(address string, family speaker.Family) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil || !s.up {
		return
	}
	s.restarting = false
	if o := s.out[family]; o != nil {
		o.ended = true
	}
	l.wake()
}

func (l *ledger) wrote(s *session, p netip.Prefix, announced bool) {
	if o := s.out[familyOf(p.Addr())]; o != nil {
		_, wanted := l.tells(s, l.want[p])
		o.wrote(p, announced, wanted)
	}
}

// settled says whether all that the peer should hold was written.
func (s *session) settled() bool {
	for f, o := range s.out {
		if s.carries(f) && !o.settled() {
			return false
		}
	}
	return true
}

// why there is no session, or why there was none for a while: how the last one
// ended, which often says what is behind the trouble since.
func (s *session) why() string {
	switch {
	case s.up || s.trouble == "" || s.trouble == s.ended:
		return s.ended
	case s.ended == "":
		return s.trouble
	}
	return s.ended + speaker.SinceThen + s.trouble
}

// carries says whether the session takes the family; a family counts as
// carried until the negotiation is known.
func (s *session) carries(f speaker.Family) bool {
	return slices.Contains(s.peer.Families, f) && (s.negotiated == nil || s.negotiated[f])
}

// established records that a session came up: the peer was told nothing in it.
func (l *ledger) established(address string) (speaker.Peer, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil || s.freed != nil {
		return speaker.Peer{}, false
	}
	s.up, s.since, s.negotiated, s.noHelper, s.brief, s.hard, s.notice, s.trouble = true, time.Now(), nil, false, false, false, "", ""
	s.self = netip.Addr{}
	s.opening, s.bitOut, s.came, s.dropped = false, false, true, signatures{}
	s.out = make(map[speaker.Family]*outbox)
	for _, f := range s.peer.Families {
		s.out[f] = &outbox{sent: make(map[netip.Prefix]struct{}), extra: make(map[netip.Prefix]int), reworded: make(map[netip.Prefix]variant)}
	}
	for p, c := range l.want {
		if _, told := l.tells(s, c); told && s.out[familyOf(p.Addr())] != nil {
			s.out[familyOf(p.Addr())].behind++
		}
	}
	delete(l.inherited, address)
	l.comings++
	l.wake()
	return s.peer, true
}

// down records why a session ended or an attempt failed, and says which of the
// two it was and whether an attempt's failure is news.
func (l *ledger) down(address, reason string) (p speaker.Peer, why string, wasUp, news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil || s.freed != nil {
		return speaker.Peer{}, "", false, false
	}
	why = cmp.Or(s.verdict, s.notice, reason)
	wasUp = s.up
	if wasUp {
		s.since, s.ended = time.Now(), why
		if !s.peer.Down {
			s.flaps++
		}
		switch {
		case s.noHelper, s.shut:
			s.holds = time.Time{}
		case s.toldSomething():
			s.holds = l.holdsFromNow(s)
		case s.refreshed():
			s.holds = time.Time{}
		}
		if s.comesBack() {
			s.loseBit(l)
		}
	} else {
		if !s.excess {
			news, s.trouble = s.trouble != why, why
		}
		if s.failed = true; s.within != "" && !s.came {
			l.callTend()
		}
	}
	s.up, s.opening, s.out, s.negotiated, s.notice, s.verdict, s.shut = false, false, nil, nil, "", "", false
	if s.rekeyed {
		l.callTend()
	}
	if s.bitOut {
		s.loseBit(l)
	}
	l.wake()
	return s.peer, why, wasUp, news
}

// toldSomething says whether the peer of this session holds a route of ours.
func (s *session) toldSomething() bool {
	for _, o := range s.out {
		if len(o.sent) > 0 {
			return true
		}
	}
	return false
}

// refreshed says whether the peer of this session keeps nothing of an earlier
// one.
func (s *session) refreshed() bool {
	for f, o := range s.out {
		if s.carries(f) && !o.ended {
			return false
		}
	}
	return true
}

// note keeps the words of a notification for the state change that follows.
func (l *ledger) note(address, notice string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.sessions[address]; s != nil {
		s.notice = notice
	}
}

// cannotConnect records why no connection came about, and says whether that
// is news.
func (l *ledger) cannotConnect(address string, err error) (p speaker.Peer, why string, news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil || s.up || s.freed != nil || s.stranded {
		return speaker.Peer{}, "", false
	}
	why = fmt.Sprintf("cannot connect to port %d: %v", s.peer.Port, innermost(err))
	if s.peer.Password != "" && isTimeout(err) {
		why += " (another password on the two sides looks like this)"
	}
	news, s.trouble = s.trouble != why, why
	return s.peer, why, news
}

// restarted records that GoBGP ended the deferral for every peer, also for
// those that have no session yet and so may not have seen the restart bit. The
// ones that are sent it now are left in peace: to some the session has begun,
// and they would drop what they keep with the Cease.
func (l *ledger) restarted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		if !s.restarting || s.up {
			continue
		}
		s.restarting, s.bitOut = false, s.opening
		if !s.opening {
			s.loseBit(l)
		}
	}
}

// loseBit calls for the restart bit to be restored. The ledger's lock is held.
func (s *session) loseBit(l *ledger) {
	s.bitOut, s.lostBit = false, true
	l.callTend()
}

// opens records that GoBGP sends its OPEN to a peer.
func (l *ledger) opens(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.sessions[address]; s != nil {
		s.opening = true
	}
}

// name gives the peer's name for a message, or the address.
func (l *ledger) name(address string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.sessions[address]; s != nil {
		return s.peer.Name
	}
	return address
}

// rekey marks the session that a peer has as one with a password of before, and
// says whether there is one.
func (l *ledger) rekey(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil || !s.up {
		return false
	}
	s.rekeyed = true
	return true
}

// lostKeys takes the peers without a session whose password was changed while
// they had one.
func (l *ledger) lostKeys() []speaker.Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	var peers []speaker.Peer
	for _, s := range l.sessions {
		if s.rekeyed && !s.up && s.freed == nil {
			s.rekeyed = false
			peers = append(peers, s.peer)
		}
	}
	return peers
}

// shut records why the session of a peer is about to be ended for good. It says
// whether there is one, and whether the peer has to be told with a hard reset.
func (l *ledger) shut(address, why string) (hard, up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[address]
	if s == nil {
		return false, false
	}
	s.limited = time.Time{} // it is not for tend to open again
	if !s.up {
		s.trouble = why
		return false, false
	}
	s.verdict, s.shut = why, true
	return s.hard, true
}

// fail records that the session of the peer of a name is about to be ended. The
// zero peer is none of that name.
func (l *ledger) fail(name string) (p speaker.Peer, hard, up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		if s.peer.Name != name || s.freed != nil {
			continue
		}
		if s.up {
			s.verdict = bfdDown
		}
		return s.peer, s.hard, s.up
	}
	return speaker.Peer{}, false, false
}
