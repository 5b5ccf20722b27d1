package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/internal/namespace"
	"github.com/fairway-network/fairway/routes"
	"golang.org/x/sys/unix"
)

// learner is a table of learned routes on a host with links to two routers.
func learner(t *testing.T) *Learned {
	t.Helper()
	inNamespace(t)
	for i := 1; i <= 2; i++ {
		namespace.IP(t, fmt.Sprintf("link add up%d type veth peer name tor%d", i, i))
		namespace.IP(t, fmt.Sprintf("addr add 192.0.2.%d/31 dev up%d", 2*i, i))
		namespace.IP(t, fmt.Sprintf("addr add 2001:db8:%d::2/64 dev up%d nodad", i, i))
		namespace.IP(t, fmt.Sprintf("link set tor%d up", i))
		namespace.IP(t, fmt.Sprintf("link set up%d up", i))
	}
	l, err := NewLearned(Config{}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	hold(t, l)
	return l
}

// hold checks what the table says that it holds.
func hold(t *testing.T, l *Learned, want ...routes.Route) {
	t.Helper()
	got, err := l.Held(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := routes.Diff(got, want); !c.Empty() {
		t.Fatalf("held are %v, want %v", got, want)
	}
}

// learned makes a route: "10.0.0.0/8 192.0.2.3 192.0.2.5".
func learned(text string) routes.Route {
	words := strings.Fields(text)
	r := routes.Route{Prefix: netip.MustParsePrefix(words[0])}
	for _, hop := range words[1:] {
		r.Via = append(r.Via, netip.MustParseAddr(hop))
	}
	return r
}

func learnedAll(texts ...string) (list []routes.Route) {
	for _, text := range texts {
		list = append(list, learned(text))
	}
	return list
}

func TestLearnedRoutesOfEveryKind(t *testing.T) {
	l := learner(t)
	add := learnedAll("10.0.0.0/8 192.0.2.3", "10.1.0.0/16 192.0.2.3 192.0.2.5", "0.0.0.0/0 192.0.2.5",
		"10.2.0.0/16 2001:db8:1::1", "10.3.0.0/16 fe80::1%up1 fe80::1%up2",
		"::/0 2001:db8:1::1", "2001:db8:9::/48 2001:db8:1::1 2001:db8:2::1", "2001:db8:8::/48 fe80::1%up1 fe80::1%up2")
	if err := l.Apply(t.Context(), routes.Change{Add: add}); err != nil {
		t.Fatal(err)
	}
	hold(t, l, add...)
	expect(t, "10.0.0.0/8 via 192.0.2.3 dev up1 proto 118 metric 4096",
		"10.1.0.0/16 proto 118 metric 4096", "nexthop via 192.0.2.3 dev up1 weight 1", "nexthop via 192.0.2.5 dev up2 weight 1",
		"default via 192.0.2.5 dev up2 proto 118 metric 4096",
		"10.2.0.0/16 via inet6 2001:db8:1::1 dev up1 proto 118 metric 4096",
		"10.3.0.0/16 proto 118 metric 4096", "nexthop via inet6 fe80::1 dev up1 weight 1", "nexthop via inet6 fe80::1 dev up2 weight 1",
		"default via 2001:db8:1::1 dev up1 proto 118 metric 4096",
		"2001:db8:9::/48 proto 118 metric 4096", "nexthop via 2001:db8:1::1 dev up1 weight 1", "nexthop via 2001:db8:2::1 dev up2 weight 1",
		"2001:db8:8::/48 proto 118 metric 4096", "nexthop via fe80::1 dev up1 weight 1", "nexthop via fe80::1 dev up2 weight 1")
	replace := learnedAll("10.0.0.0/8 192.0.2.3 192.0.2.5", "10.1.0.0/16 192.0.2.5", "2001:db8:9::/48 2001:db8:2::1", "::/0 2001:db8:1::1 2001:db8:2::1")
	remove := learnedAll("10.3.0.0/16", "2001:db8:8::/48", "10.99.0.0/16")
	if err := l.Apply(t.Context(), routes.Change{Replace: replace, Delete: remove}); err != nil {
		t.Fatal(err)
	}
	want := append(replace, learnedAll("0.0.0.0/0 192.0.2.5", "10.2.0.0/16 2001:db8:1::1")...)
	hold(t, l, want...)
	if err := l.Apply(t.Context(), routes.Change{Delete: want}); err != nil {
		t.Fatal(err)
	}
	hold(t, l)
	expect(t)
}

func TestLearnedRoutesLeaveOthersAlone(t *testing.T) {
	l := learner(t)
	ours, err := New(Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if err := ours.Sync(t.Context(), learnedAll("10.9.0.0/26")); err != nil {
		t.Fatal(err)
	}
	namespace.IP(t, "route add default via 192.0.2.3 proto dhcp metric 1024")
	namespace.IP(t, "route add 10.1.0.0/16 via 192.0.2.3 proto static metric 4096")
	namespace.IP(t, "route add 10.8.0.7 dev up2")
	before := shown(t, "main")
	all := learnedAll("0.0.0.0/0 192.0.2.5", "10.1.0.0/16 192.0.2.5", "10.8.0.7/32 192.0.2.5", "10.9.0.0/26 192.0.2.5")
	err = l.Apply(t.Context(), routes.Change{Add: all})
	var failed *routes.SyncError
	if !errors.As(err, &failed) || len(failed.Missing) != 1 || failed.Missing[0] != all[1].Prefix || !strings.Contains(err.Error(), "static") {
		t.Fatalf("the error is %v", err)
	}
	// Of those that stand beside another, the other wins.
	for destination, want := range map[string]string{"203.0.113.1": "dev up1", "10.8.0.7": "dev up2"} {
		if got := namespace.IP(t, "route get "+destination); !strings.Contains(got, want) {
			t.Errorf("to %s the way is %s, want %s", destination, got, want)
		}
	}
	if err := l.Apply(t.Context(), routes.Change{Delete: all}); err != nil {
		t.Fatal(err)
	}
	if after := shown(t, "main"); !slices.Equal(before, after) {
		t.Errorf("before: %v\nafter: %v", before, after)
	}
}

func TestLearnedRoutesThatAreRefused(t *testing.T) {
	l := learner(t)
	namespace.IP(t, "link add br0 type bridge")
	namespace.IP(t, "addr add 10.7.0.1/24 dev br0")
	namespace.IP(t, "link set br0 up")
	hold(t, l) // which reads the subnets
	for text, reason := range map[string]string{
		"10.7.0.0/24 192.0.2.3":          "connected to",
		"10.7.0.128/25 192.0.2.3":        "connected to",
		"192.0.2.2/32 192.0.2.5":         "connected to",
		"10.0.0.0/9 198.51.100.1":        "no link leads to it",
		"10.0.0.0/10 192.0.2.2":          "own address",
		"10.0.0.0/11 fe80::1%none":       "not there",
		"2001:db8:5::/48 192.0.2.3":      "can't deliver IPv6",
		"10.0.0.0/12":                    "no next hop",
		"10.0.0.0/13 224.0.0.5":          "no host's address",
		"2001:db8:1::/80 2001:db8:2::1":  "connected to",
		"2001:db8:6::/48 2001:db8:99::1": "no link leads to it",
	} {
		err := l.Apply(t.Context(), routes.Change{Add: learnedAll(text)})
		if err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), strings.Fields(text)[0]) {
			t.Errorf("%s: %v, want the reason %q", text, err, reason)
		}
	}
	hold(t, l)
	// The hops that are on a link are enough.
	if err := l.Apply(t.Context(), routes.Change{Add: learnedAll("10.0.0.0/8 192.0.2.3 198.51.100.1")}); err != nil {
		t.Error(err)
	}
	hold(t, l, learned("10.0.0.0/8 192.0.2.3"))
}

func TestLearnedRoutesThatOthersRemove(t *testing.T) {
	l := learner(t)
	want := learnedAll("10.0.0.0/8 192.0.2.3", "10.1.0.0/16 192.0.2.3", "10.2.0.0/16 fe80::1%up1")
	ctx, stop := context.WithCancel(t.Context())
	signals, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- l.Watch(ctx, func() {
			select {
			case signals <- struct{}{}:
			default:
			}
		})
	}()
	told := func(what string) {
		t.Helper()
		select {
		case <-signals:
		case <-time.After(10 * time.Second):
			t.Fatalf("no signal: %s", what)
		}
	}
	told("it listens")
	// Its own changes are not news: the first signal is about what ip does.
	if err := l.Apply(t.Context(), routes.Change{Add: want}); err != nil {
		t.Fatal(err)
	}
	if err := l.Apply(t.Context(), routes.Change{Delete: want[1:2]}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-signals:
		t.Error("a signal for a change of its own")
	default:
	}
	namespace.IP(t, "route del 10.0.0.0/8")
	told("a route was removed")
	hold(t, l, want[2])
	namespace.IP(t, "link set up1 down")
	told("the link went down")
	hold(t, l)
	namespace.IP(t, "link set up1 up")
	told("the link came up")
	if err := l.Apply(t.Context(), routes.Change{Add: want[2:]}); err != nil {
		t.Fatal(err)
	}
	hold(t, l, want[2])
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestManyLearnedRoutes(t *testing.T) {
	l := learner(t)
	const n = 5_000
	var list []routes.Route
	for i := range n {
		hop := "192.0.2.3"
		if i == n/2 {
			hop = "198.51.100.1" // one is refused among many
		}
		list = append(list, learned(fmt.Sprintf("10.%d.%d.0/24 %s", i/256, i%256, hop)))
	}
	namespace.IP(t, "route add blackhole 10.0.5.0/24 proto static metric 4096")
	err := l.Apply(t.Context(), routes.Change{Add: list})
	var failed *routes.SyncError
	if !errors.As(err, &failed) || len(failed.Missing) != 2 {
		t.Fatalf("the error is %v", err)
	}
	held, err := l.Held(t.Context())
	if err != nil || len(held) != n-2 {
		t.Fatalf("%d held, %v", len(held), err)
	}
	if err := l.Apply(t.Context(), routes.Change{Delete: held}); err != nil {
		t.Fatal(err)
	}
	hold(t, l)
}

func TestLearnedRoutesOfAnotherMetricGo(t *testing.T) {
	l := learner(t)
	namespace.IP(t, "route add 10.5.0.0/16 via 192.0.2.3 proto 118 metric 77")
	hold(t, l)
	expect(t)
}

// Routes of many next hops go in smaller batches: what a socket takes is bounded.
func TestWideLearnedRoutes(t *testing.T) {
	l := learner(t)
	namespace.IP(t, "addr add 198.51.100.1/25 dev up1")
	namespace.IP(t, "addr add 2001:db8:f::1/64 dev up1 nodad")
	var four, six string
	for i := range 64 {
		four += fmt.Sprintf(" 198.51.100.%d", 10+i)
		six += fmt.Sprintf(" 2001:db8:f::%x", 0x10+i)
	}
	var list []routes.Route
	for i := range 600 {
		list = append(list, learned(fmt.Sprintf("10.%d.%d.0/24%s", i/256, i%256, four)),
			learned(fmt.Sprintf("2001:db8:8:%x::/64%s", i, six)))
	}
	if err := l.Apply(t.Context(), routes.Change{Add: list}); err != nil {
		t.Fatal(err)
	}
	if held, err := l.Held(t.Context()); err != nil || len(held) != len(list) {
		t.Errorf("%d held of %d, %v", len(held), len(list), err)
	}
}

// What is wrong with a next hop is told once, however often the kernel is asked,
// and again when it is something else.
func TestUselessNextHopIsToldOnce(t *testing.T) {
	l := learner(t)
	var text strings.Builder
	l.log = slog.New(slog.NewTextHandler(&text, nil))
	tell := func(want int) {
		t.Helper()
		for range 5 {
			l.doubt.Store(true) // as after an event of the kernel
			if err := l.Apply(t.Context(), routes.Change{Replace: learnedAll("10.0.0.0/8 192.0.2.3 198.51.100.1")}); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Count(text.String(), "left out"); got != want {
			t.Errorf("told %d times, want %d:\n%s", got, want, text.String())
		}
	}
	tell(1)
	namespace.IP(t, "route add 198.51.100.0/24 via 192.0.2.3")
	tell(2) // behind another router now
	namespace.IP(t, "route replace 198.51.100.0/24 dev up1")
	tell(2) // of use
	namespace.IP(t, "route del 198.51.100.0/24")
	tell(3)
}

// Ever so many useless next hops fill neither the log nor the memory, and those
// that no route goes by any more make room.
func TestToldNextHopsAreBounded(t *testing.T) {
	l := learner(t)
	var text strings.Builder
	l.log = slog.New(slog.NewTextHandler(&text, nil))
	useless := func(n int, network string) {
		t.Helper()
		var list []routes.Route
		for i := range n {
			list = append(list, learned(fmt.Sprintf("10.%d.%d.0/24 %s.%d.%d", i/250, i%250, network, i/250, 1+i%250)))
		}
		l.doubt.Store(true)
		if err := l.Apply(t.Context(), routes.Change{Add: list}); err == nil {
			t.Fatal("no error")
		}
	}
	useless(maxTold+10, "198.18")
	useless(maxTold+10, "198.18")
	if got := strings.Count(text.String(), "left out"); got != maxTold || len(l.told) != maxTold {
		t.Errorf("told %d times, of %d hops", got, len(l.told))
	}
	text.Reset()
	useless(1, "198.19")
	useless(1, "198.19")
	useless(2, "198.19")
	if got := strings.Count(text.String(), "left out"); got != 2 {
		t.Errorf("told %d times of others, want 2:\n%s", got, text.String())
	}
}

// Without rights beyond the network namespace's own the socket's buffer is what the
// system gives, and no more is asked at a time than its answers fit in.
func TestWireWithoutForce(t *testing.T) {
	l := learner(t)
	fd := l.wire.socket.GetFd()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 32<<10); err != nil {
		t.Fatal(err)
	}
	var err error
	if l.wire.most, err = messagesFor(fd); err != nil || l.wire.most >= maxMessages {
		t.Fatalf("%d at a time, %v", l.wire.most, err)
	}
	// All refused but the last, each for a reason of the kernel.
	namespace.IP(t, "route add blackhole 10.9.9.0/24 proto static metric 4096")
	var list []routes.Route
	for range 1500 {
		list = append(list, learned("10.9.9.0/24 192.0.2.3"))
	}
	list = append(list, learned("10.0.0.0/8 192.0.2.3"))
	err = l.Apply(t.Context(), routes.Change{Add: list})
	var failed *routes.SyncError
	if !errors.As(err, &failed) || len(failed.Missing) != 1 || strings.Contains(err.Error(), "netlink") {
		t.Errorf("the error is %v", err)
	}
	hold(t, l, list[len(list)-1])
}

// In a user namespace of its own the process may not force the size of a buffer.
func TestLearnedRoutesInUserNamespace(t *testing.T) {
	if os.Getenv("FAIRWAY_IN_USER_NAMESPACE") != "" {
		l, err := NewLearned(Config{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		hold(t, l)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestLearnedRoutesInUserNamespace$")
	cmd.Env = append(os.Environ(), "FAIRWAY_IN_USER_NAMESPACE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	runtime.LockOSThread() // Pdeathsig is about the thread
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		t.Fatalf("%v\n%s", err, out)
	default:
		t.Skipf("needs user namespaces: %v", err)
	}
}
