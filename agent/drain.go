package agent

import (
	"context"
	"fmt"
	"time"
)

// lookForLeases is how often a drain that waits looks whether the last pod is gone.
const lookForLeases = 100 * time.Millisecond

// DrainWhenEmpty serves no new pod from now on, waits until the last pod with an
// address is gone, and then drains. Meanwhile each block is withdrawn and returned as
// soon as it is empty, and the sessions stay. If ctx ends before, new pods are served
// again, and the error says how many were left.
func (a *Agent) DrainWhenEmpty(ctx context.Context) error {
	if err := a.leave(true); err != nil {
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
			err := a.leave(false)
			if err == nil {
				err = ctx.Err()
			}
			return fmt.Errorf("%d pods or other sandboxes still have addresses; new ones are served again: %w", left, err)
		}
	}
}

// leave begins or ends that no new pod is served.
func (a *Agent) leave(on bool) error {
	a.reload.Lock()
	defer a.reload.Unlock()
	if err := a.desk.leave(on, a.settings.Load()); err != nil {
		return err
	}
	a.Log.Info("new pods", "served", !on)
	a.call()
	return nil
}

func (d *desk) leave(on bool, s *Settings) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaving = on
	if err := d.becomePools(s); err != nil {
		return err
	}
	d.advance()
	return nil
}

// leased counts the attachments that have addresses.
func (d *desk) leased() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.ledger.Grants())
}
