package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/pools"
)

// serveSocket serves leases on a socket until stop is called.
func serveSocket(t *testing.T, leases Leases, times Times) (path string, stop func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	h := &Handler{Leases: leases}
	go func() { done <- h.ServeSocket(ctx, l, times, slog.New(slog.DiscardHandler)) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return path, stop
}

func dialSocket(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// send sends an ADD for container n.
func send(t *testing.T, c *net.UnixConn, n int) {
	t.Helper()
	request := wire.AppendRequest(nil, attachmentEnv("ADD", fmt.Sprintf("CNI_CONTAINERID=c%d", n)), []byte(conf("1.0.0", plainIPAM, "")))
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// receive returns what the agent says, and nothing if it hangs up.
func receive(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil && !strings.Contains(err.Error(), syscall.ECONNRESET.Error()) {
		t.Fatal(err)
	}
	text, _, _ := wire.SplitAnswer(b)
	return string(text)
}

// slow leases when told to, or not at all when its context ends.
type slow struct {
	Leases
	asked chan struct{}
	grant chan Grant
}

func (s slow) Lease(ctx context.Context, _ pools.Request) (Grant, error) {
	s.asked <- struct{}{}
	select {
	case g := <-s.grant:
		return g, nil
	case <-ctx.Done():
		return Grant{}, ctx.Err()
	}
}

func TestSlowRequestsDoNotKeepOthersWaiting(t *testing.T) {
	const many = 10 * standing
	s := slow{asked: make(chan struct{}), grant: make(chan Grant)}
	path, stop := serveSocket(t, s, DefaultTimes())
	var conns []*net.UnixConn
	for n := range many {
		conns = append(conns, dialSocket(t, path))
		send(t, conns[n], n)
	}
	for range many {
		<-s.asked // all of them at the same time
	}
	for range many {
		s.grant <- Grant{Addresses: newDesk().pools["v4"]}
	}
	for _, c := range conns {
		if got := receive(t, c); !strings.Contains(got, "10.244.120.30/24") {
			t.Errorf("answered %q", got)
		}
	}
	stop()
}

func TestStopHangsUpOnThoseWhoWait(t *testing.T) {
	s := slow{asked: make(chan struct{}), grant: make(chan Grant)}
	path, stop := serveSocket(t, s, DefaultTimes())
	c := dialSocket(t, path)
	send(t, c, 1)
	<-s.asked
	stop()
	if got := receive(t, c); got != "" {
		t.Errorf("answered %q", got)
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("somebody listens after the end")
	}
}

// stubborn leases when told to, whatever its context says.
type stubborn struct{ slow }

func (s stubborn) Lease(ctx context.Context, r pools.Request) (Grant, error) {
	return s.slow.Lease(context.WithoutCancel(ctx), r)
}

// What a plugin has not asked yet keeps no agent from its end; what it has
// asked is answered.
func TestStopHangsUpOnThoseWhoSayNothing(t *testing.T) {
	s := stubborn{slow{asked: make(chan struct{}), grant: make(chan Grant)}}
	defer close(s.grant)
	path, stop := serveSocket(t, s, Times{Read: time.Hour, Answer: time.Hour})
	silent, half, whole := dialSocket(t, path), dialSocket(t, path), dialSocket(t, path)
	if _, err := half.Write([]byte("CNI_COMMAND=ADD\x00")); err != nil {
		t.Fatal(err)
	}
	send(t, whole, 1)
	<-s.asked // so the others are accepted
	ended := make(chan struct{})
	go func() { stop(); close(ended) }()
	for _, c := range []*net.UnixConn{silent, half} {
		if got := receive(t, c); got != "" {
			t.Errorf("answered %q", got)
		}
	}
	s.grant <- Grant{Addresses: newDesk().pools["v4"]}
	if got := receive(t, whole); !strings.Contains(got, "10.244.120.30/24") {
		t.Errorf("answered %q", got)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the socket is still served")
	}
}

func TestSocketBoundsWhatPluginsDo(t *testing.T) {
	path, _ := serveSocket(t, newDesk(), Times{Read: 50 * time.Millisecond, Answer: 50 * time.Millisecond})
	silent, trickling := dialSocket(t, path), dialSocket(t, path)
	go func() {
		for range time.Tick(5 * time.Millisecond) {
			if _, err := trickling.Write([]byte("x")); err != nil {
				return
			}
		}
	}()
	for _, c := range []*net.UnixConn{silent, trickling} {
		if got := receive(t, c); got != "" {
			t.Errorf("answered %q", got)
		}
	}
	huge := dialSocket(t, path)
	go func() { _, _ = huge.Write(make([]byte, 2*wire.MaxRequest)) }()
	if got := receive(t, huge); got != "" && !strings.Contains(got, "1 MiB") {
		t.Errorf("answered %.200q", got)
	}
	c := dialSocket(t, path)
	send(t, c, 1)
	if got := receive(t, c); !strings.Contains(got, "10.244.120.7/24") {
		t.Errorf("answered %q", got)
	}
}

// The runtime's poller would have a thread awake for each plugin, for nothing.
func TestPollerDoesNotKnowTheSocket(t *testing.T) {
	path, stop := serveSocket(t, newDesk(), DefaultTimes())
	c := dialSocket(t, path)
	send(t, c, 1)
	if got := receive(t, c); !strings.Contains(got, "10.244.120.7/24") {
		t.Fatalf("answered %q", got)
	}
	inode, polled := listeningInode(t, path), polledInodes(t)
	if slices.Contains(polled, inode) {
		t.Errorf("the poller is woken by inode %d, which listens on %s", inode, path)
	}
	stop()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there after the end: %v", path, err)
	}
}

// listeningInode is that of the socket which listens on path.
func listeningInode(t *testing.T, path string) uint64 {
	t.Helper()
	table, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	const accepts = "00010000"
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) == 8 && f[7] == path && f[3] == accepts {
			inode, err := strconv.ParseUint(f[6], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return inode
		}
	}
	t.Fatalf("nobody listens on %s", path)
	return 0
}

// polledInodes are those of which an epoll instance of this process waits
// (proc_pid_fdinfo(5)).
func polledInodes(t *testing.T) (inodes []uint64) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if what, _ := os.Readlink(link); what != "anon_inode:[eventpoll]" {
			continue
		}
		info, err := os.ReadFile("/proc/self/fdinfo/" + filepath.Base(link))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`ino:([0-9a-f]+)`).FindAllStringSubmatch(string(info), -1) {
			inode, err := strconv.ParseUint(m[1], 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			inodes = append(inodes, inode)
		}
	}
	if inodes == nil {
		t.Fatal("no epoll instance of this process waits for anything")
	}
	return inodes
}

// A slow lease is told apart from an agent that stops: the plugin gets to
// know that it may try again.
func TestSlowLeaseIsAnswered(t *testing.T) {
	s := slow{asked: make(chan struct{}, 1), grant: make(chan Grant)}
	path, _ := serveSocket(t, s, Times{Read: time.Second, Answer: 20 * time.Millisecond})
	c := dialSocket(t, path)
	send(t, c, 1)
	if got := receive(t, c); !strings.Contains(got, `"code":11`) {
		t.Errorf("answered %q", got)
	}
}
