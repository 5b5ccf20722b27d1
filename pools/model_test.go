package pools

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go4.org/netipx"
)

// model is the ledger done the dumb way: it remembers facts and works all
// else out from them by looking at every address of a small universe.
type model struct {
	pools   map[string]*Pool
	last    map[string]*Pool // as each was last defined, retired ones too
	blocks  map[netip.Prefix]*modelBlock
	grants  map[Attachment]Record
	freed   map[netip.Addr]time.Time // last release of what is not leased now
	history map[netip.Addr]time.Time // the same, but of the kept records alone
}

type modelBlock struct {
	Block
	closed bool
}

func newModel() *model {
	return &model{
		pools: map[string]*Pool{}, last: map[string]*Pool{}, blocks: map[netip.Prefix]*modelBlock{},
		grants: map[Attachment]Record{}, freed: map[netip.Addr]time.Time{}, history: map[netip.Addr]time.Time{},
	}
}

// blockOf is the longest match.
func (m *model) blockOf(pool string, a netip.Addr) (best *modelBlock) {
	for p, b := range m.blocks {
		if b.Pool == pool && p.Contains(a) && (best == nil || p.Bits() > best.Prefix.Bits()) {
			best = b
		}
	}
	return best
}

func (m *model) leased(a netip.Addr) bool {
	for _, g := range m.grants {
		if slices.Contains(g.Addrs, a) {
			return true
		}
	}
	return false
}

func (m *model) cools(p *Pool, a netip.Addr, now time.Time) bool {
	at, was := m.freed[a]
	return was && now.Before(at.Add(p.ReuseAfter()))
}

// wantOffer is the address that anybody would get: of the longest held open
// block, the least recently used, else the lowest address but the block's own.
func (m *model) wantOffer(p *Pool, f Family, now time.Time) (best netip.Addr) {
	better := func(a, b netip.Addr) bool {
		x, y := m.blockOf(p.Name(), a), m.blockOf(p.Name(), b)
		return cmp.Or(x.Created.Compare(y.Created), netipx.ComparePrefix(x.Prefix, y.Prefix),
			m.freed[a].Compare(m.freed[b]), compareBool(a == x.Prefix.Addr(), b == y.Prefix.Addr()), a.Compare(b)) < 0
	}
	for a := range universe(f) {
		b := m.blockOf(p.Name(), a)
		if b == nil || b.closed || !p.Contains(a) || p.Reserved(a) || m.leased(a) || m.cools(p, a, now) {
			continue
		}
		if !best.IsValid() || better(a, best) {
			best = a
		}
	}
	return best
}

// wantLease is what ProposeLease should say.
func (m *model) wantLease(r Request, now time.Time) (addrs []netip.Addr, fresh bool, err error) {
	if g, ok := m.grants[r.Owner.Attachment]; ok {
		switch {
		case g.Owner.PodUID != "" && r.Owner.PodUID != "" && g.Owner.PodUID != r.Owner.PodUID:
			return nil, false, ErrNotOwner
		case g.Pool != r.Pool || slices.ContainsFunc(r.Want, func(a netip.Addr) bool { return !slices.Contains(g.Addrs, a) }):
			return nil, false, ErrMismatch
		}
		return g.Addrs, false, nil
	}
	p := m.pools[r.Pool]
	if p == nil {
		return nil, false, ErrUnknownPool
	}
	want := map[Family]netip.Addr{}
	for _, a := range r.Want {
		switch {
		case want[FamilyOf(a)].IsValid(), p.Contains(a) && p.Reserved(a):
			return nil, false, ErrMismatch
		case !p.Contains(a):
			return nil, false, ErrOutside
		}
		want[FamilyOf(a)] = a
	}
	var lacks []Family
	addrs, lacks, err = m.wantAddrs(p, want, now)
	if err == nil && len(lacks) > 0 {
		err = ErrNoFree
	}
	return addrs, err == nil, err
}

// wantAddrs are the addresses that a request should get, and the families in
// which a block should be lacking.
func (m *model) wantAddrs(p *Pool, want map[Family]netip.Addr, now time.Time) (addrs []netip.Addr, lacks []Family, err error) {
	for _, f := range p.Families() {
		a := want[f]
		switch b := m.blockOf(p.Name(), a); {
		case !a.IsValid():
			if a = m.wantOffer(p, f, now); !a.IsValid() {
				lacks = append(lacks, f)
			}
		case b == nil || b.closed:
			lacks = append(lacks, f)
		case m.leased(a) || m.cools(p, a, now):
			return nil, nil, ErrTaken
		}
		addrs = append(addrs, a)
	}
	return addrs, lacks, nil
}

// wantLacks is what Lacks should say of a request without a wish.
func (m *model) wantLacks(pool string, now time.Time) []Family {
	p := m.pools[pool]
	if p == nil {
		return nil
	}
	_, lacks, _ := m.wantAddrs(p, nil, now)
	return lacks
}

func (m *model) lease(rec Record) {
	m.grants[rec.Owner.Attachment] = rec
	for _, a := range rec.Addrs {
		delete(m.freed, a)
		delete(m.history, a)
	}
}

func (m *model) release(rec Record) {
	delete(m.grants, rec.Owner.Attachment)
	for _, a := range rec.Addrs {
		m.freed[a], m.history[a] = rec.At, rec.At
	}
}

// mayBecome says whether ps may replace the pools.
func (m *model) mayBecome(ps []*Pool) bool {
	next := map[string]*Pool{}
	for _, p := range ps {
		next[p.Name()] = p
	}
	for _, g := range m.grants {
		for _, a := range g.Addrs {
			if p := next[g.Pool]; p == nil || !p.Contains(a) || p.Reserved(a) {
				return false
			}
		}
	}
	for _, b := range m.blocks {
		if p := next[b.Pool]; p != nil && p.BlockSize() != m.last[b.Pool].BlockSize() {
			return false
		}
	}
	return true
}

func (m *model) setPools(ps []*Pool) {
	clear(m.pools)
	for _, p := range ps {
		m.pools[p.Name()] = p
		m.last[p.Name()] = p
	}
}

// drop forgets a block, and what its addresses were, unless they fall back
// to a block around it.
func (m *model) drop(prefix netip.Prefix) {
	b := m.blocks[prefix]
	delete(m.blocks, prefix)
	for a := range universe(FamilyOf(prefix.Addr())) {
		if prefix.Contains(a) && m.blockOf(b.Pool, a) == nil {
			delete(m.freed, a)
		}
	}
}

// leases counts those whose smallest block is b.
func (m *model) leases(b *modelBlock) (n int) {
	for _, g := range m.grants {
		for _, a := range g.Addrs {
			if m.blockOf(g.Pool, a) == b {
				n++
			}
		}
	}
	return n
}

// rests says whether an address whose smallest block is b cools down.
func (m *model) rests(b *modelBlock, now time.Time) bool {
	for a := range universe(FamilyOf(b.Prefix.Addr())) {
		if m.blockOf(b.Pool, a) == b && m.cools(m.last[b.Pool], a, now) {
			return true
		}
	}
	return false
}

// crash is what a ledger knows after it was rebuilt of its blocks and the
// records kept: closed blocks are open again, and nothing was given back later
// than now.
func (m *model) crash(now time.Time) {
	clear(m.freed)
	for a, at := range m.history {
		for _, b := range m.blocks {
			if b.Prefix.Contains(a) {
				m.freed[a] = at
				if at.After(now) {
					m.freed[a] = now
				}
			}
		}
	}
	for _, b := range m.blocks {
		b.closed = false
	}
}

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

// check holds all that can be seen of the ledger against the model.
func (tr *trial) check() {
	tr.checkGrants()
	for _, name := range slices.Sorted(maps.Keys(tr.ledger.shares)) {
		for _, f := range []Family{IPv4, IPv6} {
			if err := tr.ledger.shares[name].lots[f].consistent(); err != nil {
				tr.fatalf("pool %q %v: %v", name, f, err)
			}
		}
	}
	for _, p := range tr.model.pools {
		tr.checkAddresses(p)
	}
	if got, want := len(tr.ledger.Blocks()), len(tr.model.blocks); got != want {
		tr.fatalf("%d blocks, want %d", got, want)
	}
	for _, h := range tr.ledger.Blocks() {
		b := tr.model.blocks[h.Prefix]
		if b == nil || b.Block != h.Block || b.closed != h.Closed || h.Leases != tr.model.leases(b) {
			tr.fatalf("block %+v, want %+v with %d leases", h, b, tr.model.leases(b))
		}
	}
	tr.checkSums()
	tr.checkOrphans()
}

func (tr *trial) checkOrphans() {
	var want, got []netip.Prefix
	for prefix, b := range tr.model.blocks {
		if tr.model.pools[b.Pool] == nil && !tr.model.rests(b, tr.now) {
			want = append(want, prefix)
		}
	}
	for _, b := range tr.ledger.Orphans(tr.now) {
		got = append(got, b.Prefix)
	}
	slices.SortFunc(want, netipx.ComparePrefix)
	if !slices.Equal(got, want) {
		tr.fatalf("orphans %v, want %v", got, want)
	}
}

// idleAfter is less than the pools' ReuseAfter, so that an idle block can
// have addresses that rest.
const idleAfter = 5 * time.Second

// checkSums holds Usage, Idle and Effective against the state of each address,
// which check has compared already.
func (tr *trial) checkSums() {
	want := map[string]Usage{}
	var wantIdle []netip.Prefix
	var held netipx.IPSetBuilder
	for prefix, b := range tr.model.blocks {
		p := tr.model.pools[b.Pool]
		if p == nil {
			continue
		}
		held.AddPrefix(prefix)
		sum, since := Usage{Pool: b.Pool, Blocks: 1}, b.Created
		lot := tr.ledger.shares[b.Pool].lots[FamilyOf(prefix.Addr())]
		for a := range universe(FamilyOf(prefix.Addr())) {
			if tr.model.blockOf(b.Pool, a) != b {
				continue
			}
			sum.count(lot.use(a))
			if end := tr.model.freed[a]; end.After(since) {
				since = end
			}
		}
		if !b.closed {
			have := want[b.Pool]
			want[b.Pool] = Usage{b.Pool, have.Leased + sum.Leased, have.Free + sum.Free, have.Cooling + sum.Cooling, 0, have.Blocks + 1}
			if sum.Leased+sum.Cooling == 0 && tr.now.Sub(since) >= idleAfter {
				wantIdle = append(wantIdle, prefix)
			}
		}
	}
	for name := range tr.model.pools {
		n := 0
		for _, f := range []Family{IPv4, IPv6} {
			n += tr.ledger.Leases(name, f)
		}
		if n != want[name].Leased {
			tr.fatalf("%d leases in pool %q, want %d", n, name, want[name].Leased)
		}
	}
	for _, u := range tr.ledger.Usage(tr.now) {
		if w := want[u.Pool]; tr.model.pools[u.Pool] != nil && u != w && w.Blocks > 0 {
			tr.fatalf("usage %+v, want %+v", u, w)
		}
	}
	var idle []netip.Prefix
	for _, b := range tr.ledger.Idle(tr.now, func(string) time.Duration { return idleAfter }) {
		idle = append(idle, b.Prefix)
	}
	slices.SortFunc(wantIdle, netipx.ComparePrefix)
	if !slices.Equal(idle, wantIdle) {
		tr.fatalf("idle %v, want %v", idle, wantIdle)
	}
	tr.checkEffective(&held)
}

// checkEffective wants each address of the blocks held and of the pools.
func (tr *trial) checkEffective(held *netipx.IPSetBuilder) {
	var all netipx.IPSetBuilder
	for name := range tr.model.pools {
		all.AddSet(tr.ledger.Effective(name, func(Held) bool { return true }))
	}
	got := mustSet(&all)
	covered := mustSet(held)
	for _, f := range []Family{IPv4, IPv6} {
		for a := range universe(f) {
			inPool := false
			for _, p := range tr.model.pools {
				inPool = inPool || p.Contains(a)
			}
			if want := inPool && covered.Contains(a); got.Contains(a) != want {
				tr.fatalf("%s is effective: %v, want %v", a, !want, want)
			}
		}
	}
}

func (u *Usage) count(state use) {
	switch state {
	case leased:
		u.Leased++
	case free:
		u.Free++
	case cooling:
		u.Cooling++
	}
}

func (tr *trial) checkGrants() {
	seen := map[netip.Addr]Owner{}
	grants := tr.ledger.Grants()
	for _, g := range grants {
		want := tr.model.grants[g.Owner.Attachment]
		if g.Op != Leased || g.Owner != want.Owner || !slices.Equal(g.Addrs, want.Addrs) || !g.At.Equal(want.At) {
			tr.fatalf("grant %v, want %v", g, want)
		}
		p := tr.model.pools[g.Pool]
		for _, a := range g.Addrs {
			if other, twice := seen[a]; twice {
				tr.fatalf("%s is leased to %s and %s", a, other, g.Owner)
			}
			seen[a] = g.Owner
			b := tr.model.blockOf(g.Pool, a)
			if p == nil || !p.Contains(a) || p.Reserved(a) || b == nil || b.closed {
				tr.fatalf("%s is leased by %s, in pool %v, block %v", a, g.Owner, p, b)
			}
		}
	}
	if len(grants) != len(tr.model.grants) {
		tr.fatalf("%d grants, want %d", len(grants), len(tr.model.grants))
	}
}

// checkAddresses asks for each address of the universe whether it could be
// had, and for the one that anybody would get.
func (tr *trial) checkAddresses(p *Pool) {
	lots := tr.ledger.shares[p.Name()].lots
	for _, f := range []Family{IPv4, IPv6} {
		got, err := lots[f].offer(netip.Addr{}, tr.now)
		if want := tr.model.wantOffer(p, f, tr.now); got != want || (err == nil) != want.IsValid() {
			tr.fatalf("pool %q: next %v address %v (%v), want %v", p.Name(), f, got, err, want)
		}
		for a := range universe(f) {
			b := tr.model.blockOf(p.Name(), a)
			want := outside
			switch {
			case b == nil:
			case tr.model.leased(a):
				want = leased
			case tr.model.cools(p, a, tr.now):
				want = cooling
			case p.Contains(a) && !p.Reserved(a):
				want = free
			}
			if have := lots[f].use(a); have != want {
				tr.fatalf("pool %q: %s is %d, want %d", p.Name(), a, have, want)
			}
		}
	}
}

// consistent says where the parts of a lot contradict each other.
func (l *lot) consistent() error {
	resting := map[netip.Addr]int{}
	for i, r := range l.cooling {
		resting[r.addr]++
		if l.use(r.addr) != cooling {
			return fmt.Errorf("%s is in cooling, but %d", r.addr, l.use(r.addr))
		}
		if i > 0 && r.since.Before(l.cooling[i-1].since) {
			return fmt.Errorf("cooling is out of order at %s", r.addr)
		}
	}
	inReady := 0
	lengths := map[int]int{}
	for p := range l.blocks {
		lengths[p.Bits()]++
	}
	if !maps.Equal(lengths, l.ofLength) || len(lengths) != len(l.lengths) {
		return fmt.Errorf("lengths %v and %v, want %v", l.lengths, l.ofLength, lengths)
	}
	for _, b := range l.blocks {
		queued := slices.Clone(b.queue)
		slices.Sort(queued)
		for o, u := range b.uses {
			_, inQueue := slices.BinarySearch(queued, uint32(o))
			a := b.addr(uint32(o))
			switch {
			case inQueue != (u == free):
				return fmt.Errorf("%s is %d, in queue %v", a, u, inQueue)
			case u != outside && l.blockOf(a) != b:
				return fmt.Errorf("%s is %d in %s, which is not its smallest block", a, u, b.Prefix)
			case l.blockOf(a) == b && (resting[a] == 1) != (u == cooling):
				return fmt.Errorf("%s is %d, cooling %d times", a, u, resting[a])
			}
		}
		if !slices.IsSortedFunc(b.queue, b.order) || len(slices.Compact(queued)) != len(b.queue) {
			return fmt.Errorf("the queue of %s is out of order: %v", b.Prefix, b.queue)
		}
		if b.closed && b.count(leased)+b.count(cooling) > 0 {
			return fmt.Errorf("%s is closed, but %d are leased and %d cool down", b.Prefix, b.count(leased), b.count(cooling))
		}
		if want := !b.closed && len(b.queue) > 0; want != (b.inHeap >= 0) || want && l.ready[b.inHeap] != b {
			return fmt.Errorf("%s is in ready at %d, should be in: %v", b.Prefix, b.inHeap, want)
		} else if want {
			inReady++
		}
	}
	if inReady != len(l.ready) {
		return fmt.Errorf("%d blocks in ready, want %d", len(l.ready), inReady)
	}
	return nil
}

// snapshot prints all that a ledger promises to keep when a call fails.
func snapshot(l *Ledger) string {
	var out bytes.Buffer
	fmt.Fprintln(&out, l.Grants(), l.Blocks())
	for _, name := range slices.Sorted(maps.Keys(l.shares)) {
		s := l.shares[name]
		fmt.Fprintln(&out, name, s.gone, s.pool.Addresses().Ranges(), s.pool.def)
	}
	return out.String()
}
