package agent

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"github.com/fairway-network/fairway/routes"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

// metrics are the numbers of an agent that are counted as things happen. The others
// are read when somebody asks, see numbers.
type metrics struct {
	// registry is made when somebody asks first: a start has others waiting for it.
	registry func() *prometheus.Registry
	// numbers are those that are read when somebody asks.
	numbers  func() prometheus.Collector
	requests *prometheus.HistogramVec
	calls    *prometheus.CounterVec
	reports  *prometheus.CounterVec
	routes   prometheus.Gauge
	failures prometheus.Counter
	// looked is when the loop began its last pass, in nanoseconds; 0 for never.
	looked atomic.Int64
}

func newMetrics(version string) *metrics {
	m := &metrics{}
	var info *prometheus.GaugeVec
	for _, of := range countedMetrics() {
		switch of.name {
		case metricCniRequests:
			m.requests = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: of.name, Help: of.help, Buckets: requestTimes()}, of.labels)
		case metricStoreCalls:
			m.calls = prometheus.NewCounterVec(prometheus.CounterOpts{Name: of.name, Help: of.help}, of.labels)
		case metricStatusReports:
			m.reports = prometheus.NewCounterVec(prometheus.CounterOpts{Name: of.name, Help: of.help}, of.labels)
		case metricKernelRoutes:
			m.routes = prometheus.NewGauge(prometheus.GaugeOpts{Name: of.name, Help: of.help})
		case metricKernelFailures:
			m.failures = prometheus.NewCounter(prometheus.CounterOpts{Name: of.name, Help: of.help})
		case metricBuildInfo:
			info = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: of.name, Help: of.help}, of.labels)
			info.WithLabelValues(version).Set(1)
		}
	}
	m.registry = sync.OnceValue(func() *prometheus.Registry {
		r := prometheus.NewRegistry()
		r.MustRegister(info, m.requests, m.calls, m.reports, m.routes, m.failures, m.numbers(),
			collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		return r
	})
	return m
}

// requestTimes are around what a request takes: microseconds where the node has an
// address, milliseconds where the network has to be told of a block first, and
// seconds where others have to be asked.
func requestTimes() []float64 {
	return []float64{.00001, .0001, .001, .005, .025, .1, .5, 2.5, 10, 30}
}

// ServeHTTP gives the numbers in the format that the client asks for.
func (m *metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	families, err := m.registry().Gather()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	format := expfmt.Negotiate(r.Header)
	w.Header().Set("Content-Type", string(format))
	encoder := expfmt.NewEncoder(w, format)
	for _, f := range families {
		if encoder.Encode(f) != nil {
			return // nobody listens any more
		}
	}
}

// called counts a call of the store.
func (m *metrics) called(op *exchange.Op, err error) {
	result := "error"
	switch {
	case err == nil:
		result = "ok"
	case errors.Is(err, exchange.ErrExists), errors.Is(err, exchange.ErrConflict), errors.Is(err, exchange.ErrGone):
		result = "lost" // somebody else was faster
	}
	m.calls.WithLabelValues(callWord(op.Kind), result).Inc()
}

// callWord is what a call of the store is for.
func callWord(k exchange.Kind) string {
	switch k {
	case exchange.Create:
		return "claim"
	case exchange.Take:
		return "take"
	case exchange.Delete:
		return "return"
	case exchange.Ask:
		return "ask"
	case exchange.Answer:
		return "lend"
	case exchange.Retract:
		return "retract"
	}
	if k.Writes() {
		return "change"
	}
	return "read"
}

// reported counts a report to the cluster.
func (m *metrics) reported(err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.reports.WithLabelValues(result).Inc()
}

// countedKernel is a Kernel whose routes are counted.
type countedKernel struct {
	Kernel
	metrics *metrics
}

// Sync implements Kernel.
func (k countedKernel) Sync(ctx context.Context, want []routes.Route) error {
	k.metrics.looked.Store(time.Now().UnixNano())
	err := k.Kernel.Sync(ctx, want)
	var partly *routes.SyncError
	switch {
	case err == nil:
		k.metrics.routes.Set(float64(len(want)))
	case errors.As(err, &partly):
		k.metrics.routes.Set(float64(len(want) - len(partly.Missing) + len(partly.Lingering)))
	}
	if err != nil {
		k.metrics.failures.Inc()
	}
	return err
}

// timedLeases are Leases whose use is timed.
type timedLeases struct {
	cni.Leases
	metrics *metrics
}

func (t timedLeases) took(verb string, began time.Time, err error) {
	t.metrics.requests.WithLabelValues(verb, resultOf(err)).Observe(time.Since(began).Seconds())
}

// resultOf says in a word how a request ended.
func resultOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, pools.ErrExhausted):
		return "exhausted"
	case errors.Is(err, cni.ErrTryAgain), errors.Is(err, pools.ErrNoFree), errors.Is(err, pools.ErrTaken), errors.Is(err, pools.ErrBlockExists):
		return "again"
	case errors.Is(err, cni.ErrRefused), errors.Is(err, pools.ErrUnknownPool), errors.Is(err, pools.ErrMismatch), errors.Is(err, pools.ErrOutside), errors.Is(err, pools.ErrNotOwner):
		return "refused"
	case errors.Is(err, context.Canceled):
		return "cut off"
	}
	return "error"
}

// Lease implements cni.Leases.
func (t timedLeases) Lease(ctx context.Context, r pools.Request) (cni.Grant, error) {
	began := time.Now()
	grant, err := t.Leases.Lease(ctx, r)
	t.took("ADD", began, err)
	return grant, err
}

// Release implements cni.Leases.
func (t timedLeases) Release(ctx context.Context, o pools.Owner) error {
	began := time.Now()
	err := t.Leases.Release(ctx, o)
	t.took("DEL", began, err)
	return err
}

// Held implements cni.Leases.
func (t timedLeases) Held(a pools.Attachment) []pools.Lease {
	began := time.Now()
	held := t.Leases.Held(a)
	t.took("CHECK", began, nil)
	return held
}

// Retain implements cni.Leases.
func (t timedLeases) Retain(ctx context.Context, network string, valid []pools.Attachment) error {
	began := time.Now()
	err := t.Leases.Retain(ctx, network, valid)
	t.took("GC", began, err)
	return err
}

// Ready implements cni.Leases.
func (t timedLeases) Ready(ctx context.Context, pool string) error {
	began := time.Now()
	err := t.Leases.Ready(ctx, pool)
	t.took("STATUS", began, err)
	return err
}
