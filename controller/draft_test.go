package controller

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
)

// busy is a cluster of many nodes, and of pools that change all the time.
func busy(t *testing.T, nodes, pools int) (*kept, *registrar) {
	k := newKept(t)
	k.nodes = nodes
	for i := range pools {
		k.put(aPool(fmt.Sprint("p", i), i, v1alpha1.AddressRange(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))))
	}
	k.show()
	r := k.registrar()
	k.pass(r) // all are accepted
	if k.sorted != 1 {
		t.Errorf("the addresses of all pods were sorted %d times for %d pools, want once", k.sorted, pools)
	}
	k.show()
	clear(k.writes)
	return k, r
}

func (k *kept) total() (n int) {
	for _, w := range k.writes {
		n += w
	}
	return n
}

// However many pools there are, what their numbers cost the API server has a
// bound that no number of pools or nodes raises, and each pool has its turn.
func TestNumbersOfAllPoolsShareOneBudget(t *testing.T) {
	const pools, steps, step = 60, 240, 5 * time.Second
	k, r := busy(t, 2000, pools)
	for i := range steps {
		k.now = k.now.Add(step)
		k.pods = k.pods[:0]
		for p := range pools {
			// Pool 0 changes by much, the others by little.
			n := 2 + i%2
			if p == 0 {
				n = 2 + 100*(i%2)
			}
			for a := range n {
				k.pods = append(k.pods, netip.AddrFrom4([4]byte{10, 0, byte(p), byte(a + 2)}))
			}
		}
		k.pass(r)
		k.show()
	}
	spent := time.Duration(k.total()) * reportCost(k.nodes)
	all := steps * step
	bound := time.Duration(numbersShare*float64(all+numbersSaved)) + reportCost(k.nodes)
	if spent > bound || spent < bound/2 {
		t.Errorf("in %v %d writes cost %v, want at most %v and at least half of that", all, k.total(), spent, bound)
	}
	least := k.total()
	for name := range k.pools {
		least = min(least, k.writes[name])
	}
	if least == 0 {
		t.Error("a pool was never written")
	}
	if k.writes["p0"] <= least {
		t.Errorf("a pool that changes by much was written %d times, one that changes by little %d times", k.writes["p0"], least)
	}
}

// A state is told at once though there is nothing left for numbers; of a pool
// that comes and goes all the time it is not told each time.
func TestStatesDoNotWaitForNumbers(t *testing.T) {
	k, r := busy(t, 5000, 30)
	fill := func(pool, n int) {
		for a := range n {
			k.pods = append(k.pods, netip.AddrFrom4([4]byte{10, 0, byte(pool), byte(a)}))
		}
	}
	for range 20 { // until nothing is left
		k.now = k.now.Add(6 * time.Second)
		k.pods = nil
		for p := range 30 {
			fill(p, 3+int(k.now.Unix()/6%2))
		}
		k.pass(r)
		k.show()
	}
	if r.numbers.open(k.now) {
		t.Fatal("there is something left for numbers")
	}
	states := map[bool]string{true: v1alpha1.PoolIsExhausted, false: v1alpha1.PoolIsActive}
	k.pods = nil
	fill(7, 256)
	k.pass(r)
	if s := k.pools["p7"].Status; s.State != states[true] || s.Used != 255 {
		t.Fatalf("the full pool is %s, %d used", s.State, s.Used)
	}
	// It flaps each second, with all others, for an hour.
	clear(k.writes)
	began := k.now
	for full := false; k.now.Before(began.Add(time.Hour)); full = !full {
		k.show()
		k.now = k.now.Add(5 * time.Second)
		k.pods = nil
		for p := range 30 {
			if full {
				fill(p, 256)
			}
		}
		k.pass(r)
	}
	spent := time.Duration(k.total()) * reportCost(k.nodes)
	bound := time.Duration(statesShare*float64(time.Hour+statesSaved)+numbersShare*float64(time.Hour+numbersSaved)) + 2*reportCost(k.nodes)
	if spent > bound {
		t.Errorf("in an hour of pools that flap %d writes cost %v, want at most %v", k.total(), spent, bound)
	}
	for name := range k.pools {
		if k.writes[name] == 0 {
			t.Errorf("pool %s was never written", name)
		}
	}
}

// A write that always fails takes nobody else's turn.
func TestAPoolThatCannotBeWrittenStarvesNobody(t *testing.T) {
	k, r := busy(t, 5000, 4)
	k.refuse = "p0"
	for i := range 120 {
		k.now = k.now.Add(10 * time.Second)
		k.pods = nil
		for p := range 4 {
			for a := range 2 + i {
				k.pods = append(k.pods, netip.AddrFrom4([4]byte{10, 0, byte(p), byte(2 + a)}))
			}
		}
		_ = r.pass(t.Context())
		k.show()
	}
	for _, name := range []string{"p1", "p2", "p3"} {
		if k.writes[name] < 10 {
			t.Errorf("pool %s was written %d times in 20 minutes", name, k.writes[name])
		}
	}
}

func TestABudgetEarnsWithTime(t *testing.T) {
	now := day()
	b := budgetOf(0.1, 10*time.Second) // a second of processor time
	for range 4 {
		if !b.open(now) {
			t.Fatal("nothing left")
		}
		b.spend(300 * time.Millisecond)
	}
	if b.open(now) {
		t.Error("more than there was")
	}
	if at := b.opens(); at.Sub(now) < 2*time.Second || at.Sub(now) > 2*time.Second+10*time.Millisecond {
		t.Errorf("it opens after %v, want 2 s for 0.2", at.Sub(now))
	}
	if at := b.opens(); !b.open(at) {
		t.Error("it does not open when it said")
	}
	b.open(now.Add(time.Hour))
	if b.left != time.Second {
		t.Errorf("%v are saved up, want 1 s", b.left)
	}
}
