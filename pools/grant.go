package pools

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// ProposeLease works out which addresses r gets at now: one of each family of
// its pool. fresh is false when the owner holds them already. Nothing is leased
// until the record is applied.
//
// The error wraps ErrUnknownPool, ErrNotOwner (the attachment is another
// pod's), ErrMismatch (it holds something else than r asks for, or r asks for
// the gateway or for two addresses of one family), ErrTaken, ErrOutside (of a
// chosen address), or is a *NoFreeError that says which block is needed; Lacks
// has the others. Nobody is sent for a block that would not help.
func (l *Ledger) ProposeLease(r Request, now time.Time) (rec Record, fresh bool, err error) {
	if g := l.grants[r.Owner.Attachment]; g != nil {
		return g.clone(), false, standing(g, r)
	}
	s, err := l.share(r.Pool)
	if err != nil {
		return Record{}, false, err
	}
	addrs, lacks, err := s.offer(r.Want, now)
	switch {
	case err != nil:
		return Record{}, false, err
	case len(lacks) > 0:
		return Record{}, false, &lacks[0]
	}
	return Record{Op: Leased, Pool: r.Pool, Owner: r.Owner, Addrs: addrs, At: now, Netns: r.Netns}, true, nil
}

// Lacks says which blocks r needs at now: an entry for each family of its pool
// in which no block held has an address for it, so that all of them can be
// claimed at once. It is empty if, and only if, ProposeLease does not return a
// *NoFreeError.
func (l *Ledger) Lacks(r Request, now time.Time) []NoFreeError {
	s, err := l.share(r.Pool)
	if err != nil || l.grants[r.Owner.Attachment] != nil {
		return nil
	}
	_, lacks, err := s.offer(r.Want, now)
	if err != nil {
		return nil
	}
	return lacks
}

// offer is what a request for want would get: an address of each family, or
// what there is not in lacks. The error is of what no other block would help.
func (s *share) offer(want []netip.Addr, now time.Time) (addrs []netip.Addr, lacks []NoFreeError, err error) {
	chosen, err := s.wanted(want)
	if err != nil {
		return nil, nil, fmt.Errorf("pool %q: %w", s.pool.Name(), err)
	}
	for _, f := range s.pool.families {
		a, err := s.lot(f).offer(chosen[f], now)
		var lack *NoFreeError
		switch {
		case errors.As(err, &lack):
			lacks = append(lacks, *lack)
		case err != nil:
			return nil, nil, err
		}
		addrs = append(addrs, a)
	}
	return addrs, lacks, nil
}

// standing checks a repeated request against what its attachment holds.
func standing(g *Record, r Request) error {
	if !r.Owner.Owns(g.Owner) {
		return fmt.Errorf("%s: %w: %s", r.Owner, ErrNotOwner, g.Owner)
	}
	if g.Pool != r.Pool {
		return fmt.Errorf("%s: %w: it holds %v of pool %q, release them before asking for pool %q", r.Owner, ErrMismatch, g.Addrs, g.Pool, r.Pool)
	}
	for _, a := range r.Want {
		if !slices.Contains(g.Addrs, a) {
			return fmt.Errorf("%s: %w: it holds %v, release them before asking for %s", r.Owner, ErrMismatch, g.Addrs, a)
		}
	}
	return nil
}

// wanted sorts chosen addresses by family and checks that they can be had.
func (s *share) wanted(want []netip.Addr) (map[Family]netip.Addr, error) {
	if len(want) == 0 {
		return nil, nil
	}
	out := make(map[Family]netip.Addr, len(want))
	for _, a := range want {
		f := FamilyOf(a)
		switch {
		case out[f].IsValid():
			return nil, fmt.Errorf("%w: %s and %s are of one family, a pod gets one of each", ErrMismatch, out[f], a)
		case !s.pool.Contains(a):
			return nil, fmt.Errorf("%s is %w", a, ErrOutside)
		case s.pool.Reserved(a):
			return nil, fmt.Errorf("%w: %s is the pods' gateway", ErrMismatch, a)
		}
		out[f] = a
	}
	return out, nil
}

// ProposeRelease works out the release of what owner holds. held is false
// when it holds nothing, which a repeated release finds. The error wraps
// ErrNotOwner when the attachment is another pod's.
func (l *Ledger) ProposeRelease(owner Owner, now time.Time) (rec Record, held bool, err error) {
	g := l.grants[owner.Attachment]
	if g == nil {
		return Record{}, false, nil
	}
	if !owner.Owns(g.Owner) {
		return Record{}, false, fmt.Errorf("%s: %w: %s", owner, ErrNotOwner, g.Owner)
	}
	rec = g.clone()
	rec.Op, rec.At, rec.Netns = Released, now, Netns{}
	return rec, true, nil
}

// Apply carries a record out, all of it or, with an error, nothing. The
// error wraps ErrTaken or ErrNotOwner for a record that contradicts what
// stands, and ErrOutside for an address that no block held here has.
func (l *Ledger) Apply(rec Record) error {
	if err := rec.check(); err != nil {
		return err
	}
	s, err := l.share(rec.Pool)
	if err != nil {
		return err
	}
	switch rec.Op {
	case Leased:
		return l.lease(s, rec)
	case Released:
		return l.release(s, rec)
	}
	return fmt.Errorf("record of %v: operation %d can't be applied", rec.Addrs, rec.Op)
}

func (l *Ledger) lease(s *share, rec Record) error {
	if g := l.grants[rec.Owner.Attachment]; g != nil {
		return fmt.Errorf("%s: %w: %v", rec.Owner, ErrTaken, g.Addrs)
	}
	for _, a := range rec.Addrs {
		if err := s.lot(FamilyOf(a)).leasable(a); err != nil {
			return fmt.Errorf("pool %q: %w", rec.Pool, err)
		}
	}
	for _, a := range rec.Addrs {
		s.lot(FamilyOf(a)).lease(a)
	}
	rec = rec.clone()
	l.grants[rec.Owner.Attachment] = &rec
	return nil
}

func (l *Ledger) release(s *share, rec Record) error {
	g := l.grants[rec.Owner.Attachment]
	if g == nil || !rec.ends(*g) {
		return fmt.Errorf("release of %v by %s: %w", rec.Addrs, rec.Owner, ErrNotOwner)
	}
	for _, a := range rec.Addrs {
		s.lot(FamilyOf(a)).release(a, rec.At)
	}
	l.grants[rec.Owner.Attachment] = g.less(rec)
	if l.grants[rec.Owner.Attachment] == nil {
		delete(l.grants, rec.Owner.Attachment)
	}
	return nil
}

// less is what of a lease stands after its release, or that of a part; nil if
// nothing does.
func (r Record) less(released Record) *Record {
	r.Addrs = r.without(released.Addrs)
	if len(r.Addrs) == 0 {
		return nil
	}
	return &r
}

// Grant returns the standing record of an attachment.
func (l *Ledger) Grant(a Attachment) (Record, bool) {
	if g := l.grants[a]; g != nil {
		return g.clone(), true
	}
	return Record{}, false
}

// Grants returns all standing records, oldest first.
func (l *Ledger) Grants() []Record {
	out := make([]Record, 0, len(l.grants))
	for _, g := range l.grants {
		out = append(out, g.clone())
	}
	return inOrder(out)
}

// Restore brings a ledger that holds its blocks, all of them open, and no lease
// back to where history (see Fold) left it; one that holds leases takes Rested
// records, of a block that it held once and holds again. What rested in a block that was
// returned since is passed over. A standing lease outside of all blocks held is
// left out and returned in lost; err joins all other contradictions, left out
// as well. What was given back after now, because the clock was set back
// since, counts as given back at now: it would rest for the difference too.
func (l *Ledger) Restore(history []Record, now time.Time) (lost []Record, err error) {
	var errs []error
	for _, rec := range history {
		if rec.Op != Leased && rec.At.After(now) {
			rec.At = now
		}
		if rec.Op == Rested {
			l.rest(rec)
			continue
		}
		if !rec.Op.OfLease() {
			continue // whoever keeps blocks in a history restores them first
		}
		switch err := l.Apply(rec); {
		case errors.Is(err, ErrOutside), errors.Is(err, ErrUnknownPool):
			lost = append(lost, rec)
		case err != nil:
			errs = append(errs, err)
		}
	}
	return lost, errors.Join(errs...)
}

func (l *Ledger) rest(rec Record) {
	if s := l.shares[rec.Pool]; s != nil {
		for _, a := range rec.Addrs {
			s.lot(FamilyOf(a)).rest(a, rec.At)
		}
	}
}

// History is the shortest one that Restore makes this ledger of at now: what
// stands, and when each other address was last given back. Which blocks are
// closed is not part of it.
func (l *Ledger) History(now time.Time) []Record {
	out := make([]Record, 0, 2*len(l.grants)) // of what rests there are as many as a rule
	for name, s := range l.shares {
		for _, lot := range s.lots {
			lot.advance(now)
			for _, b := range lot.blocks {
				out = b.rested(name, out)
			}
		}
	}
	inOrder(out)
	rested := len(out)
	for _, g := range l.grants {
		out = append(out, g.clone())
	}
	inOrder(out[rested:])
	return out
}

// rested appends a record for each address of b that was given back and not
// leased again.
func (b *block) rested(pool string, recs []Record) []Record {
	for o, end := range b.ended {
		if !end.IsZero() && b.uses[o] != leased {
			recs = append(recs, Record{Op: Rested, Pool: pool, Addrs: []netip.Addr{b.addr(uint32(o))}, At: end})
		}
	}
	return recs
}
