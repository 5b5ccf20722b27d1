package controller

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	"github.com/fairway-network/fairway/pools"
	"k8s.io/apimachinery/pkg/watch"
)

// paged are pages of a list that were read before.
type paged struct {
	pages  [][]byte
	reader *blockReader
}

func (p *paged) page(_ context.Context, token string, each func(placed)) (version, next string, err error) {
	n := 0
	if token == "" {
		p.reader = newBlockReader()
	} else if _, err := fmt.Sscan(token, &n); err != nil {
		return "", "", err
	}
	return p.reader.table(p.pages[n], each, func(error) {})
}

func (p *paged) watch(context.Context, string, func(watch.EventType, placed, string)) error {
	return nil
}

func (p *paged) version(context.Context) (string, error) { return "", nil }

const manyBlocks = 100_000

func manyPages(tb testing.TB) *paged {
	p := &paged{}
	for from := 0; from < manyBlocks; from += blocksAtOnce {
		next := ""
		if from+blocksAtOnce < manyBlocks {
			next = fmt.Sprint(len(p.pages) + 1)
		}
		p.pages = append(p.pages, aPage(tb, from, min(from+blocksAtOnce, manyBlocks), next))
	}
	return p
}

// BenchmarkReadBlocks reads a hundred thousand blocks out of the API server's
// JSON, and says how much of the heap they take when they are there.
func BenchmarkReadBlocks(b *testing.B) {
	from := manyPages(b)
	size := 0
	for _, p := range from.pages {
		size += len(p)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		m := newMirror("blocks", source[placed](from), func() blocks { return blocks{} }, slog.New(slog.DiscardHandler))
		if _, err := m.list(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	before := heap()
	m := newMirror("blocks", source[placed](from), func() blocks { return blocks{} }, slog.New(slog.DiscardHandler))
	if _, err := m.list(b.Context()); err != nil {
		b.Fatal(err)
	}
	from.reader = nil
	b.ReportMetric(float64(heap()-before)/manyBlocks, "heap-B/block")
	runtime.KeepAlive(m)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// BenchmarkCountBlocks counts the routes of one pool with a hundred thousand
// blocks of 5,000 nodes.
func BenchmarkCountBlocks(b *testing.B) {
	all := blocks{}
	r := newBlockReader()
	for n := range manyBlocks {
		o := aBlock(n, "web", fmt.Sprint("node-", n/20), "")
		p := lies("web", o.Spec.Node, string(o.Spec.Prefix), "")
		p.machine = r.names[""]
		all.put(p)
	}
	pool := mustPool(b, "10.0.0.0/8")
	b.ReportAllocs()
	for b.Loop() {
		if c := countBlocks(all.of("web"), pool.Addresses()); c.blocks != manyBlocks {
			b.Fatal(c)
		}
	}
}

// BenchmarkSuspects looks for what a dead node has left among a hundred thousand
// blocks.
func BenchmarkSuspects(b *testing.B) {
	all := blocks{}
	from := manyPages(b)
	for _, p := range from.pages {
		if _, _, err := newBlockReader().table(p, func(b placed) { all.put(b) }, func(err error) { b.Fatal(err) }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, unknown := all.suspects(func(node, _ string) bool { return node == "node-7" }); len(unknown) != manyBlocks/5000 {
			b.Fatal(len(unknown))
		}
	}
}

// BenchmarkRemains looks for what stands in the way of a pool in which a hundred
// thousand blocks of an earlier one stand.
func BenchmarkRemains(b *testing.B) {
	all := blocks{}
	for n := range manyBlocks {
		o := aBlock(n, "before", fmt.Sprint("node-", n/20), "")
		all.put(lies("before", o.Spec.Node, string(o.Spec.Prefix), ""))
	}
	pool := mustPool(b, "10.0.0.0/8")
	b.ReportAllocs()
	for b.Loop() {
		if all.remains([]*pools.Pool{pool})[0] == "" {
			b.Fatal("nothing stands in the way")
		}
	}
}
