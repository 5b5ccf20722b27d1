package controller

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// day is when the clusters of these tests began.
func day() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

// aPool was made so many seconds after the day began.
func aPool(name string, second int, addresses ...v1alpha1.AddressRange) *v1alpha1.AddressPool {
	size := int32(16)
	return &v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: types.UID("uid-of-" + name), ResourceVersion: "1", Generation: 1,
			CreationTimestamp: metav1.NewTime(day().Add(time.Duration(second) * time.Second)),
		},
		Spec: v1alpha1.AddressPoolSpec{Addresses: addresses, BlockSize: &size},
	}
}

// accepted is o with the status that it has once it was accepted.
func accepted(o *v1alpha1.AddressPool) *v1alpha1.AddressPool {
	v := judge([]*v1alpha1.AddressPool{o}, none)[string(o.UID)]
	o.Status = report(o, findings{verdict: v}, day())
	return o
}

// none: no block is left from before.
func none(ps []*pools.Pool) []string { return make([]string, len(ps)) }

func outcome(objects []*v1alpha1.AddressPool, left remains) string {
	var out []string
	verdicts := judge(objects, left)
	for _, o := range slices.SortedFunc(slices.Values(objects), func(a, b *v1alpha1.AddressPool) int { return strings.Compare(a.Name, b.Name) }) {
		out = append(out, o.Name+":"+verdicts[string(o.UID)].reason)
	}
	return strings.Join(out, " ")
}

func TestPoolsAreAcceptedInTheirOrder(t *testing.T) {
	later := aPool("later", 2, "10.0.0.128/25")
	older := aPool("older", 1, "10.0.0.0/24")
	twin := aPool("a-twin", 2, "10.0.0.192/26")
	other := aPool("other", 3, "10.0.1.0/24", "fd00::/120")
	bad := aPool("bad", 0, "10.0.0.0/24")
	bad.Spec.Exclude = []v1alpha1.AddressRange{"10.9.0.0/24"}
	changedSince := accepted(aPool("later", 2, "10.0.0.128/25"))
	changedSince.Generation++
	for _, c := range []struct {
		what    string
		objects []*v1alpha1.AddressPool
		want    string
	}{
		{"the older wins", []*v1alpha1.AddressPool{later, older, other}, "later:Overlaps older:Accepted other:Accepted"},
		{"what is accepted stays", []*v1alpha1.AddressPool{accepted(aPool("later", 2, "10.0.0.128/25")), older}, "later:Accepted older:Overlaps"},
		{"of one second, the name", []*v1alpha1.AddressPool{later, twin}, "a-twin:Accepted later:Overlaps"},
		{"a refused pool is in nobody's way", []*v1alpha1.AddressPool{older, later, aPool("third", 4, "10.0.0.0/30")}, "later:Overlaps older:Accepted third:Overlaps"},
		{"a wrong one is in nobody's way", []*v1alpha1.AddressPool{bad, older}, "bad:Invalid older:Accepted"},
		{"what was changed comes before what is new", []*v1alpha1.AddressPool{changedSince, older}, "later:Accepted older:Overlaps"},
	} {
		if got := outcome(c.objects, none); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// An accepted pool whose change is refused goes on with what was accepted, which
// nobody else gets; what it asked for beside that is in nobody's way.
func TestARefusedChangeLeavesWhatWasAccepted(t *testing.T) {
	a := accepted(aPool("a", 1, "10.0.0.0/24"))
	b := accepted(aPool("b", 2, "10.0.1.0/24"))
	a.Spec.Addresses = append(a.Spec.Addresses, "10.0.1.128/25", "10.0.2.0/24")
	a.Generation++
	c, d := aPool("c", 3, "10.0.0.64/26"), aPool("d", 4, "10.0.2.0/24")
	if got, want := outcome([]*v1alpha1.AddressPool{a, b, c, d}, none), "a:Overlaps b:Accepted c:Overlaps d:Accepted"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	v := judge([]*v1alpha1.AddressPool{a, b, c, d}, none)[string(a.UID)]
	for _, says := range []string{`pools "b" and "a" both have 10.0.1.128/25`, "goes on with the addresses that were accepted before", "can be taken back"} {
		if !strings.Contains(v.message, says) {
			t.Errorf("the refusal of a says %q, not %q", v.message, says)
		}
	}
	if v.pool.Addresses().Prefixes()[0].String() != "10.0.0.0/24" || len(v.pool.Addresses().Prefixes()) != 1 {
		t.Errorf("in force is %v", v.pool.Addresses().Ranges())
	}
	a.Status = report(a, findings{verdict: v}, day())
	if a.Status.State != v1alpha1.PoolIsChangeRefused || !slices.Equal(a.Status.Addresses, []string{"10.0.0.0/24"}) || a.Status.Total != 255 {
		t.Errorf("its status is %+v", a.Status)
	}
	// Taken back, it is accepted as it was, whatever others ask for.
	back := a.DeepCopy()
	back.Spec.Addresses = back.Spec.Addresses[:1]
	back.Generation++
	if got, want := outcome([]*v1alpha1.AddressPool{back, b, c, d}, none), "a:Accepted b:Accepted c:Overlaps d:Accepted"; got != want {
		t.Errorf("taken back: %s, want %s", got, want)
	}
	// When b and d are gone, all of it is.
	if got, want := outcome([]*v1alpha1.AddressPool{a, c}, none), "a:Accepted c:Overlaps"; got != want {
		t.Errorf("without b and d: %s, want %s", got, want)
	}
}

// What is wrong with a selector only the controller can say.
func TestAPoolWithAWrongSelectorIsRefused(t *testing.T) {
	for says, selector := range map[string]*metav1.LabelSelector{
		"spec.podSelector: key":     {MatchLabels: map[string]string{"no key": "a"}},
		"spec.podSelector: values":  {MatchLabels: map[string]string{"a": "no value!"}},
		`spec.podSelector: "Like"`:  {MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}},
		"values set can't be empty": {MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: metav1.LabelSelectorOpIn}}},
	} {
		fresh := aPool("fresh", 1, "10.0.0.0/24")
		used := accepted(aPool("used", 2, "10.0.1.0/24"))
		for _, o := range []*v1alpha1.AddressPool{fresh, used} {
			o.Spec.PodSelector = selector
			o.Generation++
			v := judge([]*v1alpha1.AddressPool{o}, none)[string(o.UID)]
			if v.accepted || v.reason != v1alpha1.ReasonInvalid || !strings.Contains(v.message, says) || !strings.Contains(v.message, "serves no new pods") {
				t.Errorf("%s: accepted %v, %s: %q; want %q in it", o.Name, v.accepted, v.reason, v.message, says)
			}
			o.Status = report(o, findings{verdict: v}, day())
			if o.Status.State != v1alpha1.PoolIsRefused {
				t.Errorf("%s is %s", o.Name, o.Status.State)
			}
		}
		// What was accepted stays so all the same.
		if got, want := outcome([]*v1alpha1.AddressPool{aPool("heir", 0, "10.0.1.0/28"), used}, none), "heir:Overlaps used:Invalid"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A pool that an earlier controller accepted, and did not say what, is accepted
// as it is written if it was not changed since. Otherwise it is judged as a whole.
func TestPoolsOfEarlierControllers(t *testing.T) {
	legacy := accepted(aPool("old", 2, "10.0.0.0/24"))
	legacy.Status.Addresses, legacy.Status.Exclude = nil, nil
	rival := aPool("rival", 1, "10.0.0.0/28")
	if got, want := outcome([]*v1alpha1.AddressPool{legacy, rival}, none), "old:Accepted rival:Overlaps"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	other := accepted(aPool("other", 3, "10.0.1.0/24"))
	legacy.Spec.Addresses = append(legacy.Spec.Addresses, "10.0.1.0/28")
	legacy.Generation++
	if got, want := outcome([]*v1alpha1.AddressPool{legacy, other}, none), "old:Overlaps other:Accepted"; got != want {
		t.Errorf("changed since: %s, want %s", got, want)
	}
}

func TestBlocksFromBeforeKeepAPoolOut(t *testing.T) {
	left := blocks{}
	left.put(lies("old", "n1", "10.0.0.64/27", ""))
	left.put(lies("p", "n1", "10.0.1.0/28", ""))  // a whole cell
	left.put(lies("p", "n2", "10.0.1.4/30", "x")) // lent out of one
	p := aPool("p", 1, "10.0.0.0/24", "10.0.1.0/24")
	v := judge([]*v1alpha1.AddressPool{p}, left.remains)[string(p.UID)]
	if want := `10.0.0.64/27 of pool "old" on node "n1"`; v.accepted || !strings.Contains(v.message, want) {
		t.Errorf("accepted %v, %q; want it to be refused for %s", v.accepted, v.message, want)
	}
	left.drop(lies("old", "n1", "10.0.0.64/27", ""))
	if v := judge([]*v1alpha1.AddressPool{p}, left.remains)[string(p.UID)]; !v.accepted {
		t.Errorf("refused for blocks of its own: %s", v.message)
	}
	// Made again with larger blocks, which would lie around the old ones.
	size := int32(32)
	p.Spec.BlockSize = &size
	if v := judge([]*v1alpha1.AddressPool{p}, left.remains)[string(p.UID)]; v.accepted {
		t.Error("accepted with larger blocks than the ones that stand in it")
	}
}

// What is accepted never clashes, in whatever order pools come, change and go. It
// stays accepted, and a pool in force is never refused unless somebody changed it.
func TestAcceptedPoolsNeverClash(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		live := map[string]*v1alpha1.AddressPool{}
		for step := range 60 {
			name := fmt.Sprint("p", r.IntN(8))
			some := v1alpha1.AddressRange(fmt.Sprintf("10.0.%d.%d/%d", r.IntN(2), r.IntN(16)*16, 28+r.IntN(3)))
			switch o := live[name]; {
			case o == nil:
				live[name] = aPool(name, step, some)
				size := int32(4 << r.IntN(3))
				live[name].Spec.BlockSize = &size
			case r.IntN(3) == 0:
				delete(live, name)
			case r.IntN(3) == 0: // as far as the API server lets anybody
				o.Spec.Addresses = o.Spec.Addresses[:max(1, len(o.Status.Addresses))]
				o.Generation++
			default:
				o.Spec.Addresses = append(o.Spec.Addresses, some)
				o.Generation++
			}
			settle(t, seed, live, r)
		}
	}
}

// settle writes some of the verdicts, as a controller that is ended now and
// then, and looks at what is accepted.
func settle(t *testing.T, seed uint64, live map[string]*v1alpha1.AddressPool, r *rand.Rand) {
	t.Helper()
	var objects []*v1alpha1.AddressPool
	for _, o := range live {
		objects = append(objects, o)
	}
	verdicts := judge(objects, none)
	slices.SortFunc(objects, precedes)
	for _, o := range objects {
		v := verdicts[string(o.UID)]
		if standingOf(o) == inForce && !v.accepted {
			t.Fatalf("seed %d: %s was in force and is refused: %s", seed, o.Name, v.message)
		}
		if r.IntN(4) > 0 {
			before := o.Status.Addresses
			o.Status = report(o, findings{verdict: v}, day())
			if now := o.Status.Addresses; len(now) < len(before) || !slices.Equal(now[:len(before)], before) {
				t.Fatalf("seed %d: of %s %v was accepted, and then %v", seed, o.Name, before, now)
			}
		}
	}
	var inUse []*pools.Pool
	for _, o := range objects {
		p, err := acceptedPool(o)
		if err != nil {
			t.Fatal(err)
		}
		if p != nil {
			inUse = append(inUse, p)
		}
		if wanted, err := poolOf(o); err != nil || standingOf(o) == inForce && !sameLeases(p, wanted) {
			t.Fatalf("seed %d: %s asks for %v, and %v of it is in force (%v)", seed, o.Name, wanted.Addresses().Ranges(), p.Addresses().Ranges(), err)
		}
	}
	if c := pools.Clashes(inUse); len(c) > 0 {
		t.Fatalf("seed %d: two pools in force: %s", seed, c[0].Describe(inUse[c[0].A].Name(), inUse[c[0].B].Name()))
	}
}
