package kube

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

const (
	// leastPause is before a list or a watch that was in vain is asked for again, at
	// first; each further time it is twice as long. Each pause is drawn, between its
	// half and the whole of it.
	leastPause = 250 * time.Millisecond
	// awayPause is the longest while nobody is reached. Whatever else of the client
	// gets a connection ends it.
	awayPause = 5 * time.Second
	// busyPause is the longest where the API server has too much to do, is not ready
	// yet, or broke off.
	busyPause = 5 * time.Second
	// refusedPause is the longest where it says no: somebody has to change something.
	refusedPause = time.Minute
	// cutSpread is the time over which watches that end too early are opened again:
	// those of all agents may end at once.
	cutSpread = time.Second
	// watchTime is the least time that a watch is asked to last.
	watchTime = 5 * time.Minute
)

// insistence asks for lists and watches until the API server has shown something.
// Left to the reflector, whatever fails makes one and the same pause grow, which
// nothing makes short again for minutes, and most of it is followed by another list.
type insistence struct {
	voice *voice

	limit, pause time.Duration // of the last failure; 0 if there was none since an answer
	until        time.Time     // before which the last watch is not to end
}

// insisting is from, asked with insistence. One reflector uses it.
func insisting(from *cache.ListWatch, v *voice) *cache.ListWatch {
	p := &insistence{voice: v}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return insist(ctx, p, func() (runtime.Object, error) { return from.ListWithContextFunc(ctx, o) })
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			if early := time.Now().Before(p.until); early && !sleep(ctx, rand.N(cutSpread), nil) {
				return nil, ctx.Err()
			}
			w, err := insist(ctx, p, func() (watch.Interface, error) { return from.WatchFuncWithContext(ctx, o) })
			if err == nil {
				p.until = time.Now().Add(watchTime)
			}
			return w, err
		},
	}
}

// insist returns the first answer that asking again can't change, or ctx's error.
func insist[A any](ctx context.Context, p *insistence, ask func() (A, error)) (A, error) {
	for {
		a, err := ask()
		p.voice.tell(ctx, err)
		if err == nil {
			p.limit = 0
		}
		if err == nil || otherwise(err) || ctx.Err() != nil {
			return a, err
		}
		wait, back := p.failed(err)
		if !sleep(ctx, wait, back) {
			return a, ctx.Err()
		}
	}
}

// failed is how long to wait after err, unless back is closed.
func (p *insistence) failed(err error) (wait time.Duration, back <-chan struct{}) {
	limit, back := impediment(err)
	if limit != p.limit {
		p.limit, p.pause = limit, leastPause
	}
	wait = p.pause/2 + rand.N(p.pause/2)
	p.pause = min(2*p.pause, limit)
	return wait, back
}

// impediment is how long to wait at most for it to go, and what says that it has.
func impediment(err error) (limit time.Duration, back <-chan struct{}) {
	var away *absence
	if errors.As(err, &away) {
		return awayPause, away.back
	}
	var answer apierrors.APIStatus
	if errors.As(err, &answer) {
		if code := answer.Status().Code; code >= 400 && code < 500 && code != http.StatusTooManyRequests {
			return refusedPause, nil
		}
	}
	return busyPause, nil
}

// otherwise says whether the reflector has to ask for something else: for another
// version, or for a list where there are none by watch.
func otherwise(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) ||
		apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

// sleep waits for d or until over is closed, and says whether ctx lasted.
func sleep(ctx context.Context, d time.Duration, over <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-over:
		return true
	case <-ctx.Done():
		return false
	}
}
