package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/routes"
	"github.com/fairway-network/fairway/speaker"
)

const (
	// resync is how often the loop looks again without being called.
	resync = 10 * time.Second
	// retry is when it looks again after something failed.
	retry = time.Second
	// setTime bounds a change of the speaker, which may be starting anew.
	setTime = 15 * time.Second
	// flushTime bounds one wait for announcements or withdrawals to leave.
	flushTime = time.Second
)

// loop brings the kernel and the speaker to what the desk holds, whenever it
// is called and every so often.
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
		a.startOnce.Do(func() { close(a.started) })
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
	case err != nil && n.isNews(err):
		n.log.Error("the network is not as it should be", "err", err, "retryEvery", retry)
	}
}

// waits logs, in the same way, what a start waits for.
func (n *news) waits(what string, err error) {
	if n.isNews(err) {
		n.log.Error("the agent can't start yet", "to", what, "err", err, "retryWithin", mostRetry)
	}
}

func (n *news) isNews(err error) bool {
	if err.Error() == n.last && time.Since(n.since) < time.Minute {
		return false
	}
	n.last, n.since = err.Error(), time.Now()
	return true
}

// call makes the loop look again. It never blocks.
func (a *Agent) call() {
	select {
	case a.calls <- struct{}{}:
	default:
	}
}

// pass keeps the order on the way up: kernel, announcement, then the leases;
// and on the way down: withdrawal, kernel, then the block. What fails for one
// block holds up that block alone.
func (a *Agent) pass(ctx context.Context) error {
	a.dropUnheld()
	upkeep, change := a.upkeep.current()
	p := a.desk.plan(upkeep.onto(a.settings.Load()))
	errKernel := a.deliver(ctx, &p)
	a.desk.grow(p.delivered(p.ready), p.number)
	// Pods that waited for that are answered first: the speaker's start
	// forks, which keeps this processor for milliseconds.
	runtime.Gosched()
	handedOver, errSpeaker := a.speak(ctx, &p)
	if handedOver {
		a.upkeep.follow(change, a.announced, errSpeaker)
	}
	err := errors.Join(errKernel, errSpeaker)
	a.desk.noteTrouble(func(t *trouble) { t.pass = err })
	if handedOver {
		a.offer(&p)
		err = errors.Join(err, a.withdraw(ctx, p))
	}
	a.giveBack(p, errKernel)
	return err
}

// deliver brings the kernel to p and takes out of p's announcements what is
// new and can't be delivered. What peers know already stays announced: a
// blackhole that is missing keeps no packet from a pod.
func (a *Agent) deliver(ctx context.Context, p *plan) error {
	err := a.Kernel.Sync(ctx, blackholes(p.deliver))
	var partly *routes.SyncError
	switch {
	case err == nil:
		a.inKernel = p.deliver
		return nil
	case errors.As(err, &partly):
		p.missing = partly.Missing
		a.inKernel = slices.DeleteFunc(slices.Clone(p.deliver), func(r netip.Prefix) bool { return slices.Contains(p.missing, r) })
	default:
		p.blind = true
	}
	p.announce = within(p.announce, setOf(a.inKernel, a.announced, p.known))
	return fmt.Errorf("kernel routes: %w", err)
}

// speak hands the speaker its part of p, and says whether the announcements
// are as desired, whatever else failed. Without BGP in the settings there is
// nothing to say; a speaker that was once in use is then emptied.
func (a *Agent) speak(ctx context.Context, p *plan) (handedOver bool, err error) {
	if p.settings.Local.ASN == 0 && a.spoken.ASN == 0 {
		return true, nil
	}
	var forgetful error
	if len(p.settings.told()) > 0 {
		if err := a.told.begin(p.deliver); err != nil {
			forgetful = fmt.Errorf("a restart will not be graceful: %w", err)
		}
	}
	forgetful = errors.Join(forgetful, a.unremember(p))
	d := speaker.Desired{Local: p.settings.Local, Peers: p.settings.Peers, Ranges: p.settings.Ranges}
	d.Announcements, d.Terms = tell(p.settings, p.announce, p.portions)
	if d.Local.ASN == 0 {
		d = speaker.Desired{Local: a.spoken}
	}
	errPaths := a.paths.set(ctx, p.settings)
	handedOver, err = a.set(ctx, d)
	return handedOver, errors.Join(forgetful, errPaths, err)
}

// unremember sees to it that an agent after this one does not take for
// announced what is about to be withdrawn. What can't be unremembered is
// withdrawn another time: it stays in the kernel, and now in p's announcements.
func (a *Agent) unremember(p *plan) error {
	err := a.told.retain(setOf(p.announce), p.shrunk)
	if err == nil {
		return nil
	}
	stay := a.told.all()
	p.closing = slices.DeleteFunc(p.closing, func(b pools.Block) bool { return stay.OverlapsPrefix(b.Prefix) })
	p.announce = setOf(p.announce, within(p.deliver, stay)).Prefixes()
	return fmt.Errorf("what was announced before can't be withdrawn yet: %w", err)
}

// set makes the speaker what d says, and says whether it announces what d
// does. It keeps account of what peers may know.
func (a *Agent) set(ctx context.Context, d speaker.Desired) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, setTime)
	defer cancel()
	err := a.Speaker.Set(ctx, d)
	prefixes := d.Prefixes()
	if !handedOver(err) {
		// Part of it may have been announced, however often this fails.
		for _, maybe := range prefixes {
			if !slices.Contains(a.announced, maybe) {
				a.announced = append(slices.Clip(a.announced), maybe)
			}
		}
		return false, fmt.Errorf("BGP: %w", err)
	}
	for _, old := range a.announced {
		if !slices.Contains(prefixes, old) {
			a.withdrawn[old] = true
		}
	}
	for _, new := range prefixes {
		delete(a.withdrawn, new)
	}
	a.announced, a.spoken = prefixes, d.Local
	if err != nil {
		return true, fmt.Errorf("BGP: %w", err)
	}
	return true, nil
}

// handedOver says whether err, of a Set, left the announcements as desired.
func handedOver(err error) bool {
	return err == nil || errors.Is(err, speaker.ErrPeers) || errors.Is(err, speaker.ErrLocal)
}

// withdraw waits until the peers have been told of the withdrawal that speak
// handed over, and makes the return of the closed blocks final.
func (a *Agent) withdraw(ctx context.Context, p plan) error {
	maps.DeleteFunc(a.closingSince, func(prefix netip.Prefix, _ time.Time) bool {
		return !slices.ContainsFunc(p.closing, func(b pools.Block) bool { return b.Prefix == prefix })
	})
	if len(p.silent) > 0 {
		a.desk.left(p.silent)
		a.call()
	}
	var errs []error
	for _, f := range []pools.Family{pools.IPv4, pools.IPv6} {
		closing := slices.DeleteFunc(slices.Clone(p.closing), func(b pools.Block) bool { return pools.FamilyOf(b.Prefix.Addr()) != f })
		if len(closing) == 0 {
			continue
		}
		if err := a.withdrawalLeft(ctx, p.settings, f, closing); err != nil && !a.forgotten(ctx, closing, p.settings) {
			errs = append(errs, fmt.Errorf("withdraw %d blocks: %w", len(closing), err))
			continue
		}
		a.desk.left(closing)
		a.call() // the next pass takes them out of the kernel
	}
	return errors.Join(errs...)
}

// withdrawalLeft waits until every withdrawal of a family has left.
func (a *Agent) withdrawalLeft(ctx context.Context, s *Settings, f pools.Family, closing []pools.Block) error {
	if !s.carries(f) {
		return nil
	}
	var withdrawn []netip.Prefix
	for p := range a.withdrawn {
		if pools.FamilyOf(p.Addr()) == f {
			withdrawn = append(withdrawn, p)
		}
	}
	for _, b := range closing {
		// Peers may know it from the agent before this one.
		withdrawn = append(withdrawn, b.Prefix)
	}
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	if err := a.Speaker.Flush(ctx, withdrawn); err != nil {
		return err
	}
	for _, p := range withdrawn {
		delete(a.withdrawn, p)
	}
	return nil
}

// forgotten says whether blocks have been closed for so long that no peer
// forwards to them any more, if none could be told: that is what graceful
// restart bounds.
func (a *Agent) forgotten(ctx context.Context, closing []pools.Block, s *Settings) bool {
	if a.sessionUp(ctx) {
		clear(a.closingSince) // that peer forwards, and can still be told
		return false
	}
	now := a.desk.time()
	all := true
	for _, b := range closing {
		since, seen := a.closingSince[b.Prefix]
		if !seen {
			since = now
			a.closingSince[b.Prefix] = now
		}
		all = all && now.Sub(since) > s.memory()
	}
	return all
}

// sessionUp says whether any session is, or can't be ruled out to be.
func (a *Agent) sessionUp(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	state, err := a.Speaker.State(ctx)
	return err != nil || slices.ContainsFunc(state.Peers, speaker.PeerState.Established)
}

// giveBack tells the exchange what is out of the kernel, after it was
// withdrawn: nothing leads here any more.
func (a *Agent) giveBack(p plan, errKernel error) {
	var partly *routes.SyncError
	if errKernel != nil && !errors.As(errKernel, &partly) {
		return // nobody knows what the kernel holds
	}
	gone := slices.DeleteFunc(slices.Clone(p.gone), func(b pools.Block) bool {
		return partly != nil && slices.ContainsFunc(partly.Lingering, b.Prefix.Overlaps)
	})
	if len(gone) > 0 {
		a.desk.parted(gone)
	}
}

// parted goes on with the return, or the loan, of what is out of the kernel. It does not
// where a block was lost since the last plan, which still led here by that.
func (d *desk) parted(gone []pools.Block) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.outdated() {
		return
	}
	var prefixes []netip.Prefix
	for _, b := range gone {
		switch u := d.unfit[b.Prefix]; {
		case u != nil:
			d.discard(u)
		case d.withdrawn[b.Prefix]:
			delete(d.withdrawn, b.Prefix)
			prefixes = append(prefixes, b.Prefix)
		}
	}
	d.node.Parted(prefixes)
	d.advance()
}

func (d *desk) time() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now()
}

func (d *desk) noteTrouble(change func(*trouble)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note(change)
}

// left notes that the peers were told of the withdrawal of what is still to be
// parted with; nothing, where a block was lost since they were.
func (d *desk) left(closing []pools.Block) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.outdated() {
		return
	}
	parting := d.parting()
	for _, b := range closing {
		if u := d.unfit[b.Prefix]; u != nil {
			u.withdrawn = true
		} else if parting[b.Prefix] {
			d.withdrawn[b.Prefix] = true
		}
	}
}
