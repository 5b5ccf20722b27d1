package controller

import "time"

// What a write of a pool's status costs the API server: itself, and its event,
// which goes to each node's agent (docs/design/scale.md).
const (
	writeCost = 3 * time.Millisecond
	eventCost = 80 * time.Microsecond
)

// reportCost is the processor time of one write of a status.
func reportCost(agents int) time.Duration {
	return writeCost + time.Duration(agents)*eventCost
}

// budget bounds the API server's processor time for a kind of writes. What was
// not used is saved up, so that a few writes after a quiet time need not wait;
// a write may cost more than what is left, and those after it wait longer.
type budget struct {
	share float64       // of one core
	most  time.Duration // that is saved up
	left  time.Duration // at the time at
	at    time.Time
}

// budgetOf may be spent at once as much as it earns in a time.
func budgetOf(share float64, saved time.Duration) budget {
	most := time.Duration(share * float64(saved))
	return budget{share: share, most: most, left: most}
}

// open says whether something is left.
func (b *budget) open(now time.Time) bool {
	if !b.at.IsZero() && now.After(b.at) {
		b.left = min(b.most, b.left+time.Duration(b.share*float64(now.Sub(b.at))))
	}
	if now.After(b.at) {
		b.at = now
	}
	return b.left > 0
}

func (b *budget) spend(cost time.Duration) { b.left -= cost }

// opens is when something is left, if nothing more is spent.
func (b *budget) opens() time.Time {
	const tick = time.Millisecond // so that it is not one nanosecond short
	return b.at.Add(time.Duration(float64(max(0, -b.left))/b.share) + tick)
}
