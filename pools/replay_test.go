package pools

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// blockRecord is of a block of node "a"; a lent one is of node "b".
func blockRecord(op Op, prefix string, seconds int) Record {
	node := "a"
	if op == Lent {
		node = "b"
	}
	b := Block{Prefix: netip.MustParsePrefix(prefix), Pool: "web", Node: node, UID: fmt.Sprint("uid-", seconds), Created: after(seconds)}
	return Record{Op: op, Pool: "web", Block: &b, At: after(seconds)}
}

// describe tells a history in short: operation, what of, seconds.
func describe(history []Record) string {
	var words []string
	for _, rec := range history {
		what := fmt.Sprint(rec.Addrs)
		if rec.Block != nil {
			what = fmt.Sprint(rec.Block.Prefix)
		}
		name := []string{"?", "leased", "released", "rested", "claimed", "returned", "lent", "regained"}[rec.Op]
		words = append(words, fmt.Sprintf("%s %s @%d", name, what, int(rec.At.Sub(day).Seconds())))
	}
	return strings.Join(words, ", ")
}

func TestFoldOfBlocks(t *testing.T) {
	lease := func(op Op, n, seconds int) Record {
		return Record{Op: op, Pool: "web", At: after(seconds), Owner: Owner{Attachment: Attachment{ContainerID: fmt.Sprint(n)}},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})}}
	}
	for _, c := range []struct {
		name    string
		history []Record
		want    string
	}{
		{"held", []Record{blockRecord(Claimed, "10.0.0.0/26", 1)}, "claimed 10.0.0.0/26 @1"},
		{"returned", []Record{blockRecord(Claimed, "10.0.0.0/26", 1), blockRecord(Returned, "10.0.0.0/26", 2)}, ""},
		{"claimed again", []Record{blockRecord(Claimed, "10.0.0.0/26", 1), blockRecord(Returned, "10.0.0.0/26", 2), blockRecord(Claimed, "10.0.0.0/26", 3)}, "claimed 10.0.0.0/26 @3"},
		{"the last one counts", []Record{blockRecord(Claimed, "10.0.0.0/26", 1), blockRecord(Claimed, "10.0.0.0/26", 2)}, "claimed 10.0.0.0/26 @2"},
		{"lent", []Record{blockRecord(Claimed, "10.0.0.0/26", 1), blockRecord(Lent, "10.0.0.32/27", 2)}, "claimed 10.0.0.0/26 @1, lent 10.0.0.32/27 @2"},
		{"lent to another", []Record{blockRecord(Lent, "10.0.0.32/27", 2), blockRecord(Lent, "10.0.0.32/27", 3)}, "lent 10.0.0.32/27 @3"},
		{"regained", []Record{blockRecord(Claimed, "10.0.0.0/26", 1), blockRecord(Lent, "10.0.0.32/27", 2), blockRecord(Regained, "10.0.0.32/27", 3)}, "claimed 10.0.0.0/26 @1"},
		{"another block of its address", []Record{blockRecord(Claimed, "10.0.0.0/26", 1), blockRecord(Returned, "10.0.0.0/27", 2), blockRecord(Lent, "10.0.0.0/28", 3), blockRecord(Regained, "10.0.0.0/29", 4)},
			"claimed 10.0.0.0/26 @1, lent 10.0.0.0/28 @3"},
		{"a return is of what is held", []Record{blockRecord(Lent, "10.0.0.32/27", 1), blockRecord(Returned, "10.0.0.32/27", 2)}, "lent 10.0.0.32/27 @1"},
		{"what is lent is regained", []Record{blockRecord(Claimed, "10.0.0.32/27", 1), blockRecord(Regained, "10.0.0.32/27", 2)}, "claimed 10.0.0.32/27 @1"},
		{"lost to another in what is held", []Record{blockRecord(Claimed, "10.0.0.0/26", 1), blockRecord(Claimed, "10.0.0.32/27", 2), blockRecord(Lent, "10.0.0.32/27", 3)},
			"claimed 10.0.0.0/26 @1, lent 10.0.0.32/27 @3"},
		{"ends that have lost their beginning", []Record{blockRecord(Returned, "10.0.0.0/26", 1), blockRecord(Regained, "10.0.1.0/27", 2)}, ""},
		{"the order", []Record{
			lease(Leased, 9, 1), lease(Leased, 1, 2), lease(Released, 1, 3), blockRecord(Lent, "10.0.0.64/26", 3), blockRecord(Claimed, "10.0.0.8/29", 4),
			blockRecord(Claimed, "fd00::/122", 5), blockRecord(Claimed, "10.0.0.0/26", 6), blockRecord(Claimed, "10.0.0.0/29", 7), blockRecord(Lent, "10.0.0.16/28", 8), lease(Leased, 2, 0),
		}, "claimed 10.0.0.0/26 @6, claimed 10.0.0.0/29 @7, claimed 10.0.0.8/29 @4, claimed fd00::/122 @5, " +
			"lent 10.0.0.64/26 @3, lent 10.0.0.16/28 @8, rested [10.0.0.1] @3, leased [10.0.0.2] @0, leased [10.0.0.9] @1"},
	} {
		if got, err := Fold(c.history); err != nil || describe(got) != c.want {
			t.Errorf("%s: folded to %q, %v; want %q", c.name, describe(got), err, c.want)
		}
	}
}

// TestFoldKeepsABlockWhole: whatever the store told of it.
func TestFoldKeepsABlockWhole(t *testing.T) {
	claim, lend := blockRecord(Claimed, "10.0.0.0/26", 1), blockRecord(Lent, "10.0.0.32/27", 2)
	claim.Block.Lender, claim.Block.Machine, claim.Block.Tenure, lend.Ref = "b", "m", 3, "request uid"
	want := []Record{claim, lend}
	if got, err := Fold([]Record{lend, claim}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("folded to %+v, %v; want %+v", got, err, want)
	}
}

// TestOwnLoanIsHeld: a node that claims what it had itself set aside, for
// another node or its own request, restarts with a ledger that holds it.
func TestOwnLoanIsHeld(t *testing.T) {
	folded, err := Fold([]Record{
		blockRecord(Claimed, "10.0.0.0/26", 1), blockRecord(Lent, "10.0.0.32/27", 2), blockRecord(Claimed, "10.0.0.32/27", 3),
	})
	if err != nil {
		t.Fatal(err)
	}
	l := NewLedger("a")
	if err := l.SetPools([]*Pool{mustNew(t, Definition{Name: "web", Ranges: ranges(t, "10.0.0.0/24")})}); err != nil {
		t.Fatal(err)
	}
	for _, rec := range folded {
		if rec.Op == Claimed {
			err = l.Hold(*rec.Block)
		} else {
			err = l.SetAside(rec.Pool, rec.Block.Prefix, rec.Block.Node)
		}
		if err != nil {
			t.Fatalf("restore %s: %v", describe(folded), err)
		}
	}
	all := l.Effective("web", func(Held) bool { return true })
	if !all.ContainsPrefix(netip.MustParsePrefix("10.0.0.0/26")) {
		t.Errorf("holds %v", all.Prefixes())
	}
}

func TestFoldRefusesWhatIsNoBlock(t *testing.T) {
	for name, spoil := range map[string]func(r *Record){
		"no block":      func(r *Record) { r.Block = nil },
		"no prefix":     func(r *Record) { r.Block.Prefix = netip.Prefix{} },
		"host bits":     func(r *Record) { r.Block.Prefix = netip.MustParsePrefix("10.0.0.1/26") },
		"no operation":  func(r *Record) { r.Op = 0 },
		"a later one":   func(r *Record) { r.Op = Regained + 1 },
		"without lease": func(r *Record) { r.Op = Leased },
	} {
		for op := Claimed; op <= Regained; op++ {
			rec := blockRecord(op, "10.0.0.0/26", 2)
			spoil(&rec)
			if got, err := Fold([]Record{blockRecord(Claimed, "10.0.0.0/26", 1), rec}); err == nil || !strings.Contains(err.Error(), "record 2 of 2") {
				t.Errorf("%s: folded to %+v, %v", name, got, err)
			}
		}
	}
}

// dumbFold looks, for every fact of a history, through all that comes after it.
func dumbFold(history []Record) (out []Record) {
	for i, rec := range history {
		later := history[i+1:]
		switch rec.Op {
		case Claimed, Lent:
			ends := func(r Record) bool {
				same := !r.Op.OfLease() && r.Block.Prefix == rec.Block.Prefix
				return same && (r.Op == rec.Op+1 || r.Op == Claimed || r.Op == Lent)
			}
			if !slices.ContainsFunc(later, ends) {
				out = append(out, rec)
			}
		case Leased:
			if !slices.ContainsFunc(later, func(r Record) bool { return r.ends(rec) }) {
				out = append(out, rec)
			}
		case Released, Rested:
			for _, a := range rec.Addrs {
				if !slices.ContainsFunc(later, func(r Record) bool { return slices.Contains(r.Addrs, a) }) {
					out = append(out, Record{Op: Rested, Pool: rec.Pool, Addrs: []netip.Addr{a}, At: rec.At})
				}
			}
		}
	}
	slices.SortStableFunc(out, dumbOrder)
	return out
}

// dumbOrder is what Fold documents.
func dumbOrder(a, b Record) int {
	kind := func(r Record) int { return slices.Index([]Op{Claimed, Lent, Rested, Leased}, r.Op) }
	if c := cmp.Compare(kind(a), kind(b)); c != 0 {
		return c
	}
	if a.Op.OfLease() {
		return cmp.Or(a.At.Compare(b.At), a.Addrs[0].Compare(b.Addrs[0]))
	}
	p, q := a.Block.Prefix, b.Block.Prefix
	return cmp.Or(p.Addr().BitLen()-q.Addr().BitLen(), p.Bits()-q.Bits(), p.Addr().Compare(q.Addr()))
}

// randomHistory is one without contradiction, in a small world, so that the
// same things happen to the same blocks, owners and addresses.
func randomHistory(rnd *rand.Rand, length int) (history []Record) {
	standing := map[int]Record{}
	for i := range length {
		if rnd.IntN(2) == 0 {
			op := Claimed + Op(rnd.IntN(4))
			prefix := []string{"10.0.0.0/26", "10.0.0.64/26", "10.0.0.0/27", "10.0.0.32/27", "10.0.0.0/32", "fd00::/122", "fd00::20/123"}[rnd.IntN(7)]
			history = append(history, blockRecord(op, prefix, i))
			continue
		}
		n := rnd.IntN(6)
		rec := Record{Op: Leased, Pool: "web", At: after(i / 2), Owner: Owner{PodUID: fmt.Sprint(i), Attachment: Attachment{ContainerID: fmt.Sprint(n)}},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), netip.MustParseAddr(fmt.Sprintf("fd00::%d", n))}}
		lease, stands := standing[n]
		switch {
		case stands:
			lease.Op, lease.At = Released, rec.At
			rec = lease
			delete(standing, n)
		case rnd.IntN(4) == 0:
			rec = Record{Op: Rested, Pool: "web", At: rec.At, Addrs: rec.Addrs[rnd.IntN(2):][:1]}
		default:
			standing[n] = rec
		}
		history = append(history, rec)
	}
	return history
}

// TestFoldAgainstModel: random histories come out as a dumb reading of them
// does, however often they are shortened on the way, and are not changed.
func TestFoldAgainstModel(t *testing.T) {
	rnd := seeded(t)
	for range 400 {
		history := randomHistory(rnd, rnd.IntN(60))
		before := slices.Clone(history)
		whole, err := Fold(history)
		if err != nil {
			t.Fatalf("%s: %v", describe(history), err)
		}
		if want := dumbFold(history); describe(whole) != describe(want) || len(want) > 0 && !reflect.DeepEqual(whole, want) {
			t.Fatalf("%s\nfolded to %s\nwant      %s", describe(history), describe(whole), describe(want))
		}
		half := rnd.IntN(len(history) + 1)
		first, err := Fold(history[:half])
		if err != nil {
			t.Fatal(err)
		}
		again, err := Fold(append(first, history[half:]...))
		if err != nil || !reflect.DeepEqual(again, whole) {
			t.Fatalf("%s\nfolded, cut at %d, to %s, %v\nwant %s", describe(history), half, describe(again), err, describe(whole))
		}
		if !reflect.DeepEqual(history, before) {
			t.Fatal("Fold changed the history")
		}
	}
}

// FuzzFold: of any history, contradictory or not, Fold makes one that it makes
// itself of again, or names the record that can't be.
func FuzzFold(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{4, 1, 0, 6, 2, 0, 4, 2, 0, 1, 1, 0, 2, 1, 0, 3, 1, 1, 1, 1, 0, 5, 1, 0, 7, 2, 0})
	f.Add([]byte{1, 0, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, input []byte) {
		var history []Record
		r := bytes.NewReader(input[:min(len(input), 1<<10)])
		for pick := byteChooser(r); r.Len() > 0; {
			op, n, owner := Op(pick(9)), pick(8), pick(4)
			rec := Record{Op: op, Pool: "web", At: after(len(history))}
			if op.OfLease() {
				rec.Owner.ContainerID = fmt.Sprint(owner)
				rec.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})}
			} else {
				rec.Block = &Block{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n & 6)}), 32-n%3), Pool: "web", Node: "a"}
			}
			history = append(history, rec)
		}
		folded, err := Fold(history)
		if err != nil {
			if !strings.Contains(err.Error(), "record ") {
				t.Errorf("the error does not name the record: %v", err)
			}
			return
		}
		if want := dumbFold(history); describe(folded) != describe(want) {
			t.Errorf("%s\nfolded to %s\nwant      %s", describe(history), describe(folded), describe(want))
		}
		if again, err := Fold(folded); err != nil || !reflect.DeepEqual(again, folded) {
			t.Errorf("folded twice\n%s, %v\nonce\n%s", describe(again), err, describe(folded))
		}
	})
}

// TestFoldRefusesContradictions: a history in which an address is leased twice,
// or given back by another, is corrupt; blocks between do not hide it.
func TestFoldRefusesContradictions(t *testing.T) {
	lease := func(op Op, container string, addr string) Record {
		return Record{Op: op, Pool: "web", At: time.Unix(1, 0), Owner: Owner{Attachment: Attachment{ContainerID: container}}, Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
	}
	block := []Record{blockRecord(Claimed, "10.0.0.0/26", 1), blockRecord(Returned, "10.0.0.0/26", 1)}
	for _, c := range []struct {
		name    string
		a, b    Record
		failure error
	}{
		{"leased twice", lease(Leased, "1", "10.0.0.1"), lease(Leased, "2", "10.0.0.1"), ErrTaken},
		{"two leases of one", lease(Leased, "1", "10.0.0.1"), lease(Leased, "1", "10.0.0.2"), ErrTaken},
		{"rests while leased", lease(Leased, "1", "10.0.0.1"), lease(Rested, "", "10.0.0.1"), ErrTaken},
		{"another's release", lease(Leased, "1", "10.0.0.1"), lease(Released, "2", "10.0.0.1"), ErrNotOwner},
		{"another address", lease(Leased, "1", "10.0.0.1"), lease(Released, "1", "10.0.0.2"), ErrNotOwner},
	} {
		if got, err := Fold([]Record{c.a, block[0], block[1], c.b}); !errors.Is(err, c.failure) || !strings.Contains(err.Error(), "record 4 of 4") {
			t.Errorf("%s: folded to %s, %v; want %v", c.name, describe(got), err, c.failure)
		}
	}
}
