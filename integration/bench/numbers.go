package main

import (
	"fmt"
	"slices"
	"time"
)

// quantile of a sample that is not empty; q is from 0 to 1.
func quantile[T ~int64 | ~float64](sample []T, q float64) T {
	sorted := slices.Sorted(slices.Values(sample))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func median[T ~int64 | ~float64](sample []T) T { return quantile(sample, 0.5) }

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/1e6) }

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// verdict holds a number against what is to be reached; want 0 is nothing.
func verdict(got, want float64, atMost bool) string {
	switch {
	case want == 0:
		return fmt.Sprintf("%.3g", got)
	case atMost && got > want:
		return fmt.Sprintf("%.3g (missed: at most %.3g)", got, want)
	case atMost:
		return fmt.Sprintf("%.3g (at most %.3g)", got, want)
	case got < want:
		return fmt.Sprintf("%.3g (missed: at least %.3g)", got, want)
	}
	return fmt.Sprintf("%.3g (at least %.3g)", got, want)
}
