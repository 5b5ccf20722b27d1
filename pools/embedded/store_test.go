package embedded_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/internal/lockfile"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/embedded"
	"github.com/fairway-network/fairway/pools/exchange"
	"github.com/fairway-network/fairway/pools/storetest"
)

func open(t *testing.T, path, node string) *embedded.Store {
	t.Helper()
	s, err := embedded.Open(path, node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestContract(t *testing.T) {
	storetest.RunStore(t, func(t *testing.T) exchange.Store {
		return open(t, filepath.Join(t.TempDir(), "blocks.db"), "n1")
	})
}

func TestSecondOpenIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blocks.db")
	open(t, path, "n1")
	if _, err := embedded.Open(path, "n1"); !errors.Is(err, lockfile.ErrHeld) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("second open: %v", err)
	}
}

// A host keeps its blocks, and the leases in them, when it gets another name.
func TestBlocksOfAFormerName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blocks.db")
	var claimed []pools.Block
	for _, name := range []string{"n1", "n2", "n3"} {
		s := open(t, path, name)
		if got := s.TakenOver(); !slices.Equal(plain(got), plain(named(claimed, former(name)))) {
			t.Errorf("%s took over %v", name, got)
		}
		claimed = named(claimed, name)
		if got := own(t, s); !slices.Equal(got, claimed) {
			t.Errorf("%s has %v, want %v", name, got, claimed)
		}
		cell := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(64 * len(claimed))}), 26)
		if _, err := s.Create(t.Context(), pools.Block{Prefix: cell, Pool: "web", Node: name}); err != nil {
			t.Fatal(err)
		}
		claimed = own(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, path, "n3")
	if got := s.TakenOver(); len(got) != 0 || len(claimed) != 3 {
		t.Errorf("with the same name as before, %v of %v are taken over", got, claimed)
	}
	for _, b := range claimed { // the first of them began as n1's
		if err := s.Delete(t.Context(), exchange.Stored{Block: b}); err != nil {
			t.Error(err)
		}
	}
	if got := own(t, s); len(got) != 0 {
		t.Errorf("blocks after their return: %v", got)
	}
}

func own(t *testing.T, s *embedded.Store) (out []pools.Block) {
	t.Helper()
	stored, err := s.Own(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range stored {
		out = append(out, st.Block)
	}
	return out
}

// plain are blocks as in the file.
func plain(blocks []pools.Block) (out []pools.Block) {
	for _, b := range blocks {
		b.UID = ""
		out = append(out, b)
	}
	return out
}

func former(name string) string { return "n" + string(name[1]-1) }

func named(blocks []pools.Block, node string) (out []pools.Block) {
	for _, b := range blocks {
		b.Node = node
		out = append(out, b)
	}
	return out
}
