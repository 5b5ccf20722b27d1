package exchange

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
)

const (
	// viewLife is how long a list of a pool's blocks is good enough to choose
	// a cell from. A wrong choice costs one call.
	viewLife = 30 * time.Second
	// listFresh is how long a list is good enough to choose several cells from.
	listFresh = 100 * time.Millisecond
	// lookAgain is how soon a node that waits for a grant looks for a block that
	// was returned meanwhile, and lookSeldom how often once it has waited for
	// long: in a pool that stays exhausted all nodes may look.
	lookAgain  = 200 * time.Millisecond
	lookSeldom = 5 * time.Second
	// lookCost of a list makes it rarer still for each block in it.
	lookCost = time.Millisecond
	// listLag is how far behind a list may be: for as long, what it shows as it
	// was before somebody else was first does not count. After that it may have come
	// free again. A wrong choice costs one call.
	listLag = 500 * time.Millisecond
	// wonderAgain is how soon an unknown block of this node's name is looked into again.
	wonderAgain = time.Minute
	// patientMisses are so many misses that another list is worth it where little is
	// lacking, and that a list which does not show them is not the one to go on from.
	patientMisses = 3
	// keepAsking is how long a request stays open when nobody waits any more.
	keepAsking = 30 * time.Second
	// lowShare of a block is so little that another one is claimed.
	lowShare = 8
	// forgive is after how long a failure does not count any more.
	forgive = time.Minute
	// aheadAgain is when a claim ahead of need is tried anew.
	aheadAgain = 30 * time.Second
)

// step of getting a block.
type wanting uint8

const (
	choosing wanting = iota
	creating         // the cell in block
	taking           // the vacant block
	reading          // what is inside the block that was taken
	asking           // the request
	waiting          // for grants
	closing          // the request
)

// ending is who removed a request.
type ending uint8

const (
	unknown ending = iota
	byUs
	bySomebody
)

// want is what this node lacks, on its way to a block that has it.
type want struct {
	pace
	Lack
	nth       int // 0 is the first one of its lack; others help it, see share
	phase     wanting
	ahead     bool      // of need: nobody waits, and it is worth a free cell only
	back      time.Time // until when it leaves free cells to others; zero if it never did
	count     int       // how many wait; of the first one
	asks      int       // how many addresses its request is for
	last      time.Time
	block     Stored                     // that is being made or taken
	began     time.Time                  // the first call to do so
	outdated  int                        // the node's, when block was chosen
	request   Request                    // that was made; UID "" if none was
	draws     []*draw                    // of its grants, in their order
	ended     ending                     // of the request
	stands    map[Grant]bool             // whether what was lent is the lender's still, as read; see Grant.around
	asked     time.Time                  // the request was made
	behind    bool                       // the request has changed, and nobody has seen yet how
	gathering time.Time                  // until when another grant is waited for
	unsure    bool                       // an earlier try of this phase may have worked
	doubt     time.Time                  // until a call to make a block may come to count
	listed    bool                       // the pool was read since it was last looked at
	since     time.Time                  // when it was last looked at
	anew      bool                       // what was read before since is known to be out of date
	dry       time.Time                  // since when there is nothing to be had
	holders   int                        // as last known
	missed    map[netip.Prefix]time.Time // blocks that somebody else was first to get, and when
	misses    int
	err       error // why the last try failed

	failures int // in a row, or nearly
	failed   time.Time
}

// Need says that count lease requests wait for what lack says. Say so again
// when it has changed, and 0 when nobody waits any more.
func (n *Node) Need(lack Lack, count int, now time.Time) {
	n.at(now)
	n.expect(lack, count)
	w := n.wants[lack]
	if w == nil {
		delete(n.failed, lack)
		if count == 0 {
			return
		}
		w = n.newWant(lack, 0)
		n.wants[lack] = w
	}
	if count > 0 {
		w.last, w.ahead = now, false
	}
	if count > w.count {
		w.hurry(now)
	}
	w.count = count
	n.recheck(lack)
}

// Why is the reason that lack is not satisfied yet, or was not, nil if nothing
// has failed. What wraps pools.ErrExhausted, ErrCordoned or ErrDraining will
// last.
func (n *Node) Why(lack Lack) error {
	if n.offers(lack) {
		return nil
	}
	if w := n.wants[lack]; w != nil {
		return w.err
	}
	return n.failed[lack]
}

// Wants says whether the node is still getting what lack says, and has nothing of
// it yet.
func (n *Node) Wants(lack Lack) bool { return n.wants[lack] != nil && !n.offers(lack) }

// offers says whether there is what lack says by now.
func (n *Node) offers(lack Lack) bool {
	return !lack.Want.IsValid() && n.ledger.Free(lack.Pool, lack.Family, n.now) > 0
}

// claimAhead wants another block where few addresses are left.
func (n *Node) claimAhead() {
	if n.cordoned || n.quitting {
		return
	}
	maps.DeleteFunc(n.poor, func(_ Lack, until time.Time) bool { return !n.now.Before(until) })
	maps.DeleteFunc(n.rushes, func(_ Lack, r rush) bool { return !n.now.Before(r.until) })
	for name, rule := range n.rules {
		pool, err := n.ledger.Pool(name)
		if err != nil || rule.Draining {
			continue
		}
		for _, f := range pool.Families() {
			lack := Lack{Pool: name, Family: f}
			low := pool.BlockSize() / lowShare
			if low == 0 || n.gets(lack) || n.inRush(lack) || n.now.Before(n.poor[lack]) || n.ledger.Leases(name, f) == 0 || n.ledger.Free(name, f, n.now) > low {
				continue
			}
			w := n.newWant(lack, 0)
			w.ahead, w.last = true, n.now
			n.wants[lack] = w
		}
	}
}

// RunsLow says whether it is time to Advance, since few addresses of a family of
// a pool are left. It is cheap enough for every lease.
func (n *Node) RunsLow(pool string, f pools.Family) bool {
	lack := Lack{Pool: pool, Family: f}
	p, err := n.ledger.Pool(pool)
	if err != nil || p.BlockSize() < lowShare || n.cordoned || n.quitting || n.gets(lack) || n.inRush(lack) || n.now.Before(n.poor[lack]) {
		return false
	}
	return n.ledger.Low(pool, f, p.BlockSize()/lowShare)
}

func (w *want) step(n *Node) {
	switch w.phase {
	case choosing:
		w.choose(n)
	case creating:
		w.create(n)
	case taking:
		w.take(n)
	case reading:
		w.read(n)
	case asking:
		w.ask(n)
	case waiting:
		w.wait(n)
	case closing:
		w.close(n)
	}
}

// to goes on with another phase. Failures stay counted: what fails may be a part
// of a round that begins with what does not.
func (w *want) to(p wanting) {
	w.phase, w.unsure = p, false
	w.due = time.Time{}
}

// again makes the want wait after a failure, longer each time.
func (w *want) again(n *Node) {
	if n.now.Sub(w.failed) >= forgive {
		w.failures = 0
	}
	w.failed, w.tries = n.now, w.failures
	w.failures++
	n.again(&w.pace)
}

// finish ends the want, after its request.
func (w *want) finish(n *Node) {
	if w.request.UID != "" {
		w.to(closing)
		return
	}
	n.end(w)
}

// idle says whether nobody has waited for long.
func (w *want) idle(n *Node) bool {
	if w.nth > 0 {
		return !n.needsHelp(w)
	}
	return w.count == 0 && (n.quitting || n.now.Sub(w.last) >= keepAsking)
}

// satisfied says whether the ledger has by now what was lacking.
func (w *want) satisfied(n *Node) bool {
	if !w.Want.IsValid() {
		return w.nth == 0 && !w.ahead && n.ledger.Free(w.Pool, w.Family, n.now) >= max(w.count, 1)
	}
	p := n.ledger.BlockOf(w.Pool, w.Want)
	h := n.held[p]
	return h != nil && !h.closed && !n.lentOut(w.Want)
}

// choose decides how to get a block.
func (w *want) choose(n *Node) {
	pool, err := n.ledger.Pool(w.Pool)
	switch {
	case err != nil:
		w.giveUp(n, err)
	case w.satisfied(n) || n.reopen(w.Lack):
		n.end(w)
	case w.barred(n) != nil:
		w.giveUp(n, w.barred(n))
	case w.nth == 0 && w.count == 0 && !w.ahead, w.nth > 0 && !n.needsHelp(w):
		n.end(w)
	case w.nth == 0 && n.helped(w):
		w.due = n.now.Add(lookAgain)
	default:
		w.from(n, pool)
	}
}

// barred is why the node is to take no block of the pool, if so.
func (w *want) barred(n *Node) error {
	switch {
	case n.cordoned:
		return fmt.Errorf("%w: no new block is claimed on it", ErrCordoned)
	case n.rules[w.Pool].Draining:
		return fmt.Errorf("%w: %q leases nothing new", ErrDraining, w.Pool)
	}
	return nil
}

// giveUp ends a want that nothing was begun for.
func (w *want) giveUp(n *Node, why error) {
	if w.count > 0 { // who else would ask
		n.failed[w.Lack] = why
	}
	n.end(w)
}

// from chooses from what is known of the pool.
func (w *want) from(n *Node, pool *pools.Pool) {
	v := n.views[w.Pool]
	if w.nth > 0 {
		w.help(n, pool, v)
		return
	}
	if w.holdsBack(n) {
		return
	}
	known := v != nil && (w.listed || v.at.After(w.since))
	if v == nil || n.now.Sub(v.at) > viewLife || (w.anew || v.scarce[w.Family] && !w.ahead || n.needsMany(w, v)) && !known {
		w.list(n)
		return
	}
	w.learn(n, v)
	if w.target(n, pool, v) {
		return
	}
	if !known {
		w.list(n)
		return
	}
	w.nothing(n, pool)
}

// target goes for a free cell or a vacant block. It says whether there is one.
func (w *want) target(n *Node, pool *pools.Pool, v *view) bool {
	if cell, ok := w.cell(n, pool, v); ok {
		w.block = Stored{Block: pools.Block{Prefix: cell, Pool: w.Pool, Node: n.Name, Machine: n.Machine, Created: n.now}}
		w.outdated, w.began = n.outdated, n.now
		w.to(creating)
		w.step(n)
		return true
	}
	if w.ahead {
		return false
	}
	for _, st := range v.vacant() {
		if _, missed := w.missed[st.Prefix]; !missed && w.fits(st.Block) && !n.has(st.Prefix) && !n.drawing(st.Prefix) {
			w.block = st
			w.block.Node, w.block.Machine = n.Name, n.Machine
			w.outdated, w.began = n.outdated, n.now
			w.to(taking)
			w.step(n)
			return true
		}
	}
	return false
}

// has says whether a block of this node is p, held or not.
func (n *Node) has(p netip.Prefix) bool {
	return n.held[p] != nil || n.strays[p] != nil || n.unfit[p]
}

// cell is a free one that has what is lacking.
func (w *want) cell(n *Node, pool *pools.Pool, v *view) (netip.Prefix, bool) {
	known := v.blocks(n, w.missed)
	if !w.Want.IsValid() {
		cell, err := pool.NextCell(w.Family, n.Name, known)
		return cell, err == nil
	}
	cell := pool.Cell(w.Want)
	return cell, !slices.ContainsFunc(known, func(b pools.Block) bool { return b.Prefix.Overlaps(cell) })
}

// nothing is free: others may have something to spare.
func (w *want) nothing(n *Node, pool *pools.Pool) {
	w.err = fmt.Errorf("%w: no free block of %v in pool %q (%d addresses)", pools.ErrExhausted, w.Family, w.Pool, pool.Size(w.Family))
	n.poor[w.Lack] = n.now.Add(aheadAgain)
	switch {
	case n.returning(w.Lack):
		w.rest(n)
	case w.ahead:
		n.end(w)
	case !n.Shared:
		w.giveUp(n, w.err)
	case w.request.UID != "":
		w.phase = waiting
		w.find(n, w.request) // the watch may have missed the answer
	default:
		w.to(asking)
		w.step(n)
	}
}

// rest looks for a block again in a while.
func (w *want) rest(n *Node) {
	w.listed, w.since = false, n.now
	w.pause(n)
	n.recheck(w.Lack)
}

// pause waits, the longer the longer there has been nothing to be had, and the
// more blocks there are to read.
func (w *want) pause(n *Node) {
	if w.dry.IsZero() {
		w.dry = n.now
	}
	longest := lookSeldom
	if v := n.views[w.Pool]; v != nil {
		longest = min(max(longest, time.Duration(len(v.stored))*lookCost), viewLife)
	}
	w.due = n.now.Add(min(max(n.now.Sub(w.dry)/4, lookAgain), longest))
}

// hurry looks soon, since more wait than did.
func (w *want) hurry(now time.Time) {
	if w.phase == choosing && now.Before(w.back) && w.due.Equal(w.back) {
		w.goOn() // it may lack too much now to hold back
	}
	soon := w.since.Add(time.Second)
	if w.phase == waiting && w.busy == 0 && w.due.After(soon) && w.failed.Before(w.since) {
		w.due = soon
	}
}

func (w *want) list(n *Node) {
	n.call(&w.pace, Op{Kind: List, Pool: w.Pool}, func(r Result) {
		if r.Err != nil {
			w.err = fmt.Errorf("look for a free block: %w", r.Err)
			w.again(n)
			return
		}
		w.listed, w.anew = true, false
		pool, _ := n.ledger.Pool(w.Pool)
		v := newView(n.now, pool, r.Blocks)
		if old := n.views[w.Pool]; old != nil {
			maps.Copy(v.scarce, old.scarce)
		}
		v.scarce[w.Family] = w.scarce(n, v)
		n.views[w.Pool] = v
		n.wonder(v)
		before := len(w.missed)
		if w.learn(n, v); before > 0 && len(w.missed) == before && w.misses >= patientMisses {
			w.pause(n) // it lags behind
		}
	})
}

// learn forgets the misses that v knows of, and old ones.
func (w *want) learn(n *Node, v *view) {
	maps.DeleteFunc(w.missed, func(p netip.Prefix, at time.Time) bool {
		return v.stored[p].Node != "" || n.now.Sub(at) >= listLag
	})
}

// miss notes that somebody else was first. Where one more try is not all there is
// to come it takes that for a sign that the view is out of date.
func (w *want) miss(n *Node) {
	w.missed[w.block.Prefix] = n.now
	switch w.misses++; {
	case w.nth > 0:
		delete(n.views, w.Pool)
	case w.misses%patientMisses == 0, w.ahead, n.lacksMany(w):
		w.listed, w.anew, w.since = false, true, n.now
	}
	w.lose()
}

func (w *want) lose() {
	w.block = Stored{}
	if w.request.UID != "" {
		w.to(waiting)
		return
	}
	w.to(choosing)
}

// create makes a cell's block. After a try without an answer the block may be
// this node's already.
func (w *want) create(n *Node) {
	n.call(&w.pace, Op{Kind: Create, Block: w.block}, func(r Result) {
		switch {
		case r.Err == nil:
			w.hold(n, r.Block, nil)
		case errors.Is(r.Err, ErrExists) && w.unsure:
			w.claimed(n)
		case errors.Is(r.Err, ErrExists):
			w.miss(n)
		case errors.Is(r.Err, ErrUnknown):
			w.doubtful(n, r.Err)
		case w.unsure && n.settled(w.doubt):
			w.err = r.Err
			w.claimed(n)
		case w.unsure:
			w.err = r.Err
			w.again(n)
		default:
			w.err = fmt.Errorf("claim block %s: %w", w.block.Prefix, r.Err)
			w.lose()
			w.again(n)
		}
	})
}

// doubtful tries again what may have worked, or may yet.
func (w *want) doubtful(n *Node, err error) {
	w.unsure, w.err = true, err
	w.doubt = n.now.Add(Settle)
	w.again(n)
}

// settled says whether no call that may come to count until doubt can any more.
func (n *Node) settled(doubt time.Time) bool { return !n.now.Before(doubt) }

// claimed looks whose the block is that an unanswered call may have made. If there is
// none when all is settled, there will be none.
func (w *want) claimed(n *Node) {
	settled := n.settled(w.doubt)
	n.call(&w.pace, Op{Kind: Look, Block: w.block}, func(r Result) {
		switch {
		case r.Err == nil && r.Block.Node == n.Name && !n.has(r.Block.Prefix):
			// It may be of an earlier life, which has begun to remove it: taken
			// anew, that is void.
			n.auditAt(w.doubt)
			w.block = r.Block
			w.block.Machine = n.Machine
			w.to(taking)
		case r.Err == nil:
			n.auditAt(w.doubt)
			w.miss(n)
		case settled && errors.Is(r.Err, ErrGone):
			w.lose()
			w.again(n)
		default:
			w.again(n)
		}
	})
}

// hold ends the want with a block.
func (w *want) hold(n *Node, st Stored, inside []Stored) {
	w.block = st
	if w.outdated < n.outdated {
		w.renew(n)
		return
	}
	if err := n.take(st, inside); err != nil {
		w.err = err
		if _, err := n.ledger.Pool(w.Pool); err != nil {
			n.addStray(st, false)
			n.auditAt(w.doubt)
			w.finish(n)
			return
		}
		w.phase = reading
		w.again(n)
		return
	}
	n.Log.Info("claimed a block", "pool", st.Pool, "block", st.Prefix)
	n.held[st.Prefix].stays, w.doubt = w.doubt, time.Time{}
	w.failures, w.dry = 0, time.Time{}
	if v := n.views[w.Pool]; v != nil {
		v.claimed(st)
	}
	n.rushed(w)
	w.finish(n)
}

// renew does not hold a block that it has come by at a version from before a
// renewal, or before orders by which it may be lost: it takes it anew.
func (w *want) renew(n *Node) {
	w.outdated = n.outdated
	w.block.Machine = n.Machine
	w.to(taking)
}

// take makes a vacant block this node's, or one of this node's name that an
// earlier life may have made.
func (w *want) take(n *Node) {
	n.call(&w.pace, Op{Kind: Take, Block: w.block}, func(r Result) {
		switch {
		case r.Err == nil:
			w.block = r.Block
			w.to(reading)
		case errors.Is(r.Err, ErrUnknown):
			w.doubtful(n, r.Err)
		case w.unsure && (errors.Is(r.Err, ErrConflict) || errors.Is(r.Err, ErrGone) || n.settled(w.doubt)):
			w.taken(n)
		case w.unsure:
			w.err = r.Err
			w.again(n)
		case errors.Is(r.Err, ErrConflict), errors.Is(r.Err, ErrGone):
			w.miss(n)
		default:
			w.err = r.Err
			w.lose()
			w.again(n)
		}
	})
}

// taken looks whether an unanswered call took the block.
func (w *want) taken(n *Node) {
	n.call(&w.pace, Op{Kind: Look, Block: w.block}, func(r Result) {
		switch {
		case r.Err == nil && r.Block.Node == n.Name && r.Block.UID == w.block.UID && r.Block.Tenure > w.block.Tenure:
			w.block = r.Block
			w.to(reading)
		case r.Err == nil, errors.Is(r.Err, ErrGone):
			w.miss(n)
		default:
			w.again(n)
		}
	})
}

// read learns what of a block others have, before anything of it is leased.
func (w *want) read(n *Node) {
	n.call(&w.pace, Op{Kind: Inside, Block: w.block}, func(r Result) {
		if r.Err != nil {
			w.again(n)
			return
		}
		w.hold(n, w.block, r.Blocks)
	})
}

// ask makes the request.
func (w *want) ask(n *Node) {
	if v := n.views[w.Pool]; v != nil {
		w.holders = v.holders(w.Family)
	}
	w.asks = max(n.short(w.Lack, w, false), 1)
	r := Request{
		Name: RequestName(n.Name, w.Lack), Node: n.Name, Pool: w.Pool, Family: w.Family, Want: w.Want,
		Count: w.asks, Holders: w.holders,
	}
	n.call(&w.pace, Op{Kind: Ask, Request: r}, func(res Result) {
		switch {
		case res.Err == nil:
			w.request, w.asked = res.Request, n.now
			w.to(waiting)
			w.rest(n)
		case errors.Is(res.Err, ErrExists):
			w.find(n, r)
		default:
			w.err = fmt.Errorf("%w, and %w: %w", pools.ErrExhausted, ErrUnasked, res.Err)
			w.again(n)
		}
	})
}

// find reads the request, which exists already or may have changed. What was drawn of
// one that is gone is given up with it.
func (w *want) find(n *Node, r Request) {
	n.call(&w.pace, Op{Kind: LookRequest, Request: r}, func(res Result) {
		gone := errors.Is(res.Err, ErrGone) || res.Err == nil && res.Request.UID != w.request.UID
		switch {
		case gone && len(w.draws) > 0:
			w.ended, w.behind = bySomebody, false
			w.close(n)
		case res.Err == nil && res.Request.Node == n.Name && len(res.Request.Grants) > 0 && w.request.UID != res.Request.UID:
			w.refuse(n, res.Request)
		case res.Err == nil && res.Request.Node == n.Name:
			w.request, w.behind = res.Request, false
			w.to(waiting)
			if len(res.Request.Grants) == 0 {
				w.rest(n)
			}
		case errors.Is(res.Err, ErrGone):
			w.request = Request{}
			w.to(choosing)
		default:
			w.again(n)
		}
	})
}

// refuse grants that this want did not wait for. An earlier life may have drawn
// them, lent of them in turn, and returned them: there is no telling what is inside.
// The want asks anew when they are gone.
func (w *want) refuse(n *Node, r Request) {
	w.request = Request{}
	n.disown(r)
	w.to(asking)
	w.due = n.now.Add(lookForLoan)
	if o := n.orphans[r.Name]; o.due.After(w.due) {
		w.due = o.due
	}
}

// wait for grants, or for a block to come free.
func (w *want) wait(n *Node) {
	seen, there := n.seen[w.request.Name]
	if there && seen.UID == w.request.UID && len(seen.Grants) > len(w.request.Grants) {
		w.request, w.behind = seen, false
	}
	pool, err := n.ledger.Pool(w.Pool)
	if err != nil || w.idle(n) || w.satisfied(n) || w.barred(n) != nil {
		w.close(n)
		return
	}
	w.drawNews(n)
	switch {
	case w.behind:
		w.find(n, w.request)
	case len(w.draws) == 0:
		w.from(n, pool)
	case w.request.Open() && n.now.Before(w.gathering):
		w.due = w.gathering
	default:
		w.close(n)
	}
}

// orphan is a request in this node's name that nobody waits for: of an earlier
// life, or one that was made late. It goes when no call of that life can come
// to count any more, and with it the lent block, if that was made.
type orphan struct {
	pace
	request Request
	looked  bool
}

func (n *Node) disown(r Request) {
	if o := n.orphans[r.Name]; o != nil && (o.busy > 0 || o.request.UID == r.UID) {
		return
	}
	due := n.now.Add(lookForLoan) // perhaps it is only seen late that it is gone
	if settled := n.born.Add(Settle); settled.After(due) {
		due = settled
	}
	n.orphans[r.Name] = &orphan{request: r, pace: pace{due: due}}
}

// disownUnwanted finds requests of this node that were made late.
func (n *Node) disownUnwanted() {
	for name, r := range n.seen {
		if r.Node == n.Name && n.wantOf(r) == nil {
			n.disown(n.seen[name])
		}
	}
}

func (o *orphan) step(n *Node) {
	if w := n.wantOf(o.request); w != nil && w.request.UID == o.request.UID {
		n.forget(o)
		return
	}
	if !o.looked {
		o.read(n)
		return
	}
	n.call(&o.pace, Op{Kind: Retract, Request: o.request.whatever()}, func(r Result) {
		if r.Err != nil && !errors.Is(r.Err, ErrGone) {
			n.again(&o.pace)
			return
		}
		n.forget(o)
	})
}

func (n *Node) forget(o *orphan) {
	if n.orphans[o.request.Name] == o {
		delete(n.orphans, o.request.Name)
	}
}

// read sees whether the request was granted since.
func (o *orphan) read(n *Node) {
	n.call(&o.pace, Op{Kind: LookRequest, Request: o.request}, func(r Result) {
		switch {
		case r.Err == nil && r.Request.UID == o.request.UID && len(r.Request.Grants) > 0:
			o.request = r.Request
			o.look(n)
		case r.Err == nil && r.Request.UID == o.request.UID:
			o.looked = true
		case r.Err == nil, errors.Is(r.Err, ErrGone):
			n.forget(o)
		default:
			n.again(&o.pace)
		}
	})
}

// look sees which of the lent blocks were made before their node could remember
// them.
func (o *orphan) look(n *Node) {
	failed := false
	for _, g := range o.request.Grants {
		n.call(&o.pace, Op{Kind: Look, Block: Stored{Block: pools.Block{Prefix: g.Prefix, Pool: o.request.Pool}}}, func(r Result) {
			switch {
			case r.Err == nil && r.Block.Node == n.Name && r.Block.Lender != "" && !n.has(g.Prefix) && !n.drawing(g.Prefix):
				n.addStray(r.Block, true)
			case r.Err != nil && !errors.Is(r.Err, ErrGone):
				failed = true
			}
			switch {
			case o.busy > 0:
			case failed:
				n.again(&o.pace)
			default:
				o.looked = true
			}
		})
	}
}

func lackOf(r Request) Lack { return Lack{r.Pool, r.Family, r.Want} }

// RequestName is the name of the one request of a node for what lack says.
func RequestName(node string, lack Lack) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s|%s|%v|%s", node, lack.Pool, lack.Family, lack.Want)
	return fmt.Sprintf("%s-%016x", lack.Pool, h.Sum64())
}
