package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/integration/fleet"
	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/pools"
	store "github.com/fairway-network/fairway/pools/kube"
)

// ground is a control plane with Fairway installed, for one section.
func ground(ctx context.Context, use func(c *kube.Cluster) error) error {
	c, err := kube.Up(ctx, kube.Options{})
	if err != nil {
		return err
	}
	err = c.Install(ctx)
	if err == nil {
		err = warmUp(ctx, c)
	}
	if err == nil {
		err = use(c)
	}
	return errors.Join(err, c.Down())
}

// warmUp makes a block and removes it. The API server keeps a POST of an object waiting
// for two seconds while its definition is younger than that.
func warmUp(ctx context.Context, c *kube.Cluster) error {
	s, err := storeOf(ctx, c, "warm")
	if err != nil {
		return err
	}
	made, err := s.Create(ctx, pools.Block{Prefix: netip.MustParsePrefix("192.0.2.0/32"), Pool: "warm", Node: "warm"})
	if err != nil {
		return err
	}
	return s.Delete(ctx, made)
}

// storeOf is the exchange of a node, with its own token.
func storeOf(ctx context.Context, c *kube.Cluster, node string) (*store.Store, error) {
	config, err := c.NodeAgentConfig(ctx, kube.AgentAccount(), node)
	if err != nil {
		return nil, err
	}
	client, err := store.NewClient(config, store.Options{})
	if err != nil {
		return nil, err
	}
	return client.Store(node), nil
}

// withFleet runs a fleet for as long as use takes. It has the name of its pool,
// and leaves nothing of it: a list goes through the blocks of all pools.
func withFleet(ctx context.Context, c *kube.Cluster, nodes int, use func(f *fleet.Fleet) error, p agent.Pool) error {
	f, err := fleet.Start(ctx, c, fleet.Options{Nodes: nodes, Name: p.Name(), Pools: []agent.Pool{p}})
	if err == nil {
		f.Calls.Take()
		err = use(f)
	}
	return errors.Join(err, f.Close(), fleet.Remove(ctx, c, p.Name()))
}

// wave is what a thousand pods cost.
type wave struct {
	took, slowest time.Duration
	calls         []fleet.Call
	retries       int
	cpu           kube.CPUTime
}

func (w wave) writes(pods int) float64 { return float64(fleet.Writes(w.calls)) / float64(pods) }

func (w wave) reads(pods int) float64 {
	return float64(len(w.calls)-fleet.Writes(w.calls)) / float64(pods)
}

// waves are keyed by their kind.
type waves map[string][]wave

func (w waves) add(kind string, one wave) { w[kind] = append(w[kind], one) }

func (w waves) median(kind string, figure func(wave) float64) float64 {
	var all []float64
	for _, one := range w[kind] {
		all = append(all, figure(one))
	}
	return median(all)
}

// runWave has all places get an address.
func runWave(ctx context.Context, c *kube.Cluster, f *fleet.Fleet, places []fleet.Place) (w wave, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	f.Calls.Take()
	before, err := c.CPUTime()
	if err != nil {
		return w, err
	}
	out, err := fleet.Add(ctx, places)
	if err != nil {
		return w, err
	}
	after, err := c.CPUTime()
	w.took, w.slowest, w.retries, w.calls = out.All, slices.Max(out.Took), out.Retries, f.Calls.Take()
	w.cpu = kube.CPUTime{APIServer: after.APIServer - before.APIServer, Etcd: after.Etcd - before.Etcd}
	return w, err
}

// thousand is how the thousand pods are made: those of each application, on the nodes,
// so many times.
type thousand struct{ nodes, applications, pods, rounds int }

func (m thousand) total() int { return m.applications * m.pods }

// kubePods measures a thousand pods at once, with plenty of addresses and with
// exactly as many.
func kubePods(ctx context.Context, _ *bench, out io.Writer) error {
	m := thousand{nodes: 10, applications: 100, pods: 10, rounds: 31}
	all := waves{}
	err := ground(ctx, func(c *kube.Cluster) error {
		random := rand.New(rand.NewPCG(1, 2))
		for round := range m.rounds {
			for _, kind := range []struct{ name, ranges string }{{"plenty", "10.%d.0.0/16"}, {"exact", "10.%d.0.0-10.%[1]d.3.231"}} {
				net := 4*(round+1) + len(kind.name) // no two alike
				p, err := fleet.Pool(fmt.Sprintf("%s-%d", kind.name, round), 0, fmt.Sprintf(kind.ranges, net))
				if err != nil {
					return err
				}
				first, again, err := m.run(ctx, c, p, random)
				if err != nil {
					return err
				}
				all.add(kind.name, first)
				all.add(kind.name+" again", again)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.report(out, all)
	return nil
}

// run has all pods made at once on nodes chosen at random, and, when they are deleted,
// made again on others.
func (m thousand) run(ctx context.Context, c *kube.Cluster, p agent.Pool, random *rand.Rand) (first, again wave, err error) {
	err = withFleet(ctx, c, m.nodes, func(f *fleet.Fleet) error {
		on := func(int) *fleet.Node { return f.Nodes[random.IntN(m.nodes)] }
		places := fleet.Applications(p.Name(), 1, m.applications, m.pods, on)
		if first, err = runWave(ctx, c, f, places); err != nil {
			return err
		}
		if err := fleet.Del(ctx, places); err != nil {
			return err
		}
		moved := func(n int) *fleet.Node {
			return f.Nodes[(slices.Index(f.Nodes, places[n].Node)+1+random.IntN(m.nodes-1))%m.nodes]
		}
		again, err = runWave(ctx, c, f, fleet.Applications(p.Name(), 2, m.applications, m.pods, moved))
		return err
	}, p)
	return first, again, err
}

func (m thousand) report(out io.Writer, w waves) {
	fmt.Fprintf(out, "\n### A thousand pods at once\n\n%d applications of %d pods on %d nodes chosen at random, all created at once; then all deleted and created again on other nodes. Medians of %d runs, kinds in turn. It is the address work alone, from the ADD at the agent's socket until the answer: no scheduler, kubelet, sandbox or veth; the kernel's routes and BGP are not waited for, and freed addresses are free at once.\n\n", m.applications, m.pods, m.nodes, m.rounds)
	fmt.Fprintln(out, "| addresses | all have one | slowest pod | API writes a pod | reads a pod | told to try again | CPU of the API server, etcd |")
	fmt.Fprintln(out, "| --- | --- | --- | --- | --- | --- | --- |")
	for _, row := range []struct {
		kind, addresses string
		writes          float64 // at most
	}{
		{"plenty", "65,536", 0.1}, {"plenty again", "65,536, again", 0.1},
		{"exact", "1,000", 1.5}, {"exact again", "1,000, again", 1.5},
	} {
		of := func(figure func(wave) float64) float64 { return w.median(row.kind, figure) }
		seconds := func(figure func(wave) time.Duration) string {
			return fmt.Sprintf("%.2f s", of(func(w wave) float64 { return figure(w).Seconds() }))
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %.3g | %.0f | %s, %s |\n", row.addresses,
			seconds(func(w wave) time.Duration { return w.took }), seconds(func(w wave) time.Duration { return w.slowest }),
			verdict(of(func(w wave) float64 { return w.writes(m.total()) }), row.writes, true),
			of(func(w wave) float64 { return w.reads(m.total()) }), of(func(w wave) float64 { return float64(w.retries) }),
			seconds(func(w wave) time.Duration { return w.cpu.APIServer }), seconds(func(w wave) time.Duration { return w.cpu.Etcd }))
	}
	took := func(w wave) float64 { return w.took.Seconds() }
	fmt.Fprintf(out, "\nExact against plenty, time until all have an address: %s.\n", verdict(w.median("exact", took)/w.median("plenty", took), 3, true))
	fmt.Fprintf(out, "\nThe calls of one exact run:\n\n```\n%s```\n", fleet.Table(w["exact"][0].calls))
}

// kubeRoutes counts the prefixes that 100 nodes announce.
func kubeRoutes(ctx context.Context, _ *bench, out io.Writer) error {
	const nodes, each, size, goal = 100, 200, 64, 110 // 200 pods: four blocks, the last one not so full that a fifth is claimed ahead
	p, err := fleet.Pool("routes", size, "10.60.0.0/16")
	if err != nil {
		return err
	}
	var blocks []pools.Block
	var w wave
	err = ground(ctx, func(c *kube.Cluster) error {
		return withFleet(ctx, c, nodes, func(f *fleet.Fleet) error {
			var places []fleet.Place
			for n := range each {
				places = append(places, fleet.Applications("routes", n, 1, nodes, func(i int) *fleet.Node { return f.Nodes[i] })...)
			}
			var err error
			if w, err = runWave(ctx, c, f, places); err != nil {
				return err
			}
			blocks, err = fleet.Blocks(ctx, c, "routes")
			return err
		}, p)
	})
	if err != nil {
		return err
	}
	held := map[string]int{}
	for _, b := range blocks {
		held[b.Node]++
	}
	least, most := 1<<30, 0
	for _, n := range held {
		least, most = min(least, n), max(most, n)
	}
	fmt.Fprintf(out, "\n### Routes\n\n%d nodes come up at once and get %d pods each, out of one /16 in blocks of %d: %d blocks (%d to %d a node) in %.1f s, announced as **%s** prefixes. The same blocks dealt out at random: %d.\n",
		nodes, each, size, len(blocks), least, most, w.took.Seconds(), verdict(float64(routesOf(p, blocks)), goal, true), routesOf(p, shuffled(p, blocks)))
	return nil
}

// routesOf counts the prefixes that all nodes announce.
func routesOf(p agent.Pool, blocks []pools.Block) (n int) {
	nodes := map[string]bool{}
	for _, b := range blocks {
		nodes[b.Node] = true
	}
	for node := range nodes {
		n += len(pools.Effective(node, blocks, p.Addresses()).Prefixes())
	}
	return n
}

// shuffled are as many blocks of the same nodes, in cells drawn at random.
func shuffled(p agent.Pool, blocks []pools.Block) []pools.Block {
	random := rand.New(rand.NewPCG(7, 7))
	first := p.Addresses().Ranges()[0].From().As4()
	cells := random.Perm(int(p.Size(pools.IPv4)) / p.BlockSize())
	out := slices.Clone(blocks)
	for i := range out {
		at := cells[i] * p.BlockSize()
		a := netip.AddrFrom4([4]byte{first[0], first[1], byte(at >> 8), byte(at)})
		out[i].Prefix = netip.PrefixFrom(a, p.BlockBits(pools.IPv4))
	}
	return out
}

// kubeClaims measures single claims and loans, and an ADD that needs neither.
func kubeClaims(ctx context.Context, b *bench, out io.Writer) error {
	return ground(ctx, func(c *kube.Cluster) error {
		fmt.Fprint(out, "\n### One claim, one loan\n\nOne pod at a time, at the agent's socket; p50 / p99 of the whole ADD. In turn are the calls of which each began when the one before had ended. Of a loan, the asker's and the lender's calls until the pod has its address. What is not waited for: the controller, the kernel's routes, BGP.\n\n| | ADD, ms | calls in turn, p50 | calls, p50 | of them writes |\n| --- | --- | --- | --- | --- |\n")
		if err := claims(ctx, c, out); err != nil {
			return err
		}
		if err := loans(ctx, c, out); err != nil {
			return err
		}
		return held(ctx, c, b, out)
	})
}

// single is what one ADD took.
type single struct {
	took  time.Duration
	calls []fleet.Call
}

func addOne(ctx context.Context, f *fleet.Fleet, p fleet.Place) (s single, err error) {
	f.Calls.Take()
	began := time.Now()
	_, err = p.Node.Add(ctx, p.Pod)
	s.took = time.Since(began)
	// A call that goes on was not waited for.
	s.calls = f.Calls.Take()
	return s, err
}

func row(out io.Writer, what string, goal float64, all []single) {
	var took []time.Duration
	var inTurn, calls, writes []float64
	for _, s := range all {
		took = append(took, s.took)
		inTurn = append(inTurn, float64(fleet.InTurn(s.calls)))
		calls = append(calls, float64(len(s.calls)))
		writes = append(writes, float64(fleet.Writes(s.calls)))
	}
	fmt.Fprintf(out, "| %s | %s / %s | %s | %.0f | %.0f |\n", what, ms(median(took)), ms(quantile(took, 0.99)),
		verdict(median(inTurn), goal, true), median(calls), median(writes))
}

// onePod is a pod of its own.
func onePod(pool string, n int) fleet.Pod {
	name := fmt.Sprintf("one%d", n)
	return fleet.Pod{Namespace: "shop", Name: name, UID: name, Sandbox: name, Pool: pool}
}

// claims of a first block, and of each next one. Blocks of one address are never
// claimed ahead.
func claims(ctx context.Context, c *kube.Cluster, out io.Writer) error {
	const nodes, next, goal = 50, 100, 2
	p, err := fleet.Pool("claims", 1, "10.61.0.0/18")
	if err != nil {
		return err
	}
	return withFleet(ctx, c, nodes, func(f *fleet.Fleet) error {
		var firsts, nexts []single
		for i, n := range f.Nodes {
			s, err := addOne(ctx, f, fleet.Place{Node: n, Pod: onePod("claims", i)})
			if err != nil {
				return err
			}
			firsts = append(firsts, s)
		}
		for i := range next {
			s, err := addOne(ctx, f, fleet.Place{Node: f.Nodes[0], Pod: onePod("claims", nodes+i)})
			if err != nil {
				return err
			}
			nexts = append(nexts, s)
		}
		row(out, "a node's first block of a pool", goal, firsts)
		row(out, "its next block", goal, nexts)
		return nil
	}, p)
}

// loans of a node that has all to others that have nothing.
func loans(ctx context.Context, c *kube.Cluster, out io.Writer) error {
	const nodes, size, goal = 50, 256, 5
	p, err := fleet.Pool("loans", size, "10.62.0.0/24")
	if err != nil {
		return err
	}
	return withFleet(ctx, c, nodes, func(f *fleet.Fleet) error {
		if _, err := f.Nodes[0].Add(ctx, onePod("loans", 0)); err != nil {
			return err
		}
		var all []single
		for i, n := range f.Nodes[1:] {
			s, err := addOne(ctx, f, fleet.Place{Node: n, Pod: onePod("loans", 1+i)})
			if err != nil {
				return err
			}
			// The lender looks after its older loans meanwhile.
			s.calls = slices.DeleteFunc(s.calls, func(c fleet.Call) bool { return c.Node != n.Name && c.Verb == http.MethodGet })
			all = append(all, s)
		}
		row(out, "an address lent by another node", goal, all)
		return nil
	}, p)
}

// held measures ADDs in a block that is there, in turns with two agents that have
// the embedded store: what these two differ by is noise.
func held(ctx context.Context, c *kube.Cluster, b *bench, out io.Writer) error {
	const rounds = 3000
	p, err := fleet.Pool("held", 64, "10.63.0.0/16")
	if err != nil {
		return err
	}
	f, err := fleet.Start(ctx, c, fleet.Options{Nodes: 1, Pools: []agent.Pool{p}, Pods: true})
	if err != nil {
		return errors.Join(err, f.Close())
	}
	agents := map[string]*fleet.Node{"fleet": f.Nodes[0]}
	for _, name := range []string{"embedded", "embedded too"} {
		if agents[name], err = fleet.Alone(ctx, filepath.Join(b.dir, name), p); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	err = func() error {
		pod, err := f.Nodes[0].MakePod(ctx, c, "shop", "held")
		if err != nil {
			return err
		}
		pod.Pool = "held"
		took, calls, err := takeTurnsHeld(ctx, f, agents, pod, rounds)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\n### An ADD that needs no claim\n\nA pod that the agent knows comes and goes %d times on an otherwise empty node, in turns with two agents that have the embedded store; ADD at the socket, p50 / p99 in µs: %s with the API server, %s and %s embedded. With the API server against embedded: %.3g; the two embedded ones against each other: %.3g. API calls meanwhile: %d writes and %d reads; so no block was claimed or returned but the one for the first pod.\n",
			rounds, micro(took["fleet"]), micro(took["embedded"]), micro(took["embedded too"]),
			ratio(median(took["fleet"]), median(took["embedded"])), ratio(median(took["embedded too"]), median(took["embedded"])),
			fleet.Writes(calls), len(calls)-fleet.Writes(calls))
		return nil
	}()
	return errors.Join(err, agents["embedded"].Close(), agents["embedded too"].Close(), f.Close())
}

func micro(took []time.Duration) string {
	return fmt.Sprintf("%.1f / %.1f", float64(median(took))/1e3, float64(quantile(took, 0.99))/1e3)
}

// takeTurnsHeld has a pod come and go on all agents, in turns, after once to
// claim the block.
func takeTurnsHeld(ctx context.Context, f *fleet.Fleet, agents map[string]*fleet.Node, pod fleet.Pod, rounds int) (map[string][]time.Duration, []fleet.Call, error) {
	took := map[string][]time.Duration{}
	names := slices.Sorted(maps.Keys(agents))
	for round := -1; round < rounds; round++ {
		if round == 0 {
			f.Calls.Take()
			clear(took)
		}
		pod.Sandbox = fmt.Sprintf("held%d", round)
		for i := range names {
			name := names[turn(round+1, i, len(names))]
			began := time.Now()
			_, err := agents[name].Add(ctx, pod)
			took[name] = append(took[name], time.Since(began))
			if err := errors.Join(err, agents[name].Del(ctx, pod)); err != nil {
				return nil, nil, err
			}
		}
	}
	return took, f.Calls.Take(), nil
}
