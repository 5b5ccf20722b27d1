package deadline

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct{ has, spare, left time.Duration }{
			{10 * time.Second, time.Second, 9 * time.Second},
			{2 * time.Second, time.Second, 1500 * time.Millisecond},
			{0, time.Second, 0},
		} {
			whole, cancel := context.WithTimeout(t.Context(), c.has)
			step, cancelStep := Before(whole, c.spare)
			if end, ok := step.Deadline(); !ok || time.Until(end) != c.left {
				t.Errorf("of %s less %s there are %s left, want %s", c.has, c.spare, time.Until(end), c.left)
			}
			cancelStep()
			cancel()
		}
		step, cancel := Before(context.Background(), time.Second)
		defer cancel()
		if _, ok := step.Deadline(); ok {
			t.Error("there is a deadline where there was none")
		}
	})
}
