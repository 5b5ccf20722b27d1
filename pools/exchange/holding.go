package exchange

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
)

// fresh is how long a new block is kept in which nothing was leased yet,
// whoever asks: it was claimed for somebody, who leases soon.
const fresh = 2 * leaseSoon

// spareShare of a block is so little that an empty one stays beside it.
const spareShare = 4

// holding is a block of this node.
type holding struct {
	pace
	Stored
	since   time.Time
	closed  bool      // to be returned
	parted  bool      // the network leads here no more by this block; it may by one around it
	yielded string    // to this request of somebody else: this node asks, too, should it need it again
	final   bool      // its removal was begun: it is not this node's any more
	aside   bool      // since then the journal has it set aside in a block of this node around it
	stays   time.Time // until another call to make it can't come to count any more
	renewal int       // the last one that it was made or taken after
}

// leaves says whether it is time to remove the block.
func (h *holding) leaves() bool { return h.closed && h.parted }

// ages says whether the block is to be taken anew.
func (h *holding) ages(n *Node) bool {
	return !h.final && (h.Machine != n.Machine || h.renewal < n.renewals)
}

// holdings in the order of their prefixes.
func (n *Node) holdings() []*holding {
	return slices.SortedFunc(maps.Values(n.held), func(a, b *holding) int { return netipx.ComparePrefix(a.Prefix, b.Prefix) })
}

// leaving are the holdings for which something is to be done, in the order of
// their prefixes.
func (n *Node) leaving() (out []*holding) {
	for _, h := range n.held {
		if h.leaves() || h.ages(n) {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b *holding) int { return netipx.ComparePrefix(a.Prefix, b.Prefix) })
	return out
}

// take makes st, and what of it others have, this node's. With an error it is
// not. The journal knows of what others have before it knows of the block.
func (n *Node) take(st Stored, inside []Stored) error {
	if l := n.loans[st.Prefix]; l != nil { // it was found in a block around while it was being made
		if n.regain(l); n.loans[st.Prefix] != nil {
			return fmt.Errorf("block %s is set aside still, as the journal takes nothing", st.Prefix)
		}
	}
	if err := n.ledger.Hold(st.Block); err != nil {
		return err
	}
	lent := slices.DeleteFunc(outermost(inside), func(b Stored) bool { return n.held[b.Prefix] != nil })
	if err := n.takeInto(st, lent); err != nil {
		for _, b := range lent {
			delete(n.loans, b.Prefix)
		}
		n.ledger.Forfeit(st.Prefix)
		return err
	}
	n.held[st.Prefix] = &holding{Stored: st, since: n.now, renewal: n.renewals}
	n.changes++
	return nil
}

func (n *Node) takeInto(st Stored, lent []Stored) error {
	for _, b := range lent {
		if err := n.setAside(b); err != nil {
			return err
		}
	}
	if err := n.forgetLent(st.Prefix); err != nil {
		return err
	}
	if err := n.putAside(st.Prefix); err != nil {
		return err
	}
	for _, b := range lent {
		if err := n.noteLent(b); err != nil {
			return err
		}
	}
	block := st.Block // so that st, which is larger, need not be on the heap
	if err := n.Keep(pools.Record{Op: pools.Claimed, Pool: st.Pool, At: n.now, Block: &block}); err != nil {
		return err
	}
	for _, b := range lent {
		delete(n.asleep, b.Prefix)
	}
	return nil
}

// noteLent has the journal know of a block of another node, in one that is not
// held yet.
func (n *Node) noteLent(b Stored) error {
	rec := pools.Record{Op: pools.Lent, Pool: b.Pool, At: n.now, Block: &b.Block}
	if err := n.Keep(rec); err != nil {
		return err
	}
	n.asleep[b.Prefix] = rec
	return nil
}

// putAside has the journal know of what stands in a block that is not held yet, and whose
// removal this node has begun.
func (n *Node) putAside(block netip.Prefix) error {
	for p, h := range n.held {
		if !h.final || h.aside || !inside(p, block) {
			continue
		}
		if err := n.Keep(h.lent(n)); err != nil {
			return err
		}
		h.aside = true
	}
	return nil
}

// forgetLent has the journal forget what it says is lent of a block that is not
// held: it has not come to be held, or is to be returned.
func (n *Node) forgetLent(block netip.Prefix) error {
	for _, p := range n.asleepIn(block) {
		rec := n.asleep[p]
		if err := n.Keep(pools.Record{Op: pools.Regained, Pool: rec.Pool, At: n.now, Block: rec.Block}); err != nil {
			return err
		}
		delete(n.asleep, p)
	}
	return nil
}

func (n *Node) asleepIn(block netip.Prefix) (out []netip.Prefix) {
	for _, p := range slices.SortedFunc(maps.Keys(n.asleep), netipx.ComparePrefix) {
		if inside(p, block) {
			out = append(out, p)
		}
	}
	return out
}

// lendOut sets aside a block of another node that stands in one of this node's.
func (n *Node) lendOut(b Stored) error {
	if n.loans[b.Prefix] != nil {
		return nil
	}
	if err := n.setAside(b); err != nil {
		return err
	}
	if err := n.Keep(pools.Record{Op: pools.Lent, Pool: b.Pool, At: n.now, Block: &b.Block}); err != nil {
		n.ledger.TakeBack(b.Prefix)
		delete(n.loans, b.Prefix)
		return err
	}
	return nil
}

func (n *Node) setAside(b Stored) error {
	if err := n.ledger.SetAside(b.Pool, b.Prefix, b.Node); err != nil {
		return err
	}
	n.loans[b.Prefix] = &loan{Prefix: b.Prefix, Pool: b.Pool}
	n.changes++
	return nil
}

// inside says whether p is a part of outer, and not all of it.
func inside(p, outer netip.Prefix) bool {
	return p.Bits() > outer.Bits() && outer.Contains(p.Addr())
}

// outermost leaves those out that lie in others.
func outermost(blocks []Stored) (out []Stored) {
	// By address, what lies in a block right behind it.
	sorted := slices.SortedFunc(slices.Values(blocks), func(a, b Stored) int { return a.Prefix.Compare(b.Prefix) })
	for _, b := range sorted {
		if len(out) == 0 || !out[len(out)-1].Prefix.Overlaps(b.Prefix) {
			out = append(out, b)
		}
	}
	return out
}

// closeUnused closes what has been empty for long enough, and what no pool has.
func (n *Node) closeUnused() {
	idle := n.ledger.Idle(n.now, func(pool string) time.Duration {
		if r, ok := n.rules[pool]; ok {
			if r.Draining {
				return 0
			}
			return r.IdleAfter
		}
		return 1<<63 - 1
	})
	for _, b := range idle {
		if !n.spares(b) && !n.waits(b.Pool) {
			n.close(b.Prefix)
		}
	}
	for _, b := range n.ledger.Orphans(n.now) {
		n.close(b.Prefix)
	}
}

// waits says whether pods wait for addresses of a pool. What there is of it stays
// until they have one of each family.
func (n *Node) waits(pool string) bool {
	for lack, w := range n.wants {
		if lack.Pool == pool && w.count > 0 {
			return true
		}
	}
	return false
}

// spares says whether an empty block is to stay, since the others have little
// room: without, a pod that comes and goes would have it claimed and returned.
func (n *Node) spares(b pools.Block) bool {
	pool, err := n.ledger.Pool(b.Pool)
	if err != nil || n.rules[b.Pool].Draining {
		return false
	}
	f := pools.FamilyOf(b.Prefix.Addr())
	size := 1 << (f.Bits() - b.Prefix.Bits())
	return n.ledger.Low(b.Pool, f, size+pool.BlockSize()/spareShare-1) && n.ledger.Leases(b.Pool, f) > 0
}

// close begins the return of an empty block. One that is new, or in which
// something is going on, stays open.
func (n *Node) close(p netip.Prefix) bool {
	h := n.held[p]
	if h == nil || h.closed || h.busy > 0 {
		return false
	}
	if ripe := h.since.Add(fresh); !n.quitting && n.now.Before(ripe) && n.ledger.Untouched(p) {
		if n.ripe.IsZero() || ripe.Before(n.ripe) {
			n.ripe = ripe
		}
		return false
	}
	if n.within(p) {
		return false
	}
	if err := n.ledger.Close(p, n.now); err != nil {
		return false // in use after all
	}
	h.closed, h.parted = true, false
	n.changes++
	return true
}

// within says whether this node has a block inside p: one that it was lent before
// it came by the space around.
func (n *Node) within(p netip.Prefix) bool {
	for q := range n.held {
		if inside(q, p) {
			return true
		}
	}
	for q := range n.strays {
		if inside(q, p) {
			return true
		}
	}
	return false
}

// reopen takes a block back into use that was about to be returned, if it has
// what lack says.
func (n *Node) reopen(lack Lack) bool {
	for _, h := range n.holdings() {
		if lack.fits(h.Block) && h.closed && h.yielded == "" && !h.final && n.ledger.Offers(h.Prefix, lack.Want) && n.ledger.Reopen(h.Prefix) {
			h.closed, h.parted = false, false
			h.since = n.now
			n.changes++
			return true
		}
	}
	return false
}

// returning says whether a block that has what lack says is being removed.
func (n *Node) returning(lack Lack) bool {
	for _, h := range n.held {
		if lack.fits(h.Block) && h.final {
			return true
		}
	}
	for _, s := range n.strays {
		if lack.fits(s.Block) && s.Lender == "" {
			return true
		}
	}
	return false
}

// step renews the name on a block, or removes it. The journal says that it is
// gone before it is: a life after this one must not take it for its own.
func (h *holding) step(n *Node) {
	if !h.leaves() {
		if h.ages(n) {
			h.adopt(n)
		}
		return // it was taken back into use
	}
	if n.now.Before(h.stays) {
		h.due = h.stays
		return
	}
	if !h.final {
		if err := n.Keep(n.ended(h)); err != nil {
			n.again(&h.pace)
			return
		}
		h.final, h.aside = true, n.inner(h)
	}
	n.erase(&h.pace, &h.Stored, func(now Stored) {
		if err := n.ledger.Drop(h.Prefix); err != nil {
			n.Log.Error("a block that was returned can't be forgotten", "err", err)
		}
		delete(n.held, h.Prefix)
		delete(n.views, h.Pool)
		n.changes++
		n.Log.Info("returned a block", "pool", h.Pool, "block", h.Prefix)
		n.leaveBehind(h, now)
		if l := n.loans[h.Prefix]; l != nil && (now.UID == "" || now.Node == n.Name) {
			n.regain(l)
		}
	})
}

// ended is for the journal: h is not this node's any more, and no later life must take
// it for its own. Where it stands in another block of this node it is set aside there,
// since it may be another node's by now; both in one record, so that no crash comes
// between.
func (n *Node) ended(h *holding) pools.Record {
	if n.inner(h) {
		return h.lent(n)
	}
	return pools.Record{Op: pools.Returned, Pool: h.Pool, At: n.now, Block: &h.Block}
}

// lent is for the journal: where h stands is set aside, for nobody knows whom.
func (h *holding) lent(n *Node) pools.Record {
	return pools.Record{Op: pools.Lent, Pool: h.Pool, At: n.now, Block: &pools.Block{Prefix: h.Prefix, Pool: h.Pool}}
}

// inner says whether h stands in another block of this node.
func (n *Node) inner(h *holding) bool {
	return n.ledger.BlockAround(h.Pool, h.Prefix) != (netip.Prefix{})
}

// erase removes st, a block of this node, at the version that was read last: a
// removal that comes to count late removes nothing that was taken anew since.
// over is told once this node's block is gone; now is what stands there instead,
// as far as known.
func (n *Node) erase(p *pace, st *Stored, over func(now Stored)) {
	if n.Shared && st.Version == "" {
		n.lookAt(p, st, over)
		return
	}
	n.call(p, Op{Kind: Delete, Block: *st}, func(r Result) {
		if r.Err == nil || errors.Is(r.Err, ErrGone) {
			over(Stored{})
			return
		}
		if !errors.Is(r.Err, ErrUnknown) {
			st.Version = "" // refused, perhaps since it was changed or is another node's
		}
		n.again(p)
	})
}

// lookAt reads the version of st. It may be gone, or another node's.
func (n *Node) lookAt(p *pace, st *Stored, over func(now Stored)) {
	n.call(p, Op{Kind: Look, Block: *st}, func(r Result) {
		switch {
		case errors.Is(r.Err, ErrGone):
			over(Stored{})
		case r.Err != nil:
			n.again(p)
		case r.Block.UID != st.UID || r.Block.Node != n.Name || r.Block.Machine != st.Machine && r.Block.Machine != n.Machine:
			over(r.Block)
		default:
			*st = r.Block
		}
	})
}

// leaveBehind sets aside where h stood, which has ended and is not in the ledger any
// more, if that is in another block of this node; now is what stands there, as far as
// known.
func (n *Node) leaveBehind(h *holding, now Stored) {
	if !n.inner(h) {
		n.forgetAside(h)
		return
	}
	if err := n.setAside(Stored{Block: pools.Block{Prefix: h.Prefix, Pool: h.Pool, Node: now.Node}}); err != nil {
		n.Log.Error("another node's block can't be set aside", "block", h.Prefix, "node", now.Node, "err", err)
		n.Audit()
	}
}

// forgetAside has the journal forget that h is set aside in a block that went before h
// did: one that comes to be held there later has the whole of that place.
func (n *Node) forgetAside(h *holding) {
	if !h.aside {
		return
	}
	rec := pools.Record{Op: pools.Regained, Pool: h.Pool, At: n.now, Block: &pools.Block{Prefix: h.Prefix, Pool: h.Pool}}
	if n.Keep(rec) != nil {
		rec.Op = pools.Lent
		n.asleep[h.Prefix] = rec
	}
}

// adopt takes a block anew: one of an earlier machine, or for a renewal. What of it
// is lent stays so; a grant that nobody has drawn yet is void.
func (h *holding) adopt(n *Node) {
	if h.Version == "" { // as remembered
		n.Audit()
		n.again(&h.pace)
		return
	}
	b := h.Stored
	b.Machine = n.Machine
	renewal := n.renewals
	n.call(&h.pace, Op{Kind: Take, Block: b}, func(r Result) {
		if r.Err != nil {
			n.Audit() // it may be another one, or another one's, by now
			n.again(&h.pace)
			return
		}
		h.Stored, h.renewal = r.Block, renewal
		if err := n.Keep(pools.Record{Op: pools.Claimed, Pool: h.Pool, At: h.since, Block: &h.Block}); err != nil {
			n.Log.Warn("a block's new tenure is not in the journal", "block", h.Prefix, "err", err)
		}
	})
}

// Parting are the prefixes that the network must lead here no more before the
// node goes on: of blocks to be returned, and of what is to be lent.
func (n *Node) Parting() (out []netip.Prefix) {
	for p, h := range n.held {
		if h.closed && !h.parted {
			out = append(out, p)
		}
	}
	for p, l := range n.loans {
		if l.answer != nil && l.answer.phase == parting && !l.parted {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netipx.ComparePrefix)
	return out
}

// Parted says that the network leads none of the prefixes here any more: peers
// were told, and the kernel does not answer for them.
func (n *Node) Parted(prefixes []netip.Prefix) {
	for _, p := range prefixes {
		if h := n.held[p]; h != nil && h.closed {
			h.parted = true
		}
		if l := n.loans[p]; l != nil && l.answer != nil && l.answer.phase == parting {
			l.parted = true
			if a := l.answer; a.parted() {
				a.phase = granting
				a.goOn()
			}
		}
	}
}

// Held are the open and closed blocks whose removal has not begun.
func (n *Node) Held() (out []Stored) {
	for _, h := range n.holdings() {
		if !h.final {
			out = append(out, h.Stored)
		}
	}
	return out
}

// stray is a block in this node's name that it does not hold. A lent one is
// returned: its lender finds what stands in it. A cell is taken anew, so that
// nothing counts any more that an earlier life has promised of it, and held with
// what stands in it then; or removed, if no pool has it, once nothing does. There
// is no wait for the calls of an earlier life: those on this block are bound to
// its version, and void once it is taken.
type stray struct {
	pace
	Stored
	current bool // as read, and not as remembered
	taken   bool
	leaves  bool // its removal was begun
}

func (n *Node) addStray(st Stored, current bool) {
	n.strays[st.Prefix] = &stray{Stored: st, current: current}
}

func (s *stray) step(n *Node) {
	switch {
	case s.Lender != "" || s.leaves:
		n.remove(s)
	case !n.Shared:
		n.resolve(s, nil)
	case !s.current:
		s.look(n)
	case !s.taken:
		s.take(n)
	default:
		n.call(&s.pace, Op{Kind: Inside, Block: s.Stored}, func(r Result) {
			if r.Err != nil {
				n.again(&s.pace)
				return
			}
			if !s.taken {
				return // it is taken once more
			}
			n.resolve(s, r.Blocks)
		})
	}
}

// look reads the block at its present version.
func (s *stray) look(n *Node) {
	n.call(&s.pace, Op{Kind: Look, Block: s.Stored}, func(r Result) {
		switch {
		case r.Err == nil && r.Block.UID == s.UID && r.Block.Node == n.Name:
			s.Stored, s.current = r.Block, true
		case r.Err == nil, errors.Is(r.Err, ErrGone):
			delete(n.strays, s.Prefix)
		default:
			n.again(&s.pace)
		}
	})
}

func (s *stray) take(n *Node) {
	b := s.Stored
	b.Machine = n.Machine
	outdated := n.outdated
	n.call(&s.pace, Op{Kind: Take, Block: b}, func(r Result) {
		if r.Err != nil {
			s.current = false // it may have been taken all the same
			n.again(&s.pace)
			return
		}
		s.Stored, s.taken = r.Block, outdated == n.outdated
	})
}

// resolve holds a cell, in which these blocks stand, or removes it.
func (n *Node) resolve(s *stray, inside []Stored) {
	switch err := n.take(s.Stored, inside); {
	case err == nil:
		n.Log.Info("holds a block of its own again", "pool", s.Pool, "block", s.Prefix)
		delete(n.strays, s.Prefix)
	case isUnfit(err) && len(inside) == 0:
		n.remove(s)
	default:
		n.Log.Error("a block of this node can't be held", "block", s.Prefix, "err", err)
		n.again(&s.pace)
	}
}

func (n *Node) remove(s *stray) {
	s.leaves = true
	n.erase(&s.pace, &s.Stored, func(Stored) { delete(n.strays, s.Prefix) })
}

// Renew has the node take each block anew that it holds, or is about to: what others
// have begun to do with one at a version from before is then void, however late it
// comes to count. What it finds lost it gives up; what was being lent to it is
// returned. Only a store that nodes share needs it. It returns a number for Renewed.
func (n *Node) Renew() int {
	n.renewals++
	for _, h := range n.held {
		if h.busy == 0 && !h.final {
			h.goOn()
		}
	}
	n.outdate()
	return n.renewals
}

// outdate has what was made or taken until now, and is not held yet, taken anew before it
// is held: it may be lost. An audit knows of what is held alone.
func (n *Node) outdate() {
	n.outdated++
	for _, s := range n.strays {
		s.taken = false
	}
}

// Renewed says whether the renewal of that number is over: nothing is held, or will
// be, at a version from before it. What is being removed does not count.
func (n *Node) Renewed(number int) bool {
	for _, h := range n.held {
		if h.renewal < number && !h.final {
			return false
		}
	}
	return true
}

// Forfeits counts the blocks that were found lost.
func (n *Node) Forfeits() int { return n.forfeits }

// audit compares what the node holds with what the store says.
type audit struct {
	pace
	asked, done int // the number of the last one that was asked for, and that is over
	// next and last are when further ones are to begin, or later; zero is never.
	next, last time.Time
}

// Audit has the node read its blocks, give up those that it lost, and see to
// those that it does not know; once more if it is reading them already. It returns
// a number for Audited. After a start with a journal an audit is needed once
// Settle has passed: until then calls of the life before may come to count.
func (n *Node) Audit() int {
	a := &n.audit
	if a.asked == a.done {
		a.due = time.Time{} // what waits for its time has not failed
	}
	a.asked++
	return a.asked
}

// Audited says whether the audit of that number is over: what the node holds then
// was its own at some time after the audit was asked for.
func (n *Node) Audited(number int) bool { return number <= n.audit.done }

// auditAt is Audit at t, until when calls to make a block may come to count: should the
// block go before that, one of them makes it once more, and nobody knows of it. The zero t
// is for a block that no such call was made for.
func (n *Node) auditAt(t time.Time) {
	if t.IsZero() {
		return
	}
	a := &n.audit
	if a.next.IsZero() || t.Before(a.next) {
		a.next = t
	}
	if t.After(a.last) {
		a.last = t
	}
	if a.asked == a.done {
		a.due = a.next
	}
}

// wonder has an audit look for blocks that v shows as this node's and that it does not
// know: an earlier life was made to end while it claimed them. A block that was returned
// a moment ago is shown, too, by a list that lags; so there is one in a while.
func (n *Node) wonder(v *view) {
	if !n.Shared || n.audit.wanted() || n.now.Before(n.born.Add(Settle)) || n.now.Sub(n.wondered) < wonderAgain {
		return
	}
	for p, st := range v.stored {
		if st.Node == n.Name && !n.has(p) && !n.drawing(p) {
			n.wondered = n.now
			n.Audit()
			return
		}
	}
}

// wanted says whether there is an audit to come.
func (a *audit) wanted() bool { return a.asked > a.done || !a.next.IsZero() }

// begin returns the number of the audit that begins now.
func (a *audit) begin(now time.Time) int {
	if a.asked == a.done {
		a.asked++
	}
	switch {
	case !now.Before(a.last):
		a.next, a.last = time.Time{}, time.Time{}
	case !now.Before(a.next):
		a.next = a.last
	}
	return a.asked
}

// end notes that an audit is over.
func (a *audit) end(number int) {
	a.done = number
	a.goOn()
	if a.asked == a.done {
		a.due = a.next
	}
}

func (a *audit) step(n *Node) {
	number := a.begin(n.now)
	before := make(map[netip.Prefix]seenHolding, len(n.held))
	for p, h := range n.held {
		before[p] = seenHolding{h, h.Stored}
	}
	n.call(&a.pace, Op{Kind: Own}, func(r Result) {
		if r.Err != nil {
			n.again(&a.pace)
			return
		}
		if !n.compare(before, r.Blocks) {
			n.again(&a.pace)
			return
		}
		a.end(number)
	})
}

// seenHolding is a holding as it was when an audit began.
type seenHolding struct {
	*holding
	as Stored
}

// compare takes no notice of what was begun or ended while the store was read. It
// says whether all that was lost is given up.
func (n *Node) compare(before map[netip.Prefix]seenHolding, own []Stored) (whole bool) {
	whole = true
	there := map[netip.Prefix]Stored{}
	for _, st := range own {
		there[st.Prefix] = st
		if n.drawing(st.Prefix) { // it is that one's, or one that it will miss
			n.auditAt(n.now.Add(Settle))
		}
		if before[st.Prefix].holding == nil && !n.has(st.Prefix) && !n.drawing(st.Prefix) {
			n.addStray(st, true)
		}
	}
	for _, h := range n.holdings() {
		was, st := before[h.Prefix], there[h.Prefix]
		stands := st.UID == h.UID && st.UID != ""
		switch {
		case h.final || was.holding != h || was.as != h.Stored:
			continue
		case h.busy > 0: // it is being taken anew, in vain perhaps
			whole = whole && stands
			continue
		case stands:
			h.Stored = st
			continue
		}
		n.Log.Error("a block is not this node's any more", "pool", h.Pool, "block", h.Prefix)
		if err := n.forfeit(h); err != nil {
			n.Log.Error("a lost block can't be given up", "block", h.Prefix, "err", err)
			whole = false
		}
	}
	return whole
}

// drawing says whether a want is about to get p.
func (n *Node) drawing(p netip.Prefix) bool {
	for w := range n.everyWant() {
		if w.block.Prefix == p || slices.ContainsFunc(w.draws, func(d *draw) bool { return d.progress != void && d.Prefix == p }) {
			return true
		}
	}
	return false
}

// forfeit gives up a block at once, with all leases in it. What their pods have of
// the other family stays theirs.
func (n *Node) forfeit(h *holding) error {
	for _, g := range n.ledger.GrantsIn(h.Prefix) {
		g.Op, g.At = pools.Released, n.now
		g.Addrs = slices.DeleteFunc(g.Addrs, func(a netip.Addr) bool { return n.ledger.BlockOf(g.Pool, a) != h.Prefix })
		if err := n.Keep(g); err != nil {
			return err
		}
		if err := n.ledger.Apply(g); err != nil {
			return err
		}
		if n.Lost != nil {
			n.Lost(h.Block, g)
		}
	}
	if err := n.Keep(n.ended(h)); err != nil {
		return err
	}
	for p, l := range n.loans {
		if l.Pool == h.Pool && n.ledger.BlockAround(h.Pool, l.Prefix) == h.Prefix {
			if err := n.Keep(pools.Record{Op: pools.Regained, Pool: l.Pool, At: n.now, Block: &pools.Block{Prefix: p, Pool: l.Pool}}); err != nil {
				return err
			}
			n.leave(l)
			delete(n.loans, p)
		}
	}
	n.ledger.Forfeit(h.Prefix)
	delete(n.held, h.Prefix)
	n.partAnew(h.Prefix)
	if n.now.Before(h.stays) {
		n.auditAt(h.stays)
	}
	n.forfeits++
	n.changes++
	// It may stand still, vacant or another's: a cell of this node around it stays as long.
	n.leaveBehind(h, Stored{})
	return nil
}

// partAnew waits for the network once more before what lies in a lost block is removed: it
// may still lead here by the one around.
func (n *Node) partAnew(lost netip.Prefix) {
	for p, h := range n.held {
		if h.closed && inside(p, lost) {
			h.parted = false
		}
	}
}

// CloseEmpty begins the return of every block that is not in use.
func (n *Node) CloseEmpty(now time.Time) {
	n.now = now
	for _, h := range n.holdings() {
		n.close(h.Prefix)
	}
}

// Quit has the node want nothing more: what is under way is finished or undone.
func (n *Node) Quit() {
	n.quitting = true
	for w := range n.everyWant() {
		w.count, w.ahead = 0, false
		if w.busy == 0 {
			w.goOn()
		}
	}
}

// Busy says whether blocks are being got or returned.
func (n *Node) Busy() bool {
	for _, h := range n.held {
		if h.leaves() {
			return true
		}
	}
	return len(n.wants)+len(n.helpers)+len(n.strays) > 0
}

// Changes counts the changes of what the node holds, or is about to.
func (n *Node) Changes() int { return n.changes }

// Adopt holds a block in this node's name that the node does not know, of which
// others have what is inside. The error wraps pools.ErrUnknownPool or
// pools.ErrOutside when no pool has it (any more).
func (n *Node) Adopt(st Stored, inside []Stored, now time.Time) error {
	n.now = now
	if n.held[st.Prefix] != nil {
		return nil
	}
	if n.unfit[st.Prefix] {
		return n.readmit(st)
	}
	return n.take(st, inside)
}

// readmit holds a block that Restore found no pool for, with what of it is lent. If it
// may have been lost meanwhile it is looked for first, and taken anew.
func (n *Node) readmit(st Stored) error {
	if n.duty.doubts() {
		if err := n.ledger.Hold(st.Block); err != nil {
			return err // no pool has it still
		}
		n.ledger.Forfeit(st.Prefix)
		return n.Discard(st, n.now)
	}
	lent := n.asleepIn(st.Prefix)
	recs := make([]pools.Record, len(lent))
	for i, p := range lent {
		recs[i] = n.asleep[p]
		delete(n.asleep, p)
	}
	err := n.take(st, nil)
	for i, p := range lent {
		if err != nil {
			n.asleep[p] = recs[i]
		} else {
			err = n.restoreLoan(recs[i])
		}
	}
	if err == nil {
		delete(n.unfit, st.Prefix)
	}
	return err
}

// Discard removes a block in this node's name that the node does not hold, as
// soon as nothing stands in it.
func (n *Node) Discard(st Stored, now time.Time) error {
	n.now = now
	if err := n.Keep(pools.Record{Op: pools.Returned, Pool: st.Pool, At: now, Block: &st.Block}); err != nil {
		return err
	}
	// Only now: a life that has the block still needs to know what of it is lent.
	if err := n.forgetLent(st.Prefix); err != nil {
		n.Log.Warn("what was lent of a block that goes is in the journal still", "block", st.Prefix, "err", err)
	}
	delete(n.unfit, st.Prefix)
	n.addStray(st, false)
	return nil
}
