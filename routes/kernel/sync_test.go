package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairway-network/fairway/internal/namespace"
	"github.com/fairway-network/fairway/routes"
)

// unsynced returns the lists of Sync's error, which must be there.
func unsynced(t *testing.T, err error) *routes.SyncError {
	t.Helper()
	var e *routes.SyncError
	if !errors.As(err, &e) {
		t.Fatalf("not a SyncError: %v", err)
	}
	return e
}

func expectPrefixes(t *testing.T, what string, got []netip.Prefix, want ...string) {
	t.Helper()
	var list []netip.Prefix
	for _, w := range want {
		list = append(list, netip.MustParsePrefix(w))
	}
	if !slices.Equal(got, list) {
		t.Errorf("%s: %v, want %v", what, got, list)
	}
}

func TestMissingIsWhatOthersHold(t *testing.T) {
	inNamespace(t)
	namespace.IP(t, "link add cni0 type bridge")
	namespace.IP(t, "addr add 10.5.0.1/24 dev cni0")
	namespace.IP(t, "link set cni0 up")
	namespace.IP(t, "route add blackhole 10.1.0.0/26 proto static metric 2048")
	namespace.IP(t, "route add blackhole fd00:1::/120 proto static metric 2048")
	table := open(t, Config{})
	want := []routes.Route{
		route("fd00:1::/120"), route("10.1.0.0/26"), route("10.0.0.0/26"), route("fd00:2::/120"), route("10.5.0.64/26"),
	}
	for range 2 { // the second time with the others in place
		e := unsynced(t, table.Sync(t.Context(), want))
		expectPrefixes(t, "missing", e.Missing, "10.1.0.0/26", "fd00:1::/120")
		expectPrefixes(t, "lingering", e.Lingering)
	}
	namespace.IP(t, "route del blackhole 10.1.0.0/26 proto static")
	namespace.IP(t, "-6 route del blackhole fd00:1::/120 proto static")
	mustSync(t, table, want...)
	expect(t, "blackhole 10.0.0.0/26 proto 117 metric 2048", "blackhole 10.1.0.0/26 proto 117 metric 2048",
		"blackhole fd00:1::/120 dev lo proto 117 metric 2048", "blackhole fd00:2::/120 dev lo proto 117 metric 2048")
}

func TestMissingIsAlsoWhatCannotBe(t *testing.T) {
	inNamespace(t)
	table := open(t, Config{})
	e := unsynced(t, table.Sync(t.Context(), []routes.Route{
		{}, {Prefix: netip.MustParsePrefix("10.9.0.1/24")}, route("10.2.0.0/26 203.0.113.7"), route("10.3.0.0/26"),
	}))
	expectPrefixes(t, "missing", e.Missing, "10.2.0.0/26", "10.9.0.1/24")
	expect(t, "blackhole 10.3.0.0/26 proto 117 metric 2048")
}

func TestMissingIsMoreThanIsTold(t *testing.T) {
	inNamespace(t)
	table := open(t, Config{})
	var want []routes.Route
	for i := range 3 * maxFailures {
		want = append(want, route(fmt.Sprintf("10.%d.0.0/26 203.0.113.7", i)))
	}
	if e := unsynced(t, table.Sync(t.Context(), want)); len(e.Missing) != len(want) {
		t.Errorf("%d missing, want %d", len(e.Missing), len(want))
	}
}

// ending is a context that ends once it has been looked at so often.
type ending struct {
	context.Context
	looks int
}

func (c *ending) Err() error {
	if c.looks == 0 {
		return context.Canceled
	}
	c.looks--
	return nil
}

// Wherever a Sync is cut off, its error says what the kernel then holds.
func TestErrorIsTrueWhereverSyncEnds(t *testing.T) {
	inNamespace(t)
	table := open(t, Config{})
	before := []routes.Route{route("10.1.0.0/26"), route("10.2.0.0/26"), route("fd00:1::/120")}
	want := []routes.Route{route("10.1.0.0/26"), route("10.3.0.0/26"), route("fd00:3::/120")}
	partly := 0
	for looks := 0; ; looks++ {
		mustSync(t, table, before...)
		namespace.IP(t, "route replace blackhole 10.1.0.0/26 proto 117 metric 99")
		err := table.Sync(&ending{t.Context(), looks}, want)
		have, listErr := table.List(t.Context())
		if listErr != nil {
			t.Fatal(listErr)
		}
		if err == nil {
			if fmt.Sprint(have) != fmt.Sprint(want) {
				t.Errorf("no error, and the kernel holds %v", have)
			}
			break
		}
		var e *routes.SyncError
		if !errors.Is(err, context.Canceled) || !errors.As(err, &e) {
			if !errors.Is(err, context.Canceled) || fmt.Sprint(have) != fmt.Sprint(before) {
				t.Errorf("after %d looks: %v, and the kernel holds %v", looks, err, have)
			}
			continue
		}
		partly++
		expectPrefixes(t, "missing", e.Missing, without(want, have)...)
		expectPrefixes(t, "lingering", e.Lingering, without(have, want)...)
	}
	if partly < 3 {
		t.Errorf("%d ends in the middle, want several", partly)
	}
}

// without are the prefixes of a that b lacks.
func without(a, b []routes.Route) (out []string) {
	for _, r := range a {
		if !slices.ContainsFunc(b, r.Equal) {
			out = append(out, r.Prefix.String())
		}
	}
	return out
}
