package learned

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/fairway-network/fairway/speaker"
)

// agent is a process with a speaker.
type agent struct {
	cmd   *exec.Cmd
	ended sync.Once
}

func startAgent(t *testing.T, d speaker.Desired) *agent {
	t.Helper()
	settings, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{cmd: exec.Command("/proc/self/exe")}
	a.cmd.Env = append(os.Environ(), asAgent+"="+string(settings))
	a.cmd.Stderr = t.Output()
	if _, err = a.cmd.StdinPipe(); err == nil {
		err = a.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.kill)
	return a
}

func (a *agent) kill() {
	a.ended.Do(func() {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
	})
}

// killChild kills the speaker's process.
func (a *agent) killChild(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		var pid, parent int
		var state string
		if _, err := fmt.Sscan(e.Name(), &pid); err != nil {
			continue
		}
		if _, err := fmt.Sscan(rest, &state, &parent); err != nil || parent != a.cmd.Process.Pid {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("the agent has no speaker process")
}
