package pools

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// Fold shortens a history: the blocks held, then what of them is set aside,
// both IPv4 first, outer ones before inner ones, and then by address; what still
// rests, then the leases that stand, both oldest first. Of a block the last
// record counts, and of one prefix there is one block: a claim ends that it was set
// aside, and that it is set aside ends a claim. Fold wraps
// ErrTaken or ErrNotOwner when the leases of the history contradict each other: an address
// leased twice, a release of what another holds. Such a history is corrupt, and
// which lease stands can't be known. The result shares the history's memory.
func Fold(history []Record) ([]Record, error) {
	half := len(history) / 2
	f := folding{blocks: map[blockKey]*Record{}, grants: make(map[Attachment]*Record, half), holder: make(map[netip.Addr]*Record, half), rested: make(map[netip.Addr]*Record, half)}
	for i := range history {
		rec := &history[i]
		if err := f.check(rec); err != nil {
			return nil, fmt.Errorf("record %d of %d: %w", i+1, len(history), err)
		}
		f.add(rec)
	}
	out := make([]Record, 0, len(f.blocks)+len(f.rested)+len(f.grants))
	for _, rec := range f.blocks {
		out = append(out, *rec)
	}
	inBlockOrder(out)
	blocks := len(out)
	for a, rec := range f.rested {
		out = append(out, Record{Op: Rested, Pool: rec.Pool, Addrs: []netip.Addr{a}, At: rec.At})
	}
	rested := len(out)
	for _, rec := range f.grants {
		out = append(out, *rec)
	}
	inOrder(out[blocks:rested])
	inOrder(out[rested:])
	return out, nil
}

type folding struct {
	blocks map[blockKey]*Record   // what began a holding
	grants map[Attachment]*Record // the record that leased
	holder map[netip.Addr]*Record
	rested map[netip.Addr]*Record // what gave each back
}

// blockKey tells a block held from the same prefix set aside.
type blockKey struct {
	prefix netip.Prefix
	aside  bool
}

func (f *folding) check(rec *Record) error {
	if err := rec.check(); err != nil {
		return err
	}
	if !rec.Op.OfLease() {
		return nil // the last one counts
	}
	g, stands := f.grants[rec.Owner.Attachment]
	switch {
	case rec.Op == Leased && stands:
		return fmt.Errorf("%s leased %v: %w: it holds %v", rec.Owner, rec.Addrs, ErrTaken, g.Addrs)
	case rec.Op == Released && (!stands || !rec.ends(*g)):
		return fmt.Errorf("%s released %v: %w", rec.Owner, rec.Addrs, ErrNotOwner)
	}
	for _, a := range rec.Addrs {
		if other, held := f.holder[a]; held && rec.Op != Released {
			return fmt.Errorf("%s: %w by %s", a, ErrTaken, other.Owner)
		}
	}
	return nil
}

func (f *folding) add(rec *Record) {
	if !rec.Op.OfLease() {
		f.addBlock(rec)
		return
	}
	for _, a := range rec.Addrs {
		if rec.Op == Leased {
			f.holder[a] = rec
			delete(f.rested, a)
			continue
		}
		delete(f.holder, a)
		f.rested[a] = rec
	}
	switch rec.Op {
	case Leased:
		f.grants[rec.Owner.Attachment] = rec
	case Released:
		rest := f.grants[rec.Owner.Attachment].less(*rec)
		if rest == nil {
			delete(f.grants, rec.Owner.Attachment)
			return
		}
		f.grants[rec.Owner.Attachment] = rest
		for _, a := range rest.Addrs {
			f.holder[a] = rest
		}
	}
}

func (f *folding) addBlock(rec *Record) {
	key := blockKey{rec.Block.Prefix, rec.Op >= Lent}
	delete(f.blocks, key)
	if rec.Op == Claimed || rec.Op == Lent {
		delete(f.blocks, blockKey{key.prefix, !key.aside})
		f.blocks[key] = rec
	}
}

// inBlockOrder sorts records of blocks: those held first, outer ones before inner
// ones.
func inBlockOrder(recs []Record) {
	slices.SortFunc(recs, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Op, b.Op), netipx.ComparePrefix(a.Block.Prefix, b.Block.Prefix))
	})
}

// inOrder sorts records by time, then address.
func inOrder(recs []Record) []Record {
	slices.SortFunc(recs, func(a, b Record) int {
		return cmp.Or(a.At.Compare(b.At), a.Addrs[0].Compare(b.Addrs[0]))
	})
	return recs
}
