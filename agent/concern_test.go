package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

// worries are concerns that come and go.
type worries struct {
	mu     sync.Mutex
	pools  []string
	all    bool
	turned chan struct{}
}

func (w *worries) ask() ([]string, bool, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pools, w.all, w.turned
}

func (w *worries) set(all bool, pools ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pools, w.all = pools, all
	close(w.turned)
	w.turned = make(chan struct{})
}

// All requests are watched at first, then those of pools that are a concern: at once,
// and until one has been none for a while, not in every moment without a block.
func TestWhatIsWatchedFollowsTheConcerns(t *testing.T) {
	const peace = time.Minute
	all := extent{all: true}
	of := func(pools ...string) extent { return extent{pools: pools} }
	synctest.Test(t, func(t *testing.T) {
		w := &worries{turned: make(chan struct{})}
		began := time.Now()
		s := newScope(w.ask, peace, began.Add(peace))
		type change struct {
			at time.Duration
			to extent
		}
		var got []change
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				e, _, _ := s.look(time.Now())
				got = append(got, change{time.Since(began), e})
				s.outgrow(ctx, e)
			}
		}()
		for _, step := range []struct {
			after time.Duration
			all   bool
			pools []string
		}{
			{30 * time.Second, false, []string{"a"}},               // 0:30, and all are watched
			{60 * time.Second, false, []string{"a", "b"}},          // 1:30
			{60 * time.Second, false, []string{"a"}},               // 2:30, b stays a minute
			{30 * time.Second, false, []string{"a", "b"}},          // 3:00
			{10 * time.Minute, false, nil},                         // 13:00
			{10 * time.Minute, true, []string{"c"}},                // 23:00
			{10 * time.Second, false, []string{"c"}},               // 23:10
			{10 * time.Minute, false, manyPools(mostSelected + 1)}, // 33:10
		} {
			<-time.After(step.after)
			w.set(step.all, step.pools...)
			synctest.Wait()
		}
		cancel()
		<-ended
		want := []change{
			{0, all}, {peace, of("a")}, {90 * time.Second, of("a", "b")}, {14 * time.Minute, of()},
			{23 * time.Minute, all}, {24*time.Minute + 10*time.Second, of("c")}, {33*time.Minute + 10*time.Second, all},
		}
		same := func(a, b change) bool { return a.at == b.at && a.to.equal(b.to) }
		if !slices.EqualFunc(got, want, same) {
			t.Errorf("watched:\n%v\nwant:\n%v", got, want)
		}
	})
}

func manyPools(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("p%03d", i))
	}
	return names
}

// A watch that is refused again and again is asked for less and less often, and said
// so once, until it has gone well for a while.
func TestRefusedWatchesBackOff(t *testing.T) {
	var f setbacks
	var waited time.Duration
	said, tries := 0, 0
	for ; waited < time.Hour; tries++ {
		wait, news := f.count(errors.New("forbidden"), 0)
		if waited += wait; news {
			said++
		}
	}
	if said != 1 || tries > 70 {
		t.Errorf("in an hour: asked %d times, said %d times; want at most 70, and 1", tries, said)
	}
	if wait, news := f.count(errors.New("not found"), time.Second); !news || wait != mostRewatch {
		t.Errorf("another error: news %t, again in %v; want true, %v", news, wait, mostRewatch)
	}
	if wait, news := f.count(errors.New("not found"), mostRewatch); !news || wait != retry {
		t.Errorf("after a watch that lasted: news %t, again in %v; want true, %v", news, wait, retry)
	}
}

// unshown is a store whose watches show nothing, and which has a request of this node.
type unshown struct {
	exchange.Exchange
	watched chan []string
	has     exchange.Request
	away    int // so many times nobody answers
}

func (u *unshown) Watch(ctx context.Context, pools []string, _ func([]exchange.Request)) error {
	select {
	case u.watched <- pools:
	case <-ctx.Done():
	}
	<-ctx.Done()
	return ctx.Err()
}

func (u *unshown) Requests(context.Context) ([]exchange.Request, error) {
	if u.away--; u.away >= 0 {
		return nil, errors.New("no answer")
	}
	return []exchange.Request{u.has}, nil
}

// A request that an earlier life has made late, and that no watch has shown, is found
// before requests are watched no more; as long as nobody answers they are.
func TestALastLookBeforeNothingIsWatched(t *testing.T) {
	parts, store := newHost(t).parts()
	a, err := New(t.Context(), parts, settings(t))
	if err != nil {
		t.Fatal(errors.Join(err, store.Close()))
	}
	lack := exchange.Lack{Pool: "web", Family: pools.IPv4}
	u := &unshown{watched: make(chan []string), away: 1, has: exchange.Request{
		Name: exchange.RequestName(a.Node, lack), UID: "u", Version: "1", Node: a.Node, Pool: "web", Family: pools.IPv4, Count: 1,
	}}
	a.Store, a.every.peace = u, 10*time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { a.watchRequests(ctx) })
	for _, want := range [][]string{nil, nil, {"web"}} { // at first, without an answer, after it
		select {
		case got := <-u.watched:
			if !slices.Equal(got, want) {
				t.Errorf("a watch of the requests of pools %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no watch of the requests of pools %q", want)
		}
	}
	cancel()
	watching.Wait()
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

// Who watches less than before may have missed something.
func TestWhatAnExtentCovers(t *testing.T) {
	all, none := extent{all: true}, extent{}
	a, b, ab := extent{pools: []string{"a"}}, extent{pools: []string{"b"}}, extent{pools: []string{"a", "b"}}
	for _, c := range []struct {
		e, of extent
		want  bool
	}{{all, all, true}, {all, ab, true}, {ab, all, false}, {none, all, false}, {ab, a, true}, {ab, none, true}, {a, ab, false}, {a, b, false}, {none, a, false}, {none, none, true}} {
		if got := c.e.covers(c.of); got != c.want {
			t.Errorf("%+v covers %+v: %t", c.e, c.of, got)
		}
	}
}
