package kube

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// blindTime is how long what is known of pools lasts while no watch of them is open:
// well below the half minute that a deleted one stays.
const blindTime = 10 * time.Second

// standing is what is known of pools being there. The controller lets go of a pool
// half a minute after its deletion, by when every agent has seen that it is to go;
// but one that has no connection sees nothing. When it has one again, its claims are
// not to be quicker than its watch: a claim in a pool that is gone could overlap the
// blocks of another one that has got the addresses since. Nor are they where the watch
// alone is not answered: a busy API server may have claims before watches; nor where
// the watch has a connection to itself. An API server that asks for another connection
// (--goaway-chance, or it shuts down) keeps the watches that it has on the old one, and
// if that dies without a word, it is noticed later than a deleted pool is gone.
type standing struct {
	*Client
	shown *mirror[v1alpha1.AddressPool]

	mu sync.Mutex
	// After how many lost connections pools were last known to be there: those that
	// shown has, -1 before they were listed, and single ones that were read.
	all  int64
	each map[string]poolRead
	// watches of pools are open, blind is since when there is none.
	watches int
	blind   time.Time
}

// poolRead is when a pool was found to be there, and after how many losses.
type poolRead struct {
	losses int64
	at     time.Time
}

func newStanding(c *Client, shown *mirror[v1alpha1.AddressPool]) *standing {
	return &standing{Client: c, shown: shown, all: -1, each: map[string]poolRead{}}
}

// heedful is from, of pools, of whose watches the standing knows whether they are open.
func (s *standing) heedful(from *cache.ListWatch) *cache.ListWatch {
	out := *from
	out.WatchFuncWithContext = func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		w, err := from.WatchFuncWithContext(ctx, o)
		if err != nil {
			return nil, err
		}
		s.opened(+1)
		return &endingWatch{w, sync.OnceFunc(func() { s.opened(-1) })}, nil
	}
	return &out
}

// endingWatch tells of its end. Who has it stops it in any case.
type endingWatch struct {
	watch.Interface
	end func()
}

// Stop ends it.
func (w *endingWatch) Stop() {
	w.Interface.Stop()
	w.end()
}

func (s *standing) opened(more int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches += more; s.watches == 0 {
		s.blind = time.Now()
	}
}

// listed notes that all pools were listed, which began after so many losses. What has
// become of them since, the watch shows, over the same connection while there is one.
func (s *standing) listed(began int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.losses.Load() == began {
		s.all = began
	}
}

// knows says whether a pool is there for certain at now.
func (s *standing) knows(pool string, now time.Time) bool {
	// In this order: were one of two lost in between, it would be among the losses.
	open, losses := s.open.Load(), s.losses.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	read, was := s.each[pool]
	if s.all != losses && (!was || read.losses != losses) {
		return false
	}
	watched := s.watches > 0 && open < 2
	return watched || now.Sub(s.blind) < blindTime || now.Sub(read.at) < blindTime
}

// note keeps that a pool was read, and forgets pools that are not shown any more.
func (s *standing) note(pool string, read poolRead) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.each, func(name string, _ poolRead) bool {
		_, shown := s.shown.get("", name)
		return !shown
	})
	s.each[pool] = read
}

// check is an error if a pool of which a block is to be claimed may be gone, and its
// watch has not shown it yet. It makes one request for each pool after the connection
// was lost, one in a while where no watch of pools is open or the client has several
// connections, and none otherwise.
func (s *standing) check(ctx context.Context, pool string) error {
	began := time.Now()
	if s.knows(pool, began) {
		return nil
	}
	what := "look whether pool " + pool + " is still there"
	// Agents may list pools, and a list of one name costs no more than that one.
	o := metav1.ListOptions{FieldSelector: "metadata.name=" + pool}
	var list v1alpha1.AddressPoolList
	if err := read(ctx, what, s.own.Get().Resource(v1alpha1.AddressPools).VersionedParams(&o, metav1.ParameterCodec), &list); err != nil {
		return err
	}
	if len(list.Items) != 1 || list.Items[0].Name != pool {
		return fmt.Errorf("%s: the API server has no such pool", what)
	}
	if list.Items[0].DeletionTimestamp != nil {
		return fmt.Errorf("%s: it is being deleted", what)
	}
	// One that is deleted now is there for another half a minute.
	if shown, known := s.shown.get("", pool); !known || shown.UID != list.Items[0].UID {
		return fmt.Errorf("%s: its UID is %s, not %q as it was seen last: waiting for its watch", what, list.Items[0].UID, shown.UID)
	}
	// Should the connection have been lost since, the pool was there all the same
	// less than half a minute ago.
	s.note(pool, poolRead{s.losses.Load(), began})
	return nil
}
