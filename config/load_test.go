package config_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go4.org/netipx"

	"github.com/fairway-network/fairway/config"
	"github.com/fairway-network/fairway/pools"
)

// load loads text as a file of its own.
func load(t *testing.T, text string) (*config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fairway.yaml")
	write(t, path, text)
	return config.Load(path)
}

func mustLoad(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := load(t, text)
	must(t, err)
	return c
}

func addrs(words ...string) []netip.Addr {
	var out []netip.Addr
	for _, w := range words {
		out = append(out, netip.MustParseAddr(w))
	}
	return out
}

func ranges(words ...string) []netipx.IPRange {
	var out []netipx.IPRange
	for _, w := range words {
		r, err := pools.ParseRange(w)
		if err != nil {
			panic(err)
		}
		out = append(out, r)
	}
	return out
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\ngot  %+v\nwant %+v", what, got, want)
	}
}

// plain adds to o what holds for every peer that says nothing else.
func plain(o config.Options) config.Options {
	o.Accept.Max = 10_000
	o.BFD = config.BFD{Interval: 300 * time.Millisecond, ReceiveInterval: 300 * time.Millisecond, Multiplier: 3}
	return o
}

func truth(b bool) *bool { return &b }

// Learned routes are where the agent's own are, and told apart from them.
func TestLearnedRoutes(t *testing.T) {
	clearEnvironment(t)
	for text, want := range map[string]config.LearnedRoutes{
		"kernel: {enabled: false}":                              {Enabled: truth(false), Table: 254, Protocol: 118, Metric: 4096},
		"kernel: {enabled: false}, learned: {enabled: true}":    {Enabled: truth(true), Table: 254, Protocol: 118, Metric: 4096},
		"kernel: {protocol: 118, table: 7}":                     {Enabled: truth(true), Table: 7, Protocol: 117, Metric: 4096},
		"kernel: {table: 7}, learned: {table: 8, protocol: 99}": {},
	} {
		c, err := load(t, "routes: {"+text+"}\n")
		if want == (config.LearnedRoutes{}) {
			if err == nil {
				t.Errorf("%s: loaded", text)
			}
			continue
		}
		must(t, err)
		check(t, text, c.Routes.Learned, want)
	}
}

func TestDefaults(t *testing.T) {
	clearEnvironment(t)
	c := mustLoad(t, "{}\n")
	host, err := os.Hostname()
	must(t, err)
	check(t, "defaults", c, &config.Config{
		Node: strings.ToLower(host),
		BGP: config.BGP{
			Listen:          config.Listen{Addresses: addrs("0.0.0.0", "::"), Port: 179},
			API:             config.API{Socket: "/run/fairway/gobgp.sock"},
			GracefulRestart: config.GracefulRestart{Enabled: true, RestartTime: 120 * time.Second, DeferralTime: 10 * time.Second},
			Mesh:            config.Mesh{Learn: true, MaxNodes: 200},
			OnStop:          config.Forward,
			AnnounceTimeout: 10 * time.Second,
		},
		Store: config.Embedded, StateDir: "/var/lib/fairway", RunDir: "/run/fairway",
		IPAM: config.IPAM{Socket: "/run/fairway/ipam.sock"},
		Routes: config.Routes{
			Kernel:  config.KernelRoutes{Enabled: true, Table: 254, Metric: 2048, Sysctls: config.SetSysctls},
			Learned: config.LearnedRoutes{Enabled: truth(true), Table: 254, Protocol: 118, Metric: 4096},
		},
		Health: config.Health{Peers: config.AnyPeer},
		Log:    config.Log{Level: slog.LevelInfo, Format: config.Text},
	})

	c = mustLoad(t, "runDir: /run/two\nbgp: {asn: 64512}\npeers: [{name: a, address: 10.0.0.1, asn: 65000}, {name: b, address: \"fd00::1\", asn: 65000}]\npools: [{name: p, addresses: [10.1.0.0/24]}]\n")
	check(t, "IPv4 peer", c.Peers[0], config.Peer{Name: "a", Address: addrs("10.0.0.1")[0], Options: plain(config.Options{ASN: 65000, Families: []config.Family{config.IPv4}, HoldTime: 90 * time.Second, Port: 179})})
	check(t, "IPv6 peer's families", c.Peers[1].Families, []config.Family{config.IPv6})
	check(t, "sockets", []string{c.IPAM.Socket, c.BGP.API.Socket}, []string{"/run/two/ipam.sock", "/run/two/gobgp.sock"})
	p := c.Pools[0]
	check(t, "pool", []any{p.BlockSize, p.ReuseAfter, p.IdleAfter, p.Announce}, []any{pools.DefaultBlockSize, time.Minute, 5 * time.Minute, true})
}

func TestEveryKey(t *testing.T) {
	clearEnvironment(t)
	text, err := os.ReadFile("testdata/all.yaml")
	must(t, err)
	dir := passwordDir(t)
	c := mustLoad(t, strings.ReplaceAll(string(text), "$DIR", dir))
	core := c.Pools[0].Checked()
	check(t, "checked pool", []any{core.Name(), core.BlockSize(), core.Size(pools.IPv4)}, []any{"web", 16, uint64(256 + 11 - 1)})
	want := config.Pool{
		Name: "web", Addresses: ranges("10.244.120.0/24", "10.244.121.10-10.244.121.20", "fd00:244::/120", "fd00::"),
		Exclude: ranges("10.244.120.7", "fd00:244::80/121"), BlockSize: 16,
		Gateways:  []netip.Prefix{netip.MustParsePrefix("10.244.0.1/16"), netip.MustParsePrefix("fd00::ffff/16")},
		IdleAfter: 90 * time.Minute,
	}
	check(t, "pool", c.Pools[0].Definition(), want.Definition())
	check(t, "pool's use", []any{c.Pools[0].IdleAfter, c.Pools[0].Announce}, []any{want.IdleAfter, want.Announce})
	check(t, "kubeconfig", c.Kubernetes, config.APIServer{Kubeconfig: "/srv/kubeconfig"})
	if len(c.Warnings) != 1 || c.Warnings[0].Key != "kubernetes.kubeconfig" {
		t.Errorf("warnings %v, want one that nothing reads the kubeconfig", c.Warnings)
	}
	c.Pools, c.Kubernetes, c.Warnings = nil, config.APIServer{}, nil
	check(t, "configuration", c, &config.Config{
		Node: "rack1.node-7",
		BGP: config.BGP{
			ASN: 4200000007, RouterID: addrs("10.0.1.2")[0],
			Listen:          config.Listen{Addresses: addrs("10.0.1.2", "fd00:0:1::2"), Port: 1179},
			API:             config.API{Address: netip.MustParseAddrPort("[::1]:50051")},
			GracefulRestart: config.GracefulRestart{RestartTime: 150 * time.Second, LongLivedTime: time.Hour, DeferralTime: 20 * time.Second},
			Mesh:            config.Mesh{Template: "reflector", Families: []config.Family{config.IPv6}, PasswordFile: dir + "/good", MaxNodes: 7},
			OnStop:          config.Withdraw,
		},
		Peers: c.Peers, Templates: c.Templates, Announcements: c.Announcements,
		Labels: config.Labels{"kubernetes.io/hostname": "n7", "example.com/Rack": "r1", "numbered": "7"},
		Store:  config.Embedded, StateDir: "/srv/fairway", RunDir: "/run/other", IPAM: config.IPAM{Socket: "/run/cni.sock"},
		Routes: config.Routes{
			Kernel:  config.KernelRoutes{Table: 100, Protocol: 200, Metric: 1, Sysctls: config.LeaveSysctls},
			Learned: config.LearnedRoutes{Enabled: truth(true), Table: 101, Protocol: 201, Metric: 2},
		},
		Metrics: config.Metrics{Address: netip.MustParseAddrPort("127.0.0.1:9479")},
		Health:  config.Health{Address: netip.MustParseAddrPort("[::1]:9480"), Peers: config.AllPeers},
		Log:     config.Log{Level: slog.LevelDebug, Format: config.JSON},
	})
}

// TestEveryKeyOfPeers is TestEveryKey for the lists that are about peers.
func TestEveryKeyOfPeers(t *testing.T) {
	clearEnvironment(t)
	text, err := os.ReadFile("testdata/all.yaml")
	must(t, err)
	dir := passwordDir(t)
	c := mustLoad(t, strings.ReplaceAll(string(text), "$DIR", dir))
	rule := func(prefix string, ge, le int) config.PrefixRule {
		return config.PrefixRule{Prefix: config.Network{Prefix: netip.MustParsePrefix(prefix)}, GE: ge, LE: le}
	}
	rack := plain(config.Options{
		NodeSelector: config.Labels{"example.com/Rack": "r1"}, ASN: 4200000002, LocalASN: 4200000008, LocalAddress: addrs("10.0.1.2")[0],
		Passive: true, TTLSecurity: 1, HoldTime: 90 * time.Second, KeepaliveTime: 9 * time.Second, Port: 179,
		Shutdown: true, ShutdownMessage: "until Monday", Families: []config.Family{config.IPv4},
	})
	rack.AddPaths, rack.ExtendedMessages = config.AddPaths{Receive: true}, true
	rack.Accept.Prefixes = []config.PrefixRule{rule("10.0.0.0/8", 8, 24)}
	tor1 := plain(config.Options{
		ASN: 4200000001, Families: []config.Family{config.IPv4, config.IPv6}, PasswordFile: dir + "/good", EBGPMultihop: 2, HoldTime: time.Minute, Port: 1790,
	})
	tor2, lan := rack, rack
	tor2.ASN, tor2.ASNFrom, tor2.HoldTime, tor2.Families = 0, config.NodeValue{Label: "example.com/asn"}, 30*time.Second, nil
	tor2.Accept = config.Accept{Max: 5, Prefixes: []config.PrefixRule{
		rule("0.0.0.0/0", 0, 0), rule("10.0.0.0/8", 16, 32), rule("fd00::/8", 8, 64), rule("::/0", 1, 48),
	}}
	lan.Most = 20
	link := plain(config.Options{Families: []config.Family{config.IPv4, config.IPv6}, HoldTime: 90 * time.Second, Port: 179})
	link.BFD = config.BFD{Enabled: true, Interval: 50 * time.Millisecond, ReceiveInterval: 100 * time.Millisecond, Multiplier: 5}
	check(t, "peers", c.Peers, []config.Peer{
		{Name: "tor1", Address: addrs("fd00:0:1::1")[0], Options: tor1, Password: "hunter2"},
		{Name: "tor2", Template: "rack", AddressFrom: config.NodeValue{Label: "example.com/tor"}, Options: tor2},
		{Name: "link", Interface: "eth1", Options: link},
		{Name: "lan", Template: "rack", Range: config.Network{Prefix: netip.MustParsePrefix("10.0.9.0/24")}, Options: lan},
	})
	preference, med := uint32(0), uint32(50)
	check(t, "announcements", c.Announcements, []config.Announcement{{
		Pools: []string{"web"}, Peers: []string{"tor2", "lan"}, Announce: true,
		Communities: []config.Community{64512<<16 | 100, 0xFFFFFF01, 0xFFFF0000}, LargeCommunities: []config.LargeCommunity{{Global: 4200000007, Local1: 1, Local2: 2}},
		LocalPreference: &preference, MED: &med, Prepend: 3, NextHop: []config.NextHop{"192.0.2.9", "fd00::7"}, Aggregate: config.Aggregate{IPv4: 24, IPv6: 112, Specifics: true},
	}, {
		Peers: []string{"link"}, NextHop: []config.NextHop{config.NextHopSelf},
	}, {
		Peers: []string{"tor1"}, Announce: true, NextHop: []config.NextHop{"192.0.2.9"},
	}, {
		Announce: true, NextHop: []config.NextHop{config.NextHopUnchanged},
	}})
	check(t, "next hops", []any{c.Announcements[0].NextHops(), c.Announcements[2].NextHops(), len(c.Announcements[3].NextHops())},
		[]any{addrs("192.0.2.9", "fd00::7"), addrs("192.0.2.9"), 0})
}

func TestKubernetes(t *testing.T) {
	clearEnvironment(t)
	c, err := config.Load("testdata/kubernetes.yaml")
	must(t, err)
	check(t, "store", []any{c.Store, c.Kubernetes, len(c.Pools), len(c.Peers), c.Warnings},
		[]any{config.Kubernetes, config.APIServer{Kubeconfig: "/etc/fairway/kubeconfig"}, 0, 1, config.Problems(nil)})

	t.Setenv("FAIRWAY_STORE", "kubernetes")
	c = mustLoad(t, "pools: []\n")
	check(t, "in a pod", []any{c.Store, c.Kubernetes}, []any{config.Kubernetes, config.APIServer{}})

	t.Setenv("FAIRWAY_KUBERNETES_KUBECONFIG", "/run/other")
	c = mustLoad(t, "kubernetes: {kubeconfig: /etc/fairway/kubeconfig}\n")
	check(t, "variable", c.Kubernetes, config.APIServer{Kubeconfig: "/run/other"})
}

// The racks of the manual. Its password file is of a machine that has one.
func TestRacks(t *testing.T) {
	clearEnvironment(t)
	text, err := os.ReadFile("testdata/racks.yaml")
	must(t, err)
	c := mustLoad(t, "node: n1\n"+strings.ReplaceAll(string(text), "/etc/fairway/tor/password", passwordDir(t)+"/good"))
	here, err := c.For(config.Node{Name: "n1", Labels: map[string]string{"example.com/asn": "64512", "example.com/tor-asn": "65001"}, Annotations: map[string]string{"example.com/tor-a": "10.1.0.1"}})
	check(t, "what is lacking", fmt.Sprint(err), "peer tor-b: addressFrom annotation example.com/tor-b: node n1 has no such annotation")
	if len(here.Peers) != 1 || here.Peers[0].HoldTime != 9*time.Second || !here.Peers[0].BFD.Enabled || len(c.Warnings) != 0 {
		t.Errorf("peers %+v, warnings %v", here.Peers, c.Warnings)
	}
}

func TestListensOnNothing(t *testing.T) {
	clearEnvironment(t)
	if c := mustLoad(t, "bgp: {listen: {addresses: []}}\n"); len(c.BGP.Listen.Addresses) != 0 {
		t.Errorf("listens on %v, want nothing", c.BGP.Listen.Addresses)
	}
}

func TestLineEndsOfWindows(t *testing.T) {
	clearEnvironment(t)
	if c := mustLoad(t, "node: a\r\npools:\r\n- name: web\r\n  addresses: [fd00::, 10.0.0.0/24]\r\n"); c.Node != "a" || len(c.Pools) != 1 {
		t.Errorf("loaded %+v", c)
	}
}

// A file of garbage gets an answer of bounded length.
func TestProblemsAreBounded(t *testing.T) {
	clearEnvironment(t)
	var text strings.Builder
	for i := range 50_000 {
		fmt.Fprintf(&text, "key%d: 1\n", i)
	}
	_, err := load(t, text.String())
	if err == nil || strings.Count(err.Error(), "\n") != 100 || !strings.HasSuffix(err.Error(), "mend them and try again") {
		t.Errorf("got %d lines", strings.Count(fmt.Sprint(err), "\n")+1)
	}
}

func TestExample(t *testing.T) {
	clearEnvironment(t)
	c, err := config.Load("../deploy/examples/fairway.yaml")
	must(t, err)
	if len(c.Peers) != 2 || len(c.Pools) != 3 || len(c.Warnings) != 0 {
		t.Errorf("peers, pools, warnings = %d, %d, %v", len(c.Peers), len(c.Pools), c.Warnings)
	}
}

// The file of a cluster gives the nodes of each rack the routers of that rack.
func TestExampleOfACluster(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("FAIRWAY_STORE", "kubernetes")
	t.Setenv("FAIRWAY_NODE", "node1")
	c, err := config.Load("../deploy/examples/kubernetes/fairway.yaml")
	must(t, err)
	if len(c.Warnings) != 0 {
		t.Errorf("warnings: %v", c.Warnings)
	}
	for rack, routers := range map[string][]string{"r1": {"10.0.1.1", "10.0.1.2"}, "r2": {"10.0.2.1", "10.0.2.2"}, "r3": nil} {
		here, err := c.For(config.Node{Name: "node1", Labels: map[string]string{"topology.kubernetes.io/rack": rack}})
		must(t, err)
		var has []string
		for _, p := range here.Peers {
			has = append(has, p.Address.String())
		}
		if !slices.Equal(has, routers) {
			t.Errorf("rack %s has %v, want %v", rack, has, routers)
		}
	}
}

func TestPasswords(t *testing.T) {
	clearEnvironment(t)
	dir := passwordDir(t)
	for file, want := range map[string]string{"good": "hunter2", "dos": "hunter2", "80bytes": strings.Repeat("x", 80)} {
		text := fmt.Sprintf("bgp: {asn: 64512}\npeers:\n- name: a\n  address: 10.0.0.1\n  asn: 65000\n  passwordFile: %s/%s\n", dir, file)
		c := mustLoad(t, text)
		if string(c.Peers[0].Password) != want || len(c.Warnings) != 0 {
			t.Errorf("%s: password %q, warnings %v", file, string(c.Peers[0].Password), c.Warnings)
		}
		must(t, os.Chmod(filepath.Join(dir, file), 0o644))
		c = mustLoad(t, text)
		if len(c.Warnings) != 1 || c.Warnings[0].Line != 6 || !strings.Contains(c.Warnings[0].Text, "chmod 600") || string(c.Peers[0].Password) != want {
			t.Errorf("open to all: password %q, warnings %v", string(c.Peers[0].Password), c.Warnings)
		}
	}
}

func TestEnvironmentOverrides(t *testing.T) {
	clearEnvironment(t)
	for name, text := range map[string]string{
		"FAIRWAY_NODE": "from-env", "FAIRWAY_BGP_ASN": "64999", "FAIRWAY_BGP_ROUTER_ID": "10.9.9.9", "FAIRWAY_BGP_LISTEN_PORT": "1790",
		"FAIRWAY_BGP_GRACEFUL_RESTART_ENABLED": "false", "FAIRWAY_BGP_ANNOUNCE_TIMEOUT": "3s", "FAIRWAY_RUN_DIR": "/run/env",
		"FAIRWAY_ROUTES_KERNEL_SYSCTLS": "off", "FAIRWAY_LOG_LEVEL": "warn", "FAIRWAY_BGP_ON_STOP": "", // empty: not set
		"FAIRWAY_SERVICE_HOST": "10.96.0.1", "FAIRWAY_PORT_443_TCP": "tcp://10.96.0.1:443", "FAIRWAY_PEERS_PORT": "tcp://10.96.0.2:179",
		"FAIRWAY_SOMETHING_ELSE": "1", "FAIRWAY_BGP_SERVICE_PORT_HTTP": "80",
	} {
		t.Setenv(name, text)
	}
	c := mustLoad(t, "node: from-file\nbgp: {asn: 64512, onStop: withdraw, api: {address: 127.0.0.1:1}}\n")
	check(t, "overridden", []any{c.Node, c.BGP.ASN, c.BGP.RouterID, c.BGP.Listen.Port, c.BGP.GracefulRestart.Enabled, c.BGP.AnnounceTimeout, c.IPAM.Socket, c.Routes.Kernel.Sysctls, c.Log.Level},
		[]any{"from-env", config.ASN(64999), addrs("10.9.9.9")[0], uint16(1790), false, 3 * time.Second, "/run/env/ipam.sock", config.LeaveSysctls, slog.LevelWarn})
	check(t, "kept", []any{c.BGP.OnStop, c.BGP.API.Address.String(), c.BGP.Listen.Addresses}, []any{config.Withdraw, "127.0.0.1:1", addrs("0.0.0.0", "::")})
}

func TestWrongEnvironment(t *testing.T) {
	clearEnvironment(t)
	for name, text := range map[string]string{
		"FAIRWAY_NODE": "Node 1", "FAIRWAY_BGP_ASN": "0", "FAIRWAY_BGP_ROUTERID": "10.0.0.1", "FAIRWAY_BGP_ROUTER_ID": "224.0.0.1",
		"FAIRWAY_BGP_LISTEN_PORT": "tcp://10.96.0.1:179", "FAIRWAY_BGP_API_ADDRESS": "10.0.0.1:50051", "FAIRWAY_PEERS": "10.0.0.1",
		"FAIRWAY_BGP_LISTEN_ADDRESSES": "0.0.0.0", "FAIRWAY_BGP_GRACEFUL_RESTART_ENABLED": "yes", "FAIRWAY_IPAM_SOCKETS": "/x",
		"FAIRWAY_POOLS_0_NAME": "web", "FAIRWAY_STATE_DIR": "here", "FAIRWAY_BGP_ANNOUNCE_TIMEOUT": "10", "FAIRWAY_STORE": "kubernetes",
		"FAIRWAY_KUBERNETES_KUBECONFIG": "admin.conf",
	} {
		t.Setenv(name, text)
	}
	path := filepath.Join(t.TempDir(), "fairway.yaml")
	write(t, path, "bgp: {asn: 64512}\npeers: [{name: a, address: 10.0.0.1, asn: 65000}]\npools: [{name: web, addresses: [10.1.0.0/24]}]\n")
	_, err := config.Load(path)
	if err == nil {
		t.Fatal("loaded")
	}
	lines := strings.Split(strings.ReplaceAll(err.Error(), path, filepath.Base(path)), "\n")
	slices.Sort(lines)
	compare(t, "testdata/environment.err", strings.Join(lines, "\n")+"\n")
}
