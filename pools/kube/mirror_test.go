package kube

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

func named(name string) core.Node { return core.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }

// scripted is an API server that lists one after the other, and watches what
// events say. It knows no lists by watch.
func scripted(lists [][]core.Node, events <-chan watch.Event) *cache.ListWatch {
	var listed atomic.Int32
	return &cache.ListWatch{
		ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			i := min(int(listed.Add(1)), len(lists)) - 1
			if lists[i] == nil {
				return nil, errors.New("not now")
			}
			return &core.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(i + 1)}, Items: lists[i]}, nil
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			if o.SendInitialEvents != nil {
				return nil, apierrors.NewBadRequest("no lists by watch")
			}
			passed := make(chan watch.Event)
			ctx, cancel := context.WithCancel(ctx)
			go func() {
				defer close(passed)
				for {
					select {
					case e := <-events:
						select {
						case passed <- e:
						case <-ctx.Done():
							return
						}
					case <-ctx.Done():
						return
					}
				}
			}()
			return stoppable{passed, cancel}, nil
		},
	}
}

type stoppable struct {
	events <-chan watch.Event
	cancel context.CancelFunc
}

func (s stoppable) Stop()                          { s.cancel() }
func (s stoppable) ResultChan() <-chan watch.Event { return s.events }

// A watch that has expired is begun anew with a list, and a list that fails is
// tried again; in between all that was seen last stays.
func TestAMirrorOutlivesItsWatches(t *testing.T) {
	events := make(chan watch.Event)
	expired := apierrors.NewResourceExpired("too old").Status()
	from := scripted([][]core.Node{nil, {named("a")}, nil, {named("a"), named("c")}}, events)
	m := newMirror("nodes", slog.New(slog.DiscardHandler), nodeOf)
	ctx, cancel := context.WithCancel(t.Context())
	sights, ended := make(chan []string), make(chan error, 1)
	go func() {
		ended <- m.follow(ctx, from, &core.Node{}, func() {
			var names []string
			for _, n := range m.all() {
				names = append(names, n.Name)
			}
			select {
			case sights <- names:
			case <-ctx.Done():
			}
		})
	}()
	see := func(want ...string) {
		t.Helper()
		select {
		case got := <-sights:
			if !slices.Equal(got, want) {
				t.Errorf("seen %v, want %v", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("waited in vain to see %v", want)
		}
	}
	send := func(kind watch.EventType, o runtime.Object) {
		t.Helper()
		select {
		case events <- watch.Event{Type: kind, Object: o}:
		case <-time.After(patience):
			t.Fatal("nobody watches")
		}
	}
	see("a")
	b := named("b")
	b.ResourceVersion = "9"
	send(watch.Added, &b)
	see("a", "b")
	send(watch.Error, &expired)
	see("a", "c") // after a list that failed
	send(watch.Deleted, &core.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: "12"}})
	see("c")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
}

// Changes that come while nobody looks share a call, and the last one counts.
func TestAMirrorWaitsForNobody(t *testing.T) {
	m := newMirror("nodes", slog.New(slog.DiscardHandler), func(o any) (Node, error) {
		if n, err := nodeOf(o); err != nil || n.Name != "bad" {
			return n, err
		}
		return Node{}, errors.New("it is bad")
	})
	bad, good := named("bad"), named("good")
	for range 100 {
		for _, err := range []error{m.Add(&good), m.Delete(&good), m.Add(&bad), m.Add(&good)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(m.changed) != 1 {
		t.Errorf("%d signals", len(m.changed))
	}
	if all := m.all(); len(all) != 1 || all[0].Name != "good" {
		t.Errorf("kept: %+v", all)
	}
	// What can't be read any more is not kept as it was.
	worse := named("bad")
	if err := m.Replace([]any{&worse}, "7"); err != nil || len(m.all()) != 0 {
		t.Errorf("after a list of what can't be read: %+v, %v", m.all(), err)
	}
}
