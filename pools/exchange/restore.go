package exchange

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// Restore brings a node without blocks back to what its journal says: the
// blocks held, and what of them others have. Leases are restored after it. It
// returns in unfit the blocks that no pool has any more, for the caller to Adopt
// or Discard, and joins what else could not be held.
func (n *Node) Restore(history []pools.Record) (unfit []Stored, err error) {
	var errs []error
	for _, rec := range inward(history) {
		switch rec.Op {
		case pools.Claimed:
			if err := n.ledger.Hold(*rec.Block); isUnfit(err) {
				unfit = append(unfit, Stored{Block: *rec.Block})
				n.unfit[rec.Block.Prefix] = true
			} else if err != nil {
				errs = append(errs, err)
			} else {
				n.held[rec.Block.Prefix] = &holding{Stored: Stored{Block: *rec.Block}, since: rec.At}
			}
		case pools.Lent:
			errs = append(errs, n.restoreLoan(rec))
		}
	}
	return unfit, errors.Join(errs...)
}

// inward are the records of blocks, outer ones before what is in them: a part of
// a block may be lent, and a part of that borrowed back.
func inward(history []pools.Record) []pools.Record {
	out := slices.DeleteFunc(slices.Clone(history), func(rec pools.Record) bool { return rec.Block == nil })
	slices.SortStableFunc(out, func(a, b pools.Record) int { return cmp.Compare(a.Block.Prefix.Bits(), b.Block.Prefix.Bits()) })
	return out
}

func (n *Node) restoreLoan(rec pools.Record) error {
	if err := n.ledger.SetAside(rec.Pool, rec.Block.Prefix, rec.Block.Node); err != nil {
		if isUnfit(err) {
			n.asleep[rec.Block.Prefix] = rec // like the block that it is in
			return nil
		}
		return err
	}
	l := &loan{Prefix: rec.Block.Prefix, Pool: rec.Pool}
	n.loans[l.Prefix] = l
	if name, uid := refOf(rec.Ref); uid != "" {
		n.join(n.answerOf(Request{Name: name, UID: uid, Node: rec.Block.Node, Pool: rec.Pool, Family: pools.FamilyOf(l.Prefix.Addr())}), l)
	}
	return nil
}

// answerOf is this node's answer to r of an earlier life, of which nobody knows
// whether it counts.
func (n *Node) answerOf(r Request) *answer {
	for _, a := range n.answers {
		if a.request.UID == r.UID {
			return a
		}
	}
	a := &answer{phase: doubtful, tried: true, request: r}
	n.answers = append(n.answers, a)
	return a
}

// isUnfit says whether err is about a block that no pool has.
func isUnfit(err error) bool {
	return errors.Is(err, pools.ErrUnknownPool) || errors.Is(err, pools.ErrOutside)
}

// Found brings a node without a journal of this boot to what the store says.
// Blocks of an earlier machine of this node's name are included, and get this
// one's. Lent ones are returned, for nothing is leased in them any more. Where
// the store is shared the others are held as soon as they are taken anew: what
// an earlier life has promised of them is void then, and whoever takes the node
// for gone is too late. It returns what Restore does.
func (n *Node) Found(requests []Request, own []Stored, now time.Time) (unfit []Stored, err error) {
	n.at(now)
	n.duty.read = now
	n.Disown(requests)
	if len(n.held) == 0 {
		n.held = make(map[netip.Prefix]*holding, len(own))
	}
	var errs []error
	for _, st := range own {
		if n.Shared {
			n.addStray(st, true)
		} else if err := n.take(st, nil); isUnfit(err) {
			unfit = append(unfit, st)
		} else if err != nil {
			errs = append(errs, err)
		}
	}
	return unfit, errors.Join(errs...)
}

// Disown removes the requests in this node's name, which are of an earlier life.
func (n *Node) Disown(requests []Request) {
	for _, r := range requests {
		if r.Node == n.Name {
			n.disown(r)
		}
	}
}

// History is what Restore makes the node's blocks of.
func (n *Node) History() []pools.Record {
	var recs []pools.Record
	for _, h := range n.holdings() {
		b := h.Block
		if !h.final {
			recs = append(recs, pools.Record{Op: pools.Claimed, Pool: h.Pool, At: h.since, Block: &b})
		} else if h.aside || n.inner(h) {
			recs = append(recs, h.lent(n))
		}
	}
	for _, b := range n.ledger.Asides() {
		rec := pools.Record{Op: pools.Lent, Pool: b.Pool, Block: &b}
		if l := n.loans[b.Prefix]; l != nil && l.answer != nil {
			rec.Ref = l.answer.request.Name + " " + l.answer.request.UID
		}
		recs = append(recs, rec)
	}
	for block := range n.unfit {
		for _, p := range n.asleepIn(block) {
			recs = append(recs, n.asleep[p])
		}
	}
	return recs
}
