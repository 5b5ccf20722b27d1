package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/fairway-network/fairway/integration/fleet"
	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/pools"
	store "github.com/fairway-network/fairway/pools/kube"
)

// idleAgents is how many agents have nothing to do while others work.
func idleAgents() int {
	if n, err := strconv.Atoi(os.Getenv("FAIRWAY_BENCH_AGENTS")); err == nil {
		return n
	}
	return 5000
}

// kubeWatches measures what idle agents cost the API server.
func kubeWatches(ctx context.Context, _ *bench, out io.Writer) error {
	agents := idleAgents()
	fmt.Fprintf(out, "\n### %d idle agents\n\nEach with its own token, its own connection and its %d watches, made by the agent's own code: requests, pools, pods of its node, its NodeSpeaker. Processor time of the API server, with all that it does meanwhile.\n\n", agents, fleet.WatchesEach)
	return ground(ctx, func(c *kube.Cluster) error {
		m := &meter{c: c}
		// A restart that nobody disturbs.
		if err := errors.Join(c.StopAPIServer(), c.StartAPIServer(ctx)); err != nil {
			return err
		}
		start, err := c.CPUTime()
		if err != nil {
			return err
		}
		m.start = start.APIServer
		began := time.Now()
		var crowd *fleet.Crowd
		cost, err := m.each(1, func() error {
			crowd, err = fleet.Gather(ctx, c, agents)
			return err
		})
		if err != nil {
			return err
		}
		defer crowd.Close()
		fmt.Fprintf(out, "Coming up, with the Nodes, pods and tokens that it takes: %.1f s, %.1f s of processor time.\n\n", time.Since(began).Seconds(), cost.Seconds())
		if err := m.beside(ctx, crowd, out); err != nil {
			return err
		}
		return m.reconnect(ctx, crowd, agents, out)
	})
}

// visits is how often the agents are there and away, in turns, while claims are
// measured.
const visits = 8

// beside measures claims and loans with the agents there and away in turns, on
// the same API server: what else has become of it meanwhile hits both.
func (m *meter) beside(ctx context.Context, crowd *fleet.Crowd, out io.Writer) error {
	if _, err := m.claim(ctx, 0); err != nil { // caches fill
		return err
	}
	var there, away []time.Duration
	var ratios []float64
	var loans [2]time.Duration
	var err error
	for n := range visits {
		with, errWith := m.claims(ctx, 2*n)
		if n == 0 {
			loans[1], err = m.loan(ctx, 1)
		}
		crowd.Leave()
		without, errWithout := m.claims(ctx, 2*n+1)
		if n == 0 && err == nil {
			loans[0], err = m.loan(ctx, 2)
		}
		if err := errors.Join(err, errWith, errWithout, crowd.Return(ctx)); err != nil {
			return err
		}
		there, away = append(there, with), append(away, without)
		ratios = append(ratios, ratio(with, without))
	}
	if err := m.settled(ctx); err != nil {
		return err
	}
	idling, err := m.rate(ctx, 10*time.Second)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "| | agents away | agents there | ratio |\n| --- | --- | --- | --- |")
	fmt.Fprintf(out, "| a claim | %s ms | %s ms | %s |\n", ms(median(away)), ms(median(there)), verdict(median(ratios), 1.15, true))
	fmt.Fprintf(out, "| a loan | %s ms | %s ms | %.3g |\n", ms(loans[0]), ms(loans[1]), ratio(loans[1], loans[0]))
	fmt.Fprintf(out, "\nThe agents were there and away %d times in turns; medians, and the median of the ratios of two that follow each other, which lie between %.2f and %.2f.\n",
		visits, slices.Min(ratios), slices.Max(ratios))
	fmt.Fprintf(out, "\nWhile nothing happens the API server uses %.3f s of processor time a second; it has %.0f MB resident.\n", idling, m.resident())
	return nil
}

// meter reads the API server's clock.
type meter struct {
	c     *kube.Cluster
	start time.Duration // that the API server had used when it was ready first
}

// settled waits until the API server has done what it was given: its collector
// and its caches run on after a burst.
func (m *meter) settled(ctx context.Context) error {
	const look, calm = 2 * time.Second, 0.1
	for range 60 {
		rate, err := m.rate(ctx, look)
		if err != nil {
			return err
		}
		if rate < calm {
			return nil
		}
	}
	return nil
}

// rate is the processor time a second over d.
func (m *meter) rate(ctx context.Context, d time.Duration) (float64, error) {
	before, err := m.c.CPUTime()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := m.c.CPUTime()
	return (after.APIServer - before.APIServer).Seconds() / time.Since(began).Seconds(), err
}

// each is what one of n things costs that do does, with what the API server uses
// anyway meanwhile.
func (m *meter) each(n int, do func() error) (time.Duration, error) {
	before, err := m.c.CPUTime()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := m.c.CPUTime()
	if err != nil {
		return 0, err
	}
	return (after.APIServer - before.APIServer) / time.Duration(n), nil
}

// claims is what a claim costs once all is calm: the median of some series.
func (m *meter) claims(ctx context.Context, turn int) (time.Duration, error) {
	const series = 5
	if err := m.settled(ctx); err != nil {
		return 0, err
	}
	var each []time.Duration
	for n := range series {
		one, err := m.claim(ctx, 1+turn*series+n)
		if err != nil {
			return 0, err
		}
		each = append(each, one)
	}
	return median(each), nil
}

// claim is what it costs to make a block: the one write that a claim is, by nodes
// with tokens of their own. turn tells the cells of calls of it apart.
func (m *meter) claim(ctx context.Context, turn int) (time.Duration, error) {
	const claims = 1000
	const writers = 4
	stores := make([]*store.Store, writers)
	for w := range stores {
		var err error
		if stores[w], err = storeOf(ctx, m.c, fmt.Sprintf("claimer-%d", w)); err != nil {
			return 0, err
		}
	}
	return m.each(claims, func() error {
		errs := make([]error, writers)
		var all sync.WaitGroup
		for w, s := range stores {
			all.Go(func() {
				for n := w; n < claims && errs[w] == nil; n += writers {
					cell := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + turn), byte(n >> 10), byte(n >> 2), byte(n << 6)}), 26)
					_, errs[w] = s.Create(ctx, pools.Block{Prefix: cell, Pool: "claims", Node: fmt.Sprintf("claimer-%d", w)})
				}
			})
		}
		all.Wait()
		return errors.Join(errs...)
	})
}

// loan is what it costs that one node lends to another.
func (m *meter) loan(ctx context.Context, turn int) (cost time.Duration, err error) {
	const nodes, loans = 31, 30
	p, err := fleet.Pool(fmt.Sprintf("loans-%d", turn), 256, fmt.Sprintf("10.%d.0.0/24", turn))
	if err != nil {
		return 0, err
	}
	err = withFleet(ctx, m.c, nodes, func(f *fleet.Fleet) error {
		if _, err := f.Nodes[0].Add(ctx, onePod(p.Name(), 0)); err != nil {
			return err
		}
		var err error
		cost, err = m.each(loans, func() error {
			// One after the other, so that each is a loan of its own.
			for n := range loans {
				place := fleet.Place{Node: f.Nodes[1+n%(nodes-1)], Pod: onePod(p.Name(), 1+n)}
				if _, err := fleet.Add(ctx, []fleet.Place{place}); err != nil {
					return err
				}
			}
			return nil
		})
		return err
	}, p)
	return cost, err
}

// resident is the API server's memory in MB.
func (m *meter) resident() float64 {
	resident, _, err := memory([]int{m.c.APIServerPID()})
	if err != nil {
		return 0
	}
	return float64(resident) / 1e6
}

// reconnect breaks all connections, and then the API server itself.
func (m *meter) reconnect(ctx context.Context, crowd *fleet.Crowd, agents int, out io.Writer) error {
	const goal, cuts = 10, 5
	for _, holding := range []bool{true, false} {
		what := "All connections cut at once"
		if !holding {
			crowd.GiveUpBlocks()
			what = "The same with agents that hold no block, and so don't watch requests"
		}
		var took, costs []time.Duration
		for range cuts {
			if err := m.settled(ctx); err != nil {
				return err
			}
			began := time.Now()
			cost, err := m.each(1, func() error { return crowd.Reconnect(ctx, nil) })
			if err != nil {
				return err
			}
			took, costs = append(took, time.Since(began)), append(costs, cost)
		}
		fmt.Fprintf(out, "\n%s, %d times: %d watches are open again after %.1f s, for %s s of processor time (medians; %.1f to %.1f s).\n",
			what, cuts, crowd.Watches(), median(took).Seconds(), verdict(median(costs).Seconds(), goal, true),
			slices.Min(costs).Seconds(), slices.Max(costs).Seconds())
	}
	// What the same connections cost that nobody watches anything on.
	if err := m.settled(ctx); err != nil {
		return err
	}
	bare, err := m.each(1, func() error { return fleet.Knock(ctx, m.c, agents) })
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "As many bare connections, each with one request that costs nothing: %.1f s.\n", bare.Seconds())
	return m.restart(ctx, crowd, out)
}

// restart kills the API server and starts it.
func (m *meter) restart(ctx context.Context, crowd *fleet.Crowd, out io.Writer) error {
	var ready time.Duration
	var start kube.CPUTime
	how := "ready after %.1f s"
	began := time.Now()
	err := crowd.Reconnect(ctx, func() error {
		if err := m.c.StopAPIServer(); err != nil {
			return err
		}
		// It may take it longer to get ready than is waited for.
		late := m.c.StartAPIServer(ctx)
		if ready = time.Since(began); late != nil {
			how = "not ready after %.0f s"
		}
		var err error
		if start, err = m.c.CPUTime(); err != nil {
			return errors.Join(late, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := m.c.CPUTime()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "The API server killed and started: "+how+", for %.1f s of processor time (%.1f s without idle agents); all watches are open again after %.1f s, for %.1f s.\n",
		ready.Seconds(), start.APIServer.Seconds(), m.start.Seconds(), took.Seconds(), after.APIServer.Seconds())
	return nil
}
