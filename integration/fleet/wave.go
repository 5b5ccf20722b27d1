package fleet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairway-network/fairway/agent/wire"
)

// again is how long a wave waits before it asks anew for a pod that was told to
// try again. A runtime waits longer.
const again = 100 * time.Millisecond

// atOnce bounds how many ADDs are under way, each of which takes files.
const atOnce = 2000

// Place is a pod on a node.
type Place struct {
	*Node
	Pod
}

// Outcome is how a wave went.
type Outcome struct {
	Addresses []netip.Addr // of each place, in their order
	Took      []time.Duration
	Retries   int // how often some pod was told to try again
	All       time.Duration
}

// Add has all places ask for an address at once (2,000 at most), again and again until each has
// one or ctx ends. That two have the same one is an error.
func Add(ctx context.Context, places []Place) (Outcome, error) {
	out := Outcome{Addresses: make([]netip.Addr, len(places)), Took: make([]time.Duration, len(places))}
	retries, errs := make([]int, len(places)), make([]error, len(places))
	began := time.Now()
	var all sync.WaitGroup
	under := make(chan struct{}, atOnce)
	for i, p := range places {
		under <- struct{}{}
		all.Go(func() {
			defer func() { <-under }()
			began := time.Now()
			out.Addresses[i], retries[i], errs[i] = p.add(ctx)
			out.Took[i] = time.Since(began)
		})
	}
	all.Wait()
	out.All = time.Since(began)
	for _, n := range retries {
		out.Retries += n
	}
	return out, errors.Join(some(errs), distinct(places, out.Addresses))
}

// some of many errors.
func some(errs []error) error {
	const most = 5
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if n := len(errs); n > most {
		errs = append(errs[:most], fmt.Errorf("and %d more", n-most))
	}
	return errors.Join(errs...)
}

func (p Place) add(ctx context.Context) (a netip.Addr, retries int, err error) {
	for {
		a, err = p.Node.Add(ctx, p.Pod)
		var fault *wire.Fault
		if !errors.As(err, &fault) || fault.Code != wire.TryAgainLater {
			return a, retries, err
		}
		retries++
		pause := time.NewTimer(again)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return a, retries, fmt.Errorf("after %d tries: %w", retries, err)
		}
	}
}

func distinct(places []Place, addresses []netip.Addr) error {
	var errs []error
	whose := map[netip.Addr]Place{}
	for i, a := range addresses {
		if other, taken := whose[a]; taken && a.IsValid() {
			errs = append(errs, fmt.Errorf("%s is leased twice: to %s on %s and to %s on %s", a,
				other.Pod.Name, other.Node.Name, places[i].Pod.Name, places[i].Node.Name))
		}
		whose[a] = places[i]
	}
	return some(errs)
}

// Del has all places give their addresses back at once.
func Del(ctx context.Context, places []Place) error {
	errs := make([]error, len(places))
	var all sync.WaitGroup
	under := make(chan struct{}, atOnce)
	for i, p := range places {
		under <- struct{}{}
		all.Go(func() {
			defer func() { <-under }()
			errs[i] = p.Node.Del(ctx, p.Pod)
		})
	}
	all.Wait()
	return some(errs)
}

// Applications are so many applications of so many pods of a pool. on says on
// which node the nth pod of all is; round tells the sandboxes of one wave from
// those of another.
func Applications(pool string, round, applications, pods int, on func(n int) *Node) (places []Place) {
	for a := range applications {
		for i := range pods {
			name := fmt.Sprintf("app%d-%d", a, i)
			places = append(places, Place{on(len(places)), Pod{
				Namespace: "shop", Name: name, UID: fmt.Sprintf("%s-%d", name, round), Sandbox: fmt.Sprintf("%s-%d", name, round), Pool: pool,
			}})
		}
	}
	return places
}
