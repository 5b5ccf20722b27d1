// Package labtest brings labs up for tests.
package labtest

import (
	"maps"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/fairway-network/fairway/integration/lab"
)

// Need skips the test when it does not run as root or one of the programs is
// not installed.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, name := range append([]string{"unshare", "nsenter", "setpriv", "pivot_root", "ip"}, programs...) {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("the program %s is missing: %v", name, err)
		}
	}
}

// Up brings a lab up and takes it down when the test ends. It skips as Need
// does. A test that failed shows what the nodes logged.
func Up(t testing.TB, topology *lab.Topology) *lab.Lab {
	t.Helper()
	Need(t)
	dir, err := os.MkdirTemp("", "lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := lab.Up(t.Context(), topology, lab.Options{Dir: dir + "/" + topology.Name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, l)
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func showLogs(t testing.TB, l *lab.Lab) {
	for _, n := range l.Nodes() {
		logs := n.Logs()
		for _, file := range slices.Sorted(maps.Keys(logs)) {
			if logs[file] != "" {
				t.Logf("%s: %s:\n%s", n.Name(), file, logs[file])
			}
		}
	}
}

// Node returns a node of a lab.
func Node(t testing.TB, l *lab.Lab, name string) *lab.Node {
	t.Helper()
	n, err := l.Node(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Exec runs a program in a node and ends the test when that fails.
func Exec(t testing.TB, n *lab.Node, argv ...string) string {
	t.Helper()
	out, err := n.Exec(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
