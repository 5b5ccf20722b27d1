package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"go4.org/netipx"
)

// Shared is a store that nodes share, from all sides.
type Shared interface {
	// Node is the store as that node sees it.
	Node(name string) exchange.Exchange
	// Vacate makes b, at its Version, vacant, as the controller does.
	Vacate(ctx context.Context, b exchange.Stored) (exchange.Stored, error)
}

const (
	// racers is how many take part in a race.
	racers = 16
	// patience bounds how long something may take that comes late.
	patience = 20 * time.Second
)

// RunStore holds the store of one node, "n1", against the part of the contract
// that does not need another one. begin is called once for each test and starts
// with no blocks.
func RunStore(t *testing.T, begin func(t *testing.T) exchange.Store) {
	tests := map[string]func(*testing.T, exchange.Store){
		"a new block can be read back":           newBlock,
		"there is one block of a prefix":         oneOfAPrefix,
		"a removed block is gone":                removed,
		"what lies inside, in both families":     insideOne,
		"the own blocks are those of all pools":  ownOne,
		"a list has a pool's blocks, no other's": listOne,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, begin(t)) })
	}
}

// RunExchange holds a store that nodes share against the contract. begin is
// called once for each test and starts with no blocks and no requests.
func RunExchange(t *testing.T, begin func(t *testing.T) Shared) {
	RunStore(t, func(t *testing.T) exchange.Store { return begin(t).Node("n1") })
	tests := map[string]func(*testing.T, Shared){
		"every block is another one":                 distinct,
		"an old UID removes nothing":                 oldUID,
		"an old version removes nothing":             removedLate,
		"of racing creators one wins":                creatorsRace,
		"the own blocks and what of them is others'": ownOfSeveral,
		"a list has vacant and other nodes' blocks":  listOfSeveral,
		"a vacant block can be taken":                takeVacant,
		"an earlier machine's block can be taken":    takeOver,
		"a block that was changed is not taken":      takeLate,
		"a block that is gone is not taken":          takeGone,
		"of racing takers one wins":                  takersRace,
		"a request can be read back":                 newRequest,
		"there is one request of a name":             oneOfAName,
		"a retracted request is gone":                retracted,
		"a grant is the first at its version":        grantOnce,
		"grants are added":                           grantsAdd,
		"a request that is gone is not granted":      grantGone,
		"of racing lenders one wins":                 lendersRace,
		"a watch sees what all end as":               watched,
		"a watch of pools sees no others":            selected,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, begin(t)) })
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// block is a block of pool web.
func block(node, p string) pools.Block {
	return pools.Block{Prefix: prefix(p), Pool: "web", Node: node, Machine: node + "-machine"}
}

// lent is a block of pool web that was lent by lender.
func lent(node, lender, p string) pools.Block {
	b := block(node, p)
	b.Lender = lender
	return b
}

func create(t *testing.T, s exchange.Store, b pools.Block) exchange.Stored {
	t.Helper()
	st, err := s.Create(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func remove(t *testing.T, s exchange.Store, b exchange.Stored) {
	t.Helper()
	if err := s.Delete(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func vacate(t *testing.T, s Shared, b exchange.Stored) exchange.Stored {
	t.Helper()
	st, err := s.Vacate(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func ask(t *testing.T, e exchange.Exchange, r exchange.Request) exchange.Request {
	t.Helper()
	made, err := e.Ask(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// wantErr complains unless want is the only one of the contract's errors that err
// wraps.
func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	for _, e := range []error{exchange.ErrExists, exchange.ErrGone, exchange.ErrConflict, exchange.ErrUnknown} {
		if errors.Is(err, e) != (e == want) {
			t.Errorf("%s: %v, want: %v", what, err, want)
			return
		}
	}
}

// wantSame compares blocks as the store gave them at different times.
func wantSame(t *testing.T, what string, got, want exchange.Stored) {
	t.Helper()
	if !got.Created.Equal(want.Created) {
		t.Errorf("%s: made at %v, want %v", what, got.Created, want.Created)
	}
	got.Created = want.Created
	if got != want {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// wantPrefixes compares blocks by their prefixes, each of which must be there
// once.
func wantPrefixes(t *testing.T, what string, got []exchange.Stored, want ...string) {
	t.Helper()
	if have := prefixes(got); !slices.Equal(have, parsed(want)) {
		t.Errorf("%s: %v, want %v", what, have, want)
	}
}

func prefixes(blocks []exchange.Stored) []netip.Prefix {
	out := make([]netip.Prefix, len(blocks))
	for i, b := range blocks {
		out[i] = b.Prefix
	}
	slices.SortFunc(out, netipx.ComparePrefix)
	return out
}

func parsed(ss []string) []netip.Prefix {
	out := make([]netip.Prefix, len(ss))
	for i, s := range ss {
		out[i] = prefix(s)
	}
	slices.SortFunc(out, netipx.ComparePrefix)
	return out
}

// wantList waits for a list to have exactly those blocks.
func wantList(t *testing.T, s exchange.Store, pool string, want ...string) []exchange.Stored {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		got, err := s.List(ctx, pool)
		if err == nil && slices.Equal(prefixes(got), parsed(want)) {
			return got
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the list of pool %s is %v, %v; want %v", pool, prefixes(got), err, want)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func newBlock(t *testing.T, s exchange.Store) {
	for _, b := range []pools.Block{block("n1", "10.1.0.64/26"), block("n1", "fd00::40/122"), lent("n1", "n2", "10.1.0.7/32")} {
		st := create(t, s, b)
		if st.Prefix != b.Prefix || st.Pool != "web" || st.Node != "n1" || st.Lender != b.Lender || st.Machine != "n1-machine" || st.Tenure != 0 {
			t.Errorf("made %+v of %+v", st, b)
		}
		read, err := s.Block(t.Context(), b.Prefix)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, "read back", read, st)
	}
}

func oneOfAPrefix(t *testing.T, s exchange.Store) {
	st := create(t, s, block("n1", "10.1.0.0/26"))
	_, err := s.Create(t.Context(), lent("n1", "n3", "10.1.0.0/26"))
	wantErr(t, "second block of a prefix", err, exchange.ErrExists)
	read, err := s.Block(t.Context(), st.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "after a second one was tried", read, st)
	create(t, s, block("n1", "10.1.0.0/27")) // not the same prefix
}

func removed(t *testing.T, s exchange.Store) {
	_, err := s.Block(t.Context(), prefix("10.1.0.0/26"))
	wantErr(t, "a block that was never made", err, exchange.ErrGone)
	st, stays := create(t, s, block("n1", "10.1.0.0/26")), create(t, s, block("n1", "10.1.0.64/26"))
	remove(t, s, st)
	_, err = s.Block(t.Context(), st.Prefix)
	wantErr(t, "a removed block", err, exchange.ErrGone)
	wantErr(t, "removing it again", s.Delete(t.Context(), st), exchange.ErrGone)
	if _, err := s.Block(t.Context(), stays.Prefix); err != nil {
		t.Errorf("the other block: %v", err)
	}
	wantList(t, s, "web", "10.1.0.64/26")
	create(t, s, block("n1", "10.1.0.0/26"))
}

func insideOne(t *testing.T, s exchange.Store) {
	for _, p := range []string{"10.1.0.0/24", "10.1.0.0/28", "10.1.0.0/32", "10.1.0.128/25", "10.1.0.255/32", "10.1.1.0/32", "10.0.255.255/32", "10.1.4.0/30"} {
		create(t, s, block("n1", p))
	}
	for _, p := range []string{"fd00::/120", "fd00::/128", "fd00::80/121", "fd00::ff/128", "fd00::100/128", "fd00::1:0/112"} {
		create(t, s, block("n1", p))
	}
	for p, want := range map[string][]string{
		"10.1.0.0/24":   {"10.1.0.0/28", "10.1.0.0/32", "10.1.0.128/25", "10.1.0.255/32"},
		"10.1.0.0/28":   {"10.1.0.0/32"},
		"10.1.0.0/32":   {},
		"10.1.0.64/26":  {},
		"10.1.0.0/22":   {"10.1.0.0/24", "10.1.0.0/28", "10.1.0.0/32", "10.1.0.128/25", "10.1.0.255/32", "10.1.1.0/32"},
		"10.1.0.0/16":   {"10.1.0.0/24", "10.1.0.0/28", "10.1.0.0/32", "10.1.0.128/25", "10.1.0.255/32", "10.1.1.0/32", "10.1.4.0/30"},
		"10.0.0.0/16":   {"10.0.255.255/32"},
		"10.0.0.0/8":    {"10.0.255.255/32", "10.1.0.0/24", "10.1.0.0/28", "10.1.0.0/32", "10.1.0.128/25", "10.1.0.255/32", "10.1.1.0/32", "10.1.4.0/30"},
		"fd00::/120":    {"fd00::/128", "fd00::80/121", "fd00::ff/128"},
		"fd00::/112":    {"fd00::/120", "fd00::/128", "fd00::80/121", "fd00::ff/128", "fd00::100/128"},
		"fd00::80/121":  {"fd00::ff/128"},
		"fd00::1:0/112": {},
		"fd00::/64":     {"fd00::/120", "fd00::/128", "fd00::80/121", "fd00::ff/128", "fd00::100/128", "fd00::1:0/112"},
	} {
		got, err := s.Inside(t.Context(), prefix(p))
		if err != nil {
			t.Fatal(err)
		}
		wantPrefixes(t, "inside "+p, got, want...)
	}
}

func ownOne(t *testing.T, s exchange.Store) {
	own, err := s.Own(t.Context())
	if err != nil || len(own) > 0 {
		t.Errorf("with no blocks: %v, %v", own, err)
	}
	other := block("n1", "10.2.0.0/26")
	other.Pool = "db"
	create(t, s, other)
	create(t, s, block("n1", "10.1.0.0/26"))
	create(t, s, lent("n1", "n2", "10.1.0.16/28")) // in a block of the same node
	create(t, s, block("n1", "fd00::40/122"))
	if own, err = s.Own(t.Context()); err != nil {
		t.Error(err)
	}
	wantPrefixes(t, "own", own, "10.2.0.0/26", "10.1.0.0/26", "10.1.0.16/28", "fd00::40/122")
}

func listOne(t *testing.T, s exchange.Store) {
	st := create(t, s, block("n1", "10.1.0.0/26"))
	other := block("n1", "10.2.0.0/26")
	other.Pool = "web2"
	create(t, s, other)
	wantSame(t, "listed", wantList(t, s, "web", "10.1.0.0/26")[0], st)
	wantList(t, s, "web2", "10.2.0.0/26")
	wantList(t, s, "we")
}

func distinct(t *testing.T, c Shared) {
	s := c.Node("n1")
	uids, versions := map[string]bool{}, map[string]bool{}
	for range 2 {
		for _, p := range []string{"10.1.0.0/26", "10.1.0.64/26"} {
			st := create(t, s, block("n1", p))
			uids[st.UID], versions[st.Version] = true, true
			if st.UID == "" || st.Version == "" || st.Created.IsZero() {
				t.Errorf("made %+v", st)
			}
			remove(t, s, st)
		}
	}
	if len(uids) != 4 || len(versions) != 4 {
		t.Errorf("4 blocks have UIDs %v and versions %v", uids, versions)
	}
}

func oldUID(t *testing.T, c Shared) {
	s := c.Node("n1")
	old := create(t, s, block("n1", "10.1.0.0/26"))
	remove(t, s, old)
	st := create(t, s, block("n1", "10.1.0.0/26"))
	wantErr(t, "removing a block by an old UID", s.Delete(t.Context(), old), exchange.ErrGone)
	if read, err := s.Block(t.Context(), st.Prefix); err != nil || read.UID != st.UID {
		t.Errorf("the new block is %+v, %v", read, err)
	}
	old.UID = ""
	if err := s.Delete(t.Context(), old); err == nil {
		t.Error("a block is removed without its UID")
	}
	remove(t, s, st)
}

// removedLate: the removal was begun before the block was taken anew.
func removedLate(t *testing.T, c Shared) {
	s := c.Node("n1")
	old := create(t, s, block("n1", "10.1.0.0/26"))
	vacant := vacate(t, c, old)
	vacant.Node, vacant.Machine = "n1", "n1-machine"
	st, err := s.Take(t.Context(), vacant)
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, "removing a block at an old version", s.Delete(t.Context(), old), exchange.ErrConflict)
	if read, err := s.Block(t.Context(), st.Prefix); err != nil || read.UID != st.UID {
		t.Errorf("the block is %+v, %v", read, err)
	}
	old.Version = ""
	if err := s.Delete(t.Context(), old); err == nil {
		t.Error("a block is removed without its version")
	}
	remove(t, s, st)
}

// winner calls f for nodes n0, n1, ... at once and returns the one for which it
// succeeded; all others must fail with loss.
func winner(t *testing.T, loss error, f func(node string) error) string {
	t.Helper()
	errs := make([]error, racers)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			<-start
			errs[i] = f(fmt.Sprint("n", i))
		})
	}
	close(start)
	wg.Wait()
	won := ""
	for i, err := range errs {
		if err != nil {
			wantErr(t, "losing a race", err, loss)
			continue
		}
		if won != "" {
			t.Errorf("%s and n%d both won", won, i)
		}
		won = fmt.Sprint("n", i)
	}
	if won == "" {
		t.Fatal("nobody won the race")
	}
	return won
}

func creatorsRace(t *testing.T, c Shared) {
	won := winner(t, exchange.ErrExists, func(node string) error {
		_, err := c.Node(node).Create(t.Context(), block(node, "10.1.0.0/26"))
		return err
	})
	st, err := c.Node("n1").Block(t.Context(), prefix("10.1.0.0/26"))
	if err != nil || st.Node != won {
		t.Errorf("%s won, and the block is %+v, %v", won, st, err)
	}
}

func ownOfSeveral(t *testing.T, c Shared) {
	n1, n2 := c.Node("n1"), c.Node("n2")
	create(t, n1, block("n1", "10.1.0.0/26"))
	create(t, n2, lent("n2", "n1", "10.1.0.0/28"))
	vacate(t, c, create(t, n2, lent("n2", "n1", "10.1.0.32/28")))
	create(t, n1, lent("n1", "n2", "10.1.0.8/32")) // lent back
	create(t, n2, block("n2", "10.1.0.64/26"))
	create(t, n1, lent("n1", "n2", "10.1.0.64/27"))
	create(t, n2, lent("n2", "n1", "10.1.0.64/28"))
	vacate(t, c, create(t, n1, block("n1", "10.1.0.128/26")))
	create(t, n2, lent("n2", "n1", "10.1.0.128/32"))
	own, err := n1.Own(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantPrefixes(t, "own of n1", own, "10.1.0.0/26", "10.1.0.8/32", "10.1.0.64/27")
	own, err = c.Node("n3").Own(t.Context())
	if err != nil || len(own) > 0 {
		t.Errorf("a node without blocks has %v, %v", own, err)
	}
}

func listOfSeveral(t *testing.T, c Shared) {
	st := vacate(t, c, create(t, c.Node("n1"), block("n1", "10.1.0.0/26")))
	create(t, c.Node("n2"), block("n2", "10.1.0.64/26"))
	create(t, c.Node("n3"), lent("n3", "n2", "10.1.0.64/32"))
	got := wantList(t, c.Node("n1"), "web", "10.1.0.0/26", "10.1.0.64/26", "10.1.0.64/32")
	i := slices.IndexFunc(got, func(b exchange.Stored) bool { return b.Prefix == st.Prefix })
	if got[i].Node != "" && got[i].Version == st.Version {
		t.Errorf("the vacant block is listed as %+v", got[i])
	}
}

func takeVacant(t *testing.T, c Shared) {
	made := create(t, c.Node("n1"), block("n1", "10.1.0.0/26"))
	st := vacate(t, c, made)
	if st.Node != "" || st.UID != made.UID || st.Version == made.Version || st.Tenure != 0 {
		t.Errorf("made vacant: %+v", st)
	}
	wish := st
	wish.Node, wish.Machine = "n2", "n2-machine"
	got, err := c.Node("n2").Take(t.Context(), wish)
	if err != nil {
		t.Fatal(err)
	}
	wish.Tenure, wish.Version = 1, got.Version
	wantSame(t, "taken", got, wish)
	if got.Version == st.Version {
		t.Errorf("the version is %s as before", got.Version)
	}
	read, err := c.Node("n1").Block(t.Context(), st.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "read back", read, got)
	own, err := c.Node("n2").Own(t.Context())
	wantPrefixes(t, "own of n2", own, "10.1.0.0/26")
	if err != nil {
		t.Error(err)
	}
	if own, err := c.Node("n1").Own(t.Context()); err != nil || len(own) > 0 {
		t.Errorf("n1 still has %v, %v", own, err)
	}
}

func takeOver(t *testing.T, c Shared) {
	s := c.Node("n1")
	st := create(t, s, block("n1", "10.1.0.0/26"))
	wish := st
	wish.Machine = "n1-machine-2"
	got, err := s.Take(t.Context(), wish)
	if err != nil {
		t.Fatal(err)
	}
	wish.Tenure, wish.Version = 1, got.Version
	wantSame(t, "taken over", got, wish)
	again, err := s.Take(t.Context(), got) // after a boot the machine is the same
	if err != nil {
		t.Fatal(err)
	}
	got.Tenure, got.Version = 2, again.Version
	wantSame(t, "taken anew", again, got)
	other := create(t, c.Node("n2"), block("n2", "10.1.0.64/26"))
	if _, err := s.Take(t.Context(), other); err == nil {
		t.Error("n1 takes a block that n2 has")
	}
}

func takeLate(t *testing.T, c Shared) {
	made := create(t, c.Node("n1"), block("n1", "10.1.0.0/26"))
	vacant := vacate(t, c, made)
	made.Machine = "n1-machine-2"
	_, err := c.Node("n1").Take(t.Context(), made)
	wantErr(t, "taking at an old version", err, exchange.ErrConflict)
	vacant.Node, vacant.Machine = "n1", "n1-machine"
	if _, err := c.Node("n1").Take(t.Context(), vacant); err != nil {
		t.Fatal(err)
	}
	vacant.Node, vacant.Machine = "n2", "n2-machine"
	_, err = c.Node("n2").Take(t.Context(), vacant)
	wantErr(t, "taking what was taken", err, exchange.ErrConflict)
}

func takeGone(t *testing.T, c Shared) {
	s := c.Node("n2")
	vacant := vacate(t, c, create(t, c.Node("n1"), block("n1", "10.1.0.0/26")))
	remove(t, c.Node("n1"), vacant)
	vacant.Node, vacant.Machine = "n2", "n2-machine"
	_, err := s.Take(t.Context(), vacant)
	wantErr(t, "taking what is gone", err, exchange.ErrGone)
	_, err = s.Block(t.Context(), vacant.Prefix)
	wantErr(t, "what was not taken", err, exchange.ErrGone)
	again := create(t, c.Node("n1"), block("n1", "10.1.0.0/26"))
	_, err = s.Take(t.Context(), vacant)
	wantErr(t, "taking what is gone while another one is there", err, exchange.ErrGone)
	read, err := s.Block(t.Context(), vacant.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "the other one", read, again)
}

func takersRace(t *testing.T, c Shared) {
	vacant := vacate(t, c, create(t, c.Node("old"), block("old", "10.1.0.0/26")))
	won := winner(t, exchange.ErrConflict, func(node string) error {
		b := vacant
		b.Node, b.Machine = node, node+"-machine"
		_, err := c.Node(node).Take(t.Context(), b)
		return err
	})
	st, err := c.Node("n1").Block(t.Context(), vacant.Prefix)
	if err != nil || st.Node != won || st.Tenure != 1 {
		t.Errorf("%s won, and the block is %+v, %v", won, st, err)
	}
}

// request is one of node for any address of pool web.
func request(node string) exchange.Request {
	return requestFor(node, exchange.Lack{Pool: "web", Family: pools.IPv4})
}

func requestFor(node string, lack exchange.Lack) exchange.Request {
	return exchange.Request{
		Name: exchange.RequestName(node, lack), Node: node,
		Pool: lack.Pool, Family: lack.Family, Want: lack.Want, Count: 3, Holders: 7,
	}
}

// grant is r with one more grant, of a lender.
func grant(r exchange.Request, lender string) exchange.Request {
	last := netip.AddrFrom4([4]byte{10, 1, 0, byte(4 + len(r.Grants))})
	r.Grants = append(slices.Clip(r.Grants), exchange.Grant{
		Lender: lender, Prefix: netip.PrefixFrom(last, last.BitLen()),
		Outer: prefix("10.1.0.0/26"), OuterUID: "of-" + lender, OuterTenure: 2,
	})
	return r
}

func newRequest(t *testing.T, c Shared) {
	e := c.Node("n1")
	for _, lack := range []exchange.Lack{
		{Pool: "web", Family: pools.IPv4},
		{Pool: "web", Family: pools.IPv6},
		{Pool: "web", Family: pools.IPv4, Want: netip.MustParseAddr("10.1.0.9")},
		{Pool: "web", Family: pools.IPv6, Want: netip.MustParseAddr("fd00::9")},
	} {
		r := requestFor("n1", lack)
		made := ask(t, e, r)
		if made.UID == "" || made.Version == "" || !made.Open() {
			t.Errorf("made %+v", made)
		}
		r.UID, r.Version = made.UID, made.Version
		if !made.Equal(r) {
			t.Errorf("made %+v\n  of %+v", made, r)
		}
		read, err := c.Node("n2").Request(t.Context(), r.Name)
		if err != nil || !read.Equal(made) {
			t.Errorf("read %+v, %v\nmade %+v", read, err, made)
		}
	}
	if all, err := e.Requests(t.Context()); err != nil || len(all) != 4 {
		t.Errorf("all requests: %+v, %v", all, err)
	}
	if _, err := e.Ask(t.Context(), request("n2")); err == nil {
		t.Error("n1 asks in the name of n2")
	}
}

func oneOfAName(t *testing.T, c Shared) {
	made := ask(t, c.Node("n1"), request("n1"))
	again := request("n1")
	again.Count = 5
	_, err := c.Node("n1").Ask(t.Context(), again)
	wantErr(t, "a second request of a name", err, exchange.ErrExists)
	ask(t, c.Node("n2"), request("n2"))
	if read, err := c.Node("n2").Request(t.Context(), made.Name); err != nil || !read.Equal(made) {
		t.Errorf("read %+v, %v\nmade %+v", read, err, made)
	}
}

func retracted(t *testing.T, c Shared) {
	e := c.Node("n1")
	_, err := e.Request(t.Context(), request("n1").Name)
	wantErr(t, "a request that was never made", err, exchange.ErrGone)
	old, stays := ask(t, e, request("n1")), ask(t, c.Node("n2"), request("n2"))
	if err := e.Retract(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	_, err = e.Request(t.Context(), old.Name)
	wantErr(t, "a retracted request", err, exchange.ErrGone)
	wantErr(t, "retracting it again", e.Retract(t.Context(), old), exchange.ErrGone)
	made := ask(t, e, request("n1"))
	wantErr(t, "retracting by an old UID", e.Retract(t.Context(), old), exchange.ErrGone)
	all, err := e.Requests(t.Context())
	if err != nil || len(all) != 2 || !slices.ContainsFunc(all, made.Equal) || !slices.ContainsFunc(all, stays.Equal) {
		t.Errorf("there are %+v, %v", all, err)
	}
	granted, err := c.Node("n3").Grant(t.Context(), grant(made, "n3"))
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, "retracting at an old version", e.Retract(t.Context(), made), exchange.ErrConflict)
	made.Version = ""
	if err := e.Retract(t.Context(), made); err != nil {
		t.Errorf("retracting %+v: %v", granted, err)
	}
}

func grantOnce(t *testing.T, c Shared) {
	made := ask(t, c.Node("n1"), request("n1"))
	got, err := c.Node("n2").Grant(t.Context(), grant(made, "n2"))
	if err != nil {
		t.Fatal(err)
	}
	want := grant(made, "n2")
	want.Version = got.Version
	if !got.Equal(want) || got.Version == made.Version {
		t.Errorf("granted %+v\n    want %+v", got, want)
	}
	if read, err := c.Node("n1").Request(t.Context(), made.Name); err != nil || !read.Equal(got) {
		t.Errorf("read %+v, %v\n want %+v", read, err, got)
	}
	_, err = c.Node("n3").Grant(t.Context(), grant(made, "n3"))
	wantErr(t, "a second grant at the old version", err, exchange.ErrConflict)
	if read, err := c.Node("n1").Request(t.Context(), made.Name); err != nil || !read.Equal(got) {
		t.Errorf("after a second grant: %+v, %v\n want %+v", read, err, got)
	}
}

// grantsAdd has several nodes answer one request, each with some grants at once.
func grantsAdd(t *testing.T, c Shared) {
	made := ask(t, c.Node("n1"), request("n1"))
	first, err := c.Node("n2").Grant(t.Context(), grant(grant(made, "n2"), "n2"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Node("n3").Grant(t.Context(), grant(made, "n3"))
	wantErr(t, "a further grant at the version before", err, exchange.ErrConflict)
	second, err := c.Node("n3").Grant(t.Context(), grant(first, "n3"))
	if err != nil {
		t.Fatal(err)
	}
	want := grant(grant(grant(made, "n2"), "n2"), "n3")
	want.Version = second.Version
	if read, err := c.Node("n1").Request(t.Context(), made.Name); err != nil || !read.Equal(want) || read.Open() {
		t.Errorf("read %+v, %v\n want %+v", read, err, want)
	}
}

func grantGone(t *testing.T, c Shared) {
	e := c.Node("n1")
	old := ask(t, e, request("n1"))
	if err := e.Retract(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	_, err := c.Node("n2").Grant(t.Context(), grant(old, "n2"))
	wantErr(t, "granting what is gone", err, exchange.ErrGone)
	made := ask(t, e, request("n1"))
	_, err = c.Node("n2").Grant(t.Context(), grant(old, "n2"))
	wantErr(t, "granting what is gone while another one is there", err, exchange.ErrGone)
	if read, err := e.Request(t.Context(), made.Name); err != nil || !read.Equal(made) {
		t.Errorf("the other one is %+v, %v\n want %+v", read, err, made)
	}
}

func lendersRace(t *testing.T, c Shared) {
	made := ask(t, c.Node("asker"), request("asker"))
	won := winner(t, exchange.ErrConflict, func(node string) error {
		_, err := c.Node(node).Grant(t.Context(), grant(made, node))
		return err
	})
	read, err := c.Node("asker").Request(t.Context(), made.Name)
	if err != nil || !slices.Equal(read.Grants, grant(made, won).Grants) {
		t.Errorf("%s won, and the request is %+v, %v", won, read, err)
	}
}

// Who watches one pool is not shown what is asked for in others.
func selected(t *testing.T, c Shared) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sights := make(chan []exchange.Request)
	go func() {
		_ = c.Node("n9").Watch(ctx, []string{"db", "web"}, func(some []exchange.Request) {
			select {
			case sights <- slices.Clone(some):
			case <-ctx.Done():
			}
		})
	}()
	var made []exchange.Request
	for _, pool := range []string{"other", "web", "others", "db"} {
		made = append(made, ask(t, c.Node("n1"), requestFor("n1", exchange.Lack{Pool: pool, Family: pools.IPv4})))
	}
	for deadline := time.After(patience); ; {
		select {
		case seen := <-sights:
			if slices.ContainsFunc(seen, made[0].Equal) || slices.ContainsFunc(seen, made[2].Equal) {
				t.Fatalf("seen without being asked for: %+v", seen)
			}
			if slices.ContainsFunc(seen, made[1].Equal) && slices.ContainsFunc(seen, made[3].Equal) {
				return
			}
		case <-deadline:
			t.Fatal("waited in vain to see what is asked for in two pools")
		}
	}
}

func watched(t *testing.T, c Shared) {
	early := ask(t, c.Node("n1"), request("n1"))
	ctx, cancel := context.WithCancel(t.Context())
	sights, ended := make(chan []exchange.Request), make(chan error, 1)
	go func() {
		ended <- c.Node("n9").Watch(ctx, nil, func(all []exchange.Request) {
			select {
			case sights <- slices.Clone(all):
			case <-ctx.Done():
			}
		})
	}()
	// await waits until all and only want are seen.
	await := func(want ...exchange.Request) {
		t.Helper()
		var seen []exchange.Request
		for deadline := time.After(patience); ; {
			select {
			case seen = <-sights:
				if len(seen) == len(want) && !slices.ContainsFunc(want, func(r exchange.Request) bool { return !slices.ContainsFunc(seen, r.Equal) }) {
					return
				}
			case <-deadline:
				t.Fatalf("seen last: %+v\nwant: %+v", seen, want)
			}
		}
	}
	await(early)
	late := ask(t, c.Node("n2"), request("n2"))
	await(early, late)
	granted, err := c.Node("n3").Grant(t.Context(), grant(late, "n3"))
	if err != nil {
		t.Fatal(err)
	}
	await(early, granted)
	for _, r := range []exchange.Request{early, granted} {
		if err := c.Node(r.Node).Retract(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	again := ask(t, c.Node("n1"), request("n1"))
	await(again)
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the watch does not end with its context")
	}
}
