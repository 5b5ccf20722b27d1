// Package namespace gives tests a network of their own: a test binary that runs again in
// fresh namespaces, a test that enters one, and functions that run in the network of
// another process.
package namespace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// marker in the environment of a test binary says that it runs in namespaces of its
// own: fresh before they are prepared.
const (
	marker   = "FAIRWAY_TEST_NAMESPACE"
	fresh    = "fresh"
	prepared = "prepared"
)

// Main runs the tests in network, process and mount namespaces of their own, with a
// /proc of their own, after prepare has made there what they need. Nothing that they
// start outlives them, however they end. Without root they run where they are, and
// Need skips. It returns the code to exit with.
func Main(m *testing.M, prepare func() error) int {
	switch {
	case os.Getenv(marker) == fresh:
		if err := errors.Join(mountProc(), prepare(), os.Setenv(marker, prepared)); err != nil {
			fmt.Fprintln(os.Stderr, "prepare the test's namespaces:", err)
			return 1
		}
		return m.Run()
	case os.Getenv(marker) == prepared: // a fuzzing worker
		return m.Run()
	case os.Geteuid() != 0:
		return m.Run()
	}
	return again()
}

// Need skips a test that does not run in namespaces of its own.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv(marker) == "" {
		t.Skip("needs root: it runs in namespaces of its own")
	}
}

// again runs this test binary in new namespaces.
func again() int {
	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Cmd{
		Path: "/proc/self/exe", Args: os.Args, Env: append(os.Environ(), marker+"="+fresh),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
			Pdeathsig:  syscall.SIGKILL,
		},
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

func mountProc() error {
	if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// Inside runs f in the network namespace of a file, such as /proc/PID/ns/net. A socket
// that f opens stays in it. f must not end its goroutine, as t.Fatal does.
func Inside(file string, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		result <- func() error {
			fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open %s: %w", file, err)
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter %s: %w", file, err)
			}
			return f()
		}()
	}()
	return <-result
}

// Enter moves a test into a fresh network namespace until it ends. Programs that the test
// starts are in it, too; its other goroutines are not. Without root it skips the test.
func Enter(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes a network namespace")
	}
	runtime.LockOSThread() // kept if the way back fails: the thread then ends with the test
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
	t.Cleanup(func() {
		defer unix.Close(home)
		if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
			t.Errorf("back from the namespace: %v", err)
			return
		}
		runtime.UnlockOSThread()
	})
}

// IP runs the ip command where the test is, and returns what it says: who sets up and
// looks is not who is tested.
func IP(t testing.TB, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
	return string(out)
}
