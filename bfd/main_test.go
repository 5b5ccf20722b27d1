package bfd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespace marks a test process that runs in namespaces of its own: "bare"
// before furnish.
const inNamespace = "FAIRWAY_BFD_TEST_NAMESPACE"

// TestMain runs the tests in network, process and mount namespaces of their
// own where it may: with routers next to it, and with nothing left running
// when the tests end, however they end.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(inNamespace) == "bare":
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare the test's namespaces:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case os.Getenv(inNamespace) != "" || os.Geteuid() != 0:
		os.Exit(m.Run())
	default:
		os.Exit(isolated())
	}
}

// isolated runs this test binary again in new namespaces.
func isolated() int {
	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=bare")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "run the tests in namespaces:", err)
	return 1
}

// The tests' network. The node, which is this process, is 10.0.1.1 on eth1 and
// 10.0.2.1 on eth2; the same in IPv6, and fe80::1 on both. Two routers:
//
//	node eth1 ── eth1 tor eth3 ── eth3 far
//	     eth2 ─────────────────── eth2
//
// The other end of network N is 10.0.N.2 and so on, and tor's end of network 3
// is 10.0.3.1. The node and tor have 10.0.9.1 and 10.0.9.2 as well.
const network = `
netns add tor
netns add far
link set lo up
-n tor link set lo up
-n far link set lo up
link add eth1 type veth peer name eth1 netns tor
link add eth2 type veth peer name eth2 netns far
-n tor link add eth3 type veth peer name eth3 netns far
addr add 10.0.9.1/32 dev lo
-n tor addr add 10.0.9.2/32 dev lo
route add 10.0.9.2 via 10.0.1.2
route add 10.0.3.0/24 via 10.0.1.2
-6 route add fd00:3::/64 via fd00:1::2
-n tor route add 10.0.9.1 via 10.0.1.1
-n far route add 10.0.1.0/24 via 10.0.3.1
-n far -6 route add fd00:1::/64 via fd00:3::1
`

// ends are the ends of the network's links: namespace, interface, number of
// the network, number of the host.
func ends() [][4]string {
	return [][4]string{{"", "eth1", "1", "1"}, {"tor", "eth1", "1", "2"}, {"", "eth2", "2", "1"}, {"far", "eth2", "2", "2"}, {"tor", "eth3", "3", "1"}, {"far", "eth3", "3", "2"}}
}

// furnish makes the namespaces and the network.
func furnish() error {
	for _, m := range []struct{ source, target, kind string }{{"", "/", ""}, {"proc", "/proc", "proc"}, {"tmpfs", "/run", "tmpfs"}} {
		flags := uintptr(0)
		if m.kind == "" {
			flags = syscall.MS_PRIVATE | syscall.MS_REC
		}
		if err := syscall.Mount(m.source, m.target, m.kind, flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	var links, routes []string
	for line := range strings.Lines(strings.TrimSpace(network)) {
		if line = strings.TrimSpace(line); strings.Contains(line, "route") {
			routes = append(routes, line)
		} else {
			links = append(links, line)
		}
	}
	for _, e := range ends() {
		at := ""
		if e[0] != "" {
			at = "-n " + e[0] + " "
		}
		links = append(links, at+"link set "+e[1]+" addrgenmode none",
			at+"addr add 10.0."+e[2]+"."+e[3]+"/24 dev "+e[1],
			at+"addr add fd00:"+e[2]+"::"+e[3]+"/64 dev "+e[1]+" nodad",
			at+"addr add fe80::"+e[3]+"/64 dev "+e[1]+" nodad",
			at+"link set "+e[1]+" up")
	}
	for _, line := range append(links, routes...) {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		err := inside("tor", func() error { return os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0) })
		if err != nil {
			return err
		}
	}
	return os.Setenv(inNamespace, "furnished")
}

// inside runs f in the network namespace of a router. A socket that f opens
// stays in it.
func inside(name string, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		result <- func() error {
			fd, err := unix.Open("/run/netns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-result
}

func needNamespaces(t *testing.T) {
	t.Helper()
	if os.Getenv(inNamespace) == "" {
		t.Skip("needs root: routers run in namespaces of the test")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// soon is more than anything takes on a busy machine.
const soon = 30 * time.Second

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(soon)
	for pause := 5 * time.Millisecond; !holds(); pause = min(2*pause, 100*time.Millisecond) {
		select {
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		case <-time.After(pause):
		}
	}
}
