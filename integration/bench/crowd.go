package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
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

// price is what the API server uses for one claim or loan.
type price struct{ claim, loan time.Duration }

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
		if _, err := m.claim(ctx, 0, 1000); err != nil { // caches fill
			return err
		}
		alone, err := m.prices(ctx, 1)
		if err != nil {
			return err
		}
		before, err := c.CPUTime()
		if err != nil {
			return err
		}
		began := time.Now()
		crowd, err := fleet.Gather(ctx, c, agents)
		if err != nil {
			return err
		}
		defer crowd.Close()
		after, err := c.CPUTime()
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "Coming up, with the Nodes, pods and tokens that it takes: %.1f s, %.1f s of processor time.\n\n", time.Since(began).Seconds(), (after.APIServer - before.APIServer).Seconds())
		watched, err := m.prices(ctx, 2)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "| | no idle agents | with them | ratio |\n| --- | --- | --- | --- |")
		fmt.Fprintf(out, "| a claim | %s ms | %s ms | %s |\n", ms(alone.claim), ms(watched.claim), verdict(ratio(watched.claim, alone.claim), 1.15, true))
		fmt.Fprintf(out, "| a loan | %s ms | %s ms | %.3g |\n", ms(alone.loan), ms(watched.loan), ratio(watched.loan, alone.loan))
		fmt.Fprintf(out, "\nWhile nothing happens the API server uses %.3f s of processor time a second; it has %.0f MB resident.\n", m.idling, m.resident())
		return m.reconnect(ctx, crowd, agents, out)
	})
}

// meter reads the API server's clock.
type meter struct {
	c      *kube.Cluster
	idling float64       // processor time a second while nothing happens
	start  time.Duration // that the API server had used when it was ready first
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
func (m *meter) each(ctx context.Context, n int, do func() error) (time.Duration, error) {
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

// prices measures what claims and loans cost; turn tells calls of it apart.
func (m *meter) prices(ctx context.Context, turn int) (p price, err error) {
	const series = 9
	if err := m.settled(ctx); err != nil {
		return p, err
	}
	if m.idling, err = m.rate(ctx, 10*time.Second); err != nil {
		return p, err
	}
	var claims []time.Duration
	for n := range series {
		one, err := m.claim(ctx, turn*series+n, 1000)
		if err != nil {
			return p, err
		}
		claims = append(claims, one)
	}
	p.claim = median(claims)
	p.loan, err = m.loan(ctx, turn)
	return p, err
}

// claim is what it costs to make a block: the one write that a claim is, by nodes
// with tokens of their own.
func (m *meter) claim(ctx context.Context, turn, claims int) (time.Duration, error) {
	const writers = 4
	stores := make([]*store.Store, writers)
	for w := range stores {
		node := fmt.Sprintf("claimer-%d", w)
		config, err := m.c.NodeAgentConfig(ctx, fleet.Account(), node)
		if err != nil {
			return 0, err
		}
		client, err := store.NewClient(config, store.Options{})
		if err != nil {
			return 0, err
		}
		stores[w] = client.Store(node)
	}
	return m.each(ctx, claims, func() error {
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
		cost, err = m.each(ctx, loans, func() error {
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
	const goal = 10
	if err := m.settled(ctx); err != nil {
		return err
	}
	before, err := m.c.CPUTime()
	if err != nil {
		return err
	}
	began, opened := time.Now(), crowd.Opened()
	crowd.Cut()
	if err := crowd.AwaitOpened(ctx, opened+agents*fleet.WatchesEach); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := m.c.CPUTime()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nAll connections cut at once: %d watches are open again after %.1f s, for %s s of processor time.\n",
		agents*fleet.WatchesEach, took.Seconds(), verdict((after.APIServer-before.APIServer).Seconds(), goal, true))
	// What the same connections cost that nobody watches anything on.
	if err := m.settled(ctx); err != nil {
		return err
	}
	if before, err = m.c.CPUTime(); err != nil {
		return err
	}
	if err := fleet.Knock(ctx, m.c, agents); err != nil {
		return err
	}
	if after, err = m.c.CPUTime(); err != nil {
		return err
	}
	fmt.Fprintf(out, "As many bare connections, each with one request that costs nothing: %.1f s.\n", (after.APIServer - before.APIServer).Seconds())
	opened = crowd.Opened()
	began = time.Now()
	if err := m.c.StopAPIServer(); err != nil {
		return err
	}
	// It may take it longer to get ready than is waited for.
	late := m.c.StartAPIServer(ctx)
	ready := time.Since(began)
	start, err := m.c.CPUTime()
	if err != nil {
		return errors.Join(late, err)
	}
	if err := crowd.AwaitOpened(ctx, opened+agents*fleet.WatchesEach); err != nil {
		return err
	}
	took = time.Since(began)
	if after, err = m.c.CPUTime(); err != nil {
		return err
	}
	how := fmt.Sprintf("ready after %.1f s", ready.Seconds())
	if late != nil {
		how = fmt.Sprintf("not ready after %.0f s", ready.Seconds())
	}
	fmt.Fprintf(out, "The API server killed and started: %s, for %.1f s of processor time (%.1f s without idle agents); all watches are open again after %.1f s, for %.1f s.\n",
		how, start.APIServer.Seconds(), m.start.Seconds(), took.Seconds(), after.APIServer.Seconds())
	return nil
}
