package server

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

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
	// told is what was said before GoBGP, which is still to say the same: in which words,
	// with nil that the prefix is withdrawn.
	told map[netip.Prefix]*wording
	// more is what was said later of some of them.
	more  map[netip.Prefix][]*wording
	since time.Time // of the last errand
	timer *time.Timer
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

// write writes a message of GoBGP that is no UPDATE.
func (c *courier) write(message []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.conn.Write(message)
	return err
}

// update writes an UPDATE of GoBGP, unless the router has heard it already.
func (c *courier) update(message []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	u, ok := dissect(message)
	w := c.known(u)
	if ok && c.heard(u, w) {
		return nil
	}
	if _, err := c.conn.Write(message); err != nil {
		return err
	}
	c.begun = true
	if ok && w == nil && !u.announced.empty() {
		c.learn(message, u)
	}
	return nil
}

// heard says whether all of an UPDATE was said before, and awaits it no longer.
func (c *courier) heard(u update, w *wording) bool {
	if len(c.told) == 0 {
		return false
	}
	all, any := true, false
	for p := range u.announced.all() {
		all, any = c.awaited(p, w) && w != nil && all, true
	}
	for p := range u.withdrawn.all() {
		all, any = c.awaited(p, nil) && all, true
	}
	if len(c.told) == 0 {
		c.told, c.more = nil, nil // maps keep their size
	}
	return all && any
}

// awaited says whether GoBGP is to say this of a prefix: next, or later, where it has
// passed over what comes between. What it says else is news, and so is all after it.
func (c *courier) awaited(p netip.Prefix, w *wording) bool {
	next, is := c.told[p]
	if !is {
		return false
	}
	all := append([]*wording{next}, c.more[p]...)
	rest := all[slices.Index(all, w)+1:]
	if len(rest) == len(all) || len(rest) == 0 {
		delete(c.told, p)
		delete(c.more, p)
		return len(rest) == 0
	}
	c.told[p] = rest[0]
	if delete(c.more, p); len(rest) > 1 {
		c.more[p] = rest[1:]
	}
	return true
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

// learn remembers the words of an UPDATE.
func (c *courier) learn(message []byte, u update) {
	if !c.learns() {
		return
	}
	m, err := bgp.ParseBGPMessage(message, c.agreed())
	if err != nil {
		return // of no use then
	}
	if len(c.wordings) == maxWordings {
		c.wordings = slices.Delete(c.wordings, 0, 1)
	}
	c.wordings = append(c.wordings, newWording(u, variantIn(m.Body.(*bgp.BGPUpdate).PathAttributes)))
}

// run says to the router what it can of an errand. It gives what was said whole; begun
// tells that something was said at all. It does not wait for a router that does not read:
// the rest is written when that does.
func (c *courier) run(e errand) (announced, withdrawn []netip.Prefix, begun bool) {
	if !c.mu.TryLock() {
		return nil, nil, false
	}
	var out parcel
	told := make(map[netip.Prefix]*wording, len(e.announced)+len(e.withdrawn))
	for _, n := range e.announced {
		w := c.wordingFor(n)
		if w == nil || len(c.more[n.prefix]) == mostAwaited {
			e.whole = false
			continue
		}
		out.announce(n.prefix, w)
		told[n.prefix] = w
		announced = append(announced, n.prefix)
	}
	for _, p := range e.withdrawn { // which others may stand in for
		if e.whole && len(c.more[p]) < mostAwaited {
			out.withdraw(p)
			told[p] = nil
			withdrawn = append(withdrawn, p)
		}
	}
	messages := out.end()
	n := 0
	if c.begun && len(messages) > 0 {
		n = writeNow(c.conn, messages)
	}
	if n == 0 {
		c.mu.Unlock()
		return nil, nil, false
	}
	c.await(told)
	if n < len(messages) {
		go c.finish(messages[n:])
		return nil, nil, true
	}
	c.mu.Unlock()
	return announced, withdrawn, true
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

// finish writes the rest of a message, and lets others write then. Without the rest the
// connection is of no more use.
func (c *courier) finish(rest []byte) {
	defer c.mu.Unlock()
	err := c.conn.SetWriteDeadline(time.Now().Add(unreadTime))
	if err == nil {
		_, err = c.conn.Write(rest)
	}
	if err != nil {
		_ = c.conn.Close() // GoBGP finds out when it reads
	}
}

// await has GoBGP's messages kept back that say what was told.
func (c *courier) await(told map[netip.Prefix]*wording) {
	if c.told == nil {
		c.told, c.more = told, make(map[netip.Prefix][]*wording)
		told = nil
	}
	for p, w := range told {
		if _, is := c.told[p]; is {
			c.more[p] = append(c.more[p], w)
		} else {
			c.told[p] = w
		}
	}
	c.since = time.Now()
	if c.timer == nil {
		c.timer = time.AfterFunc(confirmTime, c.confirm)
	}
}

// confirm ends a session in which GoBGP does not say what was said before it: the router
// has been told something else then than GoBGP believes.
func (c *courier) confirm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch age := time.Since(c.since); {
	case len(c.told) == 0:
		c.timer = nil
	case age < confirmTime:
		c.timer.Reset(confirmTime - age)
	default:
		_ = c.conn.Close() // GoBGP finds out when it reads
	}
}

// rest is for when the connection has ended: nothing is awaited any more.
func (c *courier) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told, c.more, c.wordings = nil, nil, nil
	if c.timer != nil {
		c.timer.Stop()
	}
}

// close ends the session, in which something was said that does not hold.
func (c *courier) close() { _ = c.conn.Close() }

// writeNow writes what the kernel takes without waiting, and says how much that is.
func writeNow(conn net.Conn, b []byte) int {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		n, err := conn.Write(b)
		if err != nil {
			return 0
		}
		return n
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0
	}
	written := 0
	err = raw.Write(func(fd uintptr) bool {
		n, err := syscall.Write(int(fd), b)
		if err == nil {
			written = n
		}
		return true
	})
	if err != nil {
		return 0
	}
	return written
}
