package kube

import (
	"context"
	"fmt"
	"sync"

	"github.com/fairway-network/fairway/api/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// standing is what is known of pools being there. The controller lets go of a pool
// half a minute after its deletion, by when every agent has seen that it is to go;
// but one that has no connection sees nothing. When it has one again, its claims are
// not to be quicker than its watch: a claim in a pool that is gone could overlap the
// blocks of another one that has got the addresses since.
type standing struct {
	*Client
	shown *mirror[v1alpha1.AddressPool]

	mu sync.Mutex
	// After how many lost connections pools were last known to be there: those that
	// shown has, -1 before they were listed, and single ones that were read.
	all  int64
	each map[string]int64
}

func newStanding(c *Client, shown *mirror[v1alpha1.AddressPool]) *standing {
	return &standing{Client: c, shown: shown, all: -1, each: map[string]int64{}}
}

// listed notes that all pools were listed, which began after so many losses. What has
// become of them since, the watch over the same connection shows.
func (s *standing) listed(began int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.losses.Load() == began {
		s.all = began
	}
}

func (s *standing) knows(pool string, losses int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, read := s.each[pool]
	return s.all == losses || read && at == losses
}

func (s *standing) note(pool string, losses int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.each[pool] = losses
}

// check is an error if a pool of which a block is to be claimed may be gone, and its
// watch has not shown it yet. It makes one request for each pool after the connection
// was lost, and none otherwise.
func (s *standing) check(ctx context.Context, pool string) error {
	if s.knows(pool, s.losses.Load()) {
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
	// One that is being deleted is there for another half a minute at least.
	if shown, known := s.shown.get("", pool); !known || shown.UID != list.Items[0].UID {
		return fmt.Errorf("%s: its UID is %s, not %q as it was seen last: waiting for its watch", what, list.Items[0].UID, shown.UID)
	}
	// Should the connection have been lost since, the pool was there all the same
	// less than half a minute ago.
	s.note(pool, s.losses.Load())
	return nil
}
