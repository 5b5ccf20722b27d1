package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// mirror keeps what is needed of each object of one kind, as a list and then a
// watch show it. What was confirmed last stays while the API server is away.
type mirror[T any] struct {
	what string
	log  *slog.Logger
	turn func(any) (T, error)

	changed chan struct{} // of size one

	mu      sync.RWMutex
	objects map[types.NamespacedName]T
}

// newMirror is an empty mirror of what, which keeps what turn makes of each
// object. An object of which it makes an error is left out, and logged.
func newMirror[T any](what string, log *slog.Logger, turn func(any) (T, error)) *mirror[T] {
	return &mirror[T]{
		what: what, log: log, turn: turn,
		changed: make(chan struct{}, 1), objects: map[types.NamespacedName]T{},
	}
}

// follow keeps the mirror until ctx ends, whose error it returns. It calls seen
// after the first list, also if that is empty, and after changes, many of which
// may share a call.
func (m *mirror[T]) follow(ctx context.Context, from *cache.ListWatch, kind runtime.Object, seen func()) error {
	ctx, cancel := context.WithCancel(ctx)
	// What the reflector would log, in a form of its own, the insistence does.
	ctx = logr.NewContextWithSlogLogger(ctx, slog.New(slog.DiscardHandler))
	r := cache.NewReflectorWithOptions(insisting(from, &voice{what: m.what, log: m.log}), kind, m, cache.ReflectorOptions{
		Name: "fairway " + m.what,
		// Between two lists; see insistence for what fails.
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 6, Cap: 10 * time.Second},
	})
	var reflecting sync.WaitGroup
	reflecting.Go(func() { r.RunWithContext(ctx) })
	defer reflecting.Wait()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.changed:
			seen()
		}
	}
}

// reasonOf an error, without the request that it answers: that differs from try
// to try.
func reasonOf(err error) string {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	if err == nil {
		return ""
	}
	return hint(err).Error()
}

// all returns what is kept, in the order of the objects' names.
func (m *mirror[T]) all() []T {
	m.mu.RLock()
	defer m.mu.RUnlock()
	names := slices.SortedFunc(maps.Keys(m.objects), func(a, b types.NamespacedName) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	out := make([]T, len(names))
	for i, name := range names {
		out[i] = m.objects[name]
	}
	return out
}

// get returns what is kept of one object.
func (m *mirror[T]) get(namespace, name string) (t T, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t, ok = m.objects[types.NamespacedName{Namespace: namespace, Name: name}]
	return t, ok
}

func (m *mirror[T]) signal() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// kept is what is kept of o, and under which name.
func (m *mirror[T]) kept(o any) (name types.NamespacedName, t T, ok bool) {
	about, err := meta.Accessor(o)
	if err != nil {
		m.log.Error("not an object", "objects", m.what, "err", err)
		return name, t, false
	}
	name = types.NamespacedName{Namespace: about.GetNamespace(), Name: about.GetName()}
	if t, err = m.turn(o); err != nil {
		m.log.Warn("an object that can't be read", "objects", m.what, "err", err)
		return name, t, false
	}
	return name, t, true
}

// Add is called by the reflector, as are the methods below.
func (m *mirror[T]) Add(o any) error { return m.Update(o) }

// Update keeps o, and nothing of what it was if it can't be read.
func (m *mirror[T]) Update(o any) error {
	name, t, ok := m.kept(o)
	m.mu.Lock()
	if ok {
		m.objects[name] = t
	} else {
		delete(m.objects, name)
	}
	m.mu.Unlock()
	m.signal()
	return nil
}

// Delete forgets o.
func (m *mirror[T]) Delete(o any) error {
	about, err := meta.Accessor(o)
	if err != nil {
		return fmt.Errorf("%s: %w", m.what, err)
	}
	m.mu.Lock()
	delete(m.objects, types.NamespacedName{Namespace: about.GetNamespace(), Name: about.GetName()})
	m.mu.Unlock()
	m.signal()
	return nil
}

// Replace keeps a list instead of what was kept.
func (m *mirror[T]) Replace(list []any, _ string) error {
	objects := make(map[types.NamespacedName]T, len(list))
	for _, o := range list {
		if name, t, ok := m.kept(o); ok {
			objects[name] = t
		}
	}
	m.mu.Lock()
	m.objects = objects
	m.mu.Unlock()
	m.signal()
	return nil
}

// Resync has nothing to do.
func (m *mirror[T]) Resync() error { return nil }

// every lists and watches all objects of a resource.
func every(c rest.Interface, resource string) *cache.ListWatch { return some(c, resource, "") }

// one lists and watches the object of that name: watches by name cost the API
// server nothing as the cluster grows.
func one(c rest.Interface, resource, name string) *cache.ListWatch {
	return some(c, resource, "metadata.name="+name)
}

// labelled lists and watches the objects whose label has one of these values, all if
// there are none.
func labelled(c rest.Interface, resource, label string, values []string) *cache.ListWatch {
	return cache.NewFilteredListWatchFromClient(c, resource, metav1.NamespaceAll, func(o *metav1.ListOptions) {
		if len(values) > 0 {
			o.LabelSelector = label + " in (" + strings.Join(values, ",") + ")"
		}
	})
}

func some(c rest.Interface, resource, fields string) *cache.ListWatch {
	return cache.NewFilteredListWatchFromClient(c, resource, metav1.NamespaceAll, func(o *metav1.ListOptions) { o.FieldSelector = fields })
}

// outlines lists and watches the metadata of objects.
func outlines(c metadata.ResourceInterface, fields string) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = fields
			return c.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = fields
			return c.Watch(ctx, o)
		},
	}
}
