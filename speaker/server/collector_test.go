package server

import (
	"slices"
	"testing"
)

// Whoever asks for another pace last has it, and when all are done it is the usual one,
// in whichever order they are.
func TestCollector(t *testing.T) {
	for name, firstEndsFirst := range map[string]bool{"the first ends first": true, "the last ends first": false} {
		t.Run(name, func(t *testing.T) {
			const usual = 77
			percent, freed := usual, 0
			c := &collector{set: func(p int) int { before := percent; percent = p; return before }, free: func() { freed++ }}
			for range 2 {
				ends, left := []func(){c.at(25), c.at(200)}, 200
				if percent != 200 {
					t.Errorf("at %d, want what was asked for last", percent)
				}
				if !firstEndsFirst {
					slices.Reverse(ends)
					left = 25
				}
				if ends[0](); percent != left || freed != 0 {
					t.Errorf("at %d, want what is asked for still, %d; freed %d times", percent, left, freed)
				}
				if ends[1](); percent != usual || freed != 1 {
					t.Errorf("at %d, want %d; freed %d times, want once", percent, usual, freed)
				}
				freed = 0
			}
		})
	}
}
