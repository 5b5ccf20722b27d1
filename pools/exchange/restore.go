package exchange

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
)

// Restore brings a node without blocks back to what its journal says: the
// blocks held, and what of them others have. Leases are restored after it. It
// returns in unfit the blocks that no pool has any more, and joins what else
// could not be held.
func (n *Node) Restore(history []pools.Record) (unfit []Stored, err error) {
	var errs []error
	for _, rec := range history {
		switch rec.Op {
		case pools.Claimed:
			if err := n.ledger.Hold(*rec.Block); isUnfit(err) {
				unfit = append(unfit, Stored{Block: *rec.Block})
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

func (n *Node) restoreLoan(rec pools.Record) error {
	if err := n.ledger.SetAside(rec.Pool, rec.Block.Prefix, rec.Block.Node); err != nil {
		if isUnfit(err) {
			return nil // like the block that it is in
		}
		return err
	}
	l := &loan{Prefix: rec.Block.Prefix, Pool: rec.Pool, phase: out}
	if l.request.Name, l.request.UID = refOf(rec.Ref); l.request.UID != "" {
		l.phase = doubtful
	}
	n.loans[l.Prefix] = l
	return nil
}

// isUnfit says whether err is about a block that no pool has.
func isUnfit(err error) bool {
	return errors.Is(err, pools.ErrUnknownPool) || errors.Is(err, pools.ErrOutside)
}

// Found brings a node without a journal of this boot to what the store says:
// requests as they were before own and inside were read. Blocks of an earlier
// machine of this node's name are included, and get this one's. Lent ones are
// returned, for nothing is leased in them any more. It returns what Restore
// does.
func (n *Node) Found(requests []Request, own, inside []Stored, now time.Time) (unfit []Stored, err error) {
	n.now = now
	n.Disown(requests)
	var granted []Request
	lends := map[netip.Prefix]bool{}
	for _, r := range requests {
		if r.Grant.Lender == n.Name {
			granted = append(granted, r)
			lends[r.Grant.Outer] = true
		}
	}
	var errs []error
	parts := append(slices.Clone(inside), slices.DeleteFunc(slices.Clone(own), func(st Stored) bool { return st.Lender == "" })...)
	for _, st := range own {
		if st.Lender != "" && !lends[st.Prefix] {
			n.strays[st.Prefix] = &stray{Stored: st}
			continue
		}
		if err := n.take(st, within(parts, st.Prefix)); isUnfit(err) {
			unfit = append(unfit, st)
		} else if err != nil {
			errs = append(errs, err)
		}
	}
	for _, r := range granted {
		errs = append(errs, n.foundLoan(r))
	}
	return unfit, errors.Join(errs...)
}

// foundLoan sets aside what an earlier life of this node has granted.
func (n *Node) foundLoan(r Request) error {
	p := r.Grant.Prefix
	if n.loans[p] != nil || n.held[n.ledger.BlockOf(r.Pool, p.Addr())] == nil {
		return nil
	}
	rec := pools.Record{Op: pools.Lent, Pool: r.Pool, At: n.now, Block: &pools.Block{Prefix: p, Pool: r.Pool, Node: r.Node}, Ref: r.Name + " " + r.UID}
	if err := n.Keep(rec); err != nil {
		return err
	}
	if err := n.ledger.SetAside(r.Pool, p, r.Node); err != nil {
		return err
	}
	n.loans[p] = &loan{Prefix: p, Pool: r.Pool, phase: doubtful, request: r}
	return nil
}

// Disown removes the requests in this node's name, which are of an earlier life.
func (n *Node) Disown(requests []Request) {
	for _, r := range requests {
		if r.Node == n.Name {
			n.orphans[r.Name] = &orphan{request: r}
		}
	}
}

// within are those of blocks that lie in p, p itself left out.
func within(blocks []Stored, p netip.Prefix) (out []Stored) {
	for _, b := range blocks {
		if b.Prefix.Bits() > p.Bits() && p.Contains(b.Prefix.Addr()) {
			out = append(out, b)
		}
	}
	return out
}

// History is what Restore makes the node's blocks of.
func (n *Node) History() []pools.Record {
	var recs []pools.Record
	for _, h := range n.holdings() {
		if !h.final {
			b := h.Block
			recs = append(recs, pools.Record{Op: pools.Claimed, Pool: h.Pool, At: h.since, Block: &b})
		}
	}
	for _, b := range n.ledger.Asides() {
		rec := pools.Record{Op: pools.Lent, Pool: b.Pool, Block: &b}
		if l := n.loans[b.Prefix]; l != nil && l.phase != out {
			rec.Ref = l.request.Name + " " + l.request.UID
		}
		recs = append(recs, rec)
	}
	return recs
}
