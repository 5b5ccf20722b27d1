package storetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

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
	wantListed(t, wantList(t, s, "web", "10.1.0.0/26")[0], st)
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
	for deadline := time.Now().Add(patience); ; <-time.After(5 * time.Millisecond) {
		got := wantList(t, c.Node("n1"), "web", "10.1.0.0/26", "10.1.0.64/26", "10.1.0.64/32")
		i := slices.IndexFunc(got, func(b exchange.Stored) bool { return b.Prefix == st.Prefix })
		if got[i].Node == "" {
			wantSame(t, "the vacant block, listed", got[i], st)
			return
		}
		if wantListed(t, got[i], st); t.Failed() || time.Now().After(deadline) {
			t.Fatalf("the list does not show that a block is vacant: %+v", got[i])
		}
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
