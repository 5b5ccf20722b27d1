package kube

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/client-go/kubernetes"
)

// Metrics are what the API server counts, since it was started last: each value
// by its series as /metrics spells it, NAME or NAME{LABEL="VALUE",...}.
type Metrics map[string]float64

// Metrics asks the API server for what it has counted.
func (c *Cluster) Metrics(ctx context.Context) (Metrics, error) {
	client, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		return nil, err
	}
	text, err := client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("metrics of kube-apiserver: %w", err)
	}
	return parseMetrics(string(text))
}

// Sum adds the series of that name that have all those labels, each written as
// LABEL="VALUE": Sum("apiserver_request_total", `verb="POST"`, `resource="pods"`).
func (m Metrics) Sum(name string, labels ...string) float64 {
	sum := 0.0
next:
	for series, value := range m {
		base, in, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		if base != name {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(","+in+",", ","+label+",") {
				continue next
			}
		}
		sum += value
	}
	return sum
}

// parseMetrics reads Prometheus' text format, without time stamps.
func parseMetrics(text string) (Metrics, error) {
	m := Metrics{}
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		if at < 0 {
			return nil, fmt.Errorf("metrics: no value in %q", line)
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: the value in %q: %w", line, err)
		}
		m[line[:at]] = value
	}
	return m, lines.Err()
}
