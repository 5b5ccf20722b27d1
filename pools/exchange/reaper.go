package exchange

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
)

// Reaper frees what nodes that are gone have left. Like Node it is a state
// machine, and one runs at a time; a second one does no harm.
//
// A block becomes vacant first, so that its node, should it live after all,
// can promise nothing of it any more. Only then is it looked inside: if no
// block stands in it, it is removed, at the very version that was looked into.
// Before that the node is fenced, so that it finds out.
//
// A node that is absent is not gone at once: a Node object can be made anew under
// an agent that runs. It has to be found absent twice, so long apart as is said,
// and not to be seen in between. Each object of one name is absent for itself: a
// block that a later one made says that this one was there meanwhile, seen or not.
// What is known of that begins anew with each Reaper.
type Reaper struct {
	absence  time.Duration
	absences map[identity]absence
	blocks   map[netip.Prefix]*reaping
	requests map[string]*reapedRequest
	fences   map[string]*fencing // by node
	lifts    bool                // those of nodes that are back
	listing  bool                // all fences
	list     time.Time           // when to do so next
	looks    int                 // so often it was shown all blocks
	stale    bool                // something was changed by others since it was seen, or before
	now      time.Time
	out      []*Op
}

// reaping is the end of one block.
type reaping struct {
	busy    bool
	due     time.Time
	stored  Stored
	sure    bool   // its node is gone, as read from the source
	inside  bool   // something stood inside when last seen
	current bool   // still there when last seen
	look    int    // the first one at which it was seen so
	seen    string // the version, if it was seen otherwise while something was done
}

type reapedRequest struct {
	busy    bool
	due     time.Time
	request Request
	current bool
}

// identity is a node of a machine; of any, if machine is "".
type identity struct{ node, machine string }

func identityOf(b Stored) identity { return identity{b.Node, b.Machine} }

// absence is since when a node has been found absent, and when last.
type absence struct{ since, last time.Time }

// AbsenceTime is how long a node is absent, usually, before it is gone: longer
// than it takes to delete a Node object and make it again.
const AbsenceTime = 30 * time.Second

// NewReaper is a reaper that has seen nothing, for which a node is gone after so
// long an absence.
func NewReaper(absenceTime time.Duration) *Reaper {
	return &Reaper{absence: absenceTime, absences: map[identity]absence{}, blocks: map[netip.Prefix]*reaping{}, requests: map[string]*reapedRequest{}, fences: map[string]*fencing{}}
}

// See tells the reaper all blocks and requests, as a watch shows them, and
// which nodes seem to be gone: the nodes must have been read after the blocks.
// A node of which another machine has the name is gone once that one had time
// to take its blocks over, which the caller judges. An empty machine stands
// for any.
func (r *Reaper) See(blocks []Stored, requests []Request, gone func(node, machine string) bool) {
	r.stale = false
	r.looks++
	for _, b := range r.blocks {
		b.current = false
	}
	for _, q := range r.requests {
		q.current = false
	}
	suspects := map[identity]bool{}
	// By address, what lies in a block right behind it.
	sorted := slices.SortedFunc(slices.Values(blocks), func(a, b Stored) int { return a.Prefix.Compare(b.Prefix) })
	for i, st := range sorted {
		if st.Node != "" && !gone(st.Node, st.Machine) {
			continue
		}
		suspects[identityOf(st)] = true
		b := r.blocks[st.Prefix]
		if b == nil || b.stored.UID != st.UID || !b.busy && b.stored.Version != st.Version {
			b = &reaping{look: r.looks}
			r.blocks[st.Prefix] = b
		}
		b.current = true
		b.inside = i+1 < len(sorted) && sorted[i+1].Prefix.Overlaps(st.Prefix)
		if !b.busy {
			b.stored = st
		} else if b.stored.Version != st.Version {
			b.seen = st.Version
		}
	}
	for _, q := range requests {
		if !gone(q.Node, "") {
			continue
		}
		suspects[identity{node: q.Node}] = true
		if have := r.requests[q.Name]; have == nil || have.request.UID != q.UID {
			r.requests[q.Name] = &reapedRequest{request: q}
		}
		r.requests[q.Name].current = true
	}
	maps.DeleteFunc(r.blocks, func(_ netip.Prefix, b *reaping) bool { return !b.current && !b.busy })
	maps.DeleteFunc(r.requests, func(_ string, q *reapedRequest) bool { return !q.current && !q.busy })
	maps.DeleteFunc(r.absences, func(id identity, _ absence) bool { return !suspects[id] })
}

// retryReaping is when a step that failed is made again.
const retryReaping = time.Second

// Advance is like Node's.
func (r *Reaper) Advance(now time.Time) (ops []*Op, next time.Time) {
	r.now = now
	for _, p := range slices.SortedFunc(maps.Keys(r.blocks), netipx.ComparePrefix) {
		if b := r.blocks[p]; !b.busy && b.current && !now.Before(b.due) {
			r.step(b)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.requests)) {
		q := r.requests[name]
		if q.due.IsZero() {
			q.due = now.Add(Settle) // until nothing that its node began can make the lent block
		}
		if !q.busy && q.current && !now.Before(q.due) {
			r.retract(q)
		}
	}
	r.unfence()
	next = r.nextFence()
	for _, b := range r.blocks {
		if !b.busy && b.current && !(b.stored.Vacant() && b.stored.Lender == "" && b.inside) && (next.IsZero() || b.due.Before(next)) {
			next = b.due
		}
	}
	for _, q := range r.requests {
		if !q.busy && q.current && (next.IsZero() || q.due.Before(next)) {
			next = q.due
		}
	}
	ops, r.out = r.out, nil
	return ops, next
}

// Done is like Node's.
func (r *Reaper) Done(o *Op, res Result, now time.Time) {
	r.now = now
	o.done(res)
}

func (r *Reaper) call(busy *bool, o Op, done func(Result)) {
	*busy = true
	o.done = func(res Result) {
		*busy = false
		done(res)
	}
	r.out = append(r.out, &o)
}

// callFor is call for a block, which waits to be seen anew if it was changed
// meanwhile.
func (r *Reaper) callFor(b *reaping, o Op, done func(Result)) {
	r.call(&b.busy, o, func(res Result) {
		done(res)
		if b.busy || b.seen == "" {
			return
		}
		if b.seen != b.stored.Version {
			r.forget(b)
		}
		b.seen = ""
	})
}

// forget has a block left alone until it is seen anew.
func (r *Reaper) forget(b *reaping) { b.current, r.stale = false, true }

// Stale says whether something waits to be seen as it is now, though it may have
// been shown since it was changed.
func (r *Reaper) Stale() bool { return r.stale }

func (r *Reaper) step(b *reaping) {
	switch {
	case b.stored.Vacant() && b.stored.Lender != "":
		r.remove(b, b.stored) // its lender finds what stands in it
	case b.stored.Vacant() && b.inside:
		// It waits: for those inside, or for somebody who takes it.
	case b.stored.Vacant():
		r.discard(b)
	case !b.sure && r.now.Before(r.proof(identityOf(b.stored))):
		b.due = r.proof(identityOf(b.stored))
	case !b.sure:
		begun := r.now
		r.callFor(b, Op{Kind: LookNode, Block: b.stored}, func(res Result) {
			b.sure, b.due = r.judge(identityOf(b.stored), res, begun)
		})
	case r.fenced(b):
		r.callFor(b, Op{Kind: Vacate, Block: b.stored}, func(res Result) {
			b.sure = false
			if res.Err != nil {
				r.again(b, res.Err)
				return
			}
			b.stored = res.Block
		})
	}
}

// proof is when a node that was found absent can be found gone; zero if it was not.
func (r *Reaper) proof(id identity) time.Time {
	if a, ok := r.absences[id]; ok {
		return a.since.Add(r.absence)
	}
	return time.Time{}
}

// judge says whether a node is gone by what was read, since begun, of it; if not,
// when to read again.
func (r *Reaper) judge(id identity, read Result, begun time.Time) (gone bool, again time.Time) {
	switch {
	case read.Err != nil: // it says nothing
	case read.Presence == Departed:
		return true, time.Time{}
	case read.Presence != Absent:
		delete(r.absences, id)
	default:
		a, known := r.absences[id]
		// After a long time without a look it may have been there in between.
		if !known || begun.Sub(a.last) > 2*r.absence {
			a.since = r.now
		}
		a.last = r.now
		r.absences[id] = a
		return !begun.Before(r.proof(id)), r.proof(id)
	}
	return false, r.now.Add(retryReaping)
}

// discard removes a vacant block that nothing stands in.
func (r *Reaper) discard(b *reaping) {
	vacant := b.stored
	r.callFor(b, Op{Kind: Inside, Block: vacant}, func(res Result) {
		if res.Err != nil || len(res.Blocks) > 0 {
			b.inside = len(res.Blocks) > 0
			b.due = r.now.Add(retryReaping)
			return
		}
		r.remove(b, vacant)
	})
}

func (r *Reaper) remove(b *reaping, vacant Stored) {
	r.callFor(b, Op{Kind: Discard, Block: vacant}, func(res Result) {
		if res.Err != nil {
			r.again(b, res.Err)
			return
		}
		b.current = false
	})
}

// again waits a while, or until the block is seen as it is now.
func (r *Reaper) again(b *reaping, err error) {
	b.due = r.now.Add(retryReaping)
	if errors.Is(err, ErrConflict) || errors.Is(err, ErrGone) {
		r.forget(b)
	}
}

func (r *Reaper) retract(q *reapedRequest) {
	asker := identity{node: q.request.Node}
	if proof := r.proof(asker); r.now.Before(proof) {
		q.due = proof
		return
	}
	begun := r.now
	r.call(&q.busy, Op{Kind: LookNode, Block: Stored{Block: pools.Block{Node: q.request.Node}}}, func(res Result) {
		gone, again := r.judge(asker, res, begun)
		if !gone {
			q.due = again
			return
		}
		r.call(&q.busy, Op{Kind: Retract, Request: q.request.whatever()}, func(res Result) {
			if res.Err != nil {
				q.due = r.now.Add(retryReaping)
				return
			}
			q.current = false
		})
	})
}
