package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// ErrLeadershipLost: the Lease could not be renewed in time, and another
// controller may lead by now.
var ErrLeadershipLost = errors.New("leadership lost")

// LeaseName is the name of the Lease by which controllers elect their leader.
const LeaseName = "fairway-controller"

// terms are the times of an election.
type terms struct {
	duration time.Duration // for which others take the leader for alive
	deadline time.Duration // in which a renewal has to succeed
	retry    time.Duration
}

// usualTerms leave time for a write that a leader began last to arrive before
// another one leads: deadline + retry + that of a write < duration.
func usualTerms() terms { return terms{20 * time.Second, 10 * time.Second, 2 * time.Second} }

// election is one controller's part in the election of a leader.
type election struct {
	leases    coordination.LeasesGetter
	namespace string
	identity  string
	terms     terms
	log       *slog.Logger

	elector atomic.Pointer[leaderelection.LeaderElector]
}

// run calls work when this controller leads, once. work gets a context that ends
// when it no longer may do anything. run returns after work has, with its
// error, with nil if ctx ended, or with ErrLeadershipLost.
func (e *election) run(ctx context.Context, work func(context.Context) error) error {
	running, stopElection := context.WithCancel(context.WithoutCancel(ctx))
	defer stopElection()
	var failed error
	s := newShift(ctx, func(ctx context.Context) {
		failed = work(ctx)
		if ctx.Err() == nil {
			stopElection() // the work has ended by itself
		}
	})
	defer s.end()
	elector, err := e.stand(s)
	if err != nil {
		return err
	}
	// The Lease is given up when nothing more is written.
	disarm := context.AfterFunc(ctx, func() { s.end(); stopElection() })
	defer disarm()
	e.log.Info("waiting to lead", "lease", e.namespace+"/"+LeaseName, "identity", e.identity)
	elector.Run(running)
	lost := running.Err() == nil
	s.end()
	switch {
	case lost:
		e.log.Error("leadership lost: the Lease could not be renewed", "identity", e.identity)
		return errors.Join(ErrLeadershipLost, failed)
	case ctx.Err() != nil:
		e.log.Info("no longer leading", "identity", e.identity)
		return nil
	}
	return failed
}

// stand makes the elector.
func (e *election) stand(s *shift) (*leaderelection.LeaderElector, error) {
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: LeaseName},
		Client:    e.leases, LockConfig: resourcelock.ResourceLockConfig{Identity: e.identity},
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: LeaseName, Lock: orderly{lock, s}, ReleaseOnCancel: true,
		LeaseDuration: e.terms.duration, RenewDeadline: e.terms.deadline, RetryPeriod: e.terms.retry,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {
				e.log.Info("leading", "identity", e.identity)
				s.begin()
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(identity string) {
				if identity != e.identity {
					e.log.Info("another controller leads", "leader", identity)
				}
			},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("leader election: %w", err)
	}
	e.elector.Store(elector)
	return elector, nil
}

// orderly ends the work before it gives the Lease up: the elector does that also
// when it could not renew the Lease in time, and tells the leader afterwards.
type orderly struct {
	resourcelock.Interface
	shift *shift
}

func (l orderly) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	if r.HolderIdentity == "" {
		l.shift.end()
	}
	return l.Interface.Update(ctx, r)
}

// shift is work that begins at most once, and not after it has ended.
type shift struct {
	ctx  context.Context
	stop context.CancelFunc
	work func(context.Context)

	mu    sync.Mutex
	begun bool
	done  chan struct{}
}

func newShift(ctx context.Context, work func(context.Context)) *shift {
	s := &shift{work: work, done: make(chan struct{})}
	s.ctx, s.stop = context.WithCancel(ctx)
	return s
}

func (s *shift) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun || s.ctx.Err() != nil {
		return
	}
	s.begun = true
	go func() {
		defer close(s.done)
		s.work(s.ctx)
	}()
}

// end returns when the work has ended.
func (s *shift) end() {
	s.stop()
	s.mu.Lock()
	begun := s.begun
	s.mu.Unlock()
	if begun {
		<-s.done
	}
}
