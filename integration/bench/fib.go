package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/fairway-network/fairway/speaker"
)

const (
	// fibPrefixes are announced while the speaker is killed.
	fibPrefixes = 1_000
	// fibWatch is for how long the router's kernel is watched after the speaker is
	// back: what a router is told late, or holds for stale, it changes by then.
	fibWatch = 5 * time.Second
)

// fibEvents counts what happens to a router's kernel routes when the speaker is
// killed and comes back.
func fibEvents(ctx context.Context, b *bench, out io.Writer) error {
	rounds := min(max(b.rounds/60, 1), 5)
	fmt.Fprintf(out, "\n### Killed and back\n\nThe speaker is killed (SIGKILL) with %d prefixes announced; its supervisor starts another. Changes of the router's kernel routes until %v after all was told again, the most of %d runs; from the kill until then, median.\n\n", fibPrefixes, fibWatch, rounds)
	fmt.Fprint(out, "| router | changes of its routes | told again after |\n| --- | --- | --- |\n")
	for _, r := range []kernelRouter{{"BIRD", b.routeWithBIRD}, {"FRR", b.routeWithFRR}} {
		changes := 0
		var took []time.Duration
		for range rounds {
			n, back, err := b.killOnce(ctx, r)
			if err != nil {
				return fmt.Errorf("router %s: %w", r.name, err)
			}
			changes, took = max(changes, n), append(took, back)
		}
		cell := fmt.Sprintf("%d", changes)
		if changes > 0 {
			cell += " (missed: none)"
		}
		fmt.Fprintf(out, "| %s | %s | %s ms |\n", r.name, cell, ms(median(took)))
	}
	return nil
}

// killOnce is one run: how many routes of the router's kernel have changed, and how
// long it took until the speaker was back.
func (b *bench) killOnce(ctx context.Context, r kernelRouter) (changes int, back time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	p, err := b.newPair(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { p.end() }()
	events, stop, err := routeEvents(p.tor)
	if err != nil {
		return 0, 0, err
	}
	p.ends = append(p.ends, stop)
	dir := filepath.Join(p.dir, "tor")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, 0, err
	}
	stop, err = r.start(ctx, p.tor, dir)
	if err != nil {
		return 0, 0, err
	}
	p.ends = append(p.ends, stop)
	f, err := b.newFairwayTeller(p.node, p.dir)
	if err != nil {
		return 0, 0, err
	}
	p.ends = append(p.ends, f.stop)
	all := make([]netip.Prefix, fibPrefixes)
	for n := range all {
		all[n] = bulkPrefix(n)
	}
	if err := f.set(ctx, all...); err != nil {
		return 0, 0, err
	}
	for missing := slices.Clone(all); len(missing) > 0; missing = missing[:len(missing)-1] {
		if err := awaitAny(ctx, events, all); err != nil {
			return 0, 0, err
		}
	}
	if back, err = f.kill(ctx, daemonsIn(p.node), all); err != nil {
		return 0, 0, err
	}
	changes, err = countEvents(ctx, events, fibWatch)
	return changes, back, err
}

// awaitAny waits until a route of a list comes.
func awaitAny(ctx context.Context, events <-chan routeEvent, list []netip.Prefix) error {
	for {
		select {
		case e := <-events:
			if !e.gone && slices.Contains(list, e.prefix) {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("wait for the router's routes: %w", ctx.Err())
		}
	}
}

// countEvents counts the changes up to some time from now.
func countEvents(ctx context.Context, events <-chan routeEvent, d time.Duration) (n int, err error) {
	over := time.NewTimer(d)
	defer over.Stop()
	for {
		select {
		case <-events:
			n++
		case <-over.C:
			return n, nil
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
}

// kill ends the speaker's process and waits until another one has told all again.
func (f fairwayTeller) kill(ctx context.Context, pids []int, all []netip.Prefix) (time.Duration, error) {
	if len(pids) != 1 {
		return 0, fmt.Errorf("%d processes %v on the node: want the speaker's alone", len(pids), pids)
	}
	was, err := f.session(ctx)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		return 0, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := f.session(ctx)
		if err == nil && now.Established() && !now.Since.Equal(was.Since) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, errors.Join(err, ctx.Err())
		}
	}
	err = f.child.Flush(ctx, all)
	return time.Since(begun), err
}

// session is that of the one peer.
func (f fairwayTeller) session(ctx context.Context) (speaker.PeerState, error) {
	s, err := f.child.State(ctx)
	if err != nil || len(s.Peers) != 1 {
		return speaker.PeerState{}, fmt.Errorf("%d peers: %w", len(s.Peers), err)
	}
	return s.Peers[0], nil
}
