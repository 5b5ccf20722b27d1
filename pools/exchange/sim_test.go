package exchange_test

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// episode is how many steps a seed is run for before all faults end.
	episode = 4000
	// wanted is how many operations a run of the tests makes at least.
	wanted = 1_000_000
)

// TestSimulation runs the real state machines in a cluster of the seed's making:
// see world. SIM_SEED runs one seed alone and SIM_OPS that many operations;
// SOAKTIME, a duration, goes on with new seeds for as long. A failing seed tells
// the history that leads there, its last SIM_LINES lines (400), after SIM_SHRINK
// (10s) of making it shorter.
func TestSimulation(t *testing.T) {
	if s := os.Getenv("SIM_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		simulate(t, seed)
		return
	}
	begun := time.Now()
	next := seeds(t)
	enough := enough(t, begun)
	var done atomic.Int64
	var episodes, broken atomic.Int32
	var workers sync.WaitGroup
	var turn sync.Mutex
	for range 2 {
		workers.Go(func() {
			for !enough(done.Load()) && broken.Load() == 0 {
				turn.Lock()
				seed := next()
				turn.Unlock()
				ops, ok := simulate(t, seed)
				done.Add(int64(ops))
				episodes.Add(1)
				if !ok {
					broken.Add(1)
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%d operations in %d episodes, %v", done.Load(), episodes.Load(), time.Since(begun).Round(time.Millisecond))
}

// seeds are one that is new each time and then fixed ones; with SOAKTIME new
// ones alone.
func seeds(t *testing.T) func() uint64 {
	fresh := uint64(time.Now().UnixNano()) / 1_000_000
	last := uint64(0)
	if os.Getenv("SOAKTIME") != "" {
		last = fresh
	}
	t.Logf("seeds %d, and from %d on", fresh, last+1)
	first := true
	return func() uint64 {
		if first {
			first = false
			return fresh
		}
		last++
		return last
	}
}

// enough says when so many operations are.
func enough(t *testing.T, begun time.Time) func(done int64) bool {
	limit := int64(wanted)
	switch {
	case os.Getenv("SOAKTIME") != "":
		d, err := time.ParseDuration(os.Getenv("SOAKTIME"))
		if err != nil {
			t.Fatalf("SOAKTIME: %v", err)
		}
		return func(int64) bool { return time.Since(begun) > d }
	case os.Getenv("SIM_OPS") != "":
		n, err := strconv.ParseInt(os.Getenv("SIM_OPS"), 10, 64)
		if err != nil {
			t.Fatalf("SIM_OPS: %v", err)
		}
		limit = n
	case raceEnabled:
		limit /= 50
	case testing.Short():
		limit /= 10
	}
	return func(done int64) bool { return done >= limit }
}

// simulate runs one seed. If it fails the history is told that leads there, as
// short as can be found in a while.
func simulate(t *testing.T, seed uint64) (ops int, ok bool) {
	w := newWorld(seed, false)
	err := w.run(episode, nil)
	if err == nil {
		return w.ops, true
	}
	last := min(w.number, episode)
	skip := shrink(seed, last, w.kind, patience(t))
	short := newWorld(seed, true)
	why := short.run(last, skip)
	t.Errorf("seed %d: %v\nin %d of %d steps: %v\nrun it again with SIM_SEED=%d\n%s", seed, err, last-len(skip), last, why, seed, end(short.history.String()))
	return w.ops, false
}

// patience is how long a shorter history is looked for.
func patience(t *testing.T) time.Duration {
	s := os.Getenv("SIM_SHRINK")
	if s == "" {
		return 10 * time.Second
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("SIM_SHRINK: %v", err)
	}
	return d
}

// end keeps the last lines of a history that is too long to read.
func end(history string) string {
	most := 400
	if n, err := strconv.Atoi(os.Getenv("SIM_LINES")); err == nil {
		most = n
	}
	lines := strings.SplitAfter(history, "\n")
	if len(lines) > most {
		lines = append([]string{"...\n"}, lines[len(lines)-most:]...)
	}
	return strings.Join(lines, "")
}

// shrink finds steps of a failing run that can be left out, so that it still
// fails in the same way.
func shrink(seed uint64, steps int, kind string, within time.Duration) map[int]bool {
	deadline := time.Now().Add(within)
	skip := map[int]bool{}
	for size := steps / 2; size >= 1; size /= 2 {
		for from := 1; from <= steps && time.Now().Before(deadline); from += size {
			var tried []int
			for i := from; i < from+size && i <= steps; i++ {
				if !skip[i] {
					skip[i] = true
					tried = append(tried, i)
				}
			}
			w := newWorld(seed, false)
			if len(tried) > 0 {
				w.run(steps, skip)
			}
			if len(tried) > 0 && w.kind != kind {
				for _, i := range tried {
					delete(skip, i)
				}
			}
		}
	}
	return skip
}

// The same seed makes the same history, to the last byte.
func TestSimulationReplays(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		a, b := newWorld(seed, true), newWorld(seed, true)
		a.run(episode, nil)
		b.run(episode, nil)
		x, y := a.history.String(), b.history.String()
		if x == y {
			continue
		}
		xs, ys := strings.Split(x, "\n"), strings.Split(y, "\n")
		for i := range xs {
			if i >= len(ys) || xs[i] != ys[i] {
				t.Fatalf("seed %d: line %d is %q and %q", seed, i, xs[i], append(ys, "")[min(i, len(ys))])
			}
		}
	}
}
