package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
)

// source is one kind of object on the API server, of each of which T is what is
// kept. Its methods read until all is read, something fails, or ctx ends.
type source[T any] interface {
	// page calls each for the objects of one page of a list; next is the token
	// of the one behind it, "" for none. The first page's token is "". Pages of
	// one list show one version of all objects, which is not older than the call
	// for the first of them.
	page(ctx context.Context, token string, each func(T)) (version, next string, err error)
	// watch calls each for the changes since a version, and for every version
	// that a change or a bookmark brings; a bookmark's change is watch.Bookmark.
	watch(ctx context.Context, version string, each func(change watch.EventType, t T, version string)) error
	// version is that of all objects at the time of the call, or a later one.
	version(ctx context.Context) (string, error)
}

// table holds what is kept of all objects of a kind. put and drop say whether
// that is news to those who look at the table: most writes of an object change
// nothing of what is kept.
type table[T any] interface {
	put(T) bool
	drop(T) bool
}

// mirror is a table that follows the API server. What was seen last stays while
// that is away.
type mirror[T any, S table[T]] struct {
	what   string
	log    *slog.Logger
	source source[T]
	empty  func() S

	changed []chan struct{} // each of size one: look again
	relist  time.Time       // when the next whole list is due

	mu    sync.RWMutex
	table S
	// since is when the last list began: the table is not older. It is zero if
	// there was none yet.
	since time.Time
}

// relistLeast is how long a mirror follows one list at least; it is twice as long
// at most. Where versions have gone back (etcd was restored from an older
// snapshot) and passed the one that was seen last before anybody looked, nothing
// but a list shows what else is different.
const relistLeast = 6 * time.Hour

func newMirror[T any, S table[T]](what string, from source[T], empty func() S, log *slog.Logger, changed ...chan struct{}) *mirror[T, S] {
	return &mirror[T, S]{what: what, log: log, source: from, empty: empty, changed: changed}
}

// read calls with with the table, or returns false if there was no list yet.
// with must not keep it.
func (m *mirror[T, S]) read(with func(S)) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	listed := !m.since.IsZero()
	if listed {
		with(m.table)
	}
	return listed
}

// follow keeps the mirror until ctx ends.
func (m *mirror[T, S]) follow(ctx context.Context) {
	const least, most = 200 * time.Millisecond, 10 * time.Second
	wait := least
	for version := ""; ctx.Err() == nil; {
		began := time.Now()
		err := m.turn(ctx, &version)
		if ctx.Err() != nil {
			return
		}
		if expired(err) {
			m.log.Info("reading all objects again: what has changed since is not known to the API server", "objects", m.what, "err", err)
			version = ""
		} else if err != nil {
			m.log.Warn("the API server does not show objects; retrying", "objects", m.what, "err", err)
		}
		if time.Since(began) > most {
			wait = least
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait)):
		}
		if wait = min(2*wait, most); err == nil {
			wait = least
		}
	}
}

// turn lists all objects if version is "" or a list is due, then watches from
// there.
func (m *mirror[T, S]) turn(ctx context.Context, version *string) error {
	if *version == "" || time.Now().After(m.relist) {
		listed, err := m.list(ctx)
		if err != nil {
			return err
		}
		*version = listed
	} else if err := m.notBehind(ctx, *version); err != nil {
		return err
	}
	return m.source.watch(ctx, *version, func(change watch.EventType, t T, at string) {
		*version = at
		if change == watch.Bookmark {
			return
		}
		m.mu.Lock()
		news := false
		if change == watch.Deleted {
			news = m.table.drop(t)
		} else {
			news = m.table.put(t)
		}
		m.mu.Unlock()
		if news {
			signal(m.changed...)
		}
	})
}

// notBehind is errExpired if the API server has not come as far as version: its
// etcd was restored from an older snapshot. A watch would show nothing at all
// until as much has been written again.
func (m *mirror[T, S]) notBehind(ctx context.Context, version string) error {
	now, err := m.source.version(ctx)
	if err != nil {
		return fmt.Errorf("ask for the version of the %s: %w", m.what, err)
	}
	if later(version, now) {
		return fmt.Errorf("%w: %s was seen, and the API server is at %s", errExpired, version, now)
	}
	return nil
}

// later says whether version a is behind version b of the same API server.
// Versions are numbers that grow (Kubernetes API conventions, since 1.35).
func later(a, b string) bool {
	if len(a) != len(b) {
		return len(a) > len(b)
	}
	return a > b
}

// list fills a new table; the old one counts until that is whole.
func (m *mirror[T, S]) list(ctx context.Context) (version string, err error) {
	began, n := time.Now(), 0
	fresh := m.empty()
	for token := ""; ; {
		version, token, err = m.source.page(ctx, token, func(t T) {
			fresh.put(t)
			n++
		})
		if err != nil {
			return "", fmt.Errorf("list the %s: %w", m.what, err)
		}
		if token == "" {
			break
		}
	}
	m.mu.Lock()
	m.since, m.table = began, fresh
	m.mu.Unlock()
	m.relist = began.Add(relistLeast + rand.N(relistLeast))
	signal(m.changed...)
	m.log.Debug("read all objects", "objects", m.what, "count", n, "took", time.Since(began))
	return version, nil
}

// expired says whether the API server no longer knows the version or the token
// that was asked for.
func expired(err error) bool {
	return err != nil && (apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || errors.Is(err, errExpired))
}

// errExpired: there is no watch from that version on.
var errExpired = errors.New("the version is no longer known")

func signal(all ...chan struct{}) {
	for _, c := range all {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
