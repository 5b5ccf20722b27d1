package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// level is how many leases stand, and what the median ADD is to reach there: at
// most wantRatio of host-local's time, at least wantRate of its ADDs a second
// with eight side by side. 0 asks nothing.
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
func atLevels(ctx context.Context, b *bench, f func(l level, a *fairwayAgent, h hostLocals) error) (err error) {
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
		h, err := newHostLocals(b, l.leases)
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
	fmt.Fprintf(out, "\n### One at a time\n\nWhole process, from fork to wait; p50 / p99 in ms; %d invocations of each (at most 60 with 10,000 leases), in series of %d, taking turns; in the last column the two alone, taking turns after each invocation. Ratios are of the medians.\n\n", b.rounds, b.series)
	fmt.Fprintln(out, "| leases | empty Go program | fairway-ipam ADD | host-local ADD | static | ADD / host-local | ADD / static | ADD / empty | the two alone |")
	fmt.Fprintln(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	var dels []string
	err := atLevels(ctx, b, func(l level, a *fairwayAgent, h hostLocals) error {
		empty := contestant{name: "empty", path: b.empty, conf: a.conf}
		rounds := b.rounds
		if l.leases >= 10_000 {
			rounds = min(rounds, 60)
		}
		took, err := takeTurns(ctx, rounds, b.series, empty, a.contestant, h.plain.contestant, h.static.contestant)
		if err != nil {
			return err
		}
		pair, err := takeTurns(ctx, rounds, 1, empty, a.contestant)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, addRow(l, took, pair))
		dels = append(dels, delRow(l, took))
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "\n| leases | empty Go program | fairway-ipam DEL | host-local DEL | static | DEL / host-local | DEL / static |")
	fmt.Fprintln(out, "| --- | --- | --- | --- | --- | --- | --- |")
	for _, row := range dels {
		fmt.Fprintln(out, row)
	}
	return nil
}

// times are keyed by the contestant's name and the command.
type times map[string][]time.Duration

func (t times) cell(name string) string {
	return ms(median(t[name])) + " / " + ms(quantile(t[name], 0.99))
}

func (t times) ratio(name, of string) float64 { return ratio(median(t[name]), median(t[of])) }

func addRow(l level, t, pair times) string {
	return fmt.Sprintf("| %d | %s | %s | %s | %s | %s | %s | %s | %s |", l.leases,
		t.cell("empty ADD"), t.cell("fairway-ipam ADD"), t.cell("host-local ADD"), t.cell("host-local static ADD"),
		verdict(t.ratio("fairway-ipam ADD", "host-local ADD"), l.wantRatio, true),
		verdict(t.ratio("fairway-ipam ADD", "host-local static ADD"), l.wantRatio, true),
		verdict(t.ratio("fairway-ipam ADD", "empty ADD"), wantEmpty, true),
		verdict(pair.ratio("fairway-ipam ADD", "empty ADD"), wantEmpty, true))
}

func delRow(l level, t times) string {
	return fmt.Sprintf("| %d | %s | %s | %s | %s | %.3g | %.3g |", l.leases,
		t.cell("empty DEL"), t.cell("fairway-ipam DEL"), t.cell("host-local DEL"), t.cell("host-local static DEL"),
		t.ratio("fairway-ipam DEL", "host-local DEL"), t.ratio("fairway-ipam DEL", "host-local static DEL"))
}

// takeTurns has every contestant ADD and DEL so many times, a series in a row,
// all contestants in turn and in all orders: a noisy moment hits all of them,
// and caches are those of a node, which has one IPAM plugin.
func takeTurns(ctx context.Context, rounds, series int, cs ...contestant) (times, error) {
	took := times{}
	for first := 0; first < rounds; first += series {
		for i := range cs {
			c := cs[turn(first/series, i, len(cs))]
			for n := first; n < min(first+series, rounds); n++ {
				for _, command := range []string{"ADD", "DEL"} {
					d, err := c.invoke(command, fmt.Sprintf("round%d", n))
					if err := errors.Join(err, ctx.Err()); err != nil {
						return nil, err
					}
					took[c.name+" "+command] = append(took[c.name+" "+command], d)
				}
			}
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
	fmt.Fprintln(out, "| leases | empty Go program | fairway-ipam | host-local | static | fairway-ipam / host-local | fairway-ipam / static |")
	fmt.Fprintln(out, "| --- | --- | --- | --- | --- | --- | --- |")
	return atLevels(ctx, b, func(l level, a *fairwayAgent, h hostLocals) error {
		each := 20
		if l.leases >= 10_000 {
			each = 3
		}
		empty := team{contestant{name: "empty", path: b.empty, conf: a.conf}, func([]string) error { return nil }}
		rates := map[string][]float64{}
		for range batches {
			for _, t := range []team{empty, {a.contestant, a.reset}, {h.plain.contestant, h.plain.reset}, {h.static.contestant, h.static.reset}} {
				rate, ids, err := batch(t.contestant, each)
				if err := errors.Join(err, t.reset(ids), ctx.Err()); err != nil {
					return err
				}
				rates[t.name] = append(rates[t.name], rate)
			}
		}
		rate := func(name string) float64 { return median(rates[name]) }
		ours := rate("fairway-ipam")
		fmt.Fprintf(out, "| %d | %.0f | %.0f | %.0f | %.0f | %s | %s |\n", l.leases, rate("empty"), ours, rate("host-local"), rate("host-local static"),
			verdict(ours/rate("host-local"), l.wantRate, false), verdict(ours/rate("host-local static"), l.wantRate, false))
		return nil
	})
}

// team is a contestant and how what a batch of it leased is dropped.
type team struct {
	contestant
	reset func(ids []string) error
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
