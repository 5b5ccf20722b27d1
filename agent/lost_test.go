package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/pools"
	"golang.org/x/sys/unix"
)

// mountNetns puts a new network namespace on the file at path, as runtimes do,
// until end is called or the test ends.
func mountNetns(t *testing.T, path string) (end func()) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
		}
		made <- err
	}()
	switch err := <-made; {
	case errors.Is(err, unix.EPERM):
		t.Skipf("a network namespace takes root: %v", err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) }) // again, most often
	return func() {
		t.Helper()
		if err := errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path)); err != nil {
			t.Fatal(err)
		}
	}
}

// losing is an agent with a lease for each pod web-1, web-2, …, which nobody but
// the test looks after.
type losing struct {
	*lost
	cluster *fakeCluster
	leases  cni.Leases
	said    transcript
}

// transcript is a log that is read while it is written.
type transcript struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *transcript) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newLosing leases to pods in the namespaces at these paths.
func newLosing(t *testing.T, netns ...string) *losing {
	t.Helper()
	c := newCluster(pool(t, "web", 4, "10.1.0.0/24"))
	l := &losing{cluster: c}
	h := newHost(t)
	parts, store := h.parts()
	parts.Cluster, parts.Log = c, slog.New(slog.NewTextHandler(&l.said, nil))
	a := h.startWith(parts, store, settings(t))
	l.lost, l.leases = &lost{a.Agent, map[pools.Attachment]suspect{}}, a.leases()
	for i, path := range netns {
		c.placed[fmt.Sprintf("web-%d", i+1)] = Placement{Pool: "web"}
		l.lease(t, i+1, path)
	}
	return l
}

func (l *losing) lease(t *testing.T, n int, netns string) {
	t.Helper()
	r := podRequest(n)
	r.Netns.Path = netns
	if _, err := l.leases.Lease(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func (l *losing) held(n int) bool { return len(l.leases.Held(podRequest(n).Owner.Attachment)) > 0 }

// losesPods says that pods are gone, and looks three times.
func (l *losing) losesPods(t *testing.T, ns ...int) {
	t.Helper()
	l.cluster.update(func() {
		for _, n := range ns {
			l.cluster.gone[fmt.Sprintf("web-%d", n)] = true
		}
	})
	for range 3 {
		l.look(t.Context())
	}
}

func TestLostPodIsReleasedWhenTheClusterSaysSoTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cni-1")
	end := mountNetns(t, path)
	l := newLosing(t, path, path, path)
	end()
	l.cluster.gone["web-1"] = true
	l.look(t.Context())
	if !l.held(1) {
		t.Fatal("released when the cluster had said it once")
	}
	l.cluster.away = errors.New("no answer")
	l.look(t.Context())
	l.cluster.away = nil
	l.look(t.Context())
	if !l.held(1) {
		t.Fatal("released though the cluster was away in between")
	}
	// Another pod of that name and attachment is not the one that was suspected.
	if err := l.leases.Release(t.Context(), podRequest(1).Owner); err != nil {
		t.Fatal(err)
	}
	end = mountNetns(t, path)
	l.lease(t, 1, path)
	end()
	l.look(t.Context())
	if !l.held(1) {
		t.Fatal("released another lease than the one that was suspected")
	}
	l.look(t.Context())
	if l.held(1) || !l.held(2) || !l.held(3) {
		t.Errorf("held: %v %v %v; want the last two", l.held(1), l.held(2), l.held(3))
	}
}

// A pod's object may go while its sandbox runs, and a later sandbox may have the
// same path.
func TestLeaseStaysWhileItsSandboxDoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cni-1")
	end := mountNetns(t, path)
	l := newLosing(t, path)
	l.losesPods(t, 1)
	if !l.held(1) {
		t.Fatal("released under a sandbox that runs")
	}
	end()
	mountNetns(t, path)
	l.look(t.Context())
	l.look(t.Context())
	if l.held(1) {
		t.Error("kept for another sandbox in the same place")
	}
}

// What can't be seen is no evidence: neither at the ADD nor later.
func TestLeaseStaysWhileItsSandboxCanNotBeSeen(t *testing.T) {
	dir := t.TempDir()
	hidden, bare, moved := filepath.Join(dir, "cni-1"), filepath.Join(dir, "cni-2"), filepath.Join(dir, "netns", "cni-3")
	if err := errors.Join(os.WriteFile(hidden, nil, 0o600), os.Mkdir(filepath.Dir(moved), 0o700)); err != nil {
		t.Fatal(err)
	}
	mountNetns(t, bare)
	mountNetns(t, moved)
	l := newLosing(t, hidden, bare, moved, filepath.Join(dir, "none"), "relative", "")
	// The mount goes and the file stays; the directory is another one.
	if err := errors.Join(unix.Unmount(bare, unix.MNT_DETACH), unix.Unmount(moved, unix.MNT_DETACH),
		os.Rename(filepath.Dir(moved), filepath.Join(dir, "away")), os.Mkdir(filepath.Dir(moved), 0o700)); err != nil {
		t.Fatal(err)
	}
	l.losesPods(t, 1, 2, 3, 4, 5, 6)
	for n := 1; n <= 6; n++ {
		if !l.held(n) {
			t.Errorf("the lease of web-%d is released", n)
		}
		if said := strings.Count(l.said.String(), fmt.Sprintf("web-%d ", n)); said != 1 {
			t.Errorf("why the lease of web-%d stays was said %d times in\n%s", n, said, l.said.String())
		}
	}
}

// One pod of which nothing is known keeps no other one's address.
func TestLostPodsAreFoundBesideUnknownOnes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cni-1")
	end := mountNetns(t, path)
	l := newLosing(t, path, path, path)
	end()
	l.cluster.unsaid = map[string]error{"web-1": errors.New("no answer about web-1"), "web-2": errors.New("no answer about web-2")}
	l.losesPods(t, 1, 2, 3)
	if !l.held(1) || !l.held(2) || l.held(3) {
		t.Errorf("held: %v %v %v; want the first two", l.held(1), l.held(2), l.held(3))
	}
	for _, want := range []string{"leases=2", "about web-1", "about web-2"} {
		if !strings.Contains(l.said.String(), want) {
			t.Errorf("%q is not said in\n%s", want, l.said.String())
		}
	}
}

// The next agent knows where the sandboxes were.
func TestRestartKnowsTheSandboxes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cni-1")
	mountNetns(t, path)
	c := newCluster(pool(t, "web", 4, "10.1.0.0/24"))
	c.placed["web-1"] = Placement{Pool: "web"}
	h := newHost(t)
	a := h.startIn(c, never())
	r := podRequest(1)
	r.Netns.Path = path
	if _, err := a.leases().Lease(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	before := a.desk.grants()
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	after := h.startIn(c, never()).desk.grants()
	if len(after) != 1 || after[0].Netns != before[0].Netns || lookFor(after[0].Netns) != sandboxStands {
		t.Errorf("%+v became %+v", before, after)
	}
}
