package pools

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// desk is a ledger with what most tests do to it in one call.
type desk struct {
	*Ledger
	t    testing.TB
	kept []Record
}

func newDesk(t testing.TB, ps ...*Pool) *desk {
	t.Helper()
	d := &desk{Ledger: NewLedger("here"), t: t}
	if err := d.SetPools(ps); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *desk) hold(pool string, prefixes ...string) *desk {
	d.t.Helper()
	for _, s := range prefixes {
		if err := d.Hold(Block{Prefix: netip.MustParsePrefix(s), Pool: pool, Node: "here", Created: day}); err != nil {
			d.t.Fatal(err)
		}
	}
	return d
}

func (d *desk) lease(pool, id string, now time.Time, want ...string) string {
	d.t.Helper()
	rec, fresh, err := d.ProposeLease(request(pool, id, want...), now)
	if err == nil && fresh {
		d.kept = append(d.kept, rec)
		err = d.Apply(rec)
	}
	if err != nil {
		d.t.Fatalf("lease for %s: %v", id, err)
	}
	return rec.Addrs[0].String()
}

func (d *desk) release(id string, now time.Time) {
	d.t.Helper()
	rec, held, err := d.ProposeRelease(request("", id).Owner, now)
	if err != nil || !held {
		d.t.Fatalf("release for %s: held %v, %v", id, held, err)
	}
	d.kept = append(d.kept, rec)
	if err := d.Apply(rec); err != nil {
		d.t.Fatal(err)
	}
}

func request(pool, id string, want ...string) Request {
	r := Request{Pool: pool, Owner: Owner{Attachment: Attachment{"net", id, "eth0"}, PodUID: "uid-" + id, Namespace: "ns", Pod: id}}
	for _, s := range want {
		r.Want = append(r.Want, netip.MustParseAddr(s))
	}
	return r
}

// webPool has a block of four addresses, all of which can be leased.
func webPool(t testing.TB, texts ...string) *Pool {
	return mustNew(t, Definition{
		Name: "web", BlockSize: 4, ReuseAfter: time.Minute, Ranges: ranges(t, texts...),
		Gateways: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/8")},
	})
}

func after(seconds int) time.Time { return day.Add(time.Duration(seconds) * time.Second) }

func TestFreedAddressRestsAndQueues(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30")
	for i, want := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
		if got := d.lease("web", fmt.Sprint("c", i), after(0)); got != want {
			t.Errorf("lease %d is %s, want %s", i, got, want)
		}
	}
	d.release("c1", after(1))
	d.release("c0", after(2))
	if got := d.lease("web", "c3", after(2)); got != "10.0.0.0" {
		t.Errorf("the never used address goes first, got %s", got)
	}
	_, _, err := d.ProposeLease(request("web", "c4"), after(60))
	var lack *NoFreeError
	if !errors.As(err, &lack) || !errors.Is(err, ErrNoFree) || lack.Cooling != 2 || !lack.Next.Equal(after(61)) || lack.Family != IPv4 {
		t.Errorf("error %v, want two cooling down until %v", err, after(61))
	}
	d.release("c3", after(60))
	for i, want := range []string{"10.0.0.2", "10.0.0.1", "10.0.0.0"} {
		if got := d.lease("web", fmt.Sprint("d", i), after(200)); got != want {
			t.Errorf("reuse %d is %s, want %s: least recently used first", i, got, want)
		}
	}
}

// TestClockSetBack releases with times out of order: nothing is leased early
// and one time in the future does not hold up the others.
func TestClockSetBack(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30")
	for i := range 4 {
		d.lease("web", fmt.Sprint("c", i), after(0))
	}
	d.release("c0", after(3600))
	d.release("c1", after(2))
	d.release("c2", after(1))
	for i, want := range []string{"10.0.0.3", "10.0.0.2"} {
		if got := d.lease("web", fmt.Sprint("d", i), after(62)); got != want {
			t.Errorf("reuse %d is %s, want %s", i, got, want)
		}
	}
	if _, _, err := d.ProposeLease(request("web", "e"), after(3659)); !errors.Is(err, ErrNoFree) {
		t.Errorf("leased before its time: %v", err)
	}
}

// TestRestSurvivesChangesOfThePool takes a resting address out of the pool and
// puts it back.
func TestRestSurvivesChangesOfThePool(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30")
	for i := range 4 {
		d.lease("web", fmt.Sprint("c", i), after(0))
	}
	d.release("c0", after(0))
	for _, p := range []*Pool{webPool(t, "10.0.0.0", "10.0.0.2-10.0.0.3"), webPool(t, "10.0.0.0/24")} {
		if err := d.SetPools([]*Pool{p}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := d.ProposeLease(request("web", "d", "10.0.0.1"), after(59)); !errors.Is(err, ErrTaken) {
		t.Errorf("a resting address was offered: %v", err)
	}
	d.lease("web", "d", after(60), "10.0.0.1")
}

// TestRestEndsOutsideOfThePool takes a resting address out of the pool for
// longer than it rests.
func TestRestEndsOutsideOfThePool(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30")
	for i := range 4 {
		d.lease("web", fmt.Sprint("c", i), after(0))
	}
	d.release("c0", after(0))
	if err := d.SetPools([]*Pool{webPool(t, "10.0.0.0", "10.0.0.2-10.0.0.3")}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.ProposeLease(request("web", "d"), after(60)); !errors.Is(err, ErrNoFree) {
		t.Errorf("an address that left the pool was offered: %v", err)
	}
}

// TestBlockStaysWhileItsAddressesRest returns a block and claims it again.
func TestBlockStaysWhileItsAddressesRest(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30")
	d.lease("web", "c0", after(0))
	d.release("c0", after(0))
	prefix := netip.MustParsePrefix("10.0.0.0/30")
	if err := d.Close(prefix, after(59)); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "1 addresses of it are cooling down") {
		t.Errorf("close while an address rests: %v", err)
	}
	if err := errors.Join(d.Close(prefix, after(60)), d.Drop(prefix)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.ProposeLease(request("web", "c1"), after(60)); !errors.Is(err, ErrNoFree) {
		t.Errorf("a lease without a block: %v", err)
	}
	d.hold("web", "10.0.0.0/30")
	if got := d.Usage(after(60))[0]; got != (Usage{Pool: "web", Free: 4, Blocks: 1}) {
		t.Errorf("a block claimed anew: %+v", got)
	}
}

func TestUsageCountsWhatHasRestedAsFree(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30")
	d.lease("web", "c0", after(0))
	d.lease("web", "c1", after(0))
	d.release("c0", after(0))
	for i, want := range []Usage{{Pool: "web", Leased: 1, Free: 2, Cooling: 1, Blocks: 1}, {Pool: "web", Leased: 1, Free: 3, Blocks: 1}} {
		if got := d.Usage(after(59 + i))[0]; got != want {
			t.Errorf("usage after %d s: %+v, want %+v", 59+i, got, want)
		}
	}
}

// TestAvoidedAddressesGoLast leases blocks empty: all of their addresses are leased in
// order, but after the others those that may be a network's.
func TestAvoidedAddressesGoLast(t *testing.T) {
	for _, c := range []struct {
		pool   *Pool
		blocks []string
		want   string
	}{
		{webPool(t, "10.0.0.0/24"), []string{"10.0.0.0/30", "10.0.0.4/30"}, "[10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.0 10.0.0.4 10.0.0.5 10.0.0.6 10.0.0.7]"},
		{webPool(t, "10.0.0.2-10.0.0.9"), []string{"10.0.0.0/30"}, "[10.0.0.2 10.0.0.3]"},
		{webPool(t, "10.0.0.0/24"), []string{"10.0.0.0/32"}, "[10.0.0.0]"},
		{mustNew(t, Definition{Name: "web", BlockSize: 4, Ranges: ranges(t, "fd00::/64")}), []string{"fd00::/126"}, "[fd00::1 fd00::2 fd00::3 fd00::]"},
		{mustNew(t, Definition{Name: "web", BlockSize: 4, Ranges: ranges(t, "fd00::/64")}), []string{"fd00::fc/126", "fd00::100/126"}, "[fd00::fc fd00::fd fd00::fe fd00::ff fd00::101 fd00::102 fd00::103 fd00::100]"},
		{mustNew(t, Definition{Name: "web", BlockSize: 512, Ranges: ranges(t, "10.0.0.254-10.0.1.1")}), []string{"10.0.0.0/23"}, "[10.0.0.255 10.0.1.1 10.0.1.0]"},
		{mustNew(t, Definition{Name: "web", BlockSize: 4, Ranges: ranges(t, "10.0.0.64/26"), Gateways: []netip.Prefix{netip.MustParsePrefix("10.0.0.65/26")}}), []string{"10.0.0.64/30"}, "[10.0.0.66 10.0.0.67 10.0.0.64]"},
		{mustNew(t, Definition{Name: "web", BlockSize: 4, Ranges: ranges(t, "fd00::8/125"), Gateways: []netip.Prefix{netip.MustParsePrefix("fd00::9/125")}}), []string{"fd00::8/126", "fd00::c/126"}, "[fd00::a fd00::b fd00::8 fd00::c fd00::d fd00::e fd00::f]"},
		{mustNew(t, Definition{Name: "web", BlockSize: 4, Ranges: ranges(t, "10.0.0.0/24")}), []string{"10.0.0.0/30"}, "[10.0.0.2 10.0.0.3 10.0.0.0]"},
	} {
		d := newDesk(t, c.pool).hold("web", c.blocks...)
		var got []string
		for free := d.Usage(after(0))[0].Free; len(got) < free; {
			got = append(got, d.lease("web", fmt.Sprint("c", len(got)), after(0)))
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%v of %v: leased %v, want %s", c.blocks, c.pool.Addresses().Ranges(), got, c.want)
		}
	}
}

func TestBlockInsideABlock(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30")
	d.lease("web", "c0", after(0), "10.0.0.2")
	d.hold("web", "10.0.0.2/31")
	if _, _, err := d.ProposeLease(request("web", "c1", "10.0.0.2"), after(0)); !errors.Is(err, ErrTaken) {
		t.Errorf("a smaller block made a leased address free: %v", err)
	}
	for i := range 3 {
		d.lease("web", fmt.Sprint("d", i), after(0))
	}
	if _, _, err := d.ProposeLease(request("web", "e"), after(0)); !errors.Is(err, ErrNoFree) {
		t.Errorf("five leases of four addresses: %v", err)
	}
	d.release("d2", after(1))
	d.release("c0", after(2))
	inner := netip.MustParsePrefix("10.0.0.2/31")
	if err := d.Close(inner, after(61)); !errors.Is(err, ErrTaken) {
		t.Errorf("an inner block was closed while an address of it rests: %v", err)
	}
	if err := errors.Join(d.Close(inner, after(62)), d.Drop(inner)); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"10.0.0.3", "10.0.0.2"} {
		if got := d.lease("web", fmt.Sprint("e", i), after(62)); got != want {
			t.Errorf("lease of %s, want %s: what fell back to the outer block, least recently used first", got, want)
		}
	}
}

func TestLeaseErrors(t *testing.T) {
	web := mustNew(t, Definition{Name: "web", BlockSize: 4, Ranges: ranges(t, "10.0.0.0/24", "fd00::/64"), ReuseAfter: time.Minute})
	d := newDesk(t, web, mustNew(t, Definition{Name: "db", Ranges: ranges(t, "10.1.0.0/24")})).hold("web", "10.0.0.4/30", "10.0.0.8/30", "fd00::/126")
	d.lease("web", "c0", after(0), "10.0.0.5", "fd00::1")
	d.lease("web", "c1", after(0), "10.0.0.6", "fd00::2")
	d.release("c1", after(0))
	if err := d.Close(netip.MustParsePrefix("10.0.0.8/30"), after(0)); err != nil {
		t.Fatal(err)
	}
	stranger := request("web", "c0")
	stranger.Owner.PodUID = "uid-other"
	nobody := request("web", "c0")
	nobody.Owner.PodUID = ""
	for _, c := range []struct {
		name string
		r    Request
		want error
		says string
	}{
		{"repeated", request("web", "c0"), nil, ""},
		{"repeated with its address", request("web", "c0", "fd00::1"), nil, ""},
		{"repeated without a UID", nobody, nil, ""},
		{"repeated with another address", request("web", "c0", "10.0.0.7"), ErrMismatch, "holds [10.0.0.5 fd00::1]"},
		{"repeated in another pool", request("db", "c0"), ErrMismatch, `of pool "web"`},
		{"another pod", stranger, ErrNotOwner, "ns/c0 (net/c0/eth0)"},
		{"unknown pool", request("none", "c2"), ErrUnknownPool, `["db" "web"]`},
		{"no block", request("db", "c2"), ErrNoFree, `pool "db": no free IPv4`},
		{"leased", request("web", "c2", "10.0.0.5"), ErrTaken, "10.0.0.5 is leased"},
		{"resting", request("web", "c2", "10.0.0.6"), ErrTaken, "cools down for 1m0s"},
		{"gateway", request("web", "c2", "10.0.0.1"), ErrMismatch, "10.0.0.1 is the pods' gateway"},
		{"outside", request("web", "c2", "10.0.1.1"), ErrOutside, "10.0.1.1 is outside of the pool"},
		{"invalid", Request{Pool: "web", Owner: request("", "c2").Owner, Want: []netip.Addr{{}}}, ErrOutside, "invalid IP"},
		{"with a zone", request("web", "c2", "fd00::3%eth0"), ErrOutside, "fd00::3%eth0"},
		{"mapped", request("web", "c2", "::ffff:10.0.0.7"), ErrOutside, "10.0.0.7"},
		{"two of a family", request("web", "c2", "10.0.0.4", "10.0.0.7"), ErrMismatch, "of one family"},
		{"taken where another family has no block", request("web", "c2", "10.0.0.77", "fd00::1"), ErrTaken, "fd00::1 is leased"},
		{"in no block", request("web", "c2", "10.0.0.77"), ErrNoFree, "10.0.0.77 is in no block"},
		{"in a closed block", request("web", "c2", "10.0.0.9"), ErrNoFree, "10.0.0.9 is in no block"},
	} {
		before := snapshot(d.Ledger)
		_, fresh, err := d.ProposeLease(c.r, after(1))
		if !errors.Is(err, c.want) || fresh || c.want != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: fresh %v, error %v, want %v with %q", c.name, fresh, err, c.want, c.says)
		}
		if snapshot(d.Ledger) != before {
			t.Errorf("%s: something changed", c.name)
		}
	}
}

// Lacks names all blocks that a request waits for, so that they can be claimed
// at once.
func TestLacksOfEveryFamily(t *testing.T) {
	web := mustNew(t, Definition{Name: "web", BlockSize: 4, Ranges: ranges(t, "10.0.0.0/24", "fd00::/64")})
	d := newDesk(t, web)
	check := func(r Request, want ...NoFreeError) {
		t.Helper()
		if got := d.Lacks(r, after(0)); !slices.Equal(got, want) {
			t.Errorf("%v lacks %v, want %v", r.Want, got, want)
		}
	}
	four, six := NoFreeError{Pool: "web", Family: IPv4}, NoFreeError{Pool: "web", Family: IPv6}
	chosen := six
	chosen.Want = netip.MustParseAddr("fd00::9")
	check(request("web", "c0"), four, six)
	check(request("web", "c0", "fd00::9"), four, chosen)
	check(request("none", "c0"))
	check(request("web", "c0", "10.0.0.1")) // the gateway, which no block has
	d.hold("web", "fd00::/126")
	check(request("web", "c0"), four)
	d.hold("web", "10.0.0.4/30")
	check(request("web", "c0"))
	check(request("web", "c0", "fd00::9"), chosen)
	d.lease("web", "c0", after(0), "fd00::3")
	check(request("web", "c0", "fd00::9")) // contradicts what stands
	check(request("web", "c1", "fd00::3")) // leased
}

func TestReleaseNamesItsOwner(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30")
	d.lease("web", "c0", after(0))
	late, held, err := d.ProposeRelease(request("", "c0").Owner, after(1))
	if err != nil || !held {
		t.Fatal(held, err)
	}
	d.release("c0", after(1))
	if _, held, err := d.ProposeRelease(request("", "c0").Owner, after(1)); held || err != nil {
		t.Errorf("a repeated release: held %v, %v", held, err)
	}
	d.lease("web", "c1", after(100), "10.0.0.0")
	if err := d.Apply(late); !errors.Is(err, ErrNotOwner) {
		t.Errorf("a late release of another pod's address: %v", err)
	}
	other := request("", "c1").Owner
	other.PodUID = "uid-c0"
	if _, held, err := d.ProposeRelease(other, after(100)); held || !errors.Is(err, ErrNotOwner) {
		t.Errorf("a release by another pod: held %v, %v", held, err)
	}
	other.PodUID = ""
	if rec, held, err := d.ProposeRelease(other, after(100)); !held || err != nil || rec.Owner.PodUID != "uid-c1" {
		t.Errorf("a release by a runtime that names no pod: %v, held %v, %v", rec, held, err)
	}
	if _, ok := d.Grant(request("", "c1").Owner.Attachment); !ok {
		t.Error("the lease of c1 is gone")
	}
}

// TestApplyRefuses hands Apply and Fold records that a damaged journal, or a
// wrong caller, could hold.
func TestApplyRefuses(t *testing.T) {
	db := mustNew(t, Definition{Name: "db", BlockSize: 4, Ranges: ranges(t, "10.1.0.0/24")})
	d := newDesk(t, webPool(t, "10.0.0.0/24"), db).hold("web", "10.0.0.0/30", "10.0.0.4/30").hold("db", "10.1.0.4/30")
	d.lease("web", "c0", after(0), "10.0.0.0")
	rec := func(op Op, pool, id string, addrs ...string) Record {
		r := request(pool, id, addrs...)
		return Record{Op: op, Pool: pool, Owner: r.Owner, Addrs: r.Want, At: after(1)}
	}
	if err := d.Close(netip.MustParsePrefix("10.0.0.4/30"), after(0)); err != nil {
		t.Fatal(err)
	}
	any := errors.New("")
	for _, c := range []struct {
		name        string
		rec         Record
		apply, fold error // nil: no error; any: one without a sentinel
	}{
		{"no operation", rec(0, "web", "c1", "10.0.0.1"), any, any},
		{"unknown operation", rec(9, "web", "c1", "10.0.0.1"), any, any},
		{"no address", rec(Leased, "web", "c1"), any, any},
		{"an address twice", rec(Leased, "web", "c1", "10.0.0.1", "10.0.0.1"), any, any},
		{"two of a family", rec(Leased, "web", "c1", "10.0.0.1", "10.0.0.2"), any, any},
		{"invalid address", Record{Op: Leased, Pool: "web", Addrs: []netip.Addr{{}}}, any, any},
		{"zone", rec(Leased, "web", "c1", "fe80::1%eth0"), any, any},
		{"leased already", rec(Leased, "web", "c1", "10.0.0.0"), ErrTaken, ErrTaken},
		{"its owner holds one", rec(Leased, "web", "c0", "10.0.0.1"), ErrTaken, ErrTaken},
		{"release of nothing", rec(Released, "web", "c1", "10.0.0.0"), ErrNotOwner, ErrNotOwner},
		{"release of another address", rec(Released, "web", "c0", "10.0.0.1"), ErrNotOwner, ErrNotOwner},
		{"release in another pool", rec(Released, "db", "c0", "10.0.0.0"), ErrNotOwner, ErrNotOwner},
		{"rest of a leased address", rec(Rested, "web", "", "10.0.0.0"), any, ErrTaken},
		{"no such pool", rec(Leased, "none", "c1", "10.0.0.1"), ErrUnknownPool, nil},
		{"no block", rec(Leased, "web", "c1", "10.0.0.77"), ErrOutside, nil},
		{"another pool's address", rec(Leased, "db", "c1", "10.0.0.1"), ErrOutside, nil},
		{"one of two in no block", rec(Leased, "web", "c1", "10.0.0.1", "fd00::1"), ErrOutside, nil},
		{"closed block", rec(Leased, "web", "c1", "10.0.0.5"), ErrTaken, nil},
	} {
		before := snapshot(d.Ledger)
		err := d.Apply(c.rec)
		if err == nil || c.apply != any && !errors.Is(err, c.apply) {
			t.Errorf("%s: Apply = %v, want %v", c.name, err, c.apply)
		}
		if snapshot(d.Ledger) != before {
			t.Errorf("%s: something changed", c.name)
		}
		_, err = Fold(append(slices.Clone(d.kept), c.rec))
		if (err == nil) != (c.fold == nil) || c.fold != any && !errors.Is(err, c.fold) {
			t.Errorf("%s: Fold = %v, want %v", c.name, err, c.fold)
		} else if err != nil && !strings.HasPrefix(err.Error(), "record 2 of 2: ") {
			t.Errorf("%s: Fold's error %q does not name the record", c.name, err)
		}
	}
}

// TestHistoryIsWhatFoldMakes: both ways of shortening a journal agree, and
// shortening twice changes nothing.
func TestHistoryIsWhatFoldMakes(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30", "10.0.0.4/30")
	for i := range 12 {
		d.lease("web", fmt.Sprint("c", i), after(100*i))
		if i%3 != 0 {
			d.release(fmt.Sprint("c", i), after(100*i+50))
		}
	}
	folded, err := Fold(d.kept)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.History(after(5000)); !reflect.DeepEqual(got, folded) {
		t.Errorf("history\n%v\nfolded\n%v", got, folded)
	}
	if again, err := Fold(folded); err != nil || !reflect.DeepEqual(again, folded) {
		t.Errorf("folded twice\n%v, %v\nonce\n%v", again, err, folded)
	}
}

func TestRestoreTellsWhatIsLost(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30", "10.0.0.4/30")
	for i := range 6 {
		d.lease("web", fmt.Sprint("c", i), after(i))
	}
	next := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30")
	history := append(d.kept, Record{Op: Leased, Pool: "gone", Owner: request("", "x").Owner, Addrs: []netip.Addr{netip.MustParseAddr("10.3.0.1")}})
	lost, err := next.Restore(history, after(6))
	if err != nil || len(lost) != 3 || lost[0].Owner.Pod != "c4" || lost[1].Owner.Pod != "c5" || lost[2].Pool != "gone" {
		t.Errorf("lost %v, %v, want c4, c5 and x", lost, err)
	}
	if got := len(next.Grants()); got != 4 {
		t.Errorf("%d grants, want 4", got)
	}
	if _, err := next.Restore(d.kept[:1], after(6)); !errors.Is(err, ErrTaken) {
		t.Errorf("a contradiction was passed over: %v", err)
	}
}

func TestRestoreAfterTheClockWasSetBack(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/32")
	d.lease("web", "c0", after(7000))
	d.release("c0", after(7001))
	for _, history := range [][]Record{d.History(after(7001)), d.kept} {
		next := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/32")
		if lost, err := next.Restore(history, after(0)); err != nil || len(lost) > 0 {
			t.Fatal(lost, err)
		}
		pool, err := next.Pool("web")
		if err != nil {
			t.Fatal(err)
		}
		rested := after(0).Add(pool.ReuseAfter())
		if u := next.Usage(rested.Add(-time.Nanosecond)); u[0].Cooling != 1 {
			t.Errorf("usage before the rest is over: %+v", u)
		}
		if u := next.Usage(rested); u[0].Free != 1 {
			t.Errorf("usage after the rest: %+v", u)
		}
	}
}

func TestBlockErrors(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30")
	d.lease("web", "c0", after(0))
	held, absent := netip.MustParsePrefix("10.0.0.0/30"), netip.MustParsePrefix("10.0.0.4/30")
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"hold for an unknown pool", d.Hold(Block{Prefix: absent, Pool: "none", Node: "here"}), ErrUnknownPool},
		{"hold another node's", d.Hold(Block{Prefix: absent, Pool: "web", Node: "there"}), ErrNotOwner},
		{"hold too large a block", d.Hold(Block{Prefix: netip.MustParsePrefix("10.0.0.0/29"), Pool: "web", Node: "here"}), ErrOutside},
		{"hold host bits", d.Hold(Block{Prefix: netip.MustParsePrefix("10.0.0.5/30"), Pool: "web", Node: "here"}), ErrOutside},
		{"hold nothing", d.Hold(Block{Pool: "web", Node: "here"}), ErrOutside},
		{"hold again", d.Hold(Block{Prefix: held, Pool: "web", Node: "here"}), nil},
		{"close with a lease", d.Close(held, after(0)), ErrTaken},
		{"close what is not held", d.Close(absent, after(0)), ErrOutside},
		{"close nothing", d.Close(netip.Prefix{}, after(0)), ErrOutside},
		{"drop an open block", d.Drop(held), ErrTaken},
		{"drop what is not held", d.Drop(absent), nil},
	} {
		if !errors.Is(c.err, c.want) || (c.err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, c.err, c.want)
		}
	}
	if d.Reopen(held) || d.Reopen(absent) {
		t.Error("reopened what was not closed")
	}
}

// TestRecordsAreTheCallersOwn changes what the ledger handed out.
func TestRecordsAreTheCallersOwn(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30")
	d.lease("web", "c0", after(0))
	rec, _, err := d.ProposeLease(request("web", "c0"), after(0))
	if err != nil {
		t.Fatal(err)
	}
	standing, _ := d.Grant(rec.Owner.Attachment)
	for _, r := range append(d.Grants(), rec, standing) {
		r.Addrs[0] = netip.MustParseAddr("192.0.2.1")
	}
	if got := d.Grants()[0].Addrs[0].String(); got != "10.0.0.1" {
		t.Errorf("the lease became %s", got)
	}
}
