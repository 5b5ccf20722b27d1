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
	"github.com/fairway-network/fairway/pools/storetest"
	"go4.org/netipx"
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
	storetest.Run(t, func(t *testing.T) storetest.Open {
		path := filepath.Join(t.TempDir(), "blocks.db")
		var last *embedded.Store
		return func(t *testing.T, node string) storetest.Store {
			if last != nil {
				if err := last.Close(); err != nil {
					t.Fatal(err)
				}
			}
			last = open(t, path, node)
			return last
		}
	})
}

func TestSecondOpenIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blocks.db")
	open(t, path, "n1")
	if _, err := embedded.Open(path, "n1"); !errors.Is(err, lockfile.ErrHeld) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("second open: %v", err)
	}
}

func pool(t testing.TB, name, addresses string, blockSize int) *pools.Pool {
	t.Helper()
	r, err := pools.ParseRange(addresses)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pools.New(pools.Definition{Name: name, Ranges: []netipx.IPRange{r}, BlockSize: blockSize})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A host keeps its blocks, and the leases in them, when it gets another name.
func TestBlocksOfAFormerName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blocks.db")
	p := pool(t, "web", "10.0.0.0/24", 64)
	var claimed []pools.Block
	for _, name := range []string{"n1", "n2", "n3"} {
		s := open(t, path, name)
		if got := s.TakenOver(); !slices.Equal(got, named(claimed, former(name))) {
			t.Errorf("%s took over %v", name, got)
		}
		claimed = named(claimed, name)
		if got, err := s.Blocks(t.Context()); err != nil || !slices.Equal(got, claimed) {
			t.Errorf("%s has %v, %v, want %v", name, got, err, claimed)
		}
		if _, err := s.Claim(t.Context(), p, pools.IPv4, netip.Addr{}); err != nil {
			t.Fatal(err)
		}
		got, err := s.Blocks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		claimed = got
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, path, "n3")
	if got := s.TakenOver(); len(got) != 0 || len(claimed) != 3 {
		t.Errorf("with the same name as before, %v of %v are taken over", got, claimed)
	}
	for _, b := range claimed { // the first of them began as n1's
		if err := s.Return(t.Context(), b); err != nil {
			t.Error(err)
		}
	}
	if got, err := s.Blocks(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("blocks after their return: %v, %v", got, err)
	}
}

func former(name string) string { return "n" + string(name[1]-1) }

func named(blocks []pools.Block, node string) (out []pools.Block) {
	for _, b := range blocks {
		b.Node = node
		out = append(out, b)
	}
	return out
}

func TestReturnOfAnotherPoolsBlock(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "blocks.db"), "n1")
	b, err := s.Claim(t.Context(), pool(t, "web", "10.0.0.0/24", 64), pools.IPv4, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	other := b
	other.Pool = "db"
	if err := s.Return(t.Context(), other); !errors.Is(err, pools.ErrNotOwner) {
		t.Errorf("another pool's block was returned: %v", err)
	}
	if got, err := s.Blocks(t.Context()); err != nil || len(got) != 1 || got[0].Prefix != b.Prefix {
		t.Errorf("blocks after the refusal: %v, %v", got, err)
	}
}
