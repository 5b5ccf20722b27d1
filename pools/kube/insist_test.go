package kube

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// moody is an API server that fails as long as err says so. It lists one node.
type moody struct {
	err            func() error
	lists, watches atomic.Int32 // that were answered
	asked          atomic.Int32
	watching       atomic.Pointer[watch.FakeWatcher]
}

func (m *moody) listWatch() *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			m.asked.Add(1)
			if err := m.err(); err != nil {
				return nil, err
			}
			m.lists.Add(1)
			return &core.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []core.Node{named("a")}}, nil
		},
		WatchFuncWithContext: func(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
			if o.SendInitialEvents != nil {
				return nil, apierrors.NewBadRequest("no lists by watch")
			}
			m.asked.Add(1)
			if err := m.err(); err != nil {
				return nil, err
			}
			m.watches.Add(1)
			w := watch.NewFake()
			m.watching.Store(w)
			return w, nil
		},
	}
}

// followed runs use with a mirror of m, in time that passes by itself.
func followed(t *testing.T, m *moody, use func()) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = newMirror("nodes", slog.New(slog.DiscardHandler), nodeOf).follow(ctx, m.listWatch(), &core.Node{}, func() {})
		}()
		use()
		cancel()
		<-ended
	})
}

func refusedDial() error {
	return &absence{syscall.ECONNREFUSED, make(chan struct{})}
}

// However long the API server was away, its watches are open again some seconds
// after it has come back, and nothing is listed again for it.
func TestWatchesComeBackSoon(t *testing.T) {
	notReady := apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "", errors.New("RBAC: role not found"))
	for name, outage := range map[string]func(since time.Duration) error{
		"away":           func(time.Duration) error { return refusedDial() },
		"broken":         func(time.Duration) error { return io.ErrUnexpectedEOF },
		"busy":           func(time.Duration) error { return apierrors.NewTooManyRequests("later", 1) },
		"not ready last": func(since time.Duration) error { return lastly(since > 4*time.Minute, notReady, refusedDial()) },
	} {
		t.Run(name, func(t *testing.T) {
			const lasts = 4*time.Minute + 5*time.Second
			var down atomic.Bool
			var since time.Time
			m := &moody{}
			m.err = func() error {
				if !down.Load() {
					return nil
				}
				return outage(time.Since(since))
			}
			followed(t, m, func() {
				<-time.After(time.Minute)
				since = time.Now()
				down.Store(true)
				m.watching.Load().Stop()
				<-time.After(lasts)
				if n := m.watches.Load(); n != 1 {
					t.Fatalf("%d watches were opened before the API server came back", n)
				}
				if n := m.asked.Load(); n < 30 || n > 200 {
					t.Errorf("asked %d times in %v", n, lasts)
				}
				down.Store(false)
				<-time.After(busyPause)
				synctest.Wait()
				if n := m.watches.Load(); n != 2 {
					t.Errorf("%d watches were opened %v after the API server came back, want 2", n, busyPause)
				}
				if n := m.lists.Load(); n != 1 {
					t.Errorf("%d lists", n)
				}
			})
		})
	}
}

func lastly(last bool, then, before error) error {
	if last {
		return then
	}
	return before
}

// Who may not look asks less and less often, down to once a minute.
func TestARefusalIsNotAskedAgainAllTheTime(t *testing.T) {
	m := &moody{err: func() error {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "", errors.New("no such right"))
	}}
	followed(t, m, func() {
		<-time.After(10 * time.Minute)
		before := m.asked.Load()
		if before > 40 {
			t.Errorf("asked %d times in ten minutes", before)
		}
		<-time.After(time.Hour)
		if n := m.asked.Load() - before; n < 55 || n > 130 {
			t.Errorf("asked %d times in an hour, want about 60", n)
		}
	})
}

// A watch that is cut is opened again within cutSpread, one that has lasted at once.
func TestCutWatchesAreSpread(t *testing.T) {
	for _, lasted := range []time.Duration{10 * time.Second, watchTime} {
		m := &moody{err: func() error { return nil }}
		followed(t, m, func() {
			<-time.After(lasted)
			m.watching.Load().Stop()
			synctest.Wait()
			if n := m.watches.Load(); lasted == watchTime && n != 2 {
				t.Errorf("after %v: %d watches at once, want 2", lasted, n)
			}
			<-time.After(cutSpread)
			synctest.Wait()
			if n := m.watches.Load(); n != 2 {
				t.Errorf("after %v: %d watches within %v, want 2", lasted, n, cutSpread)
			}
		})
	}
}
