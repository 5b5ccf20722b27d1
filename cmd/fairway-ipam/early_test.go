package main

import (
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fairway-network/fairway/agent/wire"
)

// TestUsualRunsStartNoRuntime: what a run costs is, for the most part, pages that
// it touches first. The runtime's start is all of an empty program's.
func TestUsualRunsStartNoRuntime(t *testing.T) {
	const allowed = 0.2 // of an empty program's
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path, answering(wire.AppendAnswer(nil, []byte(`{"ips":[]}`), false)))
	of := fewestFaults(t, build(t, "../../integration/bench/empty", ""), path)
	// What "make build" left, if it was run, shows whether it has the flags.
	made, err := filepath.Glob("../../bin/cni/fairway-ipam")
	if err != nil {
		t.Fatal(err)
	}
	for _, plugin := range append(made, build(t, ".", shipped)) {
		if fewest := fewestFaults(t, plugin, path); float64(fewest) > allowed*float64(of) {
			t.Errorf("%s: %d page faults, of an empty program's %d: at most %v are allowed", plugin, fewest, of, allowed)
		}
	}
}

// fewestFaults is how many pages program touches first in its best run of some.
func fewestFaults(t *testing.T, program, socket string) int64 {
	t.Helper()
	var faults []int64
	for range 7 {
		cmd := exec.Command(program)
		cmd.Env = []string{"PATH=/bin", "CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS=/run/netns/a", "CNI_IFNAME=eth0", "CNI_ARGS=K8S_POD_NAME=a"}
		cmd.Stdin = strings.NewReader(confFor(socket))
		// An empty program does not read what is written for it.
		if err := cmd.Run(); cmd.ProcessState == nil || !cmd.ProcessState.Success() {
			t.Fatal(program, err)
		}
		faults = append(faults, cmd.ProcessState.SysUsage().(*syscall.Rusage).Minflt)
	}
	return slices.Min(faults)
}

// TestEarlySaysWhatIsSaidWithoutIt: whatever the input is, early does with it what
// the program does that begins with the runtime; a panic would end it.
func TestEarlySaysWhatIsSaidWithoutIt(t *testing.T) {
	plain, plugin := build(t, ".", ""), build(t, ".", shipped)
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path, func(c *net.UnixConn) {
		request, _ := io.ReadAll(c)
		_, _ = c.Write(wire.AppendAnswer(nil, wire.AppendString(nil, string(request)), len(request)%2 == 0))
	})
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		// STATUS does not wait for an agent at a path that came out otherwise.
		conf := mutated(random, confFor(path))
		want, got := start(t, plain, "STATUS", conf)(), start(t, plugin, "STATUS", conf)()
		want.took, got.took = 0, 0
		if got != want {
			t.Errorf("%q\nis %+v early\nand  %+v else", conf, got, want)
		}
	}
}

// mutated is s with some of it left out, repeated or replaced.
func mutated(random *rand.Rand, s string) string {
	odd := []string{"", "", "{", "}", "[", "]", `"`, ":", ",", `\`, `\u0041`, "\x00", "\n", " ", "0", "-1e9", "null", "\xff", `"ipam":{}`, `"socket":1`}
	for range random.IntN(3) {
		from := random.IntN(len(s) + 1)
		to := min(len(s), from+random.IntN(8))
		insert := odd[random.IntN(len(odd))]
		if random.IntN(4) == 0 {
			insert = strings.Repeat(s[from:to], 1+random.IntN(2000))
		}
		s = s[:from] + insert + s[to:]
	}
	return s
}
