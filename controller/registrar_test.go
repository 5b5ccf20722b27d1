package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// kept is an API server's pools, and the view that a watch gives of them.
type kept struct {
	t       *testing.T
	r       *rand.Rand // nil: nothing goes wrong
	pools   map[string]*v1alpha1.AddressPool
	version int
	shown   []*v1alpha1.AddressPool
	late    []*v1alpha1.AddressPool // writes that nobody answered, and may come yet
	writes  map[string]int
	pods    []netip.Addr
	held    blocks
	now     time.Time
	sorted  int       // how many times all pods' addresses were
	listed  time.Time // when what is shown was listed
	nodes   int
	refuse  string // the pool of which each write of a status is refused
	prunes  bool   // a definition from before drops what was accepted, without a word
}

func newKept(t *testing.T) *kept {
	return &kept{t: t, pools: map[string]*v1alpha1.AddressPool{}, writes: map[string]int{}, held: blocks{}, now: day()}
}

func (k *kept) registrar() *registrar {
	r := newRegistrar(view{k}, k, 5*time.Second, slog.New(slog.DiscardHandler))
	r.now = func() time.Time { return k.now }
	return r
}

func (k *kept) put(o *v1alpha1.AddressPool) {
	k.version++
	o = o.DeepCopy()
	o.ResourceVersion = strconv.Itoa(k.version)
	k.pools[o.Name] = o
}

// show has the watch show all there is.
func (k *kept) show() { k.shown = slices.Collect(maps.Values(k.pools)) }

func (k *kept) write(o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error) {
	is := k.pools[o.Name]
	switch {
	case is == nil:
		return nil, exchange.ErrGone
	case o.Name == k.refuse:
		return nil, errors.New("refused")
	case is.UID != o.UID || is.ResourceVersion != o.ResourceVersion:
		return nil, exchange.ErrConflict
	}
	is = is.DeepCopy()
	is.Status = *o.Status.DeepCopy()
	if k.prunes {
		is.Status.Addresses, is.Status.Exclude = nil, nil
	}
	k.put(is)
	k.writes[o.Name]++
	return k.pools[o.Name].DeepCopy(), nil
}

func (k *kept) WritePoolStatus(_ context.Context, o *v1alpha1.AddressPool) (*v1alpha1.AddressPool, error) {
	if k.r != nil {
		switch k.r.IntN(6) {
		case 0: // lost, or late
			k.late = append(k.late, o.DeepCopy())
			return nil, exchange.ErrUnknown
		case 1:
			_, _ = k.write(o)
			return nil, exchange.ErrUnknown
		case 2:
			return nil, errors.New("refused")
		}
	}
	return k.write(o)
}

func (k *kept) Pool(_ context.Context, name string) (*v1alpha1.AddressPool, error) {
	if k.r != nil && k.r.IntN(6) == 0 {
		return nil, errors.New("no answer")
	}
	if o := k.pools[name]; o != nil {
		return o.DeepCopy(), nil
	}
	return nil, exchange.ErrGone
}

// view is what the registrar sees of it.
type view struct{ *kept }

func (v view) pools() ([]*v1alpha1.AddressPool, time.Time) {
	return slices.Clone(v.shown), v.listed
}
func (v view) agents() int                       { return v.nodes }
func (v view) remains(ps []*pools.Pool) []string { return v.held.remains(ps) }
func (v view) addresses() []netip.Addr {
	v.sorted++
	return v.pods
}
func (v view) waiting(now time.Time) map[string]wait { return nil }
func (v view) census(p *pools.Pool) census           { return countBlocks(v.held.of(p.Name()), p.Addresses()) }

func (k *kept) pass(r *registrar) {
	k.t.Helper()
	if err := r.pass(k.t.Context()); err != nil && k.r == nil {
		k.t.Fatal(err)
	}
}

// Of a definition that is older than the controller the API server says nothing.
func TestAnAcceptanceThatIsNotKeptIsSaidOnceAMinute(t *testing.T) {
	k := newKept(t)
	k.prunes = true
	k.put(aPool("web", 1, "10.0.0.0/24"))
	r := k.registrar()
	var said bytes.Buffer
	r.log = slog.New(slog.NewTextHandler(&said, nil))
	count := func(when string, want int) {
		t.Helper()
		if n := strings.Count(said.String(), "deploy/crds"); n != want {
			t.Errorf("%s: said %d times, want %d:\n%s", when, n, want, said.String())
		}
	}
	for range 11 {
		k.next(r, 5*time.Second)
	}
	count("within the minute", 1)
	for range 4 {
		k.next(r, 5*time.Second)
	}
	count("after a minute", 2)
	k.prunes = false
	for range 30 {
		k.next(r, 5*time.Second)
	}
	count("with the definition of this version", 2)
	if s := k.pools["web"].Status; len(s.Addresses) != 1 {
		t.Errorf("what was accepted stands nowhere: %+v", s)
	}
}

func TestNumbersAreWrittenNowAndThenAndOnlyWhenTheyChange(t *testing.T) {
	k := newKept(t)
	k.put(aPool("web", 1, "10.0.0.0/24"))
	k.show()
	r := k.registrar()
	k.pass(r)
	k.show()
	k.pass(r)
	if n := k.writes["web"]; n != 1 {
		t.Fatalf("an acceptance takes %d writes", n)
	}
	for second := range 20 {
		k.now = k.now.Add(time.Second)
		k.pods = append(k.pods, netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + second)}))
		k.pass(r)
		k.show()
	}
	if n := k.writes["web"] - 1; n != 4 {
		t.Errorf("20 changes in 20 s take %d writes, want 4: one in 5 s", n)
	}
	if used := k.pools["web"].Status.Used; used != 20 {
		t.Errorf("%d addresses are used, want 20", used)
	}
	before := k.writes["web"]
	for range 20 {
		k.now = k.now.Add(time.Minute)
		k.pass(r)
	}
	if n := k.writes["web"] - before; n != 0 {
		t.Errorf("%d writes although nothing has changed", n)
	}
	// A person need not wait.
	o := k.pools["web"].DeepCopy()
	o.Generation++
	o.Spec.Addresses = append(o.Spec.Addresses, "10.0.1.0/24")
	k.put(o)
	k.show()
	k.pass(r)
	if s := k.pools["web"].Status; s.ObservedGeneration != 2 || s.Total != 511 {
		t.Errorf("after a change of the spec the status is %+v", s)
	}
}

// After etcd was restored, what was written before it counts no more, though its
// version is higher.
func TestAListCountsMoreThanAnEarlierWrite(t *testing.T) {
	k := newKept(t)
	k.version = 1000
	k.put(aPool("web", 1, "10.0.0.0/24"))
	k.show()
	r := k.registrar()
	k.pass(r)
	k.version = 10
	k.put(aPool("web", 1, "10.0.0.0/24"))
	k.show()
	k.now = k.now.Add(time.Minute)
	k.listed = k.now
	k.now = k.now.Add(time.Minute)
	k.pass(r)
	if s := k.pools["web"].Status; s.State != v1alpha1.PoolIsActive {
		t.Errorf("the restored pool is not accepted again: %+v", s)
	}
}

func TestAConflictIsRetriedWithThePoolAsItIs(t *testing.T) {
	k := newKept(t)
	k.put(aPool("web", 1, "10.0.0.0/24"))
	k.show()
	o := k.pools["web"].DeepCopy()
	o.Labels = map[string]string{"by": "somebody"}
	k.put(o) // which the watch does not show yet
	r := k.registrar()
	if err := r.pass(t.Context()); err == nil {
		t.Fatal("no conflict")
	}
	k.pass(r)
	if standingOf(k.pools["web"]) != inForce {
		t.Error("the pool is not accepted though its watch is late")
	}
}

// Two pools in force never clash, whatever becomes of writes, however late the
// watch is, and though controllers begin and end at any time. In the end every
// pool that can be is accepted.
func TestOneAtATimeWhateverHappens(t *testing.T) {
	for seed := range uint64(150) {
		k := newKept(t)
		k.r = rand.New(rand.NewPCG(seed, 3))
		r := k.registrar()
		for step := range 80 {
			k.now = k.now.Add(time.Duration(k.r.IntN(3)) * time.Second)
			switch k.r.IntN(8) {
			case 0, 1:
				k.edit(seed, step)
			case 2:
				k.show()
			case 3:
				k.arrive()
			case 4:
				if k.r.IntN(4) == 0 {
					// A new leader begins when no write of the last one can
					// arrive any more, and reads all pools.
					k.late = nil
					k.show()
					r = k.registrar()
				}
			default:
				_ = r.pass(t.Context())
			}
			k.check(seed)
		}
		k.calm(seed, r)
	}
}

// edit is what people do.
func (k *kept) edit(seed uint64, step int) {
	name := fmt.Sprint("p", k.r.IntN(5))
	some := v1alpha1.AddressRange(fmt.Sprintf("10.0.0.%d/%d", k.r.IntN(16)*16, 28+k.r.IntN(3)))
	switch o := k.pools[name]; {
	case o == nil:
		o = aPool(name, int(k.now.Sub(day()).Seconds()), some)
		o.UID = types.UID(fmt.Sprint(seed, "-", step))
		o.CreationTimestamp = metav1.NewTime(k.now.Truncate(time.Second))
		k.put(o)
	case k.r.IntN(3) == 0:
		k.remove(name)
	case k.r.IntN(3) == 0: // takes back what was not accepted
		o = o.DeepCopy()
		o.Spec.Addresses = o.Spec.Addresses[:max(1, len(o.Status.Addresses))]
		o.Generation++
		k.put(o)
	default:
		o = o.DeepCopy()
		o.Spec.Addresses = append(o.Spec.Addresses, some)
		o.Generation++
		k.put(o)
	}
}

// arrive has a late write arrive.
func (k *kept) arrive() {
	if len(k.late) > 0 {
		_, _ = k.write(k.late[0])
		k.late = k.late[1:]
	}
}

func (k *kept) check(seed uint64) {
	k.t.Helper()
	var inUse []*pools.Pool
	for _, o := range k.pools {
		p, err := acceptedPool(o)
		if err != nil {
			k.t.Fatal(err)
		}
		if p != nil && !protected(o) {
			k.t.Fatalf("seed %d: accepted pool %s is not protected", seed, o.Name)
		}
		if p != nil {
			inUse = append(inUse, p)
		}
	}
	if c := pools.Clashes(inUse); len(c) > 0 {
		k.t.Fatalf("seed %d: two pools in force: %s", seed, c[0].Describe(inUse[c[0].A].Name(), inUse[c[0].B].Name()))
	}
}

// calm lets everything arrive and nothing more happen.
func (k *kept) calm(seed uint64, r *registrar) {
	k.t.Helper()
	for len(k.late) > 0 {
		k.arrive()
		k.check(seed)
	}
	k.r = nil
	for range 6 {
		_ = r.pass(k.t.Context())
		k.show()
		k.now = k.now.Add(10 * time.Second)
		k.check(seed)
	}
	for id, v := range judge(slices.Collect(maps.Values(k.pools)), none) {
		for _, o := range k.pools {
			if string(o.UID) == id && v.accepted != (standingOf(o) == inForce) {
				k.t.Fatalf("seed %d: in the end pool %s is accepted: %v, and should be: %v", seed, o.Name, standingOf(o) == inForce, v.accepted)
			}
		}
	}
}
