package embedded_test

import (
	"errors"
	"os"
	"path/filepath"
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

func TestDamagedFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blocks.db")
	if err := os.WriteFile(path, []byte("this is not a block store, and longer than a page or two would be"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Open(path, "n1"); err == nil {
		t.Error("a damaged file was opened")
	}
}

func TestReturnOfAnotherNodesBlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blocks.db")
	s := open(t, path, "n1")
	r, _ := pools.ParseRange("10.0.0.0/24")
	p, err := pools.New(pools.Definition{Name: "web", Ranges: []netipx.IPRange{r}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Claim(t.Context(), p, pools.IPv4, r.From())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	other := open(t, path, "n2")
	if err := other.Return(t.Context(), b); !errors.Is(err, pools.ErrNotOwner) {
		t.Errorf("another node's block was returned: %v", err)
	}
	if bs, err := other.Blocks(t.Context()); err != nil || len(bs) != 1 {
		t.Errorf("blocks after the refusal: %v, %v", bs, err)
	}
}
