package agent

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/speaker"
	"github.com/prometheus/client_golang/prometheus"
)

// scrape is what Prometheus gets.
func scrape(t *testing.T, m *metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// wants fails for each line that is not in text.
func wants(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !slices.Contains(strings.Split(text, "\n"), line) {
			t.Errorf("there is no line %q in\n%s", line, ours(text))
		}
	}
}

// ours are the numbers of Fairway itself.
func ours(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "fairway_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// The numbers of an agent with a lease.
func TestMetrics(t *testing.T) {
	h := newHost(t)
	parts, store := h.parts()
	parts.Version = "v1.2.3"
	a := h.startWith(parts, store, settings(t, pool(t, "web", 4, "10.1.0.0/24")))
	timed := timedLeases{a.door, a.metrics}
	if _, err := timed.Lease(t.Context(), request("web", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := timed.Lease(t.Context(), request("none", 2)); err == nil {
		t.Fatal("a lease of a pool that there is not")
	}
	wants(t, scrape(t, a.metrics),
		`fairway_build_info{version="v1.2.3"} 1`,
		`fairway_ready 1`, `fairway_trouble 0`, `fairway_speaker_up 1`, `fairway_maintenance 0`,
		`fairway_announced_prefixes 1`, `fairway_kernel_routes 1`, `fairway_kernel_sync_failures_total 0`,
		`fairway_blocks{state="ready"} 1`, `fairway_blocks{state="waiting"} 0`, `fairway_loans 0`, `fairway_open_requests 0`,
		`fairway_pool_blocks{pool="web"} 1`,
		`fairway_pool_addresses{pool="web",state="leased"} 1`, `fairway_pool_addresses{pool="web",state="free"} 3`,
		`fairway_cni_request_duration_seconds_count{result="ok",verb="ADD"} 1`,
		`fairway_cni_request_duration_seconds_count{result="refused",verb="ADD"} 1`,
		`fairway_store_calls_total{call="claim",result="ok"} 1`,
		`fairway_bgp_session_up{address="",peer="tor"} 1`, `fairway_bgp_session_state{address="",peer="tor"} 6`)
	h.update(func() { h.established = false })
	wants(t, scrape(t, a.metrics), `fairway_ready 0`, `fairway_bgp_session_up{address="",peer="tor"} 0`, `fairway_bgp_session_state{address="",peer="tor"} 1`)
}

// What is read when somebody asks is described, each number once.
func TestNumbersAreDescribed(t *testing.T) {
	n := newNumbers(nil)
	out := make(chan prometheus.Metric, 1000)
	put := put(func(name string, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(n.descs[name], n.kinds[name], value, labels...)
	})
	put.blocks([]BlockStatus{{State: "ready", Lender: "n2"}})
	put.pool(PoolStatus{Name: "web"})
	put.learned(Status{Learned: 4, LearnedRefused: 1})
	put.peer(PeerStatus{Name: "tor", Address: netip.MustParseAddr("fe80::1%eth0"), Since: time.Unix(1, 5e8), Reason: string(speaker.ReasonBFD),
		Families: []FamilyStatus{{Family: "ipv4", Received: 9, Accepted: 4, Echoes: 3, Limit: 10}}, BFD: &BFDStatus{State: "Up", Since: time.Unix(2, 0)}})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collected{n, out})
	close(out)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range families {
		got[f.GetName()] = fmt.Sprint(f.GetMetric())
	}
	for name, want := range map[string]string{
		"fairway_bgp_session_changed_timestamp_seconds": "value:1.5",
		"fairway_bgp_session_last_error":                "bfd-down",
		"fairway_bfd_session_up":                        "fe80::1%eth0",
		"fairway_borrowed_blocks":                       "value:1",
		"fairway_learned_routes_refused":                "value:1",
		"fairway_bgp_prefix_limit":                      "value:10",
		"fairway_bgp_family_prefixes":                   `value:"filtered"`,
	} {
		if !strings.Contains(got[name], want) {
			t.Errorf("%s is %q, want %s in it", name, got[name], want)
		}
	}
}

// collected gives what was collected before.
type collected struct {
	*numbers
	all chan prometheus.Metric
}

func (c collected) Collect(out chan<- prometheus.Metric) {
	for m := range c.all {
		out <- m
	}
}

// The manual's table is this one.
func TestMetricsAreDocumented(t *testing.T) {
	const page = "../docs/operations.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| name | type | labels | meaning |\n| --- | --- | --- | --- |\n")
	for _, m := range slices.Concat(countedMetrics(), readMetrics()) {
		kind := map[prometheus.ValueType]string{0: "histogram", prometheus.GaugeValue: "gauge", prometheus.CounterValue: "counter"}[m.kind]
		var labels []string
		for _, l := range m.labels {
			labels = append(labels, "`"+l+"`")
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", m.name, kind, strings.Join(labels, ", "), m.help)
	}
	if !strings.Contains(string(text), table.String()) {
		t.Errorf("%s should have this table:\n%s", page, table.String())
	}
	for _, r := range speaker.Reasons() {
		if !strings.Contains(string(text), "`"+string(r)+"`") {
			t.Errorf("%s does not name the reason %s", page, r)
		}
	}
}

func TestResultOf(t *testing.T) {
	for want, err := range map[string]error{
		"ok": nil, "exhausted": fmt.Errorf("%w: %w", cni.ErrTryAgain, pools.ErrExhausted), "again": ErrNotReachable,
		"refused": pools.ErrUnknownPool, "cut off": context.Canceled, "error": io.EOF,
	} {
		if got := resultOf(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

// get asks the control socket of a host's agent.
func (h *host) get(t *testing.T, path string) (code int, body string) {
	t.Helper()
	return fetch(t, &http.Client{Transport: &http.Transport{
		DialContext: dialUnix(filepath.Join(h.run, ControlSocket)), DisableKeepAlives: true,
	}}, "http://agent"+path)
}

func fetch(t *testing.T, client *http.Client, url string) (code int, body string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}
