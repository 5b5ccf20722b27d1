package agent

import "github.com/prometheus/client_golang/prometheus"

// Names of what is counted as it happens.
const (
	metricBuildInfo      = "fairway_build_info"
	metricCniRequests    = "fairway_cni_request_duration_seconds"
	metricStoreCalls     = "fairway_store_calls_total"
	metricStatusReports  = "fairway_status_reports_total"
	metricKernelRoutes   = "fairway_kernel_routes"
	metricKernelFailures = "fairway_kernel_sync_failures_total"
)

// Names of what is read when somebody asks.
const (
	metricReady           = "fairway_ready"
	metricTroubled        = "fairway_trouble"
	metricSpeakerUp       = "fairway_speaker_up"
	metricAnnounced       = "fairway_announced_prefixes"
	metricBlocksHeld      = "fairway_blocks"
	metricPoolBlocks      = "fairway_pool_blocks"
	metricPoolAddresses   = "fairway_pool_addresses"
	metricOpenRequests    = "fairway_open_requests"
	metricBlocksLent      = "fairway_loans"
	metricBlocksBorrowed  = "fairway_borrowed_blocks"
	metricSessionUp       = "fairway_bgp_session_up"
	metricSessionState    = "fairway_bgp_session_state"
	metricSessionChanged  = "fairway_bgp_session_changed_timestamp_seconds"
	metricSessionFlaps    = "fairway_bgp_session_flaps_total"
	metricSessionError    = "fairway_bgp_session_last_error"
	metricPrefixesSent    = "fairway_bgp_prefixes_sent"
	metricPrefixesGot     = "fairway_bgp_prefixes_received"
	metricPrefixesTaken   = "fairway_bgp_prefixes_accepted"
	metricPathUp          = "fairway_bfd_session_up"
	metricPathLost        = "fairway_bfd_session_failures_total"
	metricPathChanged     = "fairway_bfd_session_changed_timestamp_seconds"
	metricUnderMaintained = "fairway_maintenance"
)

// metric is one of the agent's numbers.
type metric struct {
	name   string
	kind   prometheus.ValueType // 0 is a histogram
	labels []string
	help   string
}

// countedMetrics are those that are counted as things happen.
func countedMetrics() []metric {
	return []metric{
		{metricBuildInfo, prometheus.GaugeValue, []string{"version"}, "Always 1; the agent's version is the label."},
		{metricCniRequests, 0, []string{"verb", "result"}, "Time that the agent took for a request of the CNI plugin, in seconds. The result is ok, exhausted (no address left), again (try again later), refused (somebody has to change something), cut off (the agent ended) or error."},
		{metricStoreCalls, prometheus.CounterValue, []string{"call", "result"}, "Calls of the API server, or of the embedded store, about blocks and requests: claim, take, return, ask, lend, retract, change, read. The result is ok, lost (another node was faster) or error."},
		{metricStatusReports, prometheus.CounterValue, []string{"result"}, "Writes of this node's NodeSpeaker status: ok or error."},
		{metricKernelRoutes, prometheus.GaugeValue, nil, "Routes of the agent's own in the kernel after the last pass."},
		{metricKernelFailures, prometheus.CounterValue, nil, "Passes after which the kernel's routes were not as they should be."},
	}
}

// readMetrics are those that are read when somebody asks.
func readMetrics() []metric {
	peer := []string{"peer", "address"}
	pool := []string{"pool"}
	return append([]metric{
		{metricReady, prometheus.GaugeValue, nil, "Whether the agent is ready, as /readyz has it: 1 or 0."},
		{metricTroubled, prometheus.GaugeValue, nil, "Whether something does not work that fairway status names: 1 or 0."},
		{metricSpeakerUp, prometheus.GaugeValue, nil, "Whether the BGP speaker answers: 1 or 0; while its process is started again it does not. Without it the sessions are down, and the numbers of learned routes missing."},
		{metricUnderMaintained, prometheus.GaugeValue, nil, "Whether the node is under maintenance by command: 1 or 0."},
		{metricAnnounced, prometheus.GaugeValue, nil, "Prefixes that the node is to announce."},
		{metricBlocksHeld, prometheus.GaugeValue, []string{"state"}, "Blocks of this node that are ready, waiting (the network has not been told yet) or returning."},
		{metricBlocksBorrowed, prometheus.GaugeValue, nil, "Blocks of this node that another node has lent."},
		{metricBlocksLent, prometheus.GaugeValue, nil, "Parts of blocks that this node has lent to others."},
		{metricOpenRequests, prometheus.GaugeValue, nil, "What this node asks the others for."},
		{metricPoolBlocks, prometheus.GaugeValue, pool, "Blocks of the pool on this node."},
		{metricPoolAddresses, prometheus.GaugeValue, []string{"pool", "state"}, "Addresses of the pool in this node's blocks: leased, free, cooling (resting between two pods) or lent."},
		{metricSessionUp, prometheus.GaugeValue, peer, "Whether the BGP session is established: 1 or 0."},
		{metricSessionState, prometheus.GaugeValue, peer, "The BGP session's state as in bgpPeerState (RFC 4273): 1 Idle, 2 Connect, 3 Active, 4 OpenSent, 5 OpenConfirm, 6 Established."},
		{metricSessionChanged, prometheus.GaugeValue, peer, "When the BGP session reached or left Established, in seconds since 1970; 0 for never."},
		{metricSessionFlaps, prometheus.CounterValue, peer, "BGP sessions with the peer that were lost since the peer was configured or the speaker's process began."},
		{metricSessionError, prometheus.GaugeValue, []string{"peer", "address", "reason"}, "1 for the reason why the last BGP session ended or none comes about; missing where none was lost."},
		{metricPrefixesSent, prometheus.GaugeValue, peer, "Prefixes that the peer was told of."},
		{metricPrefixesGot, prometheus.GaugeValue, peer, "Prefixes that the peer has sent."},
		{metricPrefixesTaken, prometheus.GaugeValue, peer, "Prefixes of the peer that its accept lets in; 0 where nothing is learned."},
		{metricPathUp, prometheus.GaugeValue, peer, "Whether the BFD session with the peer is up: 1 or 0; missing where none is configured."},
		{metricPathLost, prometheus.CounterValue, peer, "How often BFD lost the path to the peer."},
		{metricPathChanged, prometheus.GaugeValue, peer, "When the BFD session came to its state, in seconds since 1970."},
	}, learnedMetrics()...)
}
