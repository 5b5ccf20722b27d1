package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// request has the agent package's own benchmark tell what a request costs
// inside of the agent.
func request(ctx context.Context, b *bench, out io.Writer) error {
	fmt.Fprint(out, "\n### A request inside the agent\n\nADD and DEL of one attachment: parse, lease, journal (tmpfs) and answer, without the socket. To reach: at most 5 µs a request, however many blocks and leases are held.\n\n```\n")
	cmd := exec.CommandContext(ctx, "go", "test", "-run=^$", "-bench=^BenchmarkRequest$", "-benchtime=1s", "-count=3", "github.com/fairway-network/fairway/agent")
	cmd.Env = append(os.Environ(), "TMPDIR="+b.dir) // the journal belongs on a tmpfs
	printed, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, printed)
	}
	for line := range strings.Lines(string(printed)) {
		if strings.HasPrefix(line, "Benchmark") {
			fmt.Fprint(out, line)
		}
	}
	fmt.Fprint(out, "```\n")
	return nil
}

// restart measures the time from the agent's exec to its first ADD, after it
// was killed with 250 leases in 1,000 blocks.
func restart(ctx context.Context, b *bench, out io.Writer) (err error) {
	const blockSize, blocks, leases, times, atMost = 16, 1_000, 250, 20, 15
	a, err := newAgent(ctx, b, blockSize)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	// One chosen address in each block; then but a few of them.
	addr := netip.MustParsePrefix(addresses).Addr().Next()
	for n := range blocks {
		addr = addr.Next()
		if err := errors.Join(a.askFor("ADD", preloadedID(n), "IP="+addr.String()), ctx.Err()); err != nil {
			return err
		}
		for range blockSize - 1 {
			addr = addr.Next()
		}
	}
	if err := a.reset(preloadedIDs(leases, blocks)); err != nil {
		return err
	}
	var took []time.Duration
	for n := range times {
		if err := a.kill(ctx); err != nil {
			return err
		}
		began := time.Now()
		if err := a.start(); err != nil {
			return err
		}
		id := fmt.Sprintf("restart%d", n)
		if err := a.firstADD(ctx, id); err != nil {
			return err
		}
		took = append(took, time.Since(began))
		if err := a.reset([]string{id}); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "\n### Restart\n\nKilled with %d leases in %d blocks; from exec to the first ADD served, the check of the kernel's routes included: median %s ms (at most %d), slowest of %d %s ms.\n",
		leases, blocks, ms(median(took)), atMost, times, ms(quantile(took, 1)))
	return nil
}

// kill ends the agent by SIGKILL and waits until its child processes are gone
// too.
func (a *fairwayAgent) kill(ctx context.Context) error {
	family := children(a.cmd.Process.Pid)
	if err := a.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = a.cmd.Wait() // it was killed
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(5 * time.Second)
	for _, pid := range family {
		for isThere(pid) {
			if ctx.Err() != nil || time.Now().After(deadline) {
				return fmt.Errorf("process %d outlives the agent by 5 s", pid)
			}
			<-tick.C
		}
	}
	return nil
}

func isThere(pid int) bool {
	stat := readLine(fmt.Sprintf("/proc/%d/stat", pid))
	return stat != "" && !strings.Contains(stat, ") Z ")
}

// firstADD asks until it is answered.
func (a *fairwayAgent) firstADD(ctx context.Context, id string) error {
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		err := a.ask("ADD", id)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no ADD within 10 s of the restart: %w\n%s", err, a.said())
		}
	}
}

// rest measures an agent with leases that nobody asks anything.
func rest(ctx context.Context, b *bench, out io.Writer) (err error) {
	const leases, watched, atMost = 250, 10 * time.Second, 40
	a, err := newAgent(ctx, b, 64)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	if err := a.preload(0, leases); err != nil {
		return err
	}
	speakers := children(a.cmd.Process.Pid)
	family := append(speakers, a.cmd.Process.Pid)
	before, err := processorTime(family)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(watched):
	}
	after, err := processorTime(family)
	if err != nil {
		return err
	}
	resident, _, err := memory(family)
	if err != nil {
		return err
	}
	ofSpeaker, _, err := memory(speakers)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n### At rest\n\nWith %d leases and no peer the agent has %.1f MB resident (at most %d), and its speaker's process %.1f MB; two thirds of that are pages of the programs' files. %v of processor time for both in %v.\n",
		leases, float64(resident-ofSpeaker)/1e6, atMost, float64(ofSpeaker)/1e6, after-before, watched)
	return nil
}

// children of pid, and theirs.
func children(pid int) []int {
	var found []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		for _, field := range strings.Fields(readLine(list)) {
			if child, err := strconv.Atoi(field); err == nil {
				found = append(append(found, child), children(child)...)
			}
		}
	}
	return found
}

// processorTime of all of the processes.
func processorTime(pids []int) (cpu time.Duration, err error) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 everywhere
	for _, pid := range pids {
		stat := readLine(fmt.Sprintf("/proc/%d/stat", pid))
		_, afterName, _ := strings.Cut(stat, ") ")
		fields := strings.Fields(afterName)
		if len(fields) < 13 {
			return 0, fmt.Errorf("process %d is gone", pid)
		}
		for _, field := range fields[11:13] { // utime, stime
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, err
			}
			cpu += time.Duration(n) * tick
		}
	}
	return cpu, nil
}

// memory adds up the bytes that processes have in memory: resident counts a
// page for each process that has it, proportional (PSS) shares it out.
func memory(pids []int) (resident, proportional int64, err error) {
	for _, pid := range pids {
		sums, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, 0, err
		}
		for line := range strings.Lines(string(sums)) {
			var kB int64
			if _, err := fmt.Sscanf(line, "Rss: %d kB", &kB); err == nil {
				resident += kB << 10
			}
			if _, err := fmt.Sscanf(line, "Pss: %d kB", &kB); err == nil {
				proportional += kB << 10
			}
		}
	}
	return resident, proportional, nil
}
