package lab_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/lab"
	"github.com/fairway-network/fairway/integration/lab/labtest"
)

// holdIn names the directory in which this test program is to hold a lab.
const holdIn = "FAIRWAY_LAB_HOLD_IN"

// TestHoldsALab is the other process of TestLabEndsWithItsProcess, and nothing
// by itself.
func TestHoldsALab(t *testing.T) {
	dir := os.Getenv(holdIn)
	if dir == "" {
		return
	}
	if _, err := lab.Up(t.Context(), pair("held"), lab.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	fmt.Println("up")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func TestLabEndsWithItsProcess(t *testing.T) {
	labtest.Need(t)
	dir := filepath.Join(t.TempDir(), "lab")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHoldsALab$")
	cmd.Env = append(os.Environ(), holdIn+"="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "up\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	l, err := lab.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	err = lab.Await(within(t, 20*time.Second), "the nodes to end", func() error {
		for _, n := range l.Nodes() {
			if pid := n.PID(); pid != 0 {
				return fmt.Errorf("node %s runs as %d", n.Name(), pid)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
