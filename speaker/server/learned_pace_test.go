package server

import (
	"slices"
	"testing"
	"time"
)

// A row of many routes begins with enough of them, and ends a while after the last.
func TestPace(t *testing.T) {
	var said []bool
	p := pace{set: func(bulk bool) { said = append(said, bulk) }}
	now := time.Unix(1, 0)
	step := func(after time.Duration, routes int, again bool, want ...bool) {
		t.Helper()
		now = now.Add(after)
		p.handed(routes, now)
		at := p.rest(now)
		if at.IsZero() == again || again && !at.After(now) || !slices.Equal(said, want) {
			t.Fatalf("after %d routes: again at %v, said %v, want %v", routes, at, said, want)
		}
		said = nil
	}
	step(0, 0, false)
	step(0, bulkRoutes-1, true)
	step(bulkPause, 0, false) // too few
	step(0, bulkRoutes-1, true)
	step(bulkPause-1, 1, true, true)
	step(bulkPause-1, 10*bulkRoutes, true)
	step(bulkPause-1, 0, true)
	step(1, 0, false, false)
	step(time.Hour, 0, false)
}
