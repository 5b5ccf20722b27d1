package kube

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// What was read before it was outdated does not count, whoever else reads at the
// time; and nothing is read twice that counts.
func TestAReadingIsNotOlderThanItsNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var world, reads atomic.Int32
		slow := make(chan struct{})
		r := &reading[int32]{read: func(context.Context) (int32, error) {
			now := world.Load()
			reads.Add(1)
			<-slow
			return now, nil
		}}
		first := make(chan int32, 1)
		go func() {
			v, _ := r.get(t.Context())
			first <- v
		}()
		synctest.Wait() // it has read 0, and nobody knows yet
		world.Store(1)
		r.outdate()
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if v, err := r.get(t.Context()); v != 1 || err != nil {
					t.Errorf("what was read before it was outdated counts: %d, %v", v, err)
				}
			})
		}
		synctest.Wait()
		close(slow)
		all.Wait()
		if v := <-first; v < 0 || reads.Load() != 2 {
			t.Errorf("%d reads, want 2", reads.Load())
		}
		if v, err := r.get(t.Context()); v != 1 || err != nil || reads.Load() != 2 {
			t.Errorf("what is known: %d, %v, after %d reads", v, err, reads.Load())
		}
	})
}

func TestAReadingOutlivesTheAPIServer(t *testing.T) {
	away := errors.New("away")
	var answer error
	r := &reading[string]{read: func(context.Context) (string, error) { return "x", answer }}
	answer = away
	if _, err := r.get(t.Context()); !errors.Is(err, away) {
		t.Errorf("what was never read: %v", err)
	}
	answer = nil
	if v, err := r.get(t.Context()); v != "x" || err != nil {
		t.Errorf("read: %q, %v", v, err)
	}
	r.outdate()
	answer = away
	if v, err := r.get(t.Context()); v != "x" || err != nil {
		t.Errorf("while the API server is away: %q, %v", v, err)
	}
	answer = apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "x")
	if _, err := r.get(t.Context()); !isGone(err) {
		t.Errorf("what is gone: %v", err)
	}
}

// Who gives up does not take the read with it that others wait for.
func TestAReadingOutlivesItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := make(chan struct{})
		r := &reading[string]{read: func(ctx context.Context) (string, error) {
			select {
			case <-slow:
				return "x", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}}
		hasty, giveUp := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := r.get(hasty); !errors.Is(err, context.Canceled) {
				t.Errorf("who gave up: %v", err)
			}
		})
		synctest.Wait()
		all.Go(func() {
			if v, err := r.get(t.Context()); v != "x" || err != nil {
				t.Errorf("who waited: %q, %v", v, err)
			}
		})
		synctest.Wait()
		giveUp()
		synctest.Wait()
		close(slow)
		all.Wait()
	})
}

// What is doubted is read anew, but not more often than its age says, whether the
// API server answers or not.
func TestAReadingThatIsDoubted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads, answer := 0, error(nil)
		r := &reading[int]{read: func(context.Context) (int, error) {
			reads++
			return reads, answer
		}}
		want := func(doubted bool, value, after int) {
			t.Helper()
			if got := r.doubt(time.Minute); got != doubted {
				t.Errorf("doubted: %t", got)
			}
			if got, err := r.get(t.Context()); got != value || err != nil || reads != after {
				t.Errorf("%d, %v after %d reads; want %d after %d", got, err, reads, value, after)
			}
		}
		want(true, 1, 1)
		want(false, 1, 1)
		time.Sleep(time.Minute)
		want(true, 2, 2)
		time.Sleep(time.Minute)
		answer = errors.New("away")
		want(true, 2, 3)
	})
}
