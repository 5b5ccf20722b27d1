package server

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairway-network/fairway/internal/nonblocking"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

const (
	// maxWordings is how many ways to put things a courier remembers.
	maxWordings = 64
	// mostAwaited is how many changes of a prefix are told ahead beyond the first.
	mostAwaited = 3
	// unreadTime is how long a router may leave the rest of a message unread.
	unreadTime = time.Minute
	// confirmTime is how long GoBGP may take to say what was said before it.
	confirmTime = time.Minute
)

// courier is the way out to one router, over one connection. It runs errands: it
// tells the router at once, and in as few messages as can be, what GoBGP is going to
// tell it once the paths have been through its tables, one message each. GoBGP's
// message is kept back when it comes.
//
// GoBGP writes its messages in the order in which it is told of changes, and one for each. So
// what it says of a prefix before it says what was said first is of before that: it was
// queued then, or the router has asked for all again. It is kept back like what was said.
//
// What is said before GoBGP is in GoBGP's words: those of an UPDATE that it wrote over
// this connection about another prefix. So a courier that has heard nothing yet runs
// no errands, and none in other words than it has heard.
type courier struct {
	conn net.Conn
	self netip.Addr // this node's end
	// agreed is how UPDATEs of this session are to be read.
	agreed func() *bgp.MarshallingOption

	mu       sync.Mutex // held until a message is written, however long that takes
	begun    bool       // GoBGP has written an UPDATE
	wordings []*wording
	// told is what was said before GoBGP, which is still to say the same.
	told map[netip.Prefix]*promise
	// more is what was said later of some of them.
	more map[netip.Prefix][]*promise
	// aloud are those of told of which the router is to hear GoBGP's last word: it has
	// asked for all again after it was told.
	aloud map[netip.Prefix]bool
	timer *time.Timer

	asked atomic.Bool                    // for all again, since the last UPDATE of GoBGP
	kept  atomic.Pointer[[]netip.Prefix] // back, of the last UPDATE of GoBGP
	// unreported says that the ledger does not know yet of what was written last of GoBGP's.
	// What is told ahead would come before it there.
	unreported atomic.Bool
}

// promise is what GoBGP is to say of some prefixes.
type promise struct {
	words *wording  // nil: they are withdrawn
	said  time.Time // by the courier
}

// errand is what a router is to be told.
type errand struct {
	router    string // the address, as GoBGP writes it
	announced []notice
	withdrawn []netip.Prefix
	whole     bool      // this is all that the router lacks
	since     time.Time // of the session
}

// notice is a prefix in the words for a router.
type notice struct {
	prefix netip.Prefix
	words  variant
}

func newCourier(conn net.Conn, agreed func() *bgp.MarshallingOption) *courier {
	c := &courier{conn: conn, agreed: agreed}
	if a, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		c.self = a.AddrPort().Addr().Unmap()
	}
	return c
}

// refresh is for when the router asks for all again, before GoBGP knows: what GoBGP is
// still to say is new to it then, too. It waits for nothing.
func (c *courier) refresh() { c.asked.Store(true) }

// write writes a message of GoBGP that is no UPDATE.
func (c *courier) write(message []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.conn.Write(message)
	return err
}

// update writes what the router has not heard of an UPDATE of GoBGP, and is to hear.
func (c *courier) update(message []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	u, ok := dissect(message)
	if !ok {
		u = update{} // which is of no prefix
	}
	w := c.known(u)
	if w == nil && !u.announced.empty() {
		w = c.learn(message, u)
	}
	kept := c.keepBack(u, w)
	c.kept.Store(&kept)
	if len(kept) > 0 {
		if message = u.without(kept); len(message) == 0 {
			return nil
		}
	}
	c.unreported.Store(true)
	if _, err := c.conn.Write(message); err != nil {
		return err
	}
	c.begun = true
	return nil
}

// keptBack are the prefixes of GoBGP's last UPDATE that were not written. The goroutine that
// wrote that may call it, and reported when the ledger has the others.
func (c *courier) keptBack() []netip.Prefix {
	if kept := c.kept.Load(); kept != nil {
		return *kept
	}
	return nil
}

func (c *courier) reported() { c.unreported.Store(false) }

// keepBack gives the prefixes of an UPDATE that the router is not to hear of in it.
func (c *courier) keepBack(u update, w *wording) (kept []netip.Prefix) {
	asked := c.asked.Swap(false)
	if len(c.told) == 0 {
		return nil
	}
	if asked {
		c.aloud = make(map[netip.Prefix]bool, len(c.told))
		for p := range c.told {
			c.aloud[p] = true
		}
	}
	for p := range u.announced.all() {
		if c.keeps(p, func(next *promise) bool { return next.words.puts(u.words, w) }) {
			kept = append(kept, p)
		}
	}
	for p := range u.withdrawn.all() {
		if c.keeps(p, func(next *promise) bool { return next.words == nil }) {
			kept = append(kept, p)
		}
	}
	if len(c.told) == 0 {
		c.told, c.more, c.aloud = nil, nil, nil // maps keep their size
	}
	return kept
}

// keeps says whether what GoBGP says of a prefix is kept back, where fulfils says whether it
// is what was promised. It is then awaited no longer.
func (c *courier) keeps(p netip.Prefix, fulfils func(*promise) bool) bool {
	next, is := c.told[p]
	switch more := c.more[p]; {
	case !is:
		return false
	case !fulfils(next): // it is of before
		return true
	case len(more) > 0:
		c.told[p], c.more[p] = more[0], more[1:]
		return true
	}
	aloud := c.aloud[p]
	delete(c.told, p)
	delete(c.more, p)
	delete(c.aloud, p)
	return !aloud
}

// known is the wording of an UPDATE, nil for one that is new.
func (c *courier) known(u update) *wording {
	if i := slices.IndexFunc(c.wordings, func(w *wording) bool { return w.equal(u.words) && w.family == u.family() }); i >= 0 {
		return c.wordings[i]
	}
	return nil
}

// learns says whether words can be told apart here: which next hop is this node's own, and
// what a prefix is in an UPDATE.
func (c *courier) learns() bool {
	options := []*bgp.MarshallingOption{c.agreed()}
	return c.self.IsValid() &&
		!bgp.IsAddPathEnabled(false, bgp.RF_IPv4_UC, options) && !bgp.IsAddPathEnabled(false, bgp.RF_IPv6_UC, options)
}

// learn remembers the words of an UPDATE, nil if they are of no use.
func (c *courier) learn(message []byte, u update) *wording {
	if !c.learns() {
		return nil
	}
	m, err := bgp.ParseBGPMessage(message, c.agreed())
	if err != nil {
		return nil // of no use then
	}
	if len(c.wordings) == maxWordings {
		c.wordings = slices.Delete(c.wordings, 0, 1)
	}
	w := newWording(u, variantIn(m.Body.(*bgp.BGPUpdate).PathAttributes))
	c.wordings = append(c.wordings, w)
	return w
}

// delivery is what a router was told on an errand.
type delivery struct {
	announced []notice
	withdrawn []netip.Prefix
	// rest is what the kernel did not take. The courier does nothing else until finish
	// was called.
	rest []byte
}

// run says to the router what it can of an errand; begun tells that something was said. It
// does not wait for a router that does not read: finish writes the rest.
func (c *courier) run(e errand) (d delivery, begun bool) {
	if !c.mu.TryLock() {
		return d, false
	}
	out, told := c.pack(e, &d)
	n := 0
	if c.begun && !c.unreported.Load() && len(out) > 0 {
		n = nonblocking.Write(c.conn, out)
	}
	if n == 0 {
		c.mu.Unlock()
		return delivery{}, false
	}
	c.await(told)
	if d.rest = out[n:]; len(d.rest) == 0 {
		c.mu.Unlock()
	}
	return d, true
}

// pack puts what can be said of an errand into messages and into d, and gives what GoBGP
// is to say then.
func (c *courier) pack(e errand, d *delivery) ([]byte, map[netip.Prefix]*promise) {
	var out parcel
	told := make(map[netip.Prefix]*promise, len(e.announced)+len(e.withdrawn))
	promises, now := make(map[*wording]*promise), time.Now()
	promised := func(w *wording) *promise {
		if promises[w] == nil {
			promises[w] = &promise{w, now}
		}
		return promises[w]
	}
	for _, n := range e.announced {
		w := c.wordingFor(n)
		if w == nil || len(c.more[n.prefix]) == mostAwaited {
			e.whole = false
			continue
		}
		out.announce(n.prefix, w)
		told[n.prefix] = promised(w)
		d.announced = append(d.announced, n)
	}
	for _, p := range e.withdrawn { // which others may stand in for
		if e.whole && len(c.more[p]) < mostAwaited {
			out.withdraw(p)
			told[p] = promised(nil)
			d.withdrawn = append(d.withdrawn, p)
		}
	}
	return out.end(), told
}

// knows says whether all notices could be told, or never will be.
func (c *courier) knows(list []notice) bool {
	if !c.mu.TryLock() {
		return true // it runs no errands now
	}
	defer c.mu.Unlock()
	return !c.learns() || !slices.ContainsFunc(list, func(n notice) bool { return c.wordingFor(n) == nil })
}

// wordingFor is how GoBGP would put a notice, nil if that is not known.
func (c *courier) wordingFor(n notice) *wording {
	family := familyOf(n.prefix.Addr())
	for _, w := range c.wordings {
		if w.family == family && n.words.is(w.variant, c.self) && c.hopIs(n.words.hop, w.variant.hop) {
			return w
		}
	}
	return nil
}

// hopIs says whether a next hop that was written is the one asked for, the zero address for
// this node's own. Over a link-local session that is a link-local one.
func (c *courier) hopIs(asked, written netip.Addr) bool {
	return asked.IsValid() || !c.self.IsLinkLocalUnicast() || written.IsLinkLocalUnicast()
}

// finish writes the rest of a delivery, calls told then, and lets others write. Without
// the rest the connection is of no more use.
func (c *courier) finish(d delivery, told func()) {
	defer c.mu.Unlock()
	err := c.conn.SetWriteDeadline(time.Now().Add(unreadTime))
	if err == nil {
		_, err = c.conn.Write(d.rest)
	}
	if err != nil {
		_ = c.conn.Close() // GoBGP finds out when it reads
		return
	}
	told()
}

// await has GoBGP's messages kept back that say what was told.
func (c *courier) await(told map[netip.Prefix]*promise) {
	if c.told == nil {
		c.told, c.more = told, make(map[netip.Prefix][]*promise)
		told = nil
	}
	for p, w := range told {
		if _, is := c.told[p]; is {
			c.more[p] = append(c.more[p], w)
		} else {
			c.told[p] = w
		}
	}
	if c.timer == nil {
		c.timer = time.AfterFunc(confirmTime, c.confirm)
	}
}

// confirm ends a session in which GoBGP does not say what was said before it: the router
// has been told something else then than GoBGP believes.
func (c *courier) confirm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.told) == 0 {
		c.timer = nil
		return
	}
	oldest := time.Now()
	for _, next := range c.told {
		if next.said.Before(oldest) {
			oldest = next.said
		}
	}
	if age := time.Since(oldest); age < confirmTime {
		c.timer.Reset(confirmTime - age)
		return
	}
	_ = c.conn.Close() // GoBGP finds out when it reads
}

// ended is for when the connection has: nothing is awaited any more.
func (c *courier) ended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told, c.more, c.aloud, c.wordings = nil, nil, nil, nil
	if c.timer != nil {
		c.timer.Stop()
	}
}

// close ends the session, in which something was said that does not hold.
func (c *courier) close() { _ = c.conn.Close() }
