package agent

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// lookForLeases is how often a drain that waits looks whether the last pod is gone.
const lookForLeases = 100 * time.Millisecond

// DrainWhenEmpty serves no new pod from now on, waits until the last pod with an
// address is gone, and then drains. Meanwhile each block is withdrawn and returned as
// soon as it is empty, and the sessions stay. If ctx ends before, new pods are served
// again, unless another drain waits, and the error says how many were left.
func (a *Agent) DrainWhenEmpty(ctx context.Context) error {
	if err := a.leave(); err != nil {
		return err
	}
	look := time.NewTicker(lookForLeases)
	defer look.Stop()
	for {
		left := a.desk.leased()
		if left == 0 {
			return a.Drain(ctx)
		}
		select {
		case <-look.C:
		case <-a.stop: // by another drain, which does not wait
			return a.Drain(ctx)
		case <-a.drained: // stopped
			return a.Drain(ctx)
		case <-ctx.Done():
			return fmt.Errorf("%d pods or other sandboxes still have addresses; %w", left, a.stay(ctx.Err()))
		}
	}
}

// leave begins that no new pod is served, for one drain more.
func (a *Agent) leave() error {
	a.reload.Lock()
	defer a.reload.Unlock()
	if _, err := a.desk.leave(1, a.settings.Load()); err != nil {
		return err
	}
	a.Log.Info("new pods", "served", false)
	a.call()
	return nil
}

// stay ends one drain's wait, for a reason, and gives the reason with what that means.
func (a *Agent) stay(reason error) error {
	a.reload.Lock()
	defer a.reload.Unlock()
	waiting, err := a.desk.leave(-1, a.settings.Load())
	if err != nil {
		return fmt.Errorf("new ones can't be served again: %w", errors.Join(err, reason))
	}
	if waiting > 0 {
		return fmt.Errorf("new ones are not served, for another drain waits: %w", reason)
	}
	a.Log.Info("new pods", "served", true)
	a.call()
	return fmt.Errorf("new ones are served again: %w", reason)
}

// leave adds to the drains that wait, of which it gives the number. With an error
// nothing was added.
func (d *desk) leave(more int, s *Settings) (waiting int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaving += more
	if err := d.becomePools(s); err != nil {
		d.leaving -= more
		return d.leaving, err
	}
	d.advance()
	return d.leaving, nil
}

// isLeaving says whether a drain waits, so that no new pod is served.
func (d *desk) isLeaving() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.leaving > 0
}

// leased counts the attachments that have addresses.
func (d *desk) leased() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.ledger.Grants())
}
