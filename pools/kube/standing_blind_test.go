package kube

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// What is known of pools gets old while no watch shows what becomes of them, though
// the connection lasts: an API server may have too much to do for watches alone.
func TestPoolsAreKnownForAsLongAsTheyAreWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Bool
		m := &moody{err: func() error {
			if busy.Load() {
				return apierrors.NewTooManyRequests("later", 1)
			}
			return nil
		}}
		c := &Client{log: slog.New(slog.DiscardHandler)}
		s := newStanding(c, newMirror("pools", c.log, poolOf))
		known := func(want bool, when string) {
			t.Helper()
			synctest.Wait()
			if is := s.knows("web", time.Now()); is != want {
				t.Errorf("known %s: %t", when, is)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- newMirror("nodes", c.log, nodeOf).follow(ctx, s.heedful(m.listWatch()), &core.Node{}, func() { s.listed(0) })
		}()
		<-time.After(time.Hour)
		known(true, "for as long as the watch lasts")
		busy.Store(true)
		m.watching.Load().Stop()
		<-time.After(blindTime / 2)
		known(true, "for a while after its end")
		<-time.After(blindTime)
		known(false, "when there was none for long")
		s.note("web", poolRead{at: time.Now()})
		known(true, "once it was read")
		<-time.After(blindTime + time.Second)
		known(false, "long after it was read")
		busy.Store(false)
		<-time.After(busyPause)
		known(true, "with another watch")
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
