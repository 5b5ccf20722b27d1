package config

import "net/netip"

// Metrics is where numbers for Prometheus are served, besides the control socket
// in runDir.
type Metrics struct {
	// Address and port of `/metrics` over HTTP, such as `127.0.0.1:9479`. It has no
	// authentication: what is not loopback is for whoever can reach it.
	Address netip.AddrPort `key:"address" otherwise:"not served over TCP"`
}

// Health is where the agent says whether it is well, besides the control socket
// in runDir, and what counts as well.
type Health struct {
	// Address and port of `/healthz` and `/readyz` over HTTP, such as
	// `127.0.0.1:9480`; it may be that of the metrics. It has no authentication.
	Address netip.AddrPort `key:"address" otherwise:"not served over TCP"`
	// Which peers need a session for this node to be ready: `any` one, routers of
	// ranges included, `all` that are configured with an address or an interface,
	// and at least any, or `none`. A node without peers needs none.
	Peers HealthyPeers `key:"peers" default:"any" oneof:"any,all,none"`
}

// HealthyPeers are those that need a session for a node to be ready.
type HealthyPeers string

const (
	AnyPeer  HealthyPeers = "any"
	AllPeers HealthyPeers = "all"
	NoPeers  HealthyPeers = "none"
)

func (c *Config) checkAddresses(s *source) {
	for _, served := range []struct {
		key string
		at  netip.AddrPort
	}{{"metrics.address", c.Metrics.Address}, {"health.address", c.Health.Address}} {
		if a := served.at; a.IsValid() && (a.Port() == 0 || a.Addr().IsMulticast() || a.Addr() == broadcast()) {
			s.fail(served.key, "%s can't be listened on: write an address of this node and a port, such as 127.0.0.1:9479", a)
		}
	}
}
