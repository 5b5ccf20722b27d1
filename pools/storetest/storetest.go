// Package storetest is the contract of a block store as tests, which every
// store passes.
package storetest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
)

// Store is what the agent asks of a store.
type Store interface {
	Blocks(ctx context.Context) ([]pools.Block, error)
	Claim(ctx context.Context, pool *pools.Pool, f pools.Family, want netip.Addr) (pools.Block, error)
	Return(ctx context.Context, b pools.Block) error
}

// Open gives the store of node. Every call within one test opens the same
// blocks, after closing what was open before if the store asks for that.
type Open func(t *testing.T, node string) Store

// Run holds a store against the contract. begin is called once for each test
// and starts with no blocks.
func Run(t *testing.T, begin func(t *testing.T) Open) {
	tests := map[string]func(*testing.T, Open){
		"a claim can be read back":         readBack,
		"claims end with the pool":         exhaust,
		"a returned block is free again":   returned,
		"a chosen address":                 chosen,
		"racing claims get distinct cells": race,
		"blocks outlive the store":         reopen,
		"both families":                    families,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, begin(t)) })
	}
}

func pool(t *testing.T, name string, size int, ranges ...string) *pools.Pool {
	t.Helper()
	d := pools.Definition{Name: name, BlockSize: size}
	for _, s := range ranges {
		r, err := pools.ParseRange(s)
		if err != nil {
			t.Fatal(err)
		}
		d.Ranges = append(d.Ranges, r)
	}
	p, err := pools.New(d)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func claim(t *testing.T, s Store, p *pools.Pool, f pools.Family) pools.Block {
	t.Helper()
	b, err := s.Claim(t.Context(), p, f, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func held(t *testing.T, s Store) []netip.Prefix {
	t.Helper()
	bs, err := s.Blocks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []netip.Prefix
	for _, b := range bs {
		out = append(out, b.Prefix)
	}
	slices.SortFunc(out, netipx.ComparePrefix)
	return out
}

func readBack(t *testing.T, open Open) {
	s := open(t, "n1")
	b := claim(t, s, pool(t, "web", 16, "10.1.0.0/24"), pools.IPv4)
	if b.Pool != "web" || b.Node != "n1" || b.Created.IsZero() || b.Prefix.Bits() != 28 {
		t.Errorf("claimed %+v", b)
	}
	bs, err := s.Blocks(t.Context())
	if err != nil || len(bs) != 1 || bs[0].Prefix != b.Prefix || bs[0].Pool != "web" || bs[0].Node != "n1" || !bs[0].Created.Equal(b.Created) {
		t.Errorf("read %+v, %v; claimed %+v", bs, err, b)
	}
}

func exhaust(t *testing.T, open Open) {
	s := open(t, "n1")
	p := pool(t, "web", 64, "10.1.0.0/24")
	for range 4 {
		claim(t, s, p, pools.IPv4)
	}
	if _, err := s.Claim(t.Context(), p, pools.IPv4, netip.Addr{}); !errors.Is(err, pools.ErrExhausted) {
		t.Errorf("fifth claim of four: %v", err)
	}
	if got := len(held(t, s)); got != 4 {
		t.Errorf("%d blocks held, want 4", got)
	}
}

func returned(t *testing.T, open Open) {
	s := open(t, "n1")
	p := pool(t, "web", 256, "10.1.0.0/24")
	b := claim(t, s, p, pools.IPv4)
	for range 2 { // the second one finds nothing, which is no error
		if err := s.Return(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if again := claim(t, s, p, pools.IPv4); again.Prefix != b.Prefix {
		t.Errorf("claimed %s after the return of %s", again.Prefix, b.Prefix)
	}
}

func chosen(t *testing.T, open Open) {
	s := open(t, "n1")
	p := pool(t, "web", 16, "10.1.0.0/24")
	want := netip.MustParseAddr("10.1.0.77")
	b, err := s.Claim(t.Context(), p, pools.IPv4, want)
	if err != nil || b.Prefix != p.Cell(want) {
		t.Errorf("claimed %v, %v", b.Prefix, err)
	}
	if _, err := s.Claim(t.Context(), p, pools.IPv4, want); !errors.Is(err, pools.ErrBlockExists) {
		t.Errorf("claimed twice: %v", err)
	}
	if _, err := s.Claim(t.Context(), p, pools.IPv4, netip.MustParseAddr("10.9.0.1")); !errors.Is(err, pools.ErrOutside) {
		t.Errorf("claimed outside of the pool: %v", err)
	}
	if got := held(t, s); len(got) != 1 {
		t.Errorf("held %v after failed claims", got)
	}
}

func race(t *testing.T, open Open) {
	s := open(t, "n1")
	p := pool(t, "web", 16, "10.1.0.0/24")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := s.Claim(t.Context(), p, pools.IPv4, netip.Addr{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := slices.Compact(held(t, s)); len(got) != 16 {
		t.Errorf("%d distinct blocks of 16 claims: %v", len(got), got)
	}
}

func reopen(t *testing.T, open Open) {
	p := pool(t, "web", 16, "10.1.0.0/24")
	s := open(t, "n1")
	claim(t, s, p, pools.IPv4)
	claim(t, s, p, pools.IPv4)
	before := held(t, s)
	if after := held(t, open(t, "n1")); !slices.Equal(before, after) {
		t.Errorf("held %v before and %v after", before, after)
	}
}

func families(t *testing.T, open Open) {
	s := open(t, "n1")
	p := pool(t, "web", 16, "10.1.0.0/24", "fd00::/64")
	if b := claim(t, s, p, pools.IPv6); b.Prefix.Bits() != 124 || !p.Contains(b.Prefix.Addr()) {
		t.Errorf("claimed %s", b.Prefix)
	}
	if b := claim(t, s, p, pools.IPv4); b.Prefix.Bits() != 28 {
		t.Errorf("claimed %s", b.Prefix)
	}
}
