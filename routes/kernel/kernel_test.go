package kernel

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/internal/namespace"
	"github.com/fairway-network/fairway/routes"
)

// inNamespace moves the test into a network of its own.
func inNamespace(t testing.TB) {
	t.Helper()
	namespace.Enter(t)
	namespace.IP(t, "link set lo up")
}

// shown are the routes of a table as ip shows them, IPv4 then IPv6, without
// what the kernel made itself.
func shown(t *testing.T, table string) []string {
	t.Helper()
	var lines []string
	for _, family := range []string{"-4", "-6"} {
		out, err := exec.Command("ip", family, "route", "show", "table", table).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "table does not exist") {
			t.Fatalf("ip route show: %v\n%s", err, out)
		}
		for _, line := range strings.Split(string(out), "\n") {
			for _, noise := range []string{"error -22", "pref medium", "linkdown"} {
				line = strings.Replace(line, noise, "", 1)
			}
			line = strings.TrimSpace(line)
			if line == "" || strings.Contains(line, "proto kernel") || strings.Contains(line, "does not exist") || strings.Contains(line, "terminated") {
				continue
			}
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	return lines
}

func expect(t *testing.T, want ...string) {
	t.Helper()
	expectTable(t, "main", want...)
}

func expectTable(t *testing.T, table string, want ...string) {
	t.Helper()
	got := shown(t, table)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("table %s holds\n  %s\nnot\n  %s", table, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func open(t *testing.T, c Config) *Table {
	t.Helper()
	table, err := New(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

func mustSync(t *testing.T, table *Table, want ...routes.Route) {
	t.Helper()
	if err := table.Sync(t.Context(), want); err != nil {
		t.Fatal(err)
	}
}

// route reads "PREFIX [HOP ...]".
func route(words string) routes.Route {
	var r routes.Route
	for i, w := range strings.Fields(words) {
		if i == 0 {
			r.Prefix = netip.MustParsePrefix(w)
			continue
		}
		r.Via = append(r.Via, netip.MustParseAddr(w))
	}
	return r
}

func TestSyncBothFamilies(t *testing.T) {
	inNamespace(t)
	table := open(t, Config{})
	want := []routes.Route{route("10.244.0.64/26"), route("10.244.0.0/26"), route("fd00:1::/120"), route("10.9.9.9/32")}
	mustSync(t, table, want...)
	all := []string{
		"blackhole 10.9.9.9 proto 117 metric 2048", "blackhole 10.244.0.0/26 proto 117 metric 2048",
		"blackhole 10.244.0.64/26 proto 117 metric 2048", "blackhole fd00:1::/120 dev lo proto 117 metric 2048",
	}
	expect(t, all...)
	mustSync(t, table, want...)
	expect(t, all...)

	list, err := table.List(t.Context())
	if err != nil || fmt.Sprint(list) != "[10.9.9.9/32 blackhole 10.244.0.0/26 blackhole 10.244.0.64/26 blackhole fd00:1::/120 blackhole]" {
		t.Errorf("List: %v, %v", list, err)
	}

	namespace.IP(t, "route del blackhole 10.244.0.0/26 metric 2048")
	namespace.IP(t, "-6 route del blackhole fd00:1::/120 metric 2048")
	mustSync(t, table, want...)
	expect(t, all...)

	// Joined into one route; the others are stale.
	mustSync(t, table, route("10.244.0.0/25"))
	expect(t, "blackhole 10.244.0.0/25 proto 117 metric 2048")

	if err := table.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t)
}

func TestOthersRoutesStay(t *testing.T) {
	inNamespace(t)
	others := []string{
		"blackhole 10.1.0.0/26 proto static metric 100",   // the prefix of ours, another metric
		"blackhole 10.1.0.64/26 proto bird metric 2048",   // our metric, another prefix
		"blackhole 10.2.0.0/26 proto zebra",               // neither
		"unreachable 10.3.0.0/26 proto static metric 100", // another type
		"blackhole fd00:1::/120 dev lo proto static metric 512",
		"blackhole fd00:2::/120 dev lo proto bird metric 2048",
	}
	for _, r := range others {
		namespace.IP(t, "route add "+strings.Replace(r, "dev lo ", "", 1))
	}
	namespace.IP(t, "route add blackhole 10.1.0.0/26 proto 117 metric 2048 table 100")
	table := open(t, Config{})
	mustSync(t, table, route("10.1.0.0/26"), route("fd00:1::/120"))
	expect(t, append(others, "blackhole 10.1.0.0/26 proto 117 metric 2048", "blackhole fd00:1::/120 dev lo proto 117 metric 2048")...)
	mustSync(t, table)
	expect(t, others...)
	expectTable(t, "100", "blackhole 10.1.0.0/26 proto 117 metric 2048")
}

// A route with our prefix and our metric, first in the kernel's list, is what
// a careless replacement or deletion hits.
func TestOthersRouteBesideOurs(t *testing.T) {
	inNamespace(t)
	uplink(t)
	namespace.IP(t, "route add 10.1.0.0/26 via 192.0.2.1 proto bird metric 2048")
	namespace.IP(t, "route append blackhole 10.1.0.0/26 proto 117 metric 2048")
	bird, ours := "10.1.0.0/26 via 192.0.2.1 dev up0 proto bird metric 2048", "blackhole 10.1.0.0/26 proto 117 metric 2048"
	expect(t, bird, ours)
	table := open(t, Config{})
	err := table.Sync(t.Context(), []routes.Route{route("10.1.0.0/26 192.0.2.2"), route("10.2.0.0/26")})
	if err == nil || !strings.Contains(err.Error(), "10.1.0.0/26") || !strings.Contains(err.Error(), "bird") {
		t.Errorf("the conflict was told as %v", err)
	}
	expect(t, bird, ours, "blackhole 10.2.0.0/26 proto 117 metric 2048")
	mustSync(t, table)
	expect(t, bird)
}

func TestConflictNamesTheHolder(t *testing.T) {
	inNamespace(t)
	namespace.IP(t, "route add blackhole 10.1.0.0/26 proto bird metric 2048")
	namespace.IP(t, "route add blackhole fd00:1::/120 proto 200 metric 2048")
	table := open(t, Config{})
	want := []routes.Route{route("10.0.0.0/26"), route("10.1.0.0/26"), route("fd00:1::/120"), route("fd00:2::/120")}
	err := table.Sync(t.Context(), want)
	if err == nil {
		t.Fatal("no error")
	}
	for _, words := range []string{"10.1.0.0/26 metric 2048 in table 254 is held by protocol bird, number 12", "fd00:1::/120", "protocol number 200", "ip route del"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("the error lacks %q: %v", words, err)
		}
	}
	expect(t, "blackhole 10.0.0.0/26 proto 117 metric 2048", "blackhole 10.1.0.0/26 proto bird metric 2048",
		"blackhole fd00:1::/120 dev lo proto 200 metric 2048", "blackhole fd00:2::/120 dev lo proto 117 metric 2048")
	namespace.IP(t, "route del blackhole 10.1.0.0/26 proto bird")
	namespace.IP(t, "-6 route del blackhole fd00:1::/120 proto 200")
	mustSync(t, table, want...)
}

func TestWrongRoutesDoNotStopTheRest(t *testing.T) {
	inNamespace(t)
	table := open(t, Config{})
	err := table.Sync(t.Context(), []routes.Route{
		{}, {Prefix: netip.MustParsePrefix("10.0.0.1/24")}, {Prefix: netip.MustParsePrefix("::ffff:10.0.0.0/120")},
		route("10.1.0.0/26 fd00::1"), route("fd00::/120 fe80::1"), route("10.2.0.0/26 203.0.113.7"), route("10.3.0.0/26"),
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, words := range []string{"not valid", "10.0.0.1/24", "10.0.0.0/24", "IPv4-mapped", "fd00::1", "link-local", "10.2.0.0/26", "unreachable"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("the error lacks %q: %v", words, err)
		}
	}
	expect(t, "blackhole 10.3.0.0/26 proto 117 metric 2048")
}

// uplink makes a link with two neighbours' subnets.
func uplink(t *testing.T) {
	t.Helper()
	namespace.IP(t, "link add up0 type veth peer name up1")
	namespace.IP(t, "addr add 192.0.2.10/24 dev up0")
	namespace.IP(t, "addr add 2001:db8::10/64 dev up0 nodad")
	namespace.IP(t, "link set up0 up")
	namespace.IP(t, "link set up1 up")
}

func TestNextHops(t *testing.T) {
	inNamespace(t)
	uplink(t)
	table := open(t, Config{})
	hops := []routes.Route{
		route("10.1.0.0/26 192.0.2.2 192.0.2.1"), route("10.2.0.0/26 192.0.2.1"), route("0.0.0.0/0 192.0.2.1"),
		route("fd00:1::/120 2001:db8::2 2001:db8::1"), route("fd00:2::/120 2001:db8::1"), route("::/0 2001:db8::1"),
	}
	mustSync(t, table, hops...)
	list, err := table.List(t.Context())
	const want = "[0.0.0.0/0 via [192.0.2.1] 10.1.0.0/26 via [192.0.2.1 192.0.2.2] 10.2.0.0/26 via [192.0.2.1] " +
		"::/0 via [2001:db8::1] fd00:1::/120 via [2001:db8::1 2001:db8::2] fd00:2::/120 via [2001:db8::1]]"
	if err != nil || fmt.Sprint(list) != want {
		t.Errorf("List: %v, %v\nnot %s", list, err, want)
	}
	for _, changed := range [][]string{
		{"10.1.0.0/26", "10.2.0.0/26 192.0.2.3", "fd00:1::/120", "fd00:2::/120 2001:db8::3"},
		{"10.1.0.0/26 192.0.2.1", "10.2.0.0/26 192.0.2.3 192.0.2.4", "fd00:1::/120 2001:db8::2", "fd00:2::/120 2001:db8::3 2001:db8::4"},
		{"10.1.0.0/26 192.0.2.1 192.0.2.5", "10.2.0.0/26", "fd00:1::/120 2001:db8::1 2001:db8::5", "fd00:2::/120"},
	} {
		var want []routes.Route
		for _, words := range changed {
			want = append(want, route(words))
		}
		mustSync(t, table, want...)
		if list, err := table.List(t.Context()); err != nil || fmt.Sprint(list) != fmt.Sprint(want) {
			t.Errorf("List: %v, %v, not %v", list, err, want)
		}
	}
	mustSync(t, table)
	expect(t)
}

// Routes under our number that we would not write: another metric from an
// earlier configuration, another type.
func TestBentRoutesOfOurs(t *testing.T) {
	inNamespace(t)
	uplink(t)
	namespace.IP(t, "route add blackhole 10.1.0.0/26 proto 117 metric 99")
	namespace.IP(t, "route add unreachable 10.2.0.0/26 proto 117 metric 2048")
	namespace.IP(t, "route add 10.3.0.0/26 dev up0 proto 117 metric 2048")
	namespace.IP(t, "route add unreachable 10.4.0.0/26 proto 117 metric 2048")
	namespace.IP(t, "-6 route add blackhole fd00:1::/120 proto 117 metric 99")
	namespace.IP(t, "-6 route add unreachable fd00:2::/120 proto 117 metric 2048")
	table := open(t, Config{})
	mustSync(t, table, route("10.1.0.0/26"), route("10.2.0.0/26"), route("fd00:1::/120"), route("fd00:2::/120"))
	expect(t, "blackhole 10.1.0.0/26 proto 117 metric 2048", "blackhole 10.2.0.0/26 proto 117 metric 2048",
		"blackhole fd00:1::/120 dev lo proto 117 metric 2048", "blackhole fd00:2::/120 dev lo proto 117 metric 2048")
}

func TestNoBlackholeUnderABridge(t *testing.T) {
	inNamespace(t)
	namespace.IP(t, "link add cni0 type bridge")
	namespace.IP(t, "addr add 10.1.0.1/24 dev cni0")
	namespace.IP(t, "addr add fd00:1::1/64 dev cni0 nodad")
	namespace.IP(t, "addr add 10.7.0.1/32 dev cni0") // as ptp gives its gateway to each veth
	namespace.IP(t, "addr add fd00:7::1/128 dev cni0 nodad")
	namespace.IP(t, "link set cni0 up")
	namespace.IP(t, "route add 10.5.0.0/16 dev cni0") // a route, not a subnet of the link
	table := open(t, Config{})
	want := []routes.Route{
		route("10.1.0.64/26"), route("10.1.0.0/24"), route("fd00:1::40/122"), route("fd00:1::/64"), // covered
		route("10.1.0.0/23"), route("10.5.0.0/24"), route("10.7.0.1/32"), route("fd00:1::/63"), route("fd00:7::1/128"), // not
	}
	under := []string{
		"10.5.0.0/16 dev cni0 scope link",
		"blackhole 10.1.0.0/23 proto 117 metric 2048", "blackhole 10.5.0.0/24 proto 117 metric 2048",
		"blackhole 10.7.0.1 proto 117 metric 2048", "blackhole fd00:1::/63 dev lo proto 117 metric 2048",
		"blackhole fd00:7::1 dev lo proto 117 metric 2048",
	}
	mustSync(t, table, want...)
	expect(t, under...)
	// Without the bridge they are wanted, and with it again they go.
	namespace.IP(t, "link set cni0 down")
	mustSync(t, table, want...)
	expect(t, append(under[1:], "blackhole 10.1.0.64/26 proto 117 metric 2048", "blackhole 10.1.0.0/24 proto 117 metric 2048",
		"blackhole fd00:1::40/122 dev lo proto 117 metric 2048", "blackhole fd00:1::/64 dev lo proto 117 metric 2048")...)
	namespace.IP(t, "link set cni0 up")
	namespace.IP(t, "addr replace fd00:1::1/64 dev cni0 nodad") // a link that goes down loses its IPv6 addresses
	mustSync(t, table, want...)
	expect(t, under[1:]...)
}

func TestOwnTableAndNumbers(t *testing.T) {
	inNamespace(t)
	table := open(t, Config{Protocol: 201, Table: 70000, Metric: 7})
	mustSync(t, table)
	mustSync(t, table, route("10.1.0.0/26"), route("fd00:1::/120"))
	expect(t)
	expectTable(t, "70000", "blackhole 10.1.0.0/26 proto 201 metric 7", "blackhole fd00:1::/120 dev lo proto 201 metric 7")
	mustSync(t, table)
	expectTable(t, "70000")
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []struct {
		Config
		words string
	}{
		{Config{Protocol: 12}, "bird"}, {Config{Protocol: 2}, "kernel"}, {Config{Protocol: 256}, "256"}, {Config{Protocol: -1}, "-1"},
		{Config{Table: 255}, "local"}, {Config{Table: -1}, "-1"}, {Config{Metric: -5}, "-5"}, {Config{Metric: 1 << 31}, "2147483648"},
	} {
		if _, err := New(c.Config, slog.Default()); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%+v: the error lacks %q: %v", c.Config, c.words, err)
		}
	}
}

func TestManyRoutes(t *testing.T) {
	inNamespace(t)
	table := open(t, Config{})
	var want []routes.Route
	for i := range 10_000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0})
		want = append(want, routes.Route{Prefix: netip.PrefixFrom(a, 26)})
	}
	start := time.Now()
	mustSync(t, table, want...)
	t.Logf("added %d routes in %v", len(want), time.Since(start))
	if list, err := table.List(t.Context()); err != nil || len(list) != len(want) {
		t.Errorf("List: %d routes, %v", len(list), err)
	}
	mustSync(t, table)
	expect(t)
}

func TestSyncEndsWithItsContext(t *testing.T) {
	inNamespace(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := open(t, Config{}).Sync(ctx, []routes.Route{route("10.1.0.0/26")}); err == nil {
		t.Error("no error")
	}
	expect(t)
}

func BenchmarkSyncWithoutDifference(b *testing.B) {
	inNamespace(b)
	table, err := New(Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer table.Close()
	var want []routes.Route
	for i := range 1000 {
		want = append(want, routes.Route{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 26)})
	}
	for b.Loop() {
		if err := table.Sync(b.Context(), want); err != nil {
			b.Fatal(err)
		}
	}
}
