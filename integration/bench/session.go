package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"
)

// sessionUp measures how long 10,000 prefixes take to a router (FRR) after a session
// came up.
func sessionUp(ctx context.Context, b *bench, out io.Writer) error {
	tellers, took := b.tellers(), times{}
	rounds := min(max(b.rounds/60, 3), 5)
	for n := range rounds {
		for i := range tellers {
			t := tellers[turn(n, i, len(tellers))]
			d, err := b.comeUp(ctx, t)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			took[t.name] = append(took[t.name], d)
		}
	}
	cell := func(name string) string { return ms(median(took[name])) + " ms" }
	fmt.Fprintf(out, "\n### After a session comes up\n\nThe router (FRR) ends a session over which it has %d prefixes; from the moment in which the next one is up there until it has all of them. FRR is asked every %v. Medians of %d runs, in turn.\n\n", bulkPrefixes, askEvery, rounds)
	fmt.Fprint(out, "| fairway | BIRD | FRR | fairway / BIRD | fairway / FRR |\n| --- | --- | --- | --- | --- |\n")
	fmt.Fprintf(out, "| %s | %s | %s | %.3g | %s |\n", cell("fairway"), cell("BIRD"), cell("FRR"),
		took.ratio("fairway", "BIRD"), verdict(took.ratio("fairway", "FRR"), 0.1, true))
	return nil
}

// comeUp is one run.
func (b *bench) comeUp(ctx context.Context, t teller) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	m, _, err := b.meetWithAll(ctx, t)
	if err != nil {
		return 0, err
	}
	defer m.end()
	for _, command := range []string{"enable", "clear bgp *"} {
		if _, err := m.vty.ask(ctx, command); err != nil {
			return 0, err
		}
	}
	if err := m.awaitSession(ctx, false); err != nil {
		return 0, err
	}
	if err := m.awaitSession(ctx, true); err != nil {
		return 0, err
	}
	begun := time.Now()
	err = m.await(ctx, bulkPrefixes)
	return time.Since(begun), err
}

// awaitSession waits until the router's session is up, or is not.
func (r receiver) awaitSession(ctx context.Context, wanted bool) error {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		_, up, err := r.has(ctx)
		if err := errors.Join(err, ctx.Err()); err != nil {
			return fmt.Errorf("wait for the session to be up (%v): %w", wanted, err)
		}
		if up == wanted {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// settleTime is what daemons have to let go of memory that they do not need any more.
const settleTime = 10 * time.Second

// speakerMemory measures what the daemons have in memory that have announced 10,000
// prefixes.
func speakerMemory(ctx context.Context, b *bench, out io.Writer) error {
	rounds := min(max(b.rounds/100, 1), 3)
	has := make(map[string][]float64)
	tellers := b.tellers()
	tellers[2].start = b.tellWithThreeDaemons
	for n := range rounds {
		for i := range tellers {
			t := tellers[turn(n, i, len(tellers))]
			bytes, err := b.weigh(ctx, t)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			has[t.name] = append(has[t.name], float64(bytes)/1e6)
		}
	}
	m := func(name string) float64 { return median(has[name]) }
	fmt.Fprintf(out, "\n### Memory\n\nPSS %v after %d prefixes have been announced to one router: Fairway's speaker alone, which the agent is not part of; BIRD; FRR's zebra, bgpd and staticd. BIRD and FRR have the kernel's routes as well. Medians of %d runs, in turn.\n\n", settleTime, bulkPrefixes, rounds)
	fmt.Fprint(out, "| fairway | BIRD | FRR | fairway / BIRD | fairway / FRR |\n| --- | --- | --- | --- | --- |\n")
	fmt.Fprintf(out, "| %.1f MB | %.1f MB | %.1f MB | %.3g | %s |\n", m("fairway"), m("BIRD"), m("FRR"), m("fairway")/m("BIRD"), verdict(m("fairway")/m("FRR"), 0.7, true))
	return nil
}

func (b *bench) tellWithThreeDaemons(ctx context.Context, node int, dir string) (telling, error) {
	t, err := b.tellWithFRR(ctx, node, dir)
	if err != nil {
		return t, err
	}
	stop, err := daemonIn(ctx, node, dir, "staticd", "/usr/lib/frr/staticd", "-P", "0", "--vty_socket", dir,
		"-z", filepath.Join(dir, "zserv.api"), "-i", filepath.Join(dir, "staticd.pid"))
	if err != nil {
		t.stop()
		return telling{}, err
	}
	two := t.stop
	t.stop = func() { stop(); two() }
	return t, nil
}

// weigh is one run, in bytes. The router is gone by then: it is FRR, whose program and
// libraries would count in part only for the daemons of a node that has it, too.
func (b *bench) weigh(ctx context.Context, t teller) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	m, _, err := b.meetWithAll(ctx, t)
	if err != nil {
		return 0, err
	}
	defer m.end()
	settled := time.NewTimer(settleTime)
	defer settled.Stop()
	select {
	case <-settled.C:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	m.receiver.stop()
	_, proportional, err := memory(daemonsIn(m.node))
	return proportional, err
}
