package embedded

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
)

// written is the file of a store with n blocks, and the blocks.
func written(t testing.TB, n int) ([]byte, []pools.Block) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blocks.db")
	s, err := Open(path, "n1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.db.NoSync = true // a test need not outlive the machine
	r, err := pools.ParseRange("10.0.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	p, err := pools.New(pools.Definition{Name: "web", Ranges: []netipx.IPRange{r}, BlockSize: 16})
	if err != nil {
		t.Fatal(err)
	}
	for range n + 1 {
		b, err := s.claim(t, p)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.mustBlocks(t)) == n+1 { // so that the file has seen a deletion
			if err := s.Delete(t.Context(), stored(b)); err != nil {
				t.Fatal(err)
			}
		}
	}
	blocks := s.mustBlocks(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data, blocks
}

func (s *Store) mustBlocks(t testing.TB) []pools.Block {
	t.Helper()
	blocks, err := s.all()
	if err != nil {
		t.Fatal(err)
	}
	return blocks
}

// claim makes the next block of p.
func (s *Store) claim(t testing.TB, p *pools.Pool) (pools.Block, error) {
	t.Helper()
	cell, err := p.NextCell(pools.IPv4, s.node, s.mustBlocks(t))
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.Create(t.Context(), pools.Block{Prefix: cell, Pool: p.Name(), Node: s.node})
	b := st.Block
	b.UID = "" // as in the file
	return b, err
}

// opened opens data as a store's file. A refusal must leave it as it is.
func opened(t *testing.T, data []byte) ([]pools.Block, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blocks.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, "n1")
	if err == nil {
		defer s.Close()
		return s.all()
	}
	if after, readErr := os.ReadFile(path); readErr != nil || !slices.Equal(after, data) {
		t.Errorf("the refused file was changed (%v)", readErr)
	}
	return nil, err
}

func expectDamage(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "remove it") || !strings.Contains(err.Error(), "blocks.db") {
		t.Errorf("%s: %v", what, err)
	}
}

func TestDamagedFileIsRefused(t *testing.T) {
	whole, blocks := written(t, 300)
	if got, err := opened(t, whole); err != nil || !slices.Equal(got, blocks) {
		t.Fatalf("the whole file: %d blocks, %v", len(got), err)
	}
	_, err := opened(t, []byte("this is not a block store, and longer than a page or two would be"))
	expectDamage(t, "a text", err)
	_, err = opened(t, make([]byte, len(whole)))
	expectDamage(t, "zeros", err)
	m, err := newestMeta(whole)
	if err != nil {
		t.Fatal(err)
	}
	for size := uint64(1); size < m.pages*m.pageSize; size += 1000 {
		_, err := opened(t, whole[:size])
		expectDamage(t, "a truncated file", err)
	}
	if _, err := opened(t, whole[:m.pages*m.pageSize]); err != nil {
		t.Errorf("without the room behind its pages: %v", err)
	}
}

// A page that is not what was written there is found, unless it is free. Of
// the two meta pages one is enough; it may be older by one change.
func TestDamagedPageIsRefused(t *testing.T) {
	whole, blocks := written(t, 300)
	m, err := newestMeta(whole)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for page := range m.pages {
		for _, fill := range []func([]byte){
			func(b []byte) { clear(b) },
			func(b []byte) {
				for i := range b {
					b[i] = byte(r.Uint32())
				}
			},
			func(b []byte) { // another page
				other := (page + 1 + r.Uint64N(m.pages-1)) % m.pages
				copy(b, whole[other*m.pageSize:][:m.pageSize])
			},
		} {
			data := slices.Clone(whole)
			fill(data[page*m.pageSize:][:m.pageSize])
			got, err := opened(t, data)
			switch {
			case err != nil:
				expectDamage(t, "a damaged page", err)
				refused++
			case !slices.Equal(got, blocks) && (page > 1 || len(got) != len(blocks)+1):
				t.Errorf("page %d: %d blocks, want %d", page, len(got), len(blocks))
			}
		}
	}
	if refused < 3*5 {
		t.Errorf("%d files were refused; the tree alone has more pages", refused)
	}
}

// What bbolt itself wrote is never refused.
func TestWholeFilesAreAccepted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blocks.db")
	r, err := pools.ParseRange("10.0.0.0/20")
	if err != nil {
		t.Fatal(err)
	}
	p, err := pools.New(pools.Definition{Name: "web", Ranges: []netipx.IPRange{r}, BlockSize: 8})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	held := map[netip.Prefix]pools.Block{}
	for round := range 30 {
		s, err := Open(path, "n1")
		if err != nil {
			t.Fatal(err)
		}
		s.db.NoSync = true
		if got := s.mustBlocks(t); len(got) != len(held) {
			t.Fatalf("%d blocks, want %d", len(got), len(held))
		}
		for range 40 {
			if round%6 < 4 && len(held) < 500 { // up for a while, then down
				b, err := s.claim(t, p)
				if err != nil {
					t.Fatal(err)
				}
				held[b.Prefix] = b
				continue
			}
			all := s.mustBlocks(t)
			if len(all) == 0 {
				break
			}
			b := all[random.IntN(len(all))]
			if err := s.Delete(t.Context(), stored(b)); err != nil {
				t.Fatal(err)
			}
			delete(held, b.Prefix)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A page that goes bad under a running store is an error too, not the end of
// the process.
func TestDamageUnderARunningStore(t *testing.T) {
	data, _ := written(t, 300)
	path := filepath.Join(t.TempDir(), "blocks.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, "n1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Truncate(path, 2*4096); err != nil {
		t.Fatal(err)
	}
	_, err = s.all()
	expectDamage(t, "truncated under the store", err)
	err = s.Delete(t.Context(), stored(pools.Block{Pool: "web", Prefix: netip.MustParsePrefix("10.0.0.0/28")}))
	expectDamage(t, "a return", err)
	_, err = s.all()
	expectDamage(t, "after that", err)
}

// FuzzOpen patches a whole file, and then makes the sums of its meta pages
// right if asked to.
func FuzzOpen(f *testing.F) {
	small, _ := written(f, 3)
	large, _ := written(f, 150)
	f.Add(false, uint32(0), []byte{}, uint32(1<<20), false)
	f.Add(true, uint32(16+40), []byte{3, 0, 0, 0, 0, 0, 0, 0}, uint32(1<<20), true) // fewer pages in use
	f.Add(true, uint32(4096+16+16), []byte{0xff}, uint32(1<<20), true)              // another root
	f.Add(false, uint32(2*4096+10), []byte{0xff, 0xff}, uint32(1<<20), false)
	f.Add(true, uint32(3*4096+16), []byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, uint32(1<<20), false)
	f.Add(true, uint32(0), []byte{}, uint32(8192), false)
	f.Add(true, uint32(0), []byte{}, uint32(16384), false)
	f.Fuzz(func(t *testing.T, big bool, at uint32, patch []byte, size uint32, resum bool) {
		data := small
		if big {
			data = large
		}
		data = slices.Clone(data[:min(int(size), len(data))])
		if int(at) < len(data) {
			copy(data[at:], patch)
		}
		if resum && len(data) >= 2*4096 {
			sumMeta(data[headSize:])
			sumMeta(data[4096+headSize:])
		}
		_, _ = opened(t, data)
	})
}

func sumMeta(b []byte) {
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	binary.NativeEndian.PutUint64(b[metaSize-8:], sum.Sum64())
}

func BenchmarkVerify(b *testing.B) {
	data, _ := written(b, 1000)
	path := filepath.Join(b.TempDir(), "blocks.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := verify(path); err != nil {
			b.Fatal(err)
		}
	}
}
