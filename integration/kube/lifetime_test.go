package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holdVariable makes this program hold a cluster instead of running tests.
const holdVariable = "FAIRWAY_TEST_HOLDS_A_CLUSTER"

func TestMain(m *testing.M) {
	if os.Getenv(holdVariable) == "" {
		os.Exit(m.Run())
	}
	if err := holdCluster(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// holdCluster brings a cluster up, says where it is, and waits to be killed.
func holdCluster() error {
	c, err := Up(context.Background(), Options{})
	if err != nil {
		return err
	}
	fmt.Println(c.etcd.run.process.Pid, c.apiserver.run.process.Pid, c.home.dir)
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, c.Down())
}

func TestClusterEndsWithItsProcess(t *testing.T) {
	if _, err := programs(); errors.Is(err, ErrNotBuilt) {
		t.Skip(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdVariable+"=1")
	cmd.Stderr = os.Stderr
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
	var etcd, apiserver int
	var dir string
	if _, err := fmt.Fscan(stdout, &etcd, &apiserver, &dir); err != nil {
		t.Fatalf("the cluster's process: %v, %v", err, errors.Join(cmd.Process.Kill(), cmd.Wait()))
	}
	components := []int{hold(t, etcd), hold(t, apiserver)}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
	for _, fd := range components {
		ended(t, fd)
	}
	sweepsOnlyTheDead(t, dir)
}

// hold returns a descriptor of a process, which stays that of the process
// whoever has its number later.
func hold(t *testing.T, pid int) int {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Errorf("process %d: %v", pid, err)
		return -1
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// ended waits for the end of a process, and kills it if it does not end.
func ended(t *testing.T, fd int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		left := time.Until(deadline)
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		switch n, err := unix.Poll(fds, int(max(0, left.Milliseconds()))); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			t.Fatal(err)
		case n == 0:
			_ = unix.PidfdSendSignal(fd, syscall.SIGKILL, nil, 0)
			t.Error("a component outlived its cluster's process")
			return
		default:
			return
		}
	}
}

// sweepsOnlyTheDead: dir was left behind; the next cluster's start removes it,
// but nothing of a cluster that lives.
func sweepsOnlyTheDead(t *testing.T, dir string) {
	t.Helper()
	// In a folder of its own: others' clusters are none of this test's business.
	base, err := os.MkdirTemp(filepath.Dir(dir), "fairway-sweep-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(os.RemoveAll(dir), os.RemoveAll(base)) })
	left := filepath.Join(base, homes+"left")
	if err := os.Rename(dir, left); err != nil {
		t.Fatal(err)
	}
	living := filepath.Join(base, homes+"living")
	if err := os.Mkdir(living, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := lockDir(living)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	fresh := filepath.Join(base, homes+"fresh")
	if err := os.Mkdir(fresh, 0o700); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	for _, d := range []string{left, living} {
		if err := os.Chtimes(d, old, old); err != nil {
			t.Fatal(err)
		}
	}
	sweep(base)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of a killed process was left: %v", err)
	}
	for _, d := range []string{living, fresh} {
		if _, err := os.Stat(d); err != nil {
			t.Errorf("a folder in use was removed: %v", err)
		}
	}
}
