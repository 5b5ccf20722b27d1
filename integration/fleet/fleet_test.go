package fleet

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/pools"
)

// patience bounds one wave of pods. It is far more than a wave takes.
const patience = 2 * time.Minute

// ground is a control plane with Fairway installed.
type ground struct{ *kube.Cluster }

// TestRaces has one control plane for all: a start takes seconds.
func TestRaces(t *testing.T) {
	g := ground{kube.Start(t, kube.Options{})}
	if err := g.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Run("32 agents, 16 cells", g.fewCells)
	t.Run("1000 pods, 1000 addresses", g.exact)
}

// fleet starts one whose agents log to the test.
func (g ground) fleet(t *testing.T, nodes int, p agent.Pool) *Fleet {
	t.Helper()
	level := slog.HandlerOptions{Level: slog.LevelWarn}
	f, err := Start(t.Context(), g.Cluster, Options{Nodes: nodes, Name: p.Name(), Pools: []agent.Pool{p}, Log: slog.New(slog.NewTextHandler(t.Output(), &level))})
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Calls.Take()
	return f
}

func poolOf(t *testing.T, name string, blockSize int, ranges ...string) agent.Pool {
	t.Helper()
	p, err := Pool(name, blockSize, ranges...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// add is a wave, after which the blocks of the API server are held against what
// the agents said.
func (g ground) add(t *testing.T, p agent.Pool, places []Place) Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := Add(ctx, places)
	if err != nil {
		t.Fatal(err)
	}
	blocks := g.blocks(t, p)
	for i, a := range out.Addresses {
		if owner := ownerOf(blocks, a); owner != places[i].Node.Name {
			t.Errorf("%s was leased by %s, and the longest match is of %q", a, places[i].Node.Name, owner)
		}
	}
	return out
}

// blocks of a pool, as they are now.
func (g ground) blocks(t *testing.T, p agent.Pool) []pools.Block {
	t.Helper()
	all, err := Blocks(t.Context(), g.Cluster, p.Name())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ownerOf is the node whose block is the longest match of a.
func ownerOf(blocks []pools.Block, a netip.Addr) (node string) {
	bits := -1
	for _, b := range blocks {
		if b.Prefix.Contains(a) && b.Prefix.Bits() > bits {
			node, bits = b.Node, b.Prefix.Bits()
		}
	}
	return node
}

// cellsAndLoans counts the blocks that are claimed, and those that are lent.
func cellsAndLoans(blocks []pools.Block) (cells, loans int) {
	for _, b := range blocks {
		if b.Lender == "" {
			cells++
		} else {
			loans++
		}
	}
	return cells, loans
}

// fewCells has 32 nodes take all addresses of 16 cells.
func (g ground) fewCells(t *testing.T) {
	const nodes, each, cells, size = 32, 8, 16, 16
	p := poolOf(t, "few", size, "10.1.0.0/24")
	f := g.fleet(t, nodes, p)
	out := g.add(t, p, Applications("few", 1, nodes, each, func(n int) *Node { return f.Nodes[n%nodes] }))
	claimed, lent := cellsAndLoans(g.blocks(t, p))
	if claimed != cells || lent == 0 {
		t.Errorf("%d cells are claimed and %d parts of them lent; want %d cells and the rest lent", claimed, lent, cells)
	}
	calls := f.Calls.Take()
	t.Logf("%d pods on %d nodes in %v: %d cells claimed, %d parts lent, %d times told to try again, calls:\n%s",
		nodes*each, nodes, out.All, claimed, lent, out.Retries, Table(calls))
}

// exact has 1,000 pods take 1,000 addresses, wherever they land.
func (g ground) exact(t *testing.T) {
	const nodes, applications, pods = 10, 100, 10
	p := poolOf(t, "exact", 0, "10.2.0.0-10.2.3.231")
	if p.Size(pools.IPv4) != applications*pods {
		t.Fatalf("the pool has %d addresses", p.Size(pools.IPv4))
	}
	f := g.fleet(t, nodes, p)
	random := rand.New(rand.NewPCG(3, 3))
	var was []Place
	for round, on := range []func(n int) *Node{
		func(int) *Node { return f.Nodes[random.IntN(nodes)] },
		// All on other nodes, which have the addresses of other pods.
		func(n int) *Node { return f.Nodes[otherThan(random, was[n].Node, f.Nodes)] },
		// All on three nodes: the others have to part with everything.
		func(n int) *Node { return f.Nodes[n%3] },
	} {
		if err := Del(t.Context(), was); err != nil {
			t.Fatal(err)
		}
		places := Applications("exact", round, applications, pods, on)
		out := g.add(t, p, places)
		used := map[netip.Addr]bool{}
		for _, a := range out.Addresses {
			used[a] = true
		}
		if len(used) != applications*pods {
			t.Errorf("round %d: %d addresses are leased", round, len(used))
		}
		calls := f.Calls.Take()
		claimed, lent := cellsAndLoans(g.blocks(t, p))
		t.Logf("round %d: %d pods in %v (slowest %v): %d cells, %d parts lent, %.2f writes and %.2f reads a pod, %d times told to try again, calls:\n%s", round, len(places), out.All,
			slices.Max(out.Took), claimed, lent, float64(Writes(calls))/float64(len(places)), float64(len(calls)-Writes(calls))/float64(len(places)), out.Retries, Table(calls))
		was = places
	}
}

func otherThan(random *rand.Rand, n *Node, nodes []*Node) int {
	for {
		if i := random.IntN(len(nodes)); nodes[i] != n {
			return i
		}
	}
}
