// Package storetest is the contract of the stores of blocks and requests, as tests.
package storetest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"go4.org/netipx"
)

// Shared is a store that nodes share, from all sides.
type Shared interface {
	// Node is the store as that node sees it.
	Node(name string) exchange.Exchange
	// Vacate makes b, at its Version, vacant, as the controller does.
	Vacate(ctx context.Context, b exchange.Stored) (exchange.Stored, error)
}

const (
	// racers is how many take part in a race.
	racers = 16
	// patience bounds how long something may take that comes late.
	patience = 20 * time.Second
)

// RunStore holds the store of one node, "n1", against the part of the contract
// that does not need another one. begin is called once for each test and starts
// with no blocks.
func RunStore(t *testing.T, begin func(t *testing.T) exchange.Store) {
	tests := map[string]func(*testing.T, exchange.Store){
		"a new block can be read back":           newBlock,
		"there is one block of a prefix":         oneOfAPrefix,
		"a removed block is gone":                removed,
		"what lies inside, in both families":     insideOne,
		"the own blocks are those of all pools":  ownOne,
		"a list has a pool's blocks, no other's": listOne,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, begin(t)) })
	}
}

// RunExchange holds a store that nodes share against the contract. begin is
// called once for each test and starts with no blocks and no requests.
func RunExchange(t *testing.T, begin func(t *testing.T) Shared) {
	RunStore(t, func(t *testing.T) exchange.Store { return begin(t).Node("n1") })
	tests := map[string]func(*testing.T, Shared){
		"every block is another one":                 distinct,
		"an old UID removes nothing":                 oldUID,
		"an old version removes nothing":             removedLate,
		"of racing creators one wins":                creatorsRace,
		"the own blocks and what of them is others'": ownOfSeveral,
		"a list has vacant and other nodes' blocks":  listOfSeveral,
		"a vacant block can be taken":                takeVacant,
		"an earlier machine's block can be taken":    takeOver,
		"a block that was changed is not taken":      takeLate,
		"a block that is gone is not taken":          takeGone,
		"of racing takers one wins":                  takersRace,
		"a request can be read back":                 newRequest,
		"there is one request of a name":             oneOfAName,
		"a retracted request is gone":                retracted,
		"a grant is the first at its version":        grantOnce,
		"grants are added":                           grantsAdd,
		"a request that is gone is not granted":      grantGone,
		"of racing lenders one wins":                 lendersRace,
		"a watch sees what all end as":               watched,
		"a watch of pools sees no others":            selected,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, begin(t)) })
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// block is a block of pool web.
func block(node, p string) pools.Block {
	return pools.Block{Prefix: prefix(p), Pool: "web", Node: node, Machine: node + "-machine"}
}

// lent is a block of pool web that was lent by lender.
func lent(node, lender, p string) pools.Block {
	b := block(node, p)
	b.Lender = lender
	return b
}

func create(t *testing.T, s exchange.Store, b pools.Block) exchange.Stored {
	t.Helper()
	st, err := s.Create(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func remove(t *testing.T, s exchange.Store, b exchange.Stored) {
	t.Helper()
	if err := s.Delete(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func vacate(t *testing.T, s Shared, b exchange.Stored) exchange.Stored {
	t.Helper()
	st, err := s.Vacate(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func ask(t *testing.T, e exchange.Exchange, r exchange.Request) exchange.Request {
	t.Helper()
	made, err := e.Ask(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// wantErr complains unless want is the only one of the contract's errors that err
// wraps.
func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	for _, e := range []error{exchange.ErrExists, exchange.ErrGone, exchange.ErrConflict, exchange.ErrUnknown} {
		if errors.Is(err, e) != (e == want) {
			t.Errorf("%s: %v, want: %v", what, err, want)
			return
		}
	}
}

// wantSame compares blocks as the store gave them at different times.
func wantSame(t *testing.T, what string, got, want exchange.Stored) {
	t.Helper()
	if !got.Created.Equal(want.Created) {
		t.Errorf("%s: made at %v, want %v", what, got.Created, want.Created)
	}
	got.Created = want.Created
	if got != want {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// wantListed compares what a list is sure to say of a block. It may be of before the
// block became vacant.
func wantListed(t *testing.T, got, want exchange.Stored) {
	t.Helper()
	if got.Prefix != want.Prefix || got.Pool != want.Pool || got.Lender != want.Lender || want.Node != "" && got.Node != want.Node {
		t.Errorf("listed:\n got %+v\nwant %+v", got, want)
	}
}

// wantPrefixes compares blocks by their prefixes, each of which must be there
// once.
func wantPrefixes(t *testing.T, what string, got []exchange.Stored, want ...string) {
	t.Helper()
	if have := prefixes(got); !slices.Equal(have, parsed(want)) {
		t.Errorf("%s: %v, want %v", what, have, want)
	}
}

func prefixes(blocks []exchange.Stored) []netip.Prefix {
	out := make([]netip.Prefix, len(blocks))
	for i, b := range blocks {
		out[i] = b.Prefix
	}
	slices.SortFunc(out, netipx.ComparePrefix)
	return out
}

func parsed(ss []string) []netip.Prefix {
	out := make([]netip.Prefix, len(ss))
	for i, s := range ss {
		out[i] = prefix(s)
	}
	slices.SortFunc(out, netipx.ComparePrefix)
	return out
}

// wantList waits for a list to have exactly those blocks.
func wantList(t *testing.T, s exchange.Store, pool string, want ...string) []exchange.Stored {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		got, err := s.List(ctx, pool)
		if err == nil && slices.Equal(prefixes(got), parsed(want)) {
			return got
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the list of pool %s is %v, %v; want %v", pool, prefixes(got), err, want)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
