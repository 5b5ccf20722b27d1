package agent

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// worry is a concern that comes and goes.
type worry struct {
	mu     sync.Mutex
	yes    bool
	turned chan struct{}
}

func (w *worry) ask() (bool, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.yes, w.turned
}

func (w *worry) set(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.yes = yes
	close(w.turned)
	w.turned = make(chan struct{})
}

// Requests are watched until nothing has concerned the node for a while, not in
// every moment without a block.
func TestConcernIsOutlasted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &worry{turned: make(chan struct{})}
		began, over := time.Now(), make(chan time.Duration)
		go func() {
			concern(w.ask).outlast(t.Context(), time.Minute)
			over <- time.Since(began)
		}()
		go func() {
			for _, change := range []struct {
				after time.Duration
				yes   bool
			}{{50 * time.Second, true}, {5 * time.Minute, false}, {59 * time.Second, true}, {time.Second, false}} {
				<-time.After(change.after)
				w.set(change.yes)
			}
		}()
		if took, want := <-over, 50*time.Second+5*time.Minute+time.Minute+time.Minute; took != want {
			t.Errorf("peace after %v, want %v", took, want)
		}
		began = time.Now()
		go func() {
			concern(w.ask).await(t.Context())
			over <- time.Since(began)
		}()
		synctest.Wait()
		<-time.After(time.Hour)
		w.set(false) // something turned, but is no concern
		synctest.Wait()
		w.set(true)
		if took := <-over; took != time.Hour {
			t.Errorf("a concern after %v, want an hour", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			concern(w.ask).outlast(ctx, time.Minute)
			over <- 0
		}()
		cancel()
		<-over // also while there is a concern
	})
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
