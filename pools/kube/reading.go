package kube

import (
	"context"
	"sync"
	"time"
)

// lookTime bounds a read on which a pod may wait.
const lookTime = 5 * time.Second

// reading is what is read of an object when something makes what was read last
// count no more, rather than watched all the time.
type reading[T any] struct {
	read func(context.Context) (T, error)

	mu       sync.Mutex
	outdated int // so many times; what was read counts if its read began after the last
	last     T
	as       int       // outdated, when the read of last began
	known    bool      // last was read
	began    time.Time // the last read, answered or not
	under    *look
}

// look is a read under way.
type look struct {
	as   int
	over chan struct{} // closed after err was set
	err  error
}

// outdate makes what was read until now count no more.
func (r *reading[T]) outdate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outdated++
}

// doubt is outdate, and says that it was, unless the last read began less than age
// ago.
func (r *reading[T]) doubt(age time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.began) < age {
		return false
	}
	r.outdated++
	return true
}

// begin reads, unless what was read counts or a read is under way, and returns
// at once.
func (r *reading[T]) begin(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start(ctx)
}

// start is begin, and returns the read under way; nil if none is needed. The lock
// is held.
func (r *reading[T]) start(ctx context.Context) *look {
	if r.known && r.as == r.outdated {
		return nil
	}
	if r.under != nil {
		return r.under
	}
	l := &look{as: r.outdated, over: make(chan struct{})}
	r.under, r.began = l, time.Now()
	// Others may wait for it when who began it has given up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
	go func() {
		defer cancel()
		t, err := r.read(ctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		if err == nil {
			r.last, r.as, r.known = t, l.as, true
		}
		r.under, l.err = nil, err
		close(l.over)
	}()
	return l
}

// get returns the object as it was when it was outdated last, or later. It makes
// no call if that is known. While the API server does not say, what was read last
// has to do; it is an error that nothing was, or that the object is gone.
func (r *reading[T]) get(ctx context.Context) (T, error) {
	r.mu.Lock()
	need := r.outdated
	r.mu.Unlock()
	for {
		r.mu.Lock()
		enough := r.known && r.as >= need
		last, l := r.last, (*look)(nil)
		if !enough {
			l = r.start(ctx)
		}
		r.mu.Unlock()
		if enough {
			return last, nil
		}
		select {
		case <-l.over:
		case <-ctx.Done():
			return r.insteadOf(ctx.Err())
		}
		if l.err != nil && l.as >= need {
			return r.insteadOf(l.err)
		}
	}
}

// insteadOf an answer, what was read last has to do.
func (r *reading[T]) insteadOf(err error) (T, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known && !isGone(err) {
		return r.last, nil
	}
	var none T
	return none, err
}

// now is what was read last, however old, if something was.
func (r *reading[T]) now() (last T, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.known
}
