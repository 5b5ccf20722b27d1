package lab

import (
	"context"
	"fmt"
	"time"
)

// Await calls check until it returns nil, and gives up when ctx ends: the error
// then says what was waited for and why the last check failed.
func Await(ctx context.Context, what string, check func() error) error {
	const shortest, longest = 5 * time.Millisecond, 100 * time.Millisecond
	pause := shortest
	for {
		last := check()
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w: %w", what, ctx.Err(), last)
		case <-time.After(pause):
			pause = min(pause*3/2, longest)
		}
	}
}
