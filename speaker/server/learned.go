package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairway-network/fairway/routes"
	"github.com/fairway-network/fairway/speaker"
)

// Sink takes learned routes and delivers by them: the kernel, as a rule. The routes
// in it may be of an earlier process: they stay until the routers have said again
// what they know.
type Sink interface {
	// Held are the routes that stand, in any order.
	Held(ctx context.Context) ([]routes.Route, error)
	// Apply makes a change. One route's failure does not stop the others: the
	// error is then a *routes.SyncError.
	Apply(ctx context.Context, c routes.Change) error
	// Watch calls changed, which does not block, when what is held may no longer
	// be what the last Apply left. It returns nil when ctx ends.
	Watch(ctx context.Context, changed func()) error
}

const (
	// maxChange is how many routes go to the sink at a time: what comes up
	// meanwhile does not wait for long, and a message to the sink is worth it.
	maxChange = 1024
	// lookTime is how often the sink is looked at without a reason, and what it
	// refused is tried again.
	lookTime = time.Minute
	// calmTime is the least time between two looks.
	calmTime = 200 * time.Millisecond
	// retryTime is how soon a sink that can't be opened or read is tried again.
	retryTime = time.Second
)

// learned keeps in a sink what routers told and the settings accept. GoBGP's own
// table has no part in it: the import policy keeps every route of a router out of
// there, so that none can ever be told to another.
//
// Without a way to open a sink it counts alone what routers tell.
type learned struct {
	log  *slog.Logger
	open func() (Sink, error) // nil for no sink
	sink Sink                 // nil until keep has opened it; after that it stays
	call chan struct{}        // of size one: there is something to do
	// watched says that watch runs. Like sink it is keep's alone.
	watched bool
	pace    pace // is keep's, too
	// busy says that more waits for the sink than goes there at a time.
	busy atomic.Bool

	mu      sync.Mutex
	table   *lessons
	lesson  lesson // the last one
	look    bool   // the sink is to be read
	begun   bool   // and keep runs
	refused int    // routes that the sink does not take
	blind   bool   // the sink could not be opened, or not be read
	trouble string // why, as the log said last
	stop    context.CancelFunc
	ended   chan struct{}
}

// Learn has the server put the routes of routers that the settings accept into the
// sink that open makes, which is nobody else's then. It comes before the first Set.
// Where the settings accept nothing open is called once, to remove what the sink
// holds of before, and nobody is told if that can't be. Else it is called until it
// succeeds: meanwhile the error is the State's LearnedTrouble, and BGP goes on. What
// the sink holds of before goes unless it is learned again.
func (s *Server) Learn(open func() (Sink, error)) { s.learned = newLearned(open, s.log) }

func newLearned(open func() (Sink, error), log *slog.Logger) *learned {
	l := &learned{log: log, open: open, call: make(chan struct{}, 1), table: newLessons(), look: true, ended: make(chan struct{})}
	l.table.sinkless = open == nil
	return l
}

// begin starts a life of BGP: nothing is known, and what is held stays for as long
// as routers may need to come back.
func (l *learned) begin(local speaker.Local, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.table.begin(local, now)
	if !l.begun && l.open != nil {
		ctx, stop := context.WithCancel(context.Background())
		l.begun, l.stop = true, stop
		go l.keep(ctx)
	}
	l.callKeep()
}

// configure says whose routes count, and which prefixes are this node's own. It
// gives those who have told more by now than they may.
func (l *learned) configure(peers map[netip.Addr]speaker.Peer, ranges map[string]speaker.Range, own []netip.Prefix) []flood {
	return l.do(func(t *lessons, _ time.Time) {
		t.configure(peers, ranges, own)
		l.look = l.look || !t.known
	})
}

// own is configure for a change of this node's own prefixes alone.
func (l *learned) own(c speaker.Change) []flood {
	return l.do(func(t *lessons, _ time.Time) { t.ownChange(c) })
}

// do changes the table, and gives those who have told too much by now.
func (l *learned) do(change func(t *lessons, now time.Time)) []flood {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l.table, time.Now())
	l.weigh()
	l.callKeep()
	return l.table.takeFloods()
}

// weigh notes how much waits for the sink. The lock is held.
func (l *learned) weigh() { l.busy.Store(l.table.known && len(l.table.dirty) > maxChange) }

func (l *learned) callKeep() {
	select {
	case l.call <- struct{}{}:
	default:
	}
}

// changed has the sink read again.
func (l *learned) changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look = true
	l.callKeep()
}

func (l *learned) watch(ctx context.Context) {
	for ctx.Err() == nil {
		if err := l.sink.Watch(ctx, l.changed); err != nil {
			l.log.Warn("learned routes that go missing are noticed late", "err", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// opened opens the sink, however often that takes, unless ctx ends first.
func (l *learned) opened(ctx context.Context) bool {
	for {
		sink, err := l.open()
		if err == nil {
			l.sink = sink
			return true
		}
		l.fumble(fmt.Errorf("learned routes have nowhere to go: %w", err))
		if !l.paused(ctx) {
			return false
		}
	}
}

// paused returns when the sink is to be tried again, or with false when ctx ends.
func (l *learned) paused(ctx context.Context) bool {
	select {
	case <-time.After(retryTime):
	case <-ctx.Done():
		return false
	}
	for !l.wanted() {
		select {
		case <-l.call:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// wanted says whether there is any use for the sink.
func (l *learned) wanted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.installed > 0 || l.table.accepts()
}

// watchOnce has the sink watched as soon as it is of use.
func (l *learned) watchOnce(ctx context.Context) {
	if l.watched || !l.wanted() {
		return
	}
	l.watched = true
	go l.watch(ctx)
}

// keep makes the sink what the table says until ctx ends.
func (l *learned) keep(ctx context.Context) {
	defer close(l.ended)
	if !l.opened(ctx) {
		return
	}
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var calm time.Time // before which the sink is not read again
	for {
		select {
		case <-l.call:
		case <-timer.C:
		case <-tick.C:
			if l.watched {
				l.changed()
			}
		case <-ctx.Done():
			return
		}
		l.watchOnce(ctx)
		now := time.Now()
		if l.due(now, calm) {
			calm = time.Now().Add(l.reconcile(ctx))
		}
		for l.hand(ctx) && ctx.Err() == nil {
		}
		timer.Reset(l.rest(time.Now(), calm))
	}
}

// due says whether the sink is to be read now.
func (l *learned) due(now, calm time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.look && !now.Before(calm)
}

// rest is for how long there is nothing to do if nothing happens.
func (l *learned) rest(now, calm time.Time) time.Duration {
	over := l.pace.rest(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.table.next(now.Add(lookTime))
	if !over.IsZero() && over.Before(next) {
		next = over
	}
	if l.look && calm.Before(next) {
		next = calm
	}
	return max(next.Sub(now), 0)
}

// reconcile reads the sink and enters in the table what it holds. It says for how
// long it is not to be called again.
func (l *learned) reconcile(ctx context.Context) (calm time.Duration) {
	l.mu.Lock()
	l.look = false
	l.mu.Unlock()
	held, err := l.sink.Held(ctx)
	if err != nil && ctx.Err() == nil {
		l.fumble(fmt.Errorf("learned routes that stand: %w", err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if held == nil && err != nil {
		l.look = l.table.accepts()
		return retryTime
	}
	if l.blind && err == nil {
		l.blind, l.trouble = false, ""
	}
	l.refused = 0
	l.table.holds(held)
	return calmTime
}

// fumble notes that the sink can't be opened or read, which is nothing to tell where
// nobody wants it.
func (l *learned) fumble(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blind = true
	if l.table.accepts() {
		l.complain(err)
	}
}

// hand hands over one change, and says whether there may be more.
func (l *learned) hand(ctx context.Context) (more bool) {
	l.mu.Lock()
	if !l.table.known { // what stands: an addition could not be told from a replacement
		l.mu.Unlock()
		return false
	}
	l.table.settle(time.Now())
	change, more := l.table.take(maxChange)
	l.weigh()
	l.mu.Unlock()
	if change.Empty() {
		return more
	}
	l.pace.handed(len(change.Add)+len(change.Replace)+len(change.Delete), time.Now())
	err := l.sink.Apply(ctx, change)
	l.mu.Lock()
	defer l.mu.Unlock()
	var failed *routes.SyncError
	switch {
	case err == nil:
		if l.refused == 0 && !l.blind {
			l.trouble = ""
		}
	case errors.As(err, &failed):
		l.table.missing(failed.Missing)
		l.refused += len(failed.Missing)
		l.complain(err)
	default:
		l.look = true // nobody knows how far it came
		l.complain(err)
		return false
	}
	return more
}

// complain tells of an error once. The lock is held.
func (l *learned) complain(err error) {
	if why := err.Error(); why != l.trouble {
		l.trouble = why
		l.log.Warn("learned routes are not in force", "routes", l.refused, "error", why)
	}
}

// close ends the upkeep; with how Withdraw nothing learned stays behind.
func (l *learned) close(ctx context.Context, how speaker.Stop) error {
	l.mu.Lock()
	begun := l.begun
	if begun {
		l.stop()
	}
	l.mu.Unlock()
	if begun {
		select {
		case <-l.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if l.open == nil || how != speaker.Withdraw {
		return nil
	}
	if l.sink == nil {
		return l.unopened()
	}
	held, err := l.sink.Held(ctx)
	if len(held) == 0 {
		return err
	}
	return errors.Join(err, l.sink.Apply(ctx, routes.Change{Delete: held}))
}

// unopened says that routes of an earlier process may stay.
func (l *learned) unopened() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.trouble == "" || !l.table.accepts() {
		return nil
	}
	return fmt.Errorf("learned routes of before, if any, stay: %s", l.trouble)
}

// describe adds to a state how many learned routes are in force, and why others are
// not, before what is said of that already.
func (l *learned) describe(st *speaker.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	st.Learned, st.LearnedRefused = l.table.installed, l.refused
	if l.refused > 0 || l.blind && l.table.accepts() {
		st.LearnedTrouble = l.trouble + st.LearnedTrouble
	}
	st.LearnedTrouble = strings.TrimPrefix(st.LearnedTrouble, "; ")
}
