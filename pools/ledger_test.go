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

// seeded returns a random source whose seed is printed should the test fail;
// FAIRWAY_TEST_SEED replays it.
func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	if s := os.Getenv("FAIRWAY_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with FAIRWAY_TEST_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// TestLedgerAgainstModel runs random operations on a ledger and on a dumb
// model of it.
func TestLedgerAgainstModel(t *testing.T) {
	rnd := seeded(t)
	for range 60 {
		tr := newTrial(t, rnd.IntN)
		for range 150 {
			tr.step()
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
