package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/routes"
)

// learner is a table of learned routes on a host with links to two routers.
func learner(t *testing.T) *Learned {
	t.Helper()
	inNamespace(t)
	for i := 1; i <= 2; i++ {
		ip(t, fmt.Sprintf("link add up%d type veth peer name tor%d", i, i))
		ip(t, fmt.Sprintf("addr add 192.0.2.%d/31 dev up%d", 2*i, i))
		ip(t, fmt.Sprintf("addr add 2001:db8:%d::2/64 dev up%d nodad", i, i))
		ip(t, fmt.Sprintf("link set tor%d up", i))
		ip(t, fmt.Sprintf("link set up%d up", i))
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
	ip(t, "route add default via 192.0.2.3 proto dhcp metric 1024")
	ip(t, "route add 10.1.0.0/16 via 192.0.2.3 proto static metric 4096")
	ip(t, "route add 10.8.0.7 dev up2")
	before := shown(t, "main")
	all := learnedAll("0.0.0.0/0 192.0.2.5", "10.1.0.0/16 192.0.2.5", "10.8.0.7/32 192.0.2.5", "10.9.0.0/26 192.0.2.5")
	err = l.Apply(t.Context(), routes.Change{Add: all})
	var failed *routes.SyncError
	if !errors.As(err, &failed) || len(failed.Missing) != 1 || failed.Missing[0] != all[1].Prefix || !strings.Contains(err.Error(), "static") {
		t.Fatalf("the error is %v", err)
	}
	// Of those that stand beside another, the other wins.
	for destination, want := range map[string]string{"203.0.113.1": "dev up1", "10.8.0.7": "dev up2"} {
		if got := ip(t, "route get "+destination); !strings.Contains(got, want) {
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
	ip(t, "link add br0 type bridge")
	ip(t, "addr add 10.7.0.1/24 dev br0")
	ip(t, "link set br0 up")
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
	ip(t, "route del 10.0.0.0/8")
	told("a route was removed")
	hold(t, l, want[2])
	ip(t, "link set up1 down")
	told("the link went down")
	hold(t, l)
	ip(t, "link set up1 up")
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
	ip(t, "route add blackhole 10.0.5.0/24 proto static metric 4096")
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
	ip(t, "route add 10.5.0.0/16 via 192.0.2.3 proto 118 metric 77")
	hold(t, l)
	expect(t)
}
