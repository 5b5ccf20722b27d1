//go:debug multipathtcp=0

// Package learned tests learned routes from router to kernel: FRR and BIRD as
// top-of-rack routers in namespaces of their own, and a node, which is the test's
// own namespace, with the speaker's process and the kernel's routes.
package learned

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/fairway-network/fairway/routes/kernel"
	"github.com/fairway-network/fairway/speaker"
)

// What makes the test binary something else than a test.
const (
	inNamespace = "FAIRWAY_LEARNED_TEST_NAMESPACE"
	asChild     = "FAIRWAY_LEARNED_TEST_CHILD"
	asAgent     = "FAIRWAY_LEARNED_TEST_AGENT" // its value is a speaker.Desired
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the rows of docs/interop.md that the tests fill")
	switch {
	case os.Getenv(asChild) != "":
		open := func(log *slog.Logger) (speaker.Sink, error) { return kernel.NewLearned(kernel.Config{}, log) }
		if err := speaker.ServeChild(context.Background(), os.Stderr, open); err != nil {
			os.Exit(1)
		}
	case os.Getenv(asAgent) != "":
		if err := beAgent(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case os.Geteuid() != 0:
		os.Exit(m.Run())
	case os.Getenv(inNamespace) != "":
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare the test's namespaces:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	default:
		os.Exit(isolated())
	}
}

// isolated runs this test binary again with a network of its own. What it starts
// ends with it.
func isolated() int {
	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
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

// furnish gives the namespaces a /proc of their own.
func furnish() error {
	if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		return err
	}
	return syscall.Mount("proc", "/proc", "proc", 0, "")
}

func spawn(log *slog.Logger) speaker.Spawn {
	return speaker.Spawn{Path: "/proc/self/exe", Env: []string{asChild + "=1"}, Log: log}
}

// beAgent is an agent as far as BGP is concerned, until it is killed.
func beAgent() error {
	var d speaker.Desired
	if err := json.Unmarshal([]byte(os.Getenv(asAgent)), &d); err != nil {
		return err
	}
	for i := range d.Peers {
		d.Peers[i].Password = "" // stars, by now
	}
	if err := os.Unsetenv(asAgent); err != nil {
		return err
	}
	c := speaker.NewChild(spawn(slog.New(slog.NewTextHandler(os.Stderr, nil))))
	if err := c.Set(context.Background(), d); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
