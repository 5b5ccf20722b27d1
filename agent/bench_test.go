package agent

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"go4.org/netipx"
)

// BenchmarkRequest is one CNI request inside the agent, from the bytes that a
// plugin sent to the bytes that it prints, journal included, with so many
// blocks held and as many leases standing.
func BenchmarkRequest(b *testing.B) {
	for _, held := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("ADD+DEL/held=%d", held), func(b *testing.B) { benchmarkRequest(b, held) })
	}
}

func benchmarkRequest(b *testing.B, held int) {
	a := benchAgent(b, held)
	h := &cni.Handler{Leases: a.desk}
	conf := []byte(`{"cniVersion":"1.1.0","name":"net","type":"ptp","ipam":{"type":"fairway-ipam","pool":"web"}}`)
	encode := func(command string, n int) []byte {
		return wire.AppendRequest(nil, []string{
			"CNI_COMMAND=" + command, fmt.Sprintf("CNI_CONTAINERID=c%d", n), "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/x", "CNI_PATH=/opt/cni/bin",
			fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-%d;K8S_POD_UID=7c1b3a52-93f4-4f5e-8f0f-%012d", n, n),
		}, conf)
	}
	add, del := encode("ADD", held+1), encode("DEL", held+1)
	b.ReportAllocs()
	for b.Loop() {
		for _, request := range [][]byte{add, del} {
			if text, failed, ok := wire.SplitAnswer(h.Serve(b.Context(), request)); failed || !ok {
				b.Fatalf("%s", text)
			}
		}
	}
	// Two requests in each round.
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(2*b.N), "ns/request")
}

// benchAgent holds so many blocks of four addresses and as many leases.
func benchAgent(b *testing.B, held int) *Agent {
	b.Helper()
	p := pool(b, "web", 4, "10.0.0.0/15")
	a, err := New(b.Context(), Parts{
		Node: "n1", RunDir: b.TempDir(), Socket: filepath.Join(b.TempDir(), "ipam.sock"), Boot: "b",
		Store: manyBlocks{pool: p.Pool, held: held}, Kernel: noKernel{}, Speaker: noSpeaker{}, Log: slog.New(slog.DiscardHandler),
	}, Settings{Pools: []Pool{p}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { a.Close() })
	if err := a.pass(b.Context()); err != nil {
		b.Fatal(err)
	}
	for n := range held {
		if _, err := a.desk.Lease(b.Context(), request("web", n)); err != nil {
			b.Fatal(err)
		}
	}
	return a
}

// manyBlocks is a store in which so many blocks of a pool are held.
type manyBlocks struct {
	exchange.Store // what else there is, nobody asks for
	pool           *pools.Pool
	held           int
}

func (m manyBlocks) Own(context.Context) (own []exchange.Stored, err error) {
	cell := m.pool.Cell(m.pool.Addresses().Ranges()[0].From())
	for range m.held {
		own = append(own, exchange.Stored{Block: pools.Block{Prefix: cell, Pool: m.pool.Name(), Node: "n1"}})
		cell = m.pool.Cell(netipx.PrefixLastIP(cell).Next())
	}
	return own, nil
}

func (m manyBlocks) List(ctx context.Context, _ string) ([]exchange.Stored, error) {
	return m.Own(ctx)
}

func (manyBlocks) Create(context.Context, pools.Block) (exchange.Stored, error) {
	return exchange.Stored{}, exchange.ErrExists
}
