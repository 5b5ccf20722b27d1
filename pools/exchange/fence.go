package exchange

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// Fence is what tells a node that it counts as gone. It stands in an object that is
// the node's own, of which the agent writes nothing but what it has heeded.
type Fence struct {
	Node    string
	Machine string // of the node that is gone
	Version string // of the object
	// Generation is another one after each change of the fence. Heeded is the last one
	// that the agent has said it has acted on.
	Generation, Heeded int64
	Stands             bool
	Lifting            bool // it comes off once the agent has acted on that
}

// Warden is what a Custodian keeps fences with.
type Warden interface {
	// Fences returns those that stand.
	Fences(ctx context.Context) ([]Fence, error)
	// Fence reads a node's, or is ErrGone if there is no place for one.
	Fence(ctx context.Context, node string) (Fence, error)
	// SetFence fences f.Node for f.Machine, whatever its fence was like before: it is
	// not to be lifted. It makes a place for it if there is none. ErrConflict says
	// that the node is there.
	SetFence(ctx context.Context, f Fence) error
	// LiftFence says that f, at its Version, is to be lifted.
	LiftFence(ctx context.Context, f Fence) error
	// RemoveFence takes f off, at its Version.
	RemoveFence(ctx context.Context, f Fence) error
}

// A block is made vacant at a version that was seen before a fence of its node was
// set. It comes off in two steps: it is said that it is to be lifted, and then the
// node has to take its blocks anew. So what was begun before is void after that,
// however late it comes to count, and whoever has begun it.

const (
	// fencesAgain is when fences are looked for that this reaper has not set: those
	// of an earlier one, whose last write may have been late.
	fencesAgain = 5 * time.Minute
	// heedTime is about how long an agent takes to act on its orders.
	heedTime = 3 * time.Second
)

// fencing is a node's fence, as far as known.
type fencing struct {
	busy   bool // a call about it is under way
	due    time.Time
	covers int  // a block that was seen as it is by this look may be made vacant
	stands bool // perhaps
	back   bool // the node is there again by all appearances
	asked  bool // since it was set all fences are being listed
}

// SeeBack tells the reaper which nodes are there and in service, as a watch shows
// them: their fences are lifted. Without it none is.
func (r *Reaper) SeeBack(back func(node string) bool) {
	r.lifts = true
	for node, f := range r.fences {
		f.back = back(node)
	}
}

// fenced says whether b may be made vacant. If not it sees to that.
func (r *Reaper) fenced(b *reaping) bool {
	f := r.fencing(b.stored.Node)
	if b.look <= f.covers {
		return true
	}
	if f.busy {
		b.due = r.now.Add(retryReaping)
		return false
	}
	node, covers := b.stored.Node, r.looks
	f.busy = true
	r.callFor(b, Op{Kind: SetFence, Fence: Fence{Node: node, Machine: b.stored.Machine}}, func(res Result) {
		f.busy, f.asked = false, false
		f.stands, r.stale = true, true // whatever the answer; is the node back by now?
		if res.Err == nil {
			f.covers = covers
		} else {
			b.sure = false
			r.again(b, res.Err)
		}
		for _, other := range r.blocks {
			if other != b && !other.busy && other.stored.Node == node {
				other.due = time.Time{} // it has waited
				other.sure = other.sure && res.Err == nil
			}
		}
	})
	return false
}

func (r *Reaper) fencing(node string) *fencing {
	f := r.fences[node]
	if f == nil {
		f = &fencing{}
		r.fences[node] = f
	}
	return f
}

// unfence goes on with the fences of nodes that are back.
func (r *Reaper) unfence() {
	if !r.lifts {
		return
	}
	if !r.listing && !r.now.Before(r.list) {
		for _, f := range r.fences {
			f.asked = true
		}
		r.call(&r.listing, Op{Kind: Fences}, r.listed)
	}
	for _, node := range slices.Sorted(maps.Keys(r.fences)) {
		if f := r.fences[node]; f.stands && f.back && !f.busy && !r.now.Before(f.due) {
			r.call(&f.busy, Op{Kind: LookFence, Fence: Fence{Node: node}}, func(res Result) { r.lift(node, f, res) })
		}
	}
}

// nextFence is when unfence has something to do.
func (r *Reaper) nextFence() (next time.Time) {
	if !r.lifts {
		return next
	}
	if !r.listing {
		next = r.list
	}
	for _, f := range r.fences {
		if f.stands && f.back && !f.busy {
			next = earlier(next, f.due)
		}
	}
	return next
}

// listed takes in the fences that stand. Whether their nodes are back is to be seen.
func (r *Reaper) listed(res Result) {
	if res.Err != nil {
		r.list = r.now.Add(retryReaping)
		return
	}
	r.list = r.now.Add(fencesAgain)
	for _, fence := range res.Fences {
		f := r.fencing(fence.Node)
		f.stands, f.asked = true, false
		r.stale = true
	}
	maps.DeleteFunc(r.fences, func(_ string, f *fencing) bool { return f.asked && !f.busy })
}

// lift goes on with a fence that was read: first it is said that it is to be lifted,
// and once the agent has acted on that it comes off.
func (r *Reaper) lift(node string, f *fencing, read Result) {
	f.due = r.now.Add(heedTime)
	fence := read.Fence
	switch {
	case errors.Is(read.Err, ErrGone), read.Err == nil && !fence.Stands:
		delete(r.fences, node)
	case read.Err != nil, !f.back:
	case !fence.Lifting:
		r.call(&f.busy, Op{Kind: LiftFence, Fence: fence}, func(Result) { f.due = r.now.Add(heedTime) })
	case fence.Heeded < fence.Generation:
	default:
		r.call(&f.busy, Op{Kind: RemoveFence, Fence: fence}, func(res Result) {
			f.due = r.now.Add(retryReaping)
			if res.Err == nil {
				delete(r.fences, node)
			}
		})
	}
}

func guard(ctx context.Context, w Warden, o *Op) (r Result) {
	switch o.Kind {
	case Fences:
		r.Fences, r.Err = w.Fences(ctx)
	case LookFence:
		r.Fence, r.Err = w.Fence(ctx, o.Fence.Node)
	case SetFence:
		r.Err = w.SetFence(ctx, o.Fence)
	case LiftFence:
		r.Err = w.LiftFence(ctx, o.Fence)
	case RemoveFence:
		r.Err = w.RemoveFence(ctx, o.Fence)
	}
	return r
}
