package pools

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestSetPoolsSaysWhatStandsInTheWay(t *testing.T) {
	web := webPool(t, "10.0.0.0/24")
	d := newDesk(t, web).hold("web", "10.0.0.0/30")
	d.lease("web", "c0", after(0), "10.0.0.2")
	gateway := mustNew(t, Definition{Name: "web", BlockSize: 4, Ranges: ranges(t, "10.0.0.0/24"), Gateways: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/8")}})
	smaller := mustNew(t, Definition{Name: "web", BlockSize: 2, Ranges: ranges(t, "10.0.0.0/24")})
	other := mustNew(t, Definition{Name: "db", Ranges: ranges(t, "10.0.0.99-10.0.1.99")})
	for _, c := range []struct {
		name string
		to   []*Pool
		says []string
	}{
		{"the pool goes", nil, []string{`pool "web"`, "10.0.0.2 is leased by ns/c0", "until that pod is gone"}},
		{"the address goes", []*Pool{webPool(t, "10.0.0.0/31")}, []string{"10.0.0.2 is leased"}},
		{"the address becomes the gateway", []*Pool{gateway}, []string{"10.0.0.2 is leased"}},
		{"another block size", []*Pool{smaller}, []string{"blockSize 4 can't become 2", "make a new pool"}},
		{"twice the same name", []*Pool{web, web}, []string{`"web" is defined twice`}},
		{"overlap", []*Pool{web, other}, []string{`"web" and "db" both have 10.0.0.99`}},
	} {
		before := snapshot(d.Ledger)
		err := d.SetPools(append(c.to, mustNew(t, Definition{Name: "new", Ranges: ranges(t, "10.7.0.0/24")})))
		for _, part := range c.says {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error %v, want it to say %q", c.name, err, part)
			}
		}
		if snapshot(d.Ledger) != before {
			t.Errorf("%s: something changed", c.name)
		}
		if _, err := d.Pool("new"); !errors.Is(err, ErrUnknownPool) {
			t.Errorf("%s: half of it was done: %v", c.name, err)
		}
	}
}

func TestPoolGrowsAndShrinks(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.1")).hold("web", "10.0.0.0/30")
	if got := d.lease("web", "c0", after(0)); got != "10.0.0.1" {
		t.Errorf("lease of %s", got)
	}
	if err := d.SetPools([]*Pool{webPool(t, "10.0.0.1-10.0.0.3")}); err != nil {
		t.Fatal(err)
	}
	if got := d.lease("web", "c1", after(0)); got != "10.0.0.2" {
		t.Errorf("lease of %s, want one that is new in the pool", got)
	}
	if err := d.SetPools([]*Pool{webPool(t, "10.0.0.1-10.0.0.2")}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.ProposeLease(request("web", "c2"), after(0)); !errors.Is(err, ErrNoFree) {
		t.Errorf("an address that left the pool was offered: %v", err)
	}
	if got := d.Usage(after(0)); len(got) != 1 || got[0] != (Usage{Pool: "web", Leased: 2, Blocks: 1}) {
		t.Errorf("usage %+v", got)
	}
}

func TestBlocksOfAPoolThatIsGone(t *testing.T) {
	d := newDesk(t, webPool(t, "10.0.0.0/24")).hold("web", "10.0.0.0/30", "10.0.0.4/30")
	if err := d.SetPools(nil); err != nil {
		t.Fatal(err)
	}
	if got := d.Orphans(after(0)); len(got) != 2 {
		t.Errorf("orphans %v", got)
	}
	if _, _, err := d.ProposeLease(request("web", "c0"), after(0)); !errors.Is(err, ErrUnknownPool) {
		t.Errorf("a pool that is gone leases: %v", err)
	}
	prefix := netip.MustParsePrefix("10.0.0.0/30")
	if err := errors.Join(d.Close(prefix, after(0)), d.Drop(prefix), d.Drop(prefix)); err != nil {
		t.Error(err)
	}
	moved := mustNew(t, Definition{Name: "db", Ranges: ranges(t, "10.0.0.0/24"), BlockSize: 4})
	if err := d.SetPools([]*Pool{moved}); err != nil {
		t.Fatal(err)
	}
	b := Block{Prefix: netip.MustParsePrefix("10.0.0.4/30"), Pool: "db", Node: "here"}
	if err := d.Hold(b); !errors.Is(err, ErrBlockExists) {
		t.Errorf("one block for two pools: %v", err)
	}
	if err := d.SetPools([]*Pool{webPool(t, "10.0.0.0/24")}); err != nil {
		t.Fatal(err)
	}
	if len(d.Orphans(after(0))) != 0 || d.lease("web", "c0", after(0)) != "10.0.0.4" {
		t.Error("the pool came back, its block did not")
	}
}

// TestPoolGoesWhileItsAddressesRest renames a pool, and puts it back.
func TestPoolGoesWhileItsAddressesRest(t *testing.T) {
	web := webPool(t, "10.0.0.0/24")
	renamed := mustNew(t, Definition{Name: "db", BlockSize: 4, Ranges: ranges(t, "10.0.0.0/24")})
	d := newDesk(t, web).hold("web", "10.0.0.0/30", "10.0.0.4/30")
	d.lease("web", "c0", after(0), "10.0.0.1")
	d.release("c0", after(0))
	if err := d.SetPools([]*Pool{renamed}); err != nil {
		t.Fatal(err)
	}
	resting := netip.MustParsePrefix("10.0.0.0/30")
	if got := d.Orphans(after(59)); len(got) != 1 || got[0].Prefix == resting {
		t.Errorf("orphans %v, want the block without an address that rests", got)
	}
	if err := d.Close(resting, after(59)); !errors.Is(err, ErrTaken) {
		t.Errorf("closed while an address rests: %v", err)
	}
	if err := d.Hold(Block{Prefix: resting, Pool: "db", Node: "here"}); !errors.Is(err, ErrBlockExists) {
		t.Errorf("held for the renamed pool while an address rests: %v", err)
	}
	if err := d.SetPools([]*Pool{web}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.ProposeLease(request("web", "c1", "10.0.0.1"), after(59)); !errors.Is(err, ErrTaken) {
		t.Errorf("the pool came back and leased what rests: %v", err)
	}
	if err := d.SetPools([]*Pool{renamed}); err != nil {
		t.Fatal(err)
	}
	if got := d.Orphans(after(60)); len(got) != 2 {
		t.Errorf("orphans %v, want both blocks", got)
	}
	if err := errors.Join(d.Close(resting, after(60)), d.Drop(resting)); err != nil {
		t.Fatal(err)
	}
	if got := d.hold("db", "10.0.0.0/30").lease("db", "c1", after(60)); got != "10.0.0.2" {
		t.Errorf("the renamed pool leased %s", got)
	}
}
