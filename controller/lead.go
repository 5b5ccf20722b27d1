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

// work is for how long a leader works on after it has asked for a renewal, unless
// the next one succeeds: that one is asked for after retry and may take deadline.
func (t terms) work() time.Duration { return t.deadline + t.retry }

// usualTerms leave time for a write that a leader began last to arrive before
// another one leads: work + that of a write < duration.
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
	running, endElection := context.WithCancelCause(context.WithoutCancel(ctx))
	defer endElection(nil)
	var failed error
	s := newShift(ctx, func(ctx context.Context) {
		failed = work(ctx)
		if ctx.Err() == nil {
			endElection(nil) // the work has ended by itself
		}
	})
	defer s.end()
	// A renewal that succeeds after all must not keep a leader that does nothing.
	lock := e.lock(s, func() { s.stop(); endElection(ErrLeadershipLost) })
	defer lock.close()
	elector, err := e.stand(lock)
	if err != nil {
		return err
	}
	// The Lease is given up when nothing more is written.
	disarm := context.AfterFunc(ctx, func() { s.end(); endElection(nil) })
	defer disarm()
	e.log.Info("waiting to lead", "lease", e.namespace+"/"+LeaseName, "identity", e.identity)
	elector.Run(running)
	endElection(ErrLeadershipLost) // unless it had been ended
	s.end()
	switch {
	case errors.Is(context.Cause(running), ErrLeadershipLost):
		e.log.Error("leadership lost: the Lease could not be renewed", "identity", e.identity)
		return errors.Join(ErrLeadershipLost, failed)
	case ctx.Err() != nil:
		e.log.Info("no longer leading", "identity", e.identity)
		return nil
	}
	return failed
}

// lock makes what the elector reaches the Lease by.
func (e *election) lock(s *shift, lapse func()) *orderly {
	return &orderly{shift: s, lasts: e.terms.work(), lapse: lapse, Interface: &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: LeaseName},
		Client:    e.leases, LockConfig: resourcelock.ResourceLockConfig{Identity: e.identity},
	}}
}

// stand makes the elector.
func (e *election) stand(lock *orderly) (*leaderelection.LeaderElector, error) {
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: LeaseName, Lock: lock, ReleaseOnCancel: true,
		LeaseDuration: e.terms.duration, RenewDeadline: e.terms.deadline, RetryPeriod: e.terms.retry,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {
				e.log.Info("leading", "identity", e.identity)
				lock.shift.begin()
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

// orderly keeps the work within the time for which the Lease is this controller's.
// The elector does not: it counts from the answer to a renewal, which may be
// late, and tells a leader that it leads no more only when it has tried to give
// the Lease up, which may take as long as a renewal.
type orderly struct {
	resourcelock.Interface
	shift *shift
	lasts time.Duration // the work, after a renewal was asked for
	lapse func()        // ends the work and the election

	// The elector makes one call at a time.
	mine bool        // as the Lease was read or written last
	end  *time.Timer // of the work; nil before the Lease has been this controller's
}

func (l *orderly) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	r, raw, err := l.Interface.Get(ctx)
	if err == nil {
		l.mine = r.HolderIdentity == l.Identity()
	}
	return r, raw, err
}

func (l *orderly) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	asked := time.Now()
	err := l.Interface.Create(ctx, r)
	if err == nil {
		l.hold(asked)
	}
	return err
}

func (l *orderly) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	if r.HolderIdentity == "" {
		return l.giveUp(ctx, r)
	}
	asked := time.Now()
	err := l.Interface.Update(ctx, r)
	if err == nil {
		l.hold(asked)
	}
	return err
}

// hold lets the work go on. Others may have seen the renewal when it was asked
// for, and count from then.
func (l *orderly) hold(asked time.Time) {
	l.mine = true
	left := time.Until(asked.Add(l.lasts))
	switch {
	case left <= 0:
		l.lapse() // here, as the elector goes on to begin the work
	case l.end == nil:
		l.end = time.AfterFunc(left, l.lapse)
	default:
		l.end.Reset(left)
	}
}

// close is for when the election is over.
func (l *orderly) close() {
	if l.end != nil {
		l.end.Stop()
	}
}

// giveUp ends the work before it gives the Lease up, and leaves that of a successor
// alone: the elector has just read the Lease, so its write would be no
// conflict, but goes by whose the Lease was when it tried to renew it.
func (l *orderly) giveUp(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	l.shift.end()
	if !l.mine {
		return errors.New("the Lease is not this controller's any more")
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
