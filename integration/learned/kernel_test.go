package learned

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fairway-network/fairway/integration/router"
)

// learned are the kernel's learned routes: "10.0.0.0/8 192.0.1.1 192.0.2.1".
func learned(t *testing.T) (lines []string) {
	t.Helper()
	for _, family := range []string{"-4", "-6"} {
		out, err := exec.Command("ip", "-j", family, "route", "show", "proto", "118").Output()
		if err != nil {
			t.Fatal(err)
		}
		type hop struct {
			Gateway string
			Via     struct{ Host string }
			Dev     string
		}
		var list []struct {
			hop
			Dst      string
			Nexthops []hop
		}
		if err := json.Unmarshal(out, &list); err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if r.Dst == "default" {
				r.Dst = map[string]string{"-4": "0.0.0.0/0", "-6": "::/0"}[family]
			}
			var hops []string
			for _, h := range append(r.Nexthops, r.hop) {
				address := h.Gateway + h.Via.Host
				if strings.HasPrefix(address, "fe80:") {
					address = "fe80%" + h.Dev
				}
				if address != "" {
					hops = append(hops, address)
				}
			}
			slices.Sort(hops)
			lines = append(lines, strings.Join(append([]string{r.Dst}, hops...), " "))
		}
	}
	slices.Sort(lines)
	return lines
}

func expect(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	router.Await(t, fmt.Sprintf("the kernel has %q", want), soon, func() error {
		if got := learned(t); !slices.Equal(got, want) {
			return fmt.Errorf("it has %q", got)
		}
		return nil
	})
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// monitor writes down what happens to learned routes.
type monitor struct {
	mu    sync.Mutex
	lines []string
}

func startMonitor(t *testing.T) *monitor {
	t.Helper()
	cmd := exec.Command("ip", "monitor", "route")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	m := new(monitor)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			m.mu.Lock()
			m.lines = append(m.lines, s.Text())
			m.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	m.sync(t)
	return m
}

// sync waits until the monitor shows a route that comes and goes.
func (m *monitor) sync(t *testing.T) {
	t.Helper()
	router.Await(t, "ip monitor shows what happens", soon, func() error {
		for _, verb := range []string{"add", "del"} {
			ip(t, "route", verb, "blackhole", "203.0.113.113", "metric", "7")
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		for i, l := range m.lines {
			if strings.Contains(l, "203.0.113.113") && slices.ContainsFunc(m.lines[i+1:], func(l string) bool { return strings.Contains(l, "203.0.113.113") }) {
				return nil
			}
		}
		return fmt.Errorf("%q", m.lines)
	})
}

// events are the learned routes that changed since the last call.
func (m *monitor) events(t *testing.T) (list []string) {
	t.Helper()
	m.sync(t)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.lines {
		if strings.Contains(l, "proto 118") {
			list = append(list, l)
		}
	}
	m.lines = nil
	return list
}

// quiet fails the test if a learned route changed since the last call.
func (m *monitor) quiet(t *testing.T, during string) {
	t.Helper()
	if events := m.events(t); len(events) > 0 {
		t.Errorf("%s: the kernel's routes changed: %q", during, events)
	}
}
