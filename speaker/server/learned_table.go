package server

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/routes"
	"github.com/fairway-network/fairway/speaker"
)

// lessons is what routers have taught: every route of theirs, and what of it
// stands in the sink. It is pure: nothing in it waits or looks at a clock.
type lessons struct {
	// sinkless says that there is no sink: routes are only counted.
	sinkless bool
	asn      uint32 // this node's
	routerID netip.Addr
	keeps    time.Duration // for which routes outlive their session
	deferral time.Duration
	teachers map[string]*teacher // by the address, as GoBGP writes it
	peers    map[string]speaker.Peer
	ranges   []speaker.Range
	own      nets
	entries  map[netip.Prefix]*entry
	dirty    []*entry // that are to be looked at
	// postponed are those that were looked at, and wait with the others.
	postponed []*entry
	change    routes.Change // the last one that was taken
	floods    []flood       // that nobody was told of yet
	// known says that the entries say what stands in the sink.
	known     bool
	installed int // entries that stand there
	// waiting says that routers are still coming back after a start: what stands
	// is left as it is until they have, or until the time.
	waiting    bool
	until      time.Time
	configured bool // by some configure, of this start or of one before
}

// teacher is a router.
type teacher struct {
	address  netip.Addr
	accept   []speaker.PrefixRule
	families []speaker.Family
	asn      uint32 // this node's towards it
	external bool
	up       bool
	// era counts its lost sessions. Routes of an earlier one are kept for a while,
	// if there are any.
	era   uint32
	stale bool
	until time.Time
	ended map[speaker.Family]bool // whose End-of-RIB came in this session
	// counts are of its routes among the entries' paths: to count them whenever
	// somebody asks would take the table's whole length.
	counts map[speaker.Family]*tally
	most   int // that it may tell of a family
	// flooded says that it told more, and is not listened to in this session.
	flooded bool
}

// entry is one prefix.
type entry struct {
	prefix netip.Prefix
	paths  []report
	room   [1]report // for most
	// put are the next hops that stand in the sink; none for no route.
	put   []netip.Addr
	dirty bool // it is in the table's list of such
	late  bool // it is among the postponed
	stood bool // put is of before the start, or another's doing
}

// report is a way to a prefix as told by one router. Its number tells several of one router
// apart (RFC 7911).
type report struct {
	from     *teacher
	way      *way
	number   uint32
	era      uint32
	accepted bool // by the router's rules
}

func newLessons() *lessons {
	return &lessons{teachers: make(map[string]*teacher), entries: make(map[netip.Prefix]*entry)}
}

// begin forgets all that routers said.
func (t *lessons) begin(local speaker.Local, now time.Time) {
	for _, e := range t.entries {
		e.paths, e.stood = nil, len(e.put) > 0
		t.mark(e)
	}
	clear(t.teachers)
	t.asn, t.routerID, t.keeps, t.deferral = local.ASN, local.RouterID, 0, 0
	if local.GracefulRestart.Enabled {
		t.keeps, t.deferral = local.GracefulRestart.Time, local.Deferral
	}
	t.waiting, t.until = true, now.Add(t.keeps)
}

func (t *lessons) configure(peers map[netip.Addr]speaker.Peer, ranges map[string]speaker.Range, own []netip.Prefix) {
	t.peers, t.ranges, t.configured = make(map[string]speaker.Peer), nil, true
	for a, p := range peers {
		t.peers[a.String()] = p
	}
	for _, rg := range ranges {
		t.ranges = append(t.ranges, rg)
	}
	if t.sinkless {
		own = nil // there is nothing to keep them out of
	}
	changed, otherRules := t.own.set(own), false
	for address, r := range t.teachers {
		before := r.accept
		t.instruct(address, r)
		otherRules = otherRules || !slices.Equal(before, r.accept)
		t.checkFlood(address, r)
	}
	if otherRules {
		t.recount()
	}
	if changed || otherRules {
		t.markAll()
	}
}

// ownChange is configure for a change of the own prefixes alone: what is neither one of its
// nor inside one is not looked at again.
func (t *lessons) ownChange(c speaker.Change) {
	if t.sinkless {
		return
	}
	var changed nets
	for _, one := range c.Announced {
		if t.own.add(one.Prefix) {
			changed.add(one.Prefix)
		}
	}
	for _, p := range c.Withdrawn {
		if t.own.remove(p) {
			changed.add(p)
		}
	}
	if len(changed.in) == 0 {
		return
	}
	for p, e := range t.entries {
		if changed.contain(p) {
			t.mark(e)
		}
	}
}

// recount is for when rules have changed.
func (t *lessons) recount() {
	for _, r := range t.teachers {
		clear(r.counts)
	}
	for _, e := range t.entries {
		for i := range e.paths {
			one := &e.paths[i]
			one.accepted = one.from.takes(e.prefix, one.way)
			one.count(e.prefix, 1)
		}
	}
}

// instruct tells a teacher's record what the settings say.
func (t *lessons) instruct(address string, r *teacher) {
	p, ok := t.peers[address]
	if !ok {
		bits := -1
		for _, rg := range t.ranges {
			if rg.Network.Contains(r.address.WithZone("")) && rg.Network.Bits() > bits {
				p, bits = memberOf(rg, r.address), rg.Network.Bits()
			}
		}
	}
	r.accept, r.most, r.families = p.Accept.Prefixes, mostPrefixes(p.Accept), p.Families
	r.asn = cmp.Or(p.LocalASN, t.asn)
	r.external = p.ASN != r.asn
}

// teacher gives the record of a router, begun if need be; nil for no address.
func (t *lessons) teacher(address string) *teacher {
	if r := t.teachers[address]; r != nil {
		return r
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return nil
	}
	r := &teacher{address: a, counts: make(map[speaker.Family]*tally)}
	t.instruct(address, r)
	t.teachers[address] = r
	return r
}

// up says that a session with a router came about.
func (t *lessons) up(r *teacher, now time.Time) {
	r.up, r.flooded, r.ended, r.until = true, false, make(map[speaker.Family]bool), now.Add(t.keeps)
}

// down says that a session ended. kept says that its routes count until the router
// is back, for a while (RFC 4724, section 4.2).
func (t *lessons) down(r *teacher, kept bool, now time.Time) {
	r.up, r.ended, r.until = false, nil, now.Add(t.keeps)
	r.era++
	r.stale = true
	if !kept {
		t.sweep(r, speaker.IPv4, speaker.IPv6)
	}
}

// leave says that a router is a peer no more.
func (t *lessons) leave(address string, now time.Time) {
	if r := t.teachers[address]; r != nil {
		t.down(r, false, now)
		delete(t.teachers, address)
	}
}

// sweep drops the routes of a router's sessions of before, of some families.
func (t *lessons) sweep(r *teacher, families ...speaker.Family) {
	if !r.stale {
		return
	}
	for p, e := range t.entries {
		if !slices.Contains(families, familyOf(p.Addr())) {
			continue
		}
		n := len(e.paths)
		e.paths = slices.DeleteFunc(e.paths, func(w report) bool {
			old := w.from == r && w.era != r.era
			if old {
				w.count(p, -1)
			}
			return old
		})
		if len(e.paths) < n {
			t.mark(e)
		}
	}
	if len(families) == 2 {
		r.stale = false
	}
}

// endOfRIB says that a router has told all that it knows of a family.
func (t *lessons) endOfRIB(r *teacher, f speaker.Family, now time.Time) {
	if !r.up {
		return
	}
	r.ended[f] = true
	t.sweep(r, f)
	if t.complete(r) {
		t.sweep(r, speaker.IPv4, speaker.IPv6)
		if len(r.accept) > 0 && t.waiting { // the others are late
			if by := now.Add(t.deferral); by.Before(t.until) {
				t.until = by
			}
		}
	}
}

func (t *lessons) complete(r *teacher) bool {
	return r.up && !slices.ContainsFunc(r.families, func(f speaker.Family) bool { return !r.ended[f] })
}

// learn enters a route of a router.
func (t *lessons) learn(r *teacher, p netip.Prefix, number uint32, w *way) {
	e := t.entry(p)
	new := report{from: r, way: w, number: number, era: r.era, accepted: r.takes(p, w)}
	if i := e.find(r, number); i < 0 {
		e.paths = append(e.paths, new)
	} else {
		e.paths[i].count(p, -1)
		e.paths[i] = new
	}
	new.count(p, 1)
	t.mark(e)
}

// entry gives that of a prefix, begun if need be.
func (t *lessons) entry(p netip.Prefix) *entry {
	e := t.entries[p]
	if e == nil {
		e = &entry{prefix: p}
		e.paths = e.room[:0]
		t.entries[p] = e
	}
	return e
}

// unlearn drops a route of a router.
func (t *lessons) unlearn(r *teacher, p netip.Prefix, number uint32) {
	e := t.entries[p]
	if e == nil {
		return
	}
	if i := e.find(r, number); i >= 0 {
		e.paths[i].count(p, -1)
		e.paths = slices.Delete(e.paths, i, i+1)
		t.mark(e)
	}
}

func (e *entry) find(r *teacher, number uint32) int {
	return slices.IndexFunc(e.paths, func(w report) bool { return w.from == r && w.number == number })
}

// mark has an entry looked at, if there is somebody to act on it.
func (t *lessons) mark(e *entry) {
	switch {
	case t.sinkless:
		if len(e.paths) == 0 {
			delete(t.entries, e.prefix)
		}
	case !e.dirty:
		e.dirty = true
		t.dirty = append(t.dirty, e)
	}
}

func (t *lessons) markAll() {
	for _, e := range t.entries {
		t.mark(e)
	}
}

// next is when something is over, or by if that is earlier.
func (t *lessons) next(by time.Time) time.Time {
	if t.waiting && t.until.Before(by) {
		by = t.until
	}
	for _, r := range t.teachers {
		if r.stale && r.until.Before(by) {
			by = r.until
		}
	}
	return by
}

// settle does what is due at a time.
func (t *lessons) settle(now time.Time) {
	for _, r := range t.teachers {
		if r.stale && !now.Before(r.until) {
			t.sweep(r, speaker.IPv4, speaker.IPv6)
		}
	}
	if t.waiting && t.configured && (!now.Before(t.until) || t.returned()) {
		t.waiting = false
		for _, e := range t.postponed {
			e.late = false
			t.mark(e)
		}
		t.postponed = nil
	}
}

// accepts says whether the settings accept anything of anybody.
func (t *lessons) accepts() bool {
	for _, rg := range t.ranges {
		if len(rg.Accept.Prefixes) > 0 {
			return true
		}
	}
	for _, p := range t.peers {
		if len(p.Accept.Prefixes) > 0 {
			return true
		}
	}
	return false
}

// returned says whether all routers that count have told all that they know.
func (t *lessons) returned() bool {
	for _, rg := range t.ranges {
		if len(rg.Accept.Prefixes) > 0 && !rg.Down {
			return false // who would come is not known
		}
	}
	for address, p := range t.peers {
		if len(p.Accept.Prefixes) == 0 || p.Down {
			continue
		}
		if r := t.teachers[address]; r == nil || !t.complete(r) {
			return false
		}
	}
	return true
}

// holds says what stands in the sink.
func (t *lessons) holds(list []routes.Route) {
	was := make(map[netip.Prefix][]netip.Addr, t.installed)
	for p, e := range t.entries {
		if len(e.put) > 0 {
			was[p], e.put = e.put, nil
		}
	}
	for _, r := range list {
		e := t.entry(r.Prefix)
		e.put, e.stood = r.Via, e.stood || !slices.Equal(r.Via, was[r.Prefix])
		if len(r.Via) == 0 { // not of our making: to be replaced or removed
			e.put = []netip.Addr{{}}
		}
	}
	t.installed, t.known = len(list), true
	for p, e := range t.entries {
		if !slices.Equal(was[p], e.put) || !slices.Equal(e.put, t.want(p, e)) {
			t.mark(e)
		}
	}
}

// missing says which routes the sink did not take.
func (t *lessons) missing(list []netip.Prefix) {
	for _, p := range list {
		if e := t.entries[p]; e != nil && len(e.put) > 0 {
			e.put = nil
			t.installed--
		}
	}
}

// take gives the next change, of at most so many routes, as one that is made, and
// whether there is more. It holds until the next call.
func (t *lessons) take(most int) (c routes.Change, more bool) {
	c = routes.Change{Add: t.change.Add[:0], Replace: t.change.Replace[:0], Delete: t.change.Delete[:0]}
	n := 0
	for _, e := range t.dirty {
		if len(c.Add)+len(c.Replace)+len(c.Delete) == most {
			break
		}
		n++
		e.dirty = false
		t.takeOne(&c, e)
		if len(e.paths) == 0 && len(e.put) == 0 && t.entries[e.prefix] == e {
			delete(t.entries, e.prefix)
		}
	}
	t.dirty, t.change = t.dirty[n:], c
	if len(t.dirty) == 0 {
		t.dirty = nil
	}
	return c, len(t.dirty) > 0
}

func (t *lessons) takeOne(c *routes.Change, e *entry) {
	p, want := e.prefix, t.want(e.prefix, e)
	switch {
	case slices.Equal(e.put, want):
		e.stood = false // routers have said it again, and what they say now counts at once
		return
	case len(e.put) == 0:
		c.Add = append(c.Add, routes.Route{Prefix: p, Via: want})
		t.installed++
	case t.waiting && e.stood && !t.own.contain(p):
		if !e.late {
			e.late = true
			t.postponed = append(t.postponed, e)
		}
		return
	case len(want) == 0:
		c.Delete = append(c.Delete, routes.Route{Prefix: p, Via: e.put})
		t.installed--
	default:
		c.Replace = append(c.Replace, routes.Route{Prefix: p, Via: want})
	}
	e.put, e.stood = want, false
}

// nets is a set of prefixes. The zero value is an empty one.
type nets struct {
	in      map[netip.Prefix]struct{}
	lengths map[speaker.Family][]int // of all that were in it since set
}

// set makes it what list says, and says whether that is a change.
func (n *nets) set(list []netip.Prefix) (changed bool) {
	was := n.in
	*n = nets{in: make(map[netip.Prefix]struct{}, len(list))}
	for _, p := range list {
		n.add(p)
		if _, had := was[p]; !had {
			changed = true
		}
	}
	return changed || len(was) != len(n.in)
}

// add says whether p is new.
func (n *nets) add(p netip.Prefix) bool {
	if n.in == nil {
		n.in = make(map[netip.Prefix]struct{})
	}
	if n.lengths == nil {
		n.lengths = make(map[speaker.Family][]int)
	}
	before := len(n.in)
	n.in[p] = struct{}{}
	if f := familyOf(p.Addr()); !slices.Contains(n.lengths[f], p.Bits()) {
		n.lengths[f] = append(n.lengths[f], p.Bits())
	}
	return len(n.in) > before
}

// remove says whether p was in it.
func (n *nets) remove(p netip.Prefix) bool {
	before := len(n.in)
	delete(n.in, p)
	return len(n.in) < before
}

// contain says whether a prefix is one of the set or inside one.
func (n *nets) contain(p netip.Prefix) bool {
	for _, bits := range n.lengths[familyOf(p.Addr())] {
		if bits > p.Bits() {
			continue
		}
		if around, err := p.Addr().Prefix(bits); err == nil {
			if _, has := n.in[around]; has {
				return true
			}
		}
	}
	return false
}
