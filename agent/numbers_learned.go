package agent

import "github.com/prometheus/client_golang/prometheus"

// Names of what is read of learned routes when somebody asks.
const (
	metricLearned        = "fairway_learned_routes"
	metricLearnedRefused = "fairway_learned_routes_refused"
	metricFamilyPrefixes = "fairway_bgp_family_prefixes"
	metricPrefixLimit    = "fairway_bgp_prefix_limit"
)

func learnedMetrics() []metric {
	family := []string{"peer", "address", "family"}
	return []metric{
		{metricLearned, prometheus.GaugeValue, nil, "Routes of routers that are in the kernel."},
		{metricLearnedRefused, prometheus.GaugeValue, nil, "Accepted routes of routers that the kernel does not take."},
		{metricFamilyPrefixes, prometheus.GaugeValue, append(family, "kind"), "Prefixes of a family that the peer has sent: accepted, filtered (its accept leaves them out, they lead nowhere, or nothing is learned) or echoed (it has them from nodes of this ASN)."},
		{metricPrefixLimit, prometheus.GaugeValue, family, "How many prefixes of a family the peer may send, echoed ones aside; with one more the session is shut."},
	}
}

func (put put) learned(s Status) {
	put(metricLearned, float64(s.Learned))
	put(metricLearnedRefused, float64(s.LearnedRefused))
}

// family gives the numbers of one family of a session.
func (put put) family(peer, address string, f FamilyStatus) {
	for kind, n := range map[string]int{"accepted": f.Accepted, "echoed": f.Echoes, "filtered": max(f.Received-f.Accepted-f.Echoes, 0)} {
		put(metricFamilyPrefixes, float64(n), peer, address, f.Family, kind)
	}
	put(metricPrefixLimit, float64(f.Limit), peer, address, f.Family)
}
