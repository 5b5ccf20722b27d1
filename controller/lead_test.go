package controller

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

func (w *world) election() {
	short := terms{6 * time.Second, 4 * time.Second, 200 * time.Millisecond}
	stopA := w.start("a", short)
	w.awaitLeader("a")
	w.pool("decoys", "10.99.0.0/24")
	w.awaitState("decoys", v1alpha1.PoolIsActive)
	stopB := w.start("b", short)
	w.decoys("a")
	// The leader ends in order: the other one leads at once.
	if err := stopA(); err != nil {
		w.Errorf("a ends with %v", err)
	}
	w.awaitLeader("b")
	w.decoys("b")
	// The leader can't renew its Lease: it ends, and says so.
	stopC := w.start("c", short)
	w.await("the Lease to be stolen", func() (bool, any) {
		leases := w.admin.CoordinationV1().Leases(namespace)
		lease, err := leases.Get(w.Context(), LeaseName, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		thief := "a thief"
		lease.Spec.HolderIdentity = &thief
		_, err = leases.Update(w.Context(), lease, metav1.UpdateOptions{})
		return err == nil, err
	})
	w.awaitLeader("c")
	if err := stopB(); !errors.Is(err, ErrLeadershipLost) {
		w.Errorf("b ends with %v, want %v", err, ErrLeadershipLost)
	}
	w.decoys("c")
	if err := stopC(); err != nil {
		w.Errorf("c ends with %v", err)
	}
}

func (w *world) awaitLeader(name string) {
	w.Helper()
	w.await(name+" to lead", func() (bool, any) {
		lease, err := w.admin.CoordinationV1().Leases(namespace).Get(w.Context(), LeaseName, metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil {
			return false, err
		}
		return *lease.Spec.HolderIdentity == name, *lease.Spec.HolderIdentity
	})
}

// A leader may write until others can take it for dead, less the time of a write.
// They count from when they can have seen the Lease renewed last.
func TestALeaderThatCannotRenewEndsInTime(t *testing.T) {
	for name, late := range map[string]time.Duration{"answered at once": 0, "answered late": 4 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inElection(t, func(t *testing.T, c *candidate) {
				c.lease.delay(0, late)
				c.stand(t)
				c.awaitRenewal(t)
				renewed := c.lease.renewed()
				c.lease.delay(never, 0)
				c.wantResult(t, ErrLeadershipLost)
				if worked := c.worked.end.Sub(renewed); worked != usualTerms().work() {
					t.Errorf("it works for %s after its last renewal, want %s", worked, usualTerms().work())
				}
			})
		})
	}
}

// The renewal after the one that counted last arrives and is answered when the
// work has ended for want of it: somebody else has to lead.
func TestARenewalThatIsLateKeepsNoIdleLeader(t *testing.T) {
	inElection(t, func(t *testing.T, c *candidate) {
		c.stand(t)
		c.awaitRenewal(t)
		c.lease.delay(0, 9*time.Second)
		c.wantResult(t, ErrLeadershipLost)
		if holder := c.lease.holder(); holder != "" {
			t.Errorf("the Lease is still held by %q", holder)
		}
	})
}

// A Lease that is had when the answer comes is no use if it may be over by then.
func TestNobodyLeadsByALeaseThatCameTooLate(t *testing.T) {
	inElection(t, func(t *testing.T, c *candidate) {
		c.lease.delay(0, usualTerms().work())
		c.stand(t)
		c.wantResult(t, ErrLeadershipLost)
		if !c.worked.began.IsZero() {
			t.Error("it has begun to work")
		}
	})
}

// What a leader that gives up reads of the Lease may be a successor's already, or
// the successor comes between that and its write.
func TestALeaderThatGivesUpLeavesTheLeaseToItsSuccessor(t *testing.T) {
	for name, at := range map[string]time.Duration{"before it reads": time.Second, "before it writes": 4 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inElection(t, func(t *testing.T, c *candidate) {
				c.stand(t)
				c.awaitRenewal(t)
				c.lease.delay(never, 0)
				c.sleepSinceRenewal(usualTerms().work() - time.Second)
				c.lease.delay(3*time.Second, 0) // for reading and for writing
				c.sleepSinceRenewal(usualTerms().work() + at)
				c.lease.take("successor")
				c.wantResult(t, ErrLeadershipLost)
				if holder := c.lease.holder(); holder != "successor" {
					t.Errorf("the Lease is held by %q, want its successor", holder)
				}
			})
		})
	}
}

func TestALeaderThatRenewsWorksUntilItIsToEnd(t *testing.T) {
	inElection(t, func(t *testing.T, c *candidate) {
		c.lease.delay(time.Second, time.Second)
		c.stand(t)
		time.Sleep(time.Hour)
		synctest.Wait()
		if !c.worked.end.IsZero() {
			t.Errorf("its work ended after %s", c.worked.end.Sub(c.worked.began))
		}
		c.end()
		c.wantResult(t, nil)
		if holder := c.lease.holder(); holder != "" {
			t.Errorf("the Lease is still held by %q", holder)
		}
	})
}

// The work has ended in order: that the Lease runs out later is no loss.
func TestALeaderThatEndsWithoutAnAPIServerHasLostNothing(t *testing.T) {
	inElection(t, func(t *testing.T, c *candidate) {
		c.stand(t)
		c.awaitRenewal(t)
		c.lease.delay(never, 0)
		c.sleepSinceRenewal(usualTerms().work() - time.Second)
		c.end()
		c.wantResult(t, nil)
	})
}

// candidate stands for election, with the usual terms and a clock of its own.
type candidate struct {
	lease  *loneLease
	end    context.CancelFunc
	result chan error
	worked struct{ began, end time.Time }
}

func inElection(t *testing.T, test func(*testing.T, *candidate)) {
	synctest.Test(t, func(t *testing.T) {
		test(t, &candidate{lease: new(loneLease), result: make(chan error, 1)})
	})
}

func (c *candidate) stand(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	c.end = cancel
	e := &election{leases: c.lease, namespace: namespace, identity: "candidate", terms: usualTerms(), log: slog.New(slog.DiscardHandler)}
	running.Go(func() {
		c.result <- e.run(ctx, func(ctx context.Context) error {
			c.worked.began = time.Now()
			<-ctx.Done()
			c.worked.end = time.Now()
			return nil
		})
	})
}

// awaitRenewal returns within a second after the candidate has been told that the
// Lease, which it has, is renewed: before it renews it again.
func (c *candidate) awaitRenewal(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(time.Hour); c.lease.answered() < 2; time.Sleep(time.Second) {
		if synctest.Wait(); time.Now().After(end) {
			t.Fatal("the Lease is never renewed")
		}
	}
}

func (c *candidate) sleepSinceRenewal(d time.Duration) {
	time.Sleep(time.Until(c.lease.renewed().Add(d)))
}

func (c *candidate) wantResult(t *testing.T, want error) {
	t.Helper()
	select {
	case got := <-c.result:
		if !errors.Is(got, want) {
			t.Errorf("it ends with %v, want %v", got, want)
		}
	case <-time.After(time.Hour):
		t.Error("it never ends")
	}
}

// never is longer than any test waits.
const never = 1000 * time.Hour

// loneLease is what an API server with one Lease is to one candidate, which it
// may be far from.
type loneLease struct {
	coordination.LeaseInterface // the rest of it, which nobody calls

	mu          sync.Mutex
	lease       *coordinationv1.Lease
	there, back time.Duration
	asked       time.Time // for the last write that went well
	answers     int       // to writes
}

func (l *loneLease) Leases(string) coordination.LeaseInterface { return l }

// delay is from now on how long calls, and their answers, are under way.
func (l *loneLease) delay(there, back time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.there, l.back = there, back
}

func (l *loneLease) renewed() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

func (l *loneLease) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers
}

func (l *loneLease) holder() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *l.lease.Spec.HolderIdentity
}

// take has somebody else be the holder.
func (l *loneLease) take(holder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.lease.DeepCopy()
	o.Spec.HolderIdentity = &holder
	l.store(o)
}

// store makes the next version of the Lease.
func (l *loneLease) store(o *coordinationv1.Lease) {
	version := 1
	if l.lease != nil {
		last, _ := strconv.Atoi(l.lease.ResourceVersion)
		version = last + 1
	}
	o.ResourceVersion = strconv.Itoa(version)
	l.lease = o
}

func (l *loneLease) Get(ctx context.Context, _ string, _ metav1.GetOptions) (*coordinationv1.Lease, error) {
	return l.call(ctx, func() error {
		if l.lease == nil {
			return apierrors.NewNotFound(coordinationv1.Resource("leases"), LeaseName)
		}
		return nil
	})
}

func (l *loneLease) Create(ctx context.Context, o *coordinationv1.Lease, _ metav1.CreateOptions) (*coordinationv1.Lease, error) {
	return l.write(ctx, o.DeepCopy(), func() error {
		if l.lease != nil {
			return apierrors.NewAlreadyExists(coordinationv1.Resource("leases"), LeaseName)
		}
		return nil
	})
}

func (l *loneLease) Update(ctx context.Context, o *coordinationv1.Lease, _ metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	return l.write(ctx, o.DeepCopy(), func() error {
		if o.ResourceVersion != l.lease.ResourceVersion {
			return apierrors.NewConflict(coordinationv1.Resource("leases"), LeaseName, errors.New("it is another version"))
		}
		return nil
	})
}

func (l *loneLease) write(ctx context.Context, o *coordinationv1.Lease, refuse func() error) (*coordinationv1.Lease, error) {
	asked := time.Now()
	stored, err := l.call(ctx, func() error {
		if err := refuse(); err != nil {
			return err
		}
		l.store(o)
		return nil
	})
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked, l.answers = asked, l.answers+1
	return stored, nil
}

// call is a call's way there, what it does, and its answer's way back.
func (l *loneLease) call(ctx context.Context, do func() error) (*coordinationv1.Lease, error) {
	l.mu.Lock()
	there := l.there
	l.mu.Unlock()
	if err := underWay(ctx, there); err != nil {
		return nil, err
	}
	answer, back, err := l.serve(do)
	if late := underWay(ctx, back); late != nil {
		return nil, late
	}
	return answer, err
}

func (l *loneLease) serve(do func() error) (*coordinationv1.Lease, time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := do()
	return l.lease.DeepCopy(), l.back, err
}

func underWay(ctx context.Context, d time.Duration) error {
	if ctx.Err() == nil && d > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	return ctx.Err()
}
