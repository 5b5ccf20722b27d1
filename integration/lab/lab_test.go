package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/lab"
	"github.com/fairway-network/fairway/integration/lab/labtest"
)

func pair(name string) *lab.Topology {
	return &lab.Topology{
		Name: name,
		Nodes: []lab.NodeSpec{
			{Name: "left", Exec: []string{"ip addr add 192.0.2.1/24 dev eth1", "ip addr add fd00::1/64 dev eth1"}},
			{Name: "right", Exec: []string{"ip addr add 192.0.2.2/24 dev eth1", "ip addr add fd00::2/64 dev eth1"}},
		},
		Links: []lab.Link{{A: "left:eth1", B: "right:eth1"}},
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func ping(ctx context.Context, n *lab.Node, to string) error {
	_, err := n.Exec(ctx, "ping", "-n", "-c", "1", "-W", "1", to)
	return err
}

func TestLinkCutAndRestored(t *testing.T) {
	labtest.Need(t, "ping")
	ctx := within(t, 30*time.Second)
	l := labtest.Up(t, pair("link"))
	left := labtest.Node(t, l, "left")
	for _, to := range []string{"192.0.2.2", "fd00::2"} {
		if err := lab.Await(ctx, "ping to "+to, func() error { return ping(ctx, left, to) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Cut("right:eth1"); err != nil {
		t.Fatal(err)
	}
	if err := ping(ctx, left, "192.0.2.2"); err == nil {
		t.Error("ping goes through a link that is cut")
	}
	if err := l.Restore("right:eth1"); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"192.0.2.2", "fd00::2"} {
		if err := lab.Await(ctx, "ping to "+to+" again", func() error { return ping(ctx, left, to) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Cut("left:eth9"); err == nil || !strings.Contains(err.Error(), "left:eth9") {
		t.Errorf("cut of an interface that is not there: %v", err)
	}
}

func TestNodeHasItsOwnMachine(t *testing.T) {
	labtest.Need(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "motto"), []byte("by the road"), 0o644); err != nil {
		t.Fatal(err)
	}
	topology := &lab.Topology{Name: "own", Dir: dir, Nodes: []lab.NodeSpec{{
		Name:    "alone",
		Cmd:     "sleep 1000",
		Binds:   []lab.Bind{{Source: "motto", Target: "/etc/fairway-lab-test/motto", ReadOnly: true}, {Source: ".", Target: "/srv/shared"}},
		Env:     map[string]string{"COLOUR": "sea green"},
		Sysctls: map[string]string{"net.ipv4.ip_forward": "1"},
		Exec:    []string{`sh -c 'echo "$COLOUR" >/run/colour; touch /etc/fairway-lab-test/mine /var/lib/mine /tmp/mine'`},
	}}}
	l := labtest.Up(t, topology)
	n := labtest.Node(t, l, "alone")
	for _, c := range []struct{ argv, want string }{
		{"hostname", "alone"},
		{"cat /etc/fairway-lab-test/motto", "by the road"},
		{"cat /srv/shared/motto", "by the road"},
		{"cat /run/colour", "sea green"},
		{"cat /var/run/colour", "sea green"},
		{"cat /proc/sys/net/ipv4/ip_forward", "1"},
		{"ls /sys/class/net", "lo"},
		{"ls /tmp", "mine"},
		{"ls /var/lib", "mine"},
		{"cat /proc/1/comm", "sh"},
		{"ls -d /sys/fs/cgroup", "/sys/fs/cgroup"},
	} {
		if got := strings.TrimSpace(labtest.Exec(t, n, strings.Fields(c.argv)...)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.argv, got, c.want)
		}
	}
	if _, err := n.Exec(t.Context(), "touch", "/etc/fairway-lab-test/motto"); err == nil {
		t.Error("a read-only bind was written to")
	}
	if _, err := os.Stat("/etc/fairway-lab-test"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the node wrote is on the host: %v", err)
	}
	running, err := n.Processes()
	if err != nil || len(running) != 1 || strings.Join(running[0].Args, " ") != "sleep 1000" {
		t.Errorf("processes: %+v, %v, want the one of Cmd", running, err)
	}
}

func TestExecSaysWhatFailed(t *testing.T) {
	l := labtest.Up(t, &lab.Topology{Name: "failing", Nodes: []lab.NodeSpec{{Name: "alone"}}})
	n := labtest.Node(t, l, "alone")
	_, err := n.Exec(t.Context(), "sh", "-c", "echo the reason >&2; exit 7")
	if err == nil || !strings.Contains(err.Error(), "the reason") || !strings.Contains(err.Error(), "node alone") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := n.Exec(ctx, "sleep", "1000"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	err = lab.Await(within(t, 10*time.Second), "the sleep to be killed", func() error { return runs(n, "sleep", 0) })
	if err != nil {
		t.Error(err)
	}
}

// runs says whether the node has that many processes of a name.
func runs(n *lab.Node, comm string, want int) error {
	all, err := n.Processes()
	if err != nil {
		return err
	}
	got := 0
	for _, p := range all {
		if p.Comm == comm {
			got++
		}
	}
	if got != want {
		return fmt.Errorf("%d processes named %s, want %d: %+v", got, comm, want, all)
	}
	return nil
}

func TestFailingNodeLeavesNothing(t *testing.T) {
	labtest.Need(t)
	dir := filepath.Join(t.TempDir(), "lab")
	topology := &lab.Topology{Name: "broken", Nodes: []lab.NodeSpec{
		{Name: "good"},
		{Name: "bad", Exec: []string{"sh -c 'echo no such luck >&2; false'"}},
	}}
	_, err := lab.Up(t.Context(), topology, lab.Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestOrder(t *testing.T) {
	shared := t.TempDir()
	bind := []lab.Bind{{Source: shared, Target: "/shared"}}
	labtest.Up(t, &lab.Topology{Name: "order", Nodes: []lab.NodeSpec{
		{Name: "second", Binds: bind, Exec: []string{"cp /shared/first /shared/second"},
			WaitFor: []lab.Wait{{Stage: lab.Configure, Node: "first", Until: lab.Configure}}},
		{Name: "first", Binds: bind, StartupDelay: 50 * time.Millisecond, Exec: []string{"touch /shared/first"}},
	}})
	if _, err := os.Stat(filepath.Join(shared, "second")); err != nil {
		t.Error(err)
	}
}

func TestStartedProgramsAreReapedAndSignalled(t *testing.T) {
	l := labtest.Up(t, &lab.Topology{Name: "daemons", Nodes: []lab.NodeSpec{{Name: "alone"}}})
	n := labtest.Node(t, l, "alone")
	ctx := within(t, 30*time.Second)
	p, err := n.Start(ctx, "clock", "sh", "-c", "echo started; exec sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	err = lab.Await(ctx, "the log", func() error {
		if text := n.Logs()["clock.log"]; text != "started" {
			return fmt.Errorf("log is %q", text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Gone(ctx); err != nil {
		t.Fatal(err)
	}
	err = lab.Await(ctx, "PID 1 to reap it", func() error {
		if strings.Contains(labtest.Exec(t, n, "ps", "-e", "-o", "stat="), "Z") {
			return errors.New("a zombie is left")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to what has ended: %v", err)
	}
	if _, err := n.Start(ctx, "none", "no-such-program"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("start of a missing program: %v", err)
	}
}

func TestPauseAndResume(t *testing.T) {
	l := labtest.Up(t, &lab.Topology{Name: "pause", Nodes: []lab.NodeSpec{{Name: "alone"}}})
	n := labtest.Node(t, l, "alone")
	ctx := within(t, 30*time.Second)
	// One program under PID 1, one that a caller outside waits for.
	p, err := n.Start(ctx, "ticker", "sh", "-c", "while :; do echo >>/tmp/ticks; done")
	if err != nil {
		t.Fatal(err)
	}
	counted := n.Command(ctx, "sh", "-c", "until [ -e /tmp/go ]; do :; done")
	if err := counted.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.Pause(); err != nil {
		t.Fatal(err)
	}
	if got := stateOf(t, p.PID); got != "T" {
		t.Errorf("state %s while paused, want T", got)
	}
	if err := n.Resume(); err != nil {
		t.Fatal(err)
	}
	if got := stateOf(t, p.PID); got == "T" {
		t.Error("still stopped after resume")
	}
	labtest.Exec(t, n, "touch", "/tmp/go")
	if err := counted.Wait(); err != nil {
		t.Errorf("the command that was paused: %v", err)
	}
}

func stateOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:1]
}

func TestKillLeavesNothing(t *testing.T) {
	before := hostLinks(t)
	l := labtest.Up(t, pair("kill"))
	if after := hostLinks(t); after != before {
		t.Errorf("links on the host: %s, before the lab %s", after, before)
	}
	left, right := labtest.Node(t, l, "left"), labtest.Node(t, l, "right")
	ctx := within(t, 30*time.Second)
	p, err := left.Start(ctx, "daemon", "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", left.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := left.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if p.Alive() {
		t.Error("a program outlived its node")
	}
	if holders := holding(space); len(holders) > 0 {
		t.Errorf("the node's network namespace is held by %v", holders)
	}
	err = lab.Await(ctx, "the other end of the link to go", func() error {
		if out := labtest.Exec(t, right, "ls", "/sys/class/net"); strings.Contains(out, "eth1") {
			return errors.New("eth1 is there")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := left.Exec(ctx, "true"); !errors.Is(err, lab.ErrNotRunning) {
		t.Errorf("exec in a dead node: %v", err)
	}
	if err := left.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	labtest.Exec(t, left, "ip", "link", "show", "eth1")
	for range 2 {
		if err := l.Down(); err != nil {
			t.Fatal(err)
		}
	}
	if after := hostLinks(t); after != before {
		t.Errorf("links on the host: %s, before the lab %s", after, before)
	}
}

func hostLinks(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// holding returns the processes in a network namespace.
func holding(space string) (out []string) {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == space {
			out = append(out, link)
		}
	}
	return out
}

func TestAnotherProcessTakesItDown(t *testing.T) {
	labtest.Need(t)
	dir := filepath.Join(t.TempDir(), "lab")
	l, err := lab.Up(t.Context(), pair("lasting"), lab.Options{Dir: dir, Persist: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	if _, err := lab.Up(t.Context(), pair("lasting"), lab.Options{Dir: dir}); !errors.Is(err, lab.ErrUp) {
		t.Errorf("up twice: %v", err)
	}
	opened, err := lab.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(labtest.Exec(t, labtest.Node(t, opened, "right"), "hostname")); got != "right" {
		t.Errorf("hostname %q", got)
	}
	if err := opened.Down(); err != nil {
		t.Fatal(err)
	}
	if _, err := labtest.Node(t, l, "left").Processes(); !errors.Is(err, lab.ErrNotRunning) {
		t.Errorf("a node runs still: %v", err)
	}
	if _, err := lab.Open(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open of what is down: %v", err)
	}
}
