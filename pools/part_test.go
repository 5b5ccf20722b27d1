package pools

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
)

// An attachment may lose the address of one family and keep the other one, also
// across a restart.
func TestReleaseOfAPart(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	o := Owner{Attachment: Attachment{Network: "n", ContainerID: "c", IfName: "eth0"}, PodUID: "u"}
	rec := func(op Op, at int, addrs ...netip.Addr) Record {
		return Record{Op: op, Pool: "web", Owner: o, Addrs: addrs, At: after(at)}
	}
	got, err := Fold([]Record{rec(Leased, 1, v4, v6), rec(Released, 2, v4)})
	if err != nil || len(got) != 2 || got[0].Op != Rested || got[0].Addrs[0] != v4 || got[1].Op != Leased || !slices.Equal(got[1].Addrs, []netip.Addr{v6}) {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := Fold([]Record{rec(Leased, 1, v4, v6), rec(Released, 2, v4), rec(Released, 3, v6)}); err != nil || len(got) != 2 || got[0].Op != Rested || got[1].Op != Rested {
		t.Errorf("both are given back: %+v, %v", got, err)
	}
	for what, history := range map[string][]Record{
		"twice":            {rec(Leased, 1, v4, v6), rec(Released, 2, v4), rec(Released, 3, v4)},
		"with the rest":    {rec(Leased, 1, v4, v6), rec(Released, 2, v4), rec(Released, 3, v4, v6)},
		"another one":      {rec(Leased, 1, v4), rec(Released, 2, v6)},
		"leased meanwhile": {rec(Leased, 1, v4, v6), rec(Released, 2, v4), rec(Leased, 3, v4, v6)},
	} {
		if got, err := Fold(history); !errors.Is(err, ErrNotOwner) && !errors.Is(err, ErrTaken) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

// What is set aside is not this node's, also while it is in its name: it has a block there
// that it does not hold.
func TestWhatIsSetAsideInTheOwnNameIsNotOwn(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30")
	aside := netip.MustParsePrefix("10.0.0.2/31")
	if err := d.SetAside("web", aside, "here"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		own := d.Effective("web", func(Held) bool { return true }).Prefixes()
		if want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/31")}; !slices.Equal(own, want) {
			t.Errorf("the node takes %v for its own, want %v", own, want)
		}
		if err := d.SetAside("web", aside, "there"); err != nil { // and again
			t.Fatal(err)
		}
		if err := d.SetAside("web", aside, "here"); err != nil {
			t.Fatal(err)
		}
	}
}
