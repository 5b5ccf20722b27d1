package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/routes"
	"github.com/fairway-network/fairway/speaker"
	"go4.org/netipx"
)

const (
	// resync is how often the loop looks again without being called.
	resync = 10 * time.Second
	// retry is when it looks again after something failed.
	retry = time.Second
	// setTime bounds a change of the speaker, which may be starting anew.
	setTime = 15 * time.Second
	// withdrawTime bounds how long a withdrawal may take to reach the peers
	// before the block is taken out of the kernel all the same.
	withdrawTime = 5 * time.Second
)

// plan is what one pass of the loop wants, worked out under the desk's lock.
type plan struct {
	deliver  []routes.Route // blackholes for all that is held
	announce []netip.Prefix // what is held and not about to be returned
	ready    []*door        // doors that open as soon as the kernel delivers
	doors    []*door        // doors that wait for the announcement as well
	closing  []pools.Block
	settings *Settings
}

// loop brings the kernel and the speaker to what the desk
// holds, whenever it is called and every so often.
func (a *Agent) loop(ctx context.Context) {
	news := news{log: a.Log}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.calls:
		case <-timer.C:
		}
		next := resync
		err := a.pass(ctx)
		if err != nil {
			next = retry
		}
		if ctx.Err() == nil {
			news.tell(err)
		}
		timer.Reset(next)
	}
}

// news keeps a failure that lasts from filling the log.
type news struct {
	log   *slog.Logger
	last  string
	since time.Time
}

// tell logs err when it is another one than last time, when it has lasted for
// another minute, and when it has ended.
func (n *news) tell(err error) {
	switch {
	case err == nil && n.last != "":
		n.log.Info("the network is as it should be again")
		n.last = ""
	case err != nil && (err.Error() != n.last || time.Since(n.since) >= time.Minute):
		n.log.Error("the network is not as it should be", "err", err, "retryEvery", retry)
		n.last, n.since = err.Error(), time.Now()
	}
}

// call makes the loop look again. It never blocks.
func (a *Agent) call() {
	select {
	case a.calls <- struct{}{}:
	default:
	}
}

// pass keeps the order on the way up: kernel, announcement, then the doors;
// and on the way down: withdrawal, kernel, then the block.
func (a *Agent) pass(ctx context.Context) error {
	p := a.plan()
	kernel := a.Kernel.Sync(ctx, p.deliver)
	if kernel != nil {
		// What the kernel may not deliver is not announced anew.
		p.announce = intersect(p.announce, a.announced)
	} else {
		a.desk.open(p.ready)
	}
	set := a.speak(ctx, p)
	err := errors.Join(kernel, set)
	a.desk.setTrouble(err)
	if kernel == nil && (set == nil || errors.Is(set, speaker.ErrPeers)) {
		a.flushes.offer(p.doors)
		err = errors.Join(err, a.returnBlocks(ctx, p))
	}
	return err
}

// speak hands the speaker its part of p. Without BGP in the settings there is
// nothing to say; a speaker that was once in use is then emptied.
func (a *Agent) speak(ctx context.Context, p plan) error {
	d := speaker.Desired{Local: p.settings.Local, Peers: p.settings.Peers, Prefixes: p.announce}
	if d.Local.ASN == 0 {
		if a.spoken.ASN == 0 {
			return nil
		}
		d = speaker.Desired{Local: a.spoken}
	}
	ctx, cancel := context.WithTimeout(ctx, setTime)
	defer cancel()
	err := a.Speaker.Set(ctx, d)
	if err != nil && !errors.Is(err, speaker.ErrPeers) {
		return err
	}
	a.announced, a.spoken = d.Prefixes, d.Local
	return errors.Join(err, a.markSpoken(p))
}

func (a *Agent) plan() plan {
	d, s := a.desk, a.settings.Load()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closeUnused(s)
	p := plan{settings: s}
	blocks := d.ledger.Blocks()
	for _, h := range blocks {
		dr := d.doors[h.Prefix]
		switch {
		case h.Closed:
			p.closing = append(p.closing, h.Block)
		case dr.isOpen():
		case dr.known || d.quiet[h.Pool] || !s.waits():
			p.ready = append(p.ready, dr)
		default:
			p.doors = append(p.doors, dr)
		}
	}
	for _, name := range poolsOf(blocks) {
		if d.quiet[name] {
			continue
		}
		held := d.ledger.Effective(name, func(pools.Held) bool { return true }).Prefixes()
		p.deliver = append(p.deliver, blackholes(held)...)
		if len(p.closing) > 0 {
			held = d.ledger.Effective(name, func(h pools.Held) bool { return !h.Closed }).Prefixes()
		}
		p.announce = append(p.announce, held...)
	}
	return p
}

// closeUnused closes the blocks that are to be returned. One with a closed
// door was claimed for somebody who is about to lease in it.
func (d *desk) closeUnused(s *Settings) {
	now := d.now()
	unused := slices.DeleteFunc(d.ledger.Idle(now, s.idleAfter), func(b pools.Block) bool {
		return !d.doors[b.Prefix].isOpen()
	})
	for _, b := range append(unused, d.ledger.Orphans(now)...) {
		if err := d.ledger.Close(b.Prefix, now); err != nil {
			d.log.Error("an empty block can't be closed", "err", err)
		}
	}
}

func blackholes(prefixes []netip.Prefix) []routes.Route {
	out := make([]routes.Route, len(prefixes))
	for i, p := range prefixes {
		out[i].Prefix = p
	}
	return out
}

// poolsOf names the pools of some blocks, each once, in order.
func poolsOf(blocks []pools.Held) []string {
	seen := map[string]bool{}
	for _, h := range blocks {
		seen[h.Pool] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// open opens doors, each once.
func (d *desk) open(doors []*door) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, dr := range doors {
		if !dr.isOpen() {
			close(dr.open)
		}
	}
}

func (d *desk) setTrouble(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		err = speaker.ErrNoPeer
	}
	d.trouble = err
}

// flusher opens doors when the announcements behind them have left. It runs
// beside the loop, since a first peer may be long in coming.
type flusher struct{ doors chan []*door }

// offer hands over the doors of the newest pass, in place of older ones: the
// newest pass has all that are still closed.
func (f flusher) offer(doors []*door) {
	select {
	case <-f.doors:
	default:
	}
	f.doors <- doors
}

func (a *Agent) flush(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case doors := <-a.flushes.doors:
			a.flushOne(ctx, doors)
		}
	}
}

func (a *Agent) flushOne(ctx context.Context, doors []*door) {
	if len(doors) == 0 {
		return
	}
	// Bounded, so that a later pass's doors get their turn.
	ctx, cancel := context.WithTimeout(ctx, retry)
	defer cancel()
	if err := a.Speaker.Flush(ctx); err != nil {
		a.call() // the next pass offers what is still closed
		return
	}
	a.desk.open(doors)
}

// returnBlocks gives back the closed blocks of p, whose withdrawal the
// speaker was just handed.
func (a *Agent) returnBlocks(ctx context.Context, p plan) error {
	if len(p.closing) == 0 {
		return nil
	}
	a.awaitWithdrawal(ctx)
	gone := a.desk.forgetDoors(p.closing)
	if err := a.Kernel.Sync(ctx, blackholes(p.announce)); err != nil {
		return err
	}
	var errs []error
	for _, b := range gone {
		if err := a.Store.Return(ctx, b); err != nil {
			errs = append(errs, err)
			continue
		}
		a.Log.Info("returned a block", "pool", b.Pool, "block", b.Prefix)
		errs = append(errs, a.desk.drop(b))
	}
	return errors.Join(errs...)
}

// awaitWithdrawal waits until the peers that are there have been told. With
// none there is nobody to wait for.
func (a *Agent) awaitWithdrawal(ctx context.Context) {
	state, err := a.Speaker.State(ctx)
	if err != nil || !slices.ContainsFunc(state.Peers, speaker.PeerState.Established) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, withdrawTime)
	defer cancel()
	if err := a.Speaker.Flush(ctx); err != nil {
		a.Log.Warn("a withdrawal did not reach all peers in time", "err", err)
	}
}

// forgetDoors makes the return of those blocks that are still closed final:
// a block without a door is not reopened.
func (d *desk) forgetDoors(closing []pools.Block) (gone []pools.Block) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.ledger.Blocks() {
		if h.Closed && slices.ContainsFunc(closing, func(b pools.Block) bool { return b.Prefix == h.Prefix }) {
			delete(d.doors, h.Prefix)
			gone = append(gone, h.Block)
		}
	}
	return gone
}

func (d *desk) drop(b pools.Block) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.ledger.Drop(b.Prefix); err != nil {
		return fmt.Errorf("after its return: %w", err)
	}
	return nil
}

// intersect is the fewest prefixes that cover what both sides cover.
func intersect(a, b []netip.Prefix) []netip.Prefix {
	var x, y netipx.IPSetBuilder
	for _, p := range a {
		x.AddPrefix(p)
	}
	for _, p := range b {
		y.AddPrefix(p)
	}
	ys, errY := y.IPSet()
	if errY != nil {
		return nil
	}
	x.Intersect(ys)
	both, err := x.IPSet()
	if err != nil {
		return nil
	}
	return both.Prefixes()
}
