package agent

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// numbers are read off an agent when somebody asks for them.
type numbers struct {
	agent *Agent
	descs map[string]*prometheus.Desc
	kinds map[string]prometheus.ValueType
}

func newNumbers(a *Agent) *numbers {
	n := &numbers{agent: a, descs: map[string]*prometheus.Desc{}, kinds: map[string]prometheus.ValueType{}}
	for _, m := range readMetrics() {
		n.descs[m.name], n.kinds[m.name] = prometheus.NewDesc(m.name, m.help, m.labels, nil), m.kind
	}
	return n
}

// Describe implements prometheus.Collector.
func (n *numbers) Describe(out chan<- *prometheus.Desc) {
	for _, d := range n.descs {
		out <- d
	}
}

// put gives one number to whoever asked.
type put func(name string, value float64, labels ...string)

// Collect implements prometheus.Collector.
func (n *numbers) Collect(out chan<- prometheus.Metric) {
	put := put(func(name string, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(n.descs[name], n.kinds[name], value, labels...)
	})
	put(metricReady, truth(n.agent.unready(context.Background()) == nil))
	if !n.agent.isServing() {
		return
	}
	s, err := n.agent.status(context.Background())
	spoken := err == nil && s.Silent == ""
	put(metricSpeakerUp, truth(spoken))
	put(metricTroubled, truth(s.Trouble != ""))
	put(metricUnderMaintained, truth(s.Upkeep.Maintenance.Node))
	put(metricAnnounced, float64(s.Routes))
	put(metricOpenRequests, float64(len(s.Requests)))
	put(metricBlocksLent, float64(len(s.Loans)))
	if spoken {
		put.learned(s)
	}
	put.blocks(s.Blocks)
	for _, p := range s.Pools {
		put.pool(p)
	}
	for _, p := range s.Peers {
		put.peer(p)
	}
}

func (put put) blocks(blocks []BlockStatus) {
	states := map[string]int{"ready": 0, "waiting": 0, "returning": 0}
	borrowed := 0
	for _, b := range blocks {
		states[b.State]++
		if b.Lender != "" {
			borrowed++
		}
	}
	for state, count := range states {
		put(metricBlocksHeld, float64(count), state)
	}
	put(metricBlocksBorrowed, float64(borrowed))
}

func (put put) pool(p PoolStatus) {
	put(metricPoolBlocks, float64(p.Blocks), p.Name)
	put(metricPoolAddresses, float64(p.Leased), p.Name, "leased")
	put(metricPoolAddresses, float64(p.Free), p.Name, "free")
	put(metricPoolAddresses, float64(p.Cooling), p.Name, "cooling")
	put(metricPoolAddresses, float64(p.Lent), p.Name, "lent")
}

func (put put) peer(p PeerStatus) {
	peer, address := p.Name, ""
	if p.Address.IsValid() {
		address = p.Address.String()
	}
	put(metricSessionUp, truth(p.Established()), peer, address)
	put(metricSessionState, stateNumber(p.Session), peer, address)
	put(metricSessionChanged, seconds(p.Since), peer, address)
	put(metricSessionFlaps, float64(p.Flaps), peer, address)
	put(metricPrefixesSent, float64(p.Advertised), peer, address)
	put(metricPrefixesGot, float64(p.Received), peer, address)
	put(metricPrefixesTaken, float64(p.Accepted), peer, address)
	for _, f := range p.Families {
		put.family(peer, address, f)
	}
	if p.Reason != "" {
		put(metricSessionError, 1, peer, address, p.Reason)
	}
	if b := p.BFD; b != nil {
		put(metricPathUp, truth(b.State == "Up"), peer, address)
		put(metricPathLost, float64(b.Failures), peer, address)
		put(metricPathChanged, seconds(b.Since), peer, address)
	}
}

// stateNumber is bgpPeerState of RFC 4273.
func stateNumber(session string) float64 {
	for i, name := range []string{"Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established"} {
		if name == session {
			return float64(i + 1)
		}
	}
	return 1
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
