package main

import (
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
	empty, plugin := build(t, "../../integration/bench/empty", ""), build(t, ".", shipped)
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path, answering(wire.AppendAnswer(nil, []byte(`{"ips":[]}`), false)))
	if fewest, of := fewestFaults(t, plugin, path), fewestFaults(t, empty, path); float64(fewest) > allowed*float64(of) {
		t.Errorf("%d page faults, of an empty program's %d: at most %v are allowed", fewest, of, allowed)
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
