// Package deadline divides the time that a context has left.
package deadline

import (
	"context"
	"time"
)

// Before is ctx less a time at its end, at most a quarter of what is left: for a step
// after which another one is to come. Without a deadline it is ctx itself.
func Before(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-min(d, max(time.Until(end), 0)/4)))
}
