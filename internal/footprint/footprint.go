// Package footprint keeps what a program has in memory small while it rests.
package footprint

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// settled is for how long a program that has just started is left alone: what waited
// for it comes first.
const settled = 2 * time.Second

// Settle is Shrink a moment from now, once what waited for the start has been served;
// not at all if ctx ends before.
func Settle(ctx context.Context) error {
	timer := time.NewTimer(settled)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-timer.C:
		return Shrink()
	}
}

// Shrink lets go of what the program needed up to now and may not need again: memory
// that is free, and the pages of its own file. Those of them that are used again are
// mapped again, from the kernel's page cache as a rule. A program with many packages
// touches most of its file when it starts, and a tenth of it later.
func Shrink() error {
	debug.FreeOSMemory()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("this program's file: %w", err)
	}
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("this program's memory: %w", err)
	}
	spans, err := unchanged(maps, self)
	errs := []error{err, maps.Close()}
	for _, s := range spans {
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, s.from, s.to-s.from, syscall.MADV_DONTNEED); errno != 0 {
			errs = append(errs, fmt.Errorf("this program's memory at %x: %w", s.from, errno))
		}
	}
	return errors.Join(errs...)
}

// span of addresses, without the last.
type span struct{ from, to uintptr }

// unchanged gives the spans of the file in an smaps of proc(5) that are for reading
// alone and have no page of their own: what is there is what the file says.
func unchanged(smaps io.Reader, file string) ([]span, error) {
	var spans []span
	var at span
	ours := false
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		line := lines.Text()
		var s span
		var mode string
		switch n, _ := fmt.Sscanf(line, "%x-%x %s", &s.from, &s.to, &mode); {
		case n == 3: // a mapping; what follows is about it
			at, ours = s, !strings.Contains(mode, "w") && strings.HasSuffix(line, " "+file)
		case ours && strings.Join(strings.Fields(line), " ") == "Anonymous: 0 kB":
			spans = append(spans, at)
		}
	}
	return spans, lines.Err()
}
