package controller

import (
	"cmp"
	"context"
	"errors"
	"math/bits"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The API server sends each write of a status to every node's agent. Verdicts
// that people wait for are written at once; all other writes share two budgets,
// so that neither of them can be spent by the other kind.
const (
	numbersShare = 0.03 // of one core of the API server
	numbersSaved = time.Minute
	statesShare  = 0.02
	statesSaved  = 10 * time.Minute
)

// turn is when a pool's status may be written again.
type turn struct {
	numbers time.Time // for new numbers
	state   time.Time // for a new state, such as Exhausted
	stale   time.Time // since when the status is not what it should be; zero if it is
}

// draft is a status that is to be written.
type draft struct {
	pool   *v1alpha1.AddressPool
	turn   *turn
	state  bool // more than numbers
	weight time.Duration
}

// report writes what has changed, of the pools whose turn it is, as long as
// the budgets last: the longer a pool has waited, and the more has changed, the
// sooner. To wait is what makes a pool urgent, so none starves.
func (r *registrar) report(ctx context.Context, objects []*v1alpha1.AddressPool, verdicts map[string]verdict, addresses func() []netip.Addr) error {
	now := r.now()
	cost := reportCost(r.sight.agents())
	r.opens = time.Time{}
	var errs []error
	for _, d := range r.drafts(now, objects, verdicts, addresses) {
		b := &r.numbers
		if d.state {
			b = &r.states
		}
		if !b.open(now) {
			if at := b.opens(); r.opens.IsZero() || at.Before(r.opens) {
				r.opens = at
			}
			continue
		}
		b.spend(cost)
		// Whether it succeeds or not: others have their turn first.
		d.turn.stale = now
		err := r.write(ctx, d.pool)
		if err == nil {
			d.turn.stale = time.Time{}
			if d.state {
				d.turn.state = now.Add(r.every)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// drafts are the statuses that have changed and may be written, the most urgent
// first.
func (r *registrar) drafts(now time.Time, objects []*v1alpha1.AddressPool, verdicts map[string]verdict, addresses func() []netip.Addr) (drafts []draft) {
	waits := r.sight.waiting(now)
	for _, o := range objects {
		t := r.turnOf(o.UID)
		if now.Before(t.numbers) && now.Before(t.state) {
			continue
		}
		v := verdicts[string(o.UID)]
		if w := r.written[o.UID]; w.pool != nil {
			o = w.pool
		}
		if !ruled(o, v) {
			continue // rule could not, and tries again
		}
		f := r.find(v, addresses)
		f.waits, f.waiting = waits[o.Name].time, waits[o.Name].node
		out := o.DeepCopy()
		if out.Status = report(o, f, now); reflect.DeepEqual(out.Status, o.Status) {
			t.stale = time.Time{}
			continue
		}
		if t.stale.IsZero() {
			t.stale = now
		}
		d := draft{pool: out, turn: t, state: !sameState(o.Status, out.Status)}
		if d.state && now.Before(t.state) || !d.state && now.Before(t.numbers) {
			continue
		}
		d.weight = (now.Sub(t.stale) + time.Second) * time.Duration(1+bits.Len64(difference(o.Status, out.Status)))
		drafts = append(drafts, d)
	}
	slices.SortStableFunc(drafts, func(a, b draft) int { return cmp.Compare(b.weight, a.weight) })
	return drafts
}

// sameState says whether two statuses differ in numbers only.
func sameState(a, b v1alpha1.AddressPoolStatus) bool {
	return reflect.DeepEqual(withoutNumbers(a), withoutNumbers(b))
}

// withoutNumbers leaves out what is or holds a number that changes as pods come
// and go.
func withoutNumbers(s v1alpha1.AddressPoolStatus) v1alpha1.AddressPoolStatus {
	s.Total, s.Used, s.Free, s.Families = 0, 0, 0, nil
	s.Blocks, s.Nodes, s.Routes, s.Drain = 0, 0, 0, nil
	s.Conditions = slices.Clone(s.Conditions)
	for i := range s.Conditions {
		s.Conditions[i].Message, s.Conditions[i].LastTransitionTime = "", metav1.Time{}
	}
	return s
}

// difference is by how much the numbers of two statuses differ.
func difference(a, b v1alpha1.AddressPoolStatus) uint64 {
	return apart(a.Used, b.Used) + apart(a.Total, b.Total) + apart(a.Blocks, b.Blocks) + apart(a.Routes, b.Routes)
}

func apart[N int32 | int64](a, b N) uint64 { return uint64(max(a, b) - min(a, b)) }

// turnOf is the turn of a pool.
func (r *registrar) turnOf(id types.UID) *turn {
	t := r.turns[id]
	if t == nil {
		t = new(turn)
		r.turns[id] = t
	}
	return t
}
