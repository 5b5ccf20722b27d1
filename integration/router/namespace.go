package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Namespace is a network namespace. The zero value is the test's own.
type Namespace struct{ pid int }

// NewNamespace makes an empty one with a loopback interface, which is gone when
// the test ends.
func NewNamespace(t testing.TB) Namespace {
	t.Helper()
	Need(t)
	ctx, cancel := context.WithCancel(context.Background())
	holder := exec.CommandContext(ctx, "unshare", "--net", "--", "sleep", "infinity")
	holder.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	n := Namespace{holder.Process.Pid}
	t.Cleanup(func() {
		cancel()
		_ = holder.Wait()
	})
	own, err := os.Readlink("/proc/thread-self/ns/net") // the first thread may be elsewhere, see namespace.Inside
	if err != nil {
		t.Fatal(err)
	}
	Await(t, "the new network namespace", 10*time.Second, func() error {
		now, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", n.pid))
		if err == nil && now == own {
			err = errors.New("its process is in the old one yet")
		}
		return err
	})
	n.Run(t, "ip", "link", "set", "lo", "up")
	return n
}

// PID is the process that holds the namespace: a number that no other has at the
// time. It is 0 for the test's own.
func (n Namespace) PID() int { return n.pid }

// Command implements Host.
func (n Namespace) Command(ctx context.Context, argv ...string) *exec.Cmd {
	if n.pid != 0 {
		argv = append([]string{"nsenter", "--net=/proc/" + strconv.Itoa(n.pid) + "/ns/net", "--"}, argv...)
	}
	return Here{}.Command(ctx, argv...)
}

// Run runs a program to its end, and fails the test if that is not well.
func (n Namespace) Run(t testing.TB, argv ...string) {
	t.Helper()
	if err := n.run(argv...); err != nil {
		t.Fatal(err)
	}
}

func (n Namespace) run(argv ...string) error {
	if out, err := n.Command(context.Background(), argv...).CombinedOutput(); err != nil {
		return &runError{argv, string(out), err}
	}
	return nil
}

type runError struct {
	argv []string
	said string
	err  error
}

func (e *runError) Error() string {
	return strings.Join(e.argv, " ") + ": " + e.err.Error() + ": " + e.said
}

func (e *runError) Unwrap() error { return e.err }

// End is one end of a link.
type End struct {
	Namespace Namespace
	Interface string // unique in its namespace
	Addresses []netip.Prefix
}

// Connect makes a link, up at both ends, which goes with either namespace.
func Connect(t testing.TB, a, b End) {
	t.Helper()
	if b.Namespace.pid == 0 {
		a, b = b, a
	}
	a.Namespace.Run(t, "ip", "link", "add", a.Interface, "type", "veth", "peer", "name", b.Interface, "netns", strconv.Itoa(b.Namespace.pid))
	for _, e := range []End{a, b} {
		for _, p := range e.Addresses {
			add := []string{"ip", "addr", "add", p.String(), "dev", e.Interface}
			if p.Addr().Is6() {
				add = append(add, "nodad")
			}
			e.Namespace.Run(t, add...)
		}
		e.Namespace.Run(t, "ip", "link", "set", e.Interface, "up")
	}
}
