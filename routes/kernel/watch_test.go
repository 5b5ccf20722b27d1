package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/fairway-network/fairway/internal/namespace"
	"github.com/fairway-network/fairway/routes"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// watching runs Watch until the test ends.
func watching(t *testing.T, table *Table, changed func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- table.Watch(ctx, changed) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
}

// eventually waits until holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// The loop that an agent runs: deleted routes come back by themselves.
func TestWatchAndSync(t *testing.T) {
	inNamespace(t)
	table := open(t, Config{})
	want := []routes.Route{route("10.1.0.0/26"), route("fd00:1::/120")}
	watching(t, table, func() {
		if err := table.Sync(t.Context(), want); err != nil && t.Context().Err() == nil {
			t.Errorf("Sync: %v", err)
		}
	})
	whole := func() bool { return len(shown(t, "main")) == 2 }
	eventually(t, "the first signal", whole)
	for range 3 {
		namespace.IP(t, "route del blackhole 10.1.0.0/26 metric 2048")
		namespace.IP(t, "-6 route del blackhole fd00:1::/120 metric 2048")
		eventually(t, "the routes are back", whole)
	}
}

func TestWhatConcernsUs(t *testing.T) {
	inNamespace(t)
	namespace.IP(t, "link add cni0 type bridge")
	namespace.IP(t, "link add pod0 type veth peer name pod1")
	table := open(t, Config{})
	socket, err := nl.SubscribeAt(table.ns, netns.None(), unix.NETLINK_ROUTE, watched()...)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	const yes, no = true, false
	for i, step := range []struct {
		command string
		concern bool
		before  string
	}{
		{"route del blackhole 10.1.0.0/26 metric 2048", yes, ""},
		{"-6 route del blackhole fd00:1::/120 metric 2048", yes, ""},
		{"route replace unreachable 10.1.0.0/26 metric 2048", yes, ""},
		{"route del unreachable 10.1.0.0/26 metric 2048", yes, "route replace unreachable 10.1.0.0/26 metric 2048"}, // what stood in our way
		{"route add blackhole 10.3.0.0/26 proto static metric 2048", no, ""},
		{"route add blackhole 10.1.0.0/26 proto static metric 100", no, ""},
		{"route replace blackhole 10.1.0.0/26 proto bird metric 100", no, "route add blackhole 10.1.0.0/26 proto static metric 100"},
		{"route del blackhole 10.1.0.0/26 metric 100", no, "route add blackhole 10.1.0.0/26 proto static metric 100"},
		{"route del blackhole 10.1.0.0/26 metric 2048 table 100", no, "route add blackhole 10.1.0.0/26 proto 117 metric 2048 table 100"},
		{"addr add 10.8.0.1/24 dev cni0", no, ""}, // while it is down
		{"link set cni0 up", yes, ""},
		{"link set cni0 down", yes, ""},
		{"link set cni0 up", yes, ""},
		{"addr add 10.9.0.1/24 dev cni0", yes, ""},
		{"addr del 10.9.0.1/24 dev cni0", yes, ""},
		{"addr add fd00:9::1/64 dev cni0 nodad", yes, ""},
		{"addr del fd00:9::1/64 dev cni0", yes, ""},
		{"addr add 169.254.1.1/32 dev pod0", no, ""}, // what ptp does for a pod
		{"addr add fd00::1/128 dev pod0 nodad", no, ""},
		{"link set pod0 up", no, ""},
		{"link set pod1 up", no, ""},
		{"route add 10.1.0.7/32 dev pod0", no, ""},
		{"link del pod0", no, ""},
		{"link del cni0", yes, ""},
	} {
		mustSync(t, table, route("10.1.0.0/26"), route("fd00:1::/120"))
		if step.before != "" {
			namespace.IP(t, step.before)
		}
		readUntilMarked(t, table, socket, 2*i)
		namespace.IP(t, step.command)
		if got := readUntilMarked(t, table, socket, 2*i+1); got != step.concern {
			t.Errorf("ip %s: concern is %v", step.command, got)
		}
		for _, others := range []string{"static", "bird", "boot metric 2048"} {
			namespace.IP(t, "route flush proto "+others)
		}
	}
}

// readUntilMarked reads messages up to that of a route which it adds as the
// number's marker, and says whether one of them concerns the table.
func readUntilMarked(t *testing.T, table *Table, socket *nl.NetlinkSocket, number int) (concern bool) {
	t.Helper()
	marker := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(number >> 8), byte(number)}), 32)
	namespace.IP(t, fmt.Sprintf("route add blackhole %s metric 1", marker))
	for {
		messages, _, err := socket.Receive()
		if err != nil {
			t.Fatal(err)
		}
		concern = table.concern(messages) || concern
		for _, m := range messages {
			if r, ok := parse(m.Data); ok && m.Header.Type == unix.RTM_NEWROUTE {
				if k, ok := keyOf(r); ok && k.prefix == marker {
					return concern
				}
			}
		}
	}
}

// The kernel drops messages when nobody reads them in time.
func TestWatchSurvivesOverrun(t *testing.T) {
	inNamespace(t)
	table := open(t, Config{})
	table.receiveBuffer = 1 // the kernel makes it the least that it allows
	listening, full, calls := make(chan struct{}), make(chan struct{}), make(chan struct{}, 64)
	first := true
	watching(t, table, func() {
		if first {
			first = false
			close(listening)
			<-full
			return
		}
		calls <- struct{}{}
	})
	<-listening
	for i := range 50 { // none of them concerns us
		namespace.IP(t, fmt.Sprintf("route add blackhole 10.2.%d.0/26 metric 7", i))
	}
	close(full)
	await(t, calls, "the overrun")
	mustSync(t, table, route("10.1.0.0/26"))
	namespace.IP(t, "route del blackhole 10.1.0.0/26 metric 2048")
	await(t, calls, "a deletion after the overrun")
}

func await(t *testing.T, calls <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-calls:
	case <-time.After(10 * time.Second):
		t.Fatalf("no signal of %s", what)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	inNamespace(t)
	table := open(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	if err := table.Watch(ctx, cancel); err != nil {
		t.Error(err)
	}
	if err := table.Watch(ctx, func() {}); err != nil {
		t.Error(err)
	}
}
