package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// What is missing for good, such as a definition or a right, is missing for all
// nodes: they must not ask the API server each second, nor all at once.
func TestAStartThatCanNotGoOnAsksLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{Parts: Parts{Log: slog.New(slog.DiscardHandler)}, door: &door{}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		missing := errors.New("missing")
		var asked []time.Time
		err := a.persist(ctx, "read the blocks", func() error {
			asked = append(asked, time.Now())
			return missing
		})
		if !errors.Is(err, missing) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the start ended with %v", err)
		}
		pauses := map[time.Duration]bool{}
		for i := 1; i < len(asked); i++ {
			p := asked[i].Sub(asked[i-1])
			if least := min(retry<<min(i-1, 10), mostRetry) / 2; p < least || p > mostRetry {
				t.Errorf("pause %d is %v, want %v to %v", i, p, least, mostRetry)
			}
			pauses[p] = true
		}
		if first := asked[1].Sub(asked[0]); first > retry {
			t.Errorf("asked a second time after %v, want %v at most: most often the API server is merely late", first, retry)
		}
		if n := len(asked); n < 60 || n > 130 || len(pauses) < n/2 {
			t.Errorf("asked %d times in 10 minutes with %d different pauses", n, len(pauses))
		}
	})
}
