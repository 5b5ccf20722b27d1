package pools

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"go4.org/netipx"
)

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ranges(t testing.TB, texts ...string) (out []netipx.IPRange) {
	t.Helper()
	for _, s := range texts {
		r, err := ParseRange(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func mustNew(t testing.TB, d Definition) *Pool {
	t.Helper()
	p, err := New(d)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestLedgerAgainstModel runs random operations on a ledger and on a dumb
// model of it. A failure prints the seed; FAIRWAY_TEST_SEED replays it.
func TestLedgerAgainstModel(t *testing.T) {
	first, rounds := rand.Uint64(), 60
	if s := os.Getenv("FAIRWAY_TEST_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, rounds = seed, 1
	}
	for i := range uint64(rounds) {
		seed := first + i
		tr := newTrial(t, rand.New(rand.NewPCG(seed, 0)).IntN)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("replay with FAIRWAY_TEST_SEED=%d", seed)
			}
		})
		for range 150 {
			tr.step()
		}
		if t.Failed() {
			return
		}
	}
}

func FuzzLedger(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x00\x08\x00\x01\x00\x01\x00\x00\x00\x01\x01\x00\x05\x00\x04\x01\x01\x05\x00\x0d\x0b\x00\x00\x00\x01\x01\x00\x05"))
	for seed := range uint64(8) {
		r := rand.NewChaCha8([32]byte{byte(seed)})
		input := make([]byte, 400)
		r.Read(input)
		f.Add(input)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		r := bytes.NewReader(input[:min(len(input), 1<<11)])
		tr := newTrial(t, byteChooser(r))
		for r.Len() > 0 {
			tr.step()
		}
	})
}
