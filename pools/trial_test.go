package pools

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go4.org/netipx"
)

// universe of all addresses that a pool of the model tests can have.
func universe(f Family) func(func(netip.Addr) bool) {
	first, n := netip.MustParseAddr("10.0.0.0"), 96
	if f == IPv6 {
		first, n = netip.MustParseAddr("fd00::"), 32
	}
	return func(yield func(netip.Addr) bool) {
		for a := first; n > 0 && yield(a); n-- {
			a = a.Next()
		}
	}
}

// chooser makes the decisions of a model test: a random source or fuzz input.
type chooser func(n int) int

// byteChooser decides by the bytes of a fuzz input; after its end all is 0.
func byteChooser(r *bytes.Reader) chooser {
	return func(n int) int {
		b, _ := r.ReadByte()
		return int(b) % n
	}
}

// trial drives a ledger and the model side by side.
type trial struct {
	t      testing.TB
	pick   chooser
	ledger *Ledger
	model  *model
	now    time.Time
	kept   []Record // as a journal has them
	late   []Record // all that was ever proposed
	log    []string
	menu   [][]*Pool
}

func newTrial(t testing.TB, pick chooser) *trial {
	tr := &trial{t: t, pick: pick, ledger: NewLedger("here"), model: newModel(), now: day, menu: poolMenu(t)}
	tr.setPools(0)
	return tr
}

func (tr *trial) notef(format string, args ...any) {
	tr.log = append(tr.log, fmt.Sprintf(format, args...))
}

func (tr *trial) fatalf(format string, args ...any) {
	tr.t.Helper()
	for _, line := range tr.log[max(0, len(tr.log)-40):] {
		tr.t.Log(line)
	}
	tr.t.Fatalf(format, args...)
}

// poolMenu are the pool sets that a trial changes between: a dual-stack pool
// that grows, shrinks, loses addresses, moves its gateway and goes, and a
// single-stack one without rest.
func poolMenu(t testing.TB) [][]*Pool {
	web := func(v4, exclude, gateway string) *Pool {
		d := Definition{Name: "web", BlockSize: 8, ReuseAfter: 10 * time.Second, Ranges: ranges(t, v4, "fd00::-fd00::17")}
		if exclude != "" {
			d.Exclude = ranges(t, exclude)
		}
		if gateway != "" {
			d.Gateways = []netip.Prefix{netip.MustParsePrefix(gateway)}
		}
		return mustNew(t, d)
	}
	db := func(size int) *Pool {
		return mustNew(t, Definition{Name: "db", BlockSize: size, Ranges: ranges(t, "10.0.0.67-10.0.0.90")})
	}
	full := web("10.0.0.0/27", "", "")
	return [][]*Pool{
		{full, db(4)},
		{web("10.0.0.0-10.0.0.45", "", ""), db(4)},
		{web("10.0.0.0-10.0.0.45", "10.0.0.3-10.0.0.6", ""), db(4)},
		{web("10.0.0.0/26", "fd00::2-fd00::5", "10.0.0.5/24"), db(4)},
		{full},
		{full, db(8)},
		{db(4)},
		{web("10.0.0.10-10.0.0.29", "", ""), db(4)},
	}
}

func (tr *trial) step() {
	tr.now = tr.now.Add(time.Duration(1 + tr.pick(3)*int(time.Second)/2))
	before := snapshot(tr.ledger)
	changed := true
	switch tr.pick(16) {
	case 0, 1, 2, 3:
		tr.proposeLease()
	case 4, 5, 6:
		tr.proposeRelease()
	case 7:
		changed = tr.applyLate()
	case 8, 9:
		tr.hold()
	case 10:
		tr.closeBlock(tr.block())
	case 11:
		if tr.pick(2) == 0 {
			tr.reopen()
		} else {
			tr.dropBlock(tr.block())
		}
	case 12:
		p, b := tr.block()
		tr.closeBlock(p, b)
		tr.dropBlock(p, b)
	case 13:
		tr.now = tr.now.Add(time.Duration(tr.pick(12)) * time.Second)
	case 14:
		changed = tr.setPools(tr.pick(len(tr.menu)))
	case 15:
		tr.crash()
	}
	if !changed {
		if after := snapshot(tr.ledger); after != before {
			tr.fatalf("an error changed something\nbefore %s\nafter  %s", before, after)
		}
	}
	tr.check()
}

func (tr *trial) proposeLease() {
	r := Request{Pool: []string{"web", "web", "web", "db", "db", "none"}[tr.pick(6)], Owner: tr.owner()}
	for range max(0, tr.pick(8)-5) {
		r.Want = append(r.Want, tr.address())
	}
	before := snapshot(tr.ledger)
	rec, fresh, err := tr.ledger.ProposeLease(r, tr.now)
	addrs, wantFresh, wantErr := tr.model.wantLease(r, tr.now)
	tr.notef("%v: lease %v: %v fresh=%v err=%v", tr.now.Sub(day), r, rec.Addrs, fresh, err)
	if !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) || err == nil && (!slices.Equal(rec.Addrs, addrs) || fresh != wantFresh) {
		tr.fatalf("ProposeLease(%v) = %v fresh=%v err=%v, want %v fresh=%v err=%v", r, rec.Addrs, fresh, err, addrs, wantFresh, wantErr)
	}
	tr.lacks(r, err)
	if after := snapshot(tr.ledger); after != before {
		tr.fatalf("ProposeLease changed a lease\nbefore %s\nafter  %s", before, after)
	}
	if err == nil && fresh {
		tr.carryOut(rec, tr.model.lease)
	}
}

// lacks holds Lacks against the error of ProposeLease, and against the model.
func (tr *trial) lacks(r Request, err error) {
	lacks := tr.ledger.Lacks(r, tr.now)
	var first *NoFreeError
	if errors.As(err, &first) != (len(lacks) > 0) || first != nil && *first != lacks[0] {
		tr.fatalf("Lacks(%v) = %v, ProposeLease failed with %v", r, lacks, err)
	}
	if _, stands := tr.model.grants[r.Owner.Attachment]; stands || len(r.Want) > 0 {
		return
	}
	var families []Family
	for _, lack := range lacks {
		families = append(families, lack.Family)
	}
	if want := tr.model.wantLacks(r.Pool, tr.now); !slices.Equal(families, want) {
		tr.fatalf("Lacks(%v) = %v, want %v", r, families, want)
	}
}

func (tr *trial) proposeRelease() {
	owner := tr.owner()
	before := snapshot(tr.ledger)
	rec, held, err := tr.ledger.ProposeRelease(owner, tr.now)
	tr.notef("%v: release %v: %v held=%v err=%v", tr.now.Sub(day), owner, rec.Addrs, held, err)
	g, stands := tr.model.grants[owner.Attachment]
	wrong := stands && owner.PodUID != "" && g.Owner.PodUID != "" && owner.PodUID != g.Owner.PodUID
	if errors.Is(err, ErrNotOwner) != wrong || (err == nil) == wrong || held != (stands && !wrong) {
		tr.fatalf("ProposeRelease(%v) = held %v err %v, but it holds %v", owner, held, err, g)
	}
	if after := snapshot(tr.ledger); after != before {
		tr.fatalf("ProposeRelease changed a lease\nbefore %s\nafter  %s", before, after)
	}
	if held {
		tr.carryOut(rec, tr.model.release)
	}
}

// carryOut keeps rec and applies it, unless the process dies before, in
// between, or never gets to it.
func (tr *trial) carryOut(rec Record, apply func(Record)) {
	tr.late = append(tr.late, rec)
	switch tr.pick(12) {
	case 0:
		tr.notef("  forgotten")
	case 1:
		tr.notef("  kept, but not applied")
		tr.kept = append(tr.kept, rec)
		apply(rec)
		tr.restart()
	default:
		tr.kept = append(tr.kept, rec)
		if err := tr.ledger.Apply(rec); err != nil {
			tr.fatalf("Apply of what was proposed: %v", err)
		}
		apply(rec)
	}
}

// applyLate applies a record that was proposed some time ago. It says whether
// anything may have changed.
func (tr *trial) applyLate() bool {
	if len(tr.late) == 0 {
		return false
	}
	rec := tr.late[tr.pick(len(tr.late))]
	err := tr.ledger.Apply(rec)
	tr.notef("late %d of %v by %v: %v", rec.Op, rec.Addrs, rec.Owner, err)
	g, stands := tr.model.grants[rec.Owner.Attachment]
	if rec.Op == Released {
		matches := stands && g.Owner == rec.Owner && slices.Equal(g.Addrs, rec.Addrs)
		if matches != (err == nil) || err != nil && !errors.Is(err, ErrNotOwner) && !errors.Is(err, ErrUnknownPool) {
			tr.fatalf("Apply(release %v by %v) = %v, but it holds %v", rec.Addrs, rec.Owner, err, g)
		}
	} else if err == nil && (stands || !tr.free(rec)) {
		tr.fatalf("Apply(lease %v to %v) leased what is not free", rec.Addrs, rec.Owner)
	} else if err != nil && !errors.Is(err, ErrTaken) && !errors.Is(err, ErrOutside) && !errors.Is(err, ErrUnknownPool) {
		tr.fatalf("Apply(lease %v to %v) = %v, not a documented error", rec.Addrs, rec.Owner, err)
	}
	if err != nil {
		return false
	}
	tr.kept = append(tr.kept, rec)
	if rec.Op == Released {
		tr.model.release(rec)
	} else {
		tr.model.lease(rec)
	}
	return true
}

// free says whether all addresses of rec may be leased now.
func (tr *trial) free(rec Record) bool {
	p := tr.model.pools[rec.Pool]
	return p != nil && !slices.ContainsFunc(rec.Addrs, func(a netip.Addr) bool {
		b := tr.model.blockOf(rec.Pool, a)
		return b == nil || b.closed || !p.Contains(a) || p.Reserved(a) || tr.model.leased(a) || tr.model.cools(p, a, tr.now)
	})
}

func (tr *trial) owner() Owner {
	return Owner{
		Attachment: Attachment{Network: "net", ContainerID: fmt.Sprint("c", tr.pick(12)), IfName: "eth0"},
		PodUID:     []string{"", "u1", "u1", "u1", "u2"}[tr.pick(5)],
	}
}

func (tr *trial) address() netip.Addr {
	f, n := IPv4, tr.pick(96)
	if tr.pick(3) == 0 {
		f, n = IPv6, n%32
	}
	for a := range universe(f) {
		if n--; n < 0 {
			return a
		}
	}
	panic("the universe is smaller than thought")
}

func (tr *trial) hold() {
	pool := []string{"web", "web", "db"}[tr.pick(3)]
	size := tr.model.last[pool].BlockSize()
	if tr.pick(4) == 0 {
		size = max(1, size>>tr.pick(4)) // as lent by another node
	}
	a := tr.address()
	if inDB := netip.MustParsePrefix("10.0.0.64/27"); inDB.Contains(a) != (pool == "db") {
		return // each pool keeps to its side
	}
	bits := FamilyOf(a).Bits()
	for ; size > 1; size /= 2 {
		bits--
	}
	b := Block{Prefix: netip.PrefixFrom(a, bits).Masked(), Pool: pool, Node: "here", Created: tr.now}
	have := tr.model.blocks[b.Prefix]
	err := tr.ledger.Hold(b)
	tr.notef("hold %v for %s: %v", b.Prefix, pool, err)
	switch {
	case tr.model.pools[pool] == nil:
		tr.wantError(err, ErrUnknownPool)
	case err != nil:
		tr.fatalf("Hold(%v): %v", b, err)
	case have == nil:
		tr.model.blocks[b.Prefix] = &modelBlock{Block: b}
	}
}

func (tr *trial) wantError(err, want error) {
	tr.t.Helper()
	if !errors.Is(err, want) {
		tr.fatalf("error %v, want %v", err, want)
	}
}

// block picks a held block, or one that is not held.
func (tr *trial) block() (netip.Prefix, *modelBlock) {
	held := slices.SortedFunc(maps.Keys(tr.model.blocks), netipx.ComparePrefix)
	if n := tr.pick(len(held) + 1); n < len(held) {
		return held[n], tr.model.blocks[held[n]]
	}
	return netip.MustParsePrefix("192.0.2.0/29"), nil
}

func (tr *trial) closeBlock(p netip.Prefix, b *modelBlock) {
	err := tr.ledger.Close(p, tr.now)
	tr.notef("close %v: %v", p, err)
	switch {
	case b == nil:
		tr.wantError(err, ErrOutside)
	case tr.model.leases(b) > 0 || tr.model.rests(b, tr.now):
		tr.wantError(err, ErrTaken)
	case err != nil:
		tr.fatalf("Close(%v): %v", p, err)
	default:
		b.closed = true
	}
}

func (tr *trial) reopen() {
	p, b := tr.block()
	tr.notef("reopen %v", p)
	if got, want := tr.ledger.Reopen(p), b != nil && b.closed; got != want {
		tr.fatalf("Reopen(%v) = %v, want %v", p, got, want)
	}
	if b != nil {
		b.closed = false
	}
}

func (tr *trial) dropBlock(p netip.Prefix, b *modelBlock) {
	err := tr.ledger.Drop(p)
	tr.notef("drop %v: %v", p, err)
	switch {
	case b == nil && err == nil:
	case b != nil && !b.closed:
		tr.wantError(err, ErrTaken)
	case err != nil:
		tr.fatalf("Drop(%v): %v", p, err)
	default:
		tr.model.drop(p)
	}
}

func (tr *trial) setPools(i int) bool {
	err := tr.ledger.SetPools(tr.menu[i])
	tr.notef("set pools to choice %d: %v", i, err)
	if ok := tr.model.mayBecome(tr.menu[i]); ok != (err == nil) {
		tr.fatalf("SetPools(choice %d) = %v, want success %v", i, err, ok)
	}
	if err == nil {
		tr.model.setPools(tr.menu[i])
	}
	return err == nil
}

// crash starts the ledger anew, sometimes with a shortened history.
func (tr *trial) crash() {
	if tr.pick(2) == 0 {
		tr.kept = tr.ledger.History(tr.now)
		tr.model.history = maps.Clone(tr.model.freed)
		tr.notef("compacted to %d records", len(tr.kept))
	}
	if tr.pick(2) == 0 {
		tr.restart()
	}
}

func (tr *trial) restart() {
	tr.notef("restart with %d records", len(tr.kept))
	folded, err := Fold(tr.kept)
	if err != nil {
		tr.fatalf("Fold of what was kept: %v", err)
	}
	next := NewLedger("here")
	if err := next.SetPools(slices.Collect(maps.Values(tr.model.pools))); err != nil {
		tr.fatalf("SetPools at restart: %v", err)
	}
	for p, b := range tr.model.blocks {
		if tr.model.pools[b.Pool] == nil {
			delete(tr.model.blocks, p) // an agent returns the blocks of a pool that is gone at once
			continue
		}
		if err := next.Hold(b.Block); err != nil {
			tr.fatalf("Hold at restart: %v", err)
		}
	}
	if tr.pick(4) == 0 {
		tr.now = tr.now.Add(-time.Duration(tr.pick(60)) * time.Second)
		tr.notef("the clock is set back to %v", tr.now.Sub(day))
	}
	if lost, err := next.Restore(folded, tr.now); err != nil || len(lost) > 0 {
		tr.fatalf("Restore lost %v, %v", lost, err)
	}
	tr.ledger = next
	tr.model.crash(tr.now)
}
