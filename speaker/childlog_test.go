package speaker

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestRelay(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := &relay{log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	child := slog.New(slog.NewJSONHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug}))
	child.Warn("BGP session lost", "peer", "tor", "asn", 4200000001, "reason", "hold timer expired")
	child.Debug("small", "n", 3)
	for _, part := range []string{"panic: no", " way\n\ngoroutine 1:\n", "{\"level\":\"INFO\""} {
		if _, err := r.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"level=WARN msg=\"BGP session lost\" peer=tor asn=4200000001 reason=\"hold timer expired\"", "level=DEBUG msg=small n=3"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log is %q, want %q in it", out.String(), want)
		}
	}
	if got := r.rest(); got != "panic: no way\ngoroutine 1:" {
		t.Errorf("the last words are %q", got)
	}
}

func FuzzRelay(f *testing.F) {
	f.Add([]byte(`{"time":"2024-01-01T00:00:00Z","level":"INFO","msg":"x","peer":"tor"}`+"\n"), 3)
	f.Add([]byte("panic: x\n\ngoroutine 1 [running]:\n"), 1)
	f.Add([]byte(`{"level":7,"msg":null}`+"\n"+`{"level":"INFO+4","msg":"","a":[{}]}`+"\n"), 2)
	f.Add(bytes.Repeat([]byte("x"), 70<<10), 4096)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		r := &relay{log: slog.New(slog.DiscardHandler)}
		at = min(max(at, 0), len(b))
		for _, part := range [][]byte{b[:at], b[at:]} {
			if n, err := r.Write(part); n != len(part) || err != nil {
				t.Fatalf("Write: %d, %v", n, err)
			}
		}
		if len(r.part) > maxLine || len(r.said) > maxRest+1 {
			t.Fatalf("keeps %d and %d bytes", len(r.part), len(r.said))
		}
	})
}
