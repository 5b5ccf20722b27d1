package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// level is how many leases stand, and what the issue asks of the median ADD
// there: at most wantRatio of host-local's time, at least wantRate of its ADDs a
// second with eight side by side. 0 asks nothing.
type level struct {
	leases              int
	wantRatio, wantRate float64
}

func levels() []level {
	return []level{{0, 0.60, 2.4}, {100, 0, 0}, {250, 0.30, 4.5}, {1_000, 0.14, 12}, {10_000, 0.02, 0}}
}

// wantEmpty is the most that a median ADD may take of an empty Go program.
const wantEmpty = 1.3

// atLevels runs f with an agent and host-local at each level.
func atLevels(ctx context.Context, b *bench, f func(l level, a *fairwayAgent, h *hostLocal) error) (err error) {
	a, err := newAgent(ctx, b, 64)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	preloaded := 0
	for _, l := range levels() {
		if err := a.preload(preloaded, l.leases); err != nil {
			return fmt.Errorf("preload %d leases: %w", l.leases, err)
		}
		preloaded = l.leases
		h, err := newHostLocal(b, l.leases)
		if err != nil {
			return err
		}
		if err := f(l, a, h); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// alone measures one invocation at a time.
func alone(ctx context.Context, b *bench, out io.Writer) error {
	fmt.Fprintf(out, "\n### One at a time\n\nWhole process, from fork to wait; p50 / p99 in ms; %d rounds (60 with 10,000 leases), in each of which all take turns.\n\n", b.rounds)
	fmt.Fprintln(out, "| leases | empty Go program | fairway-ipam ADD | host-local ADD | fairway-ipam DEL | host-local DEL | ADD / host-local | DEL / host-local | ADD / empty |")
	fmt.Fprintln(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	empty := contestant{name: "empty", path: b.empty}
	return atLevels(ctx, b, func(l level, a *fairwayAgent, h *hostLocal) error {
		empty.conf = a.conf
		rounds := b.rounds
		if l.leases >= 10_000 {
			rounds = min(rounds, 60)
		}
		took, err := takeTurns(ctx, rounds, empty, a.contestant, h.contestant)
		if err != nil {
			return err
		}
		m := func(name string) time.Duration { return median(took[name]) }
		cell := func(name string) string { return ms(m(name)) + " / " + ms(quantile(took[name], 0.99)) }
		fmt.Fprintf(out, "| %d | %s | %s | %s | %s | %s | %s | %s | %s |\n", l.leases,
			cell("empty ADD"), cell("fairway-ipam ADD"), cell("host-local ADD"), cell("fairway-ipam DEL"), cell("host-local DEL"),
			verdict(ratio(m("fairway-ipam ADD"), m("host-local ADD")), l.wantRatio, true),
			verdict(ratio(m("fairway-ipam DEL"), m("host-local DEL")), 0, true),
			verdict(ratio(m("fairway-ipam ADD"), m("empty ADD")), wantEmpty, true))
		return nil
	})
}

// takeTurns has every contestant ADD and then DEL in each round, in all orders
// in turn: who follows host-local finds the processor's caches cold. Its
// result is keyed by name and command.
func takeTurns(ctx context.Context, rounds int, cs ...contestant) (map[string][]time.Duration, error) {
	took := map[string][]time.Duration{}
	for round := range rounds {
		for _, command := range []string{"ADD", "DEL"} {
			for i := range cs {
				c := cs[turn(round, i, len(cs))]
				d, err := c.invoke(command, fmt.Sprintf("round%d", round))
				if err != nil {
					return nil, err
				}
				took[c.name+" "+command] = append(took[c.name+" "+command], d)
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return took, nil
}

// turn says whose turn the ith is in a round of n: rotated, and backwards in
// every other round.
func turn(round, i, n int) int {
	if round%2 == 1 {
		i = n - 1 - i
	}
	return (i + round/2) % n
}

// sideBySide is how many ADDs run at once.
const sideBySide = 8

// together measures ADDs a second with eight side by side.
func together(ctx context.Context, b *bench, out io.Writer) error {
	const batches = 7
	fmt.Fprintf(out, "\n### Eight side by side\n\nADDs a second, median of %d batches, in turns.\n\n", batches)
	fmt.Fprintln(out, "| leases | empty Go program | fairway-ipam | host-local | fairway-ipam / host-local |")
	fmt.Fprintln(out, "| --- | --- | --- | --- | --- |")
	return atLevels(ctx, b, func(l level, a *fairwayAgent, h *hostLocal) error {
		each := 20
		if l.leases >= 10_000 {
			each = 3
		}
		empty := contestant{name: "empty", path: b.empty, conf: a.conf}
		rates := map[string][]float64{}
		for range batches {
			for _, c := range []struct {
				contestant
				reset func(ids []string) error
			}{{empty, func([]string) error { return nil }}, {a.contestant, a.reset}, {h.contestant, h.reset}} {
				rate, ids, err := batch(c.contestant, each)
				if err := errors.Join(err, c.reset(ids), ctx.Err()); err != nil {
					return err
				}
				rates[c.name] = append(rates[c.name], rate)
			}
		}
		fmt.Fprintf(out, "| %d | %.0f | %.0f | %.0f | %s |\n", l.leases, median(rates["empty"]), median(rates["fairway-ipam"]), median(rates["host-local"]),
			verdict(median(rates["fairway-ipam"])/median(rates["host-local"]), l.wantRate, false))
		return nil
	})
}

// batch has each of eight workers do so many ADDs, and returns the ADDs a
// second and the container IDs used.
func batch(c contestant, each int) (rate float64, ids []string, err error) {
	errs := make([]error, sideBySide)
	for n := range sideBySide * each {
		ids = append(ids, fmt.Sprintf("batch%d", n))
	}
	began := time.Now()
	var workers sync.WaitGroup
	for w := range sideBySide {
		workers.Go(func() {
			for _, id := range ids[w*each : (w+1)*each] {
				if _, err := c.invoke("ADD", id); err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	workers.Wait()
	return float64(len(ids)) / time.Since(began).Seconds(), ids, errors.Join(errs...)
}
