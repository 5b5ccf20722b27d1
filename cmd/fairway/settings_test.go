package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/config"
	"github.com/fairway-network/fairway/speaker"
)

// loaded is a configuration of that text, with $DIR for a directory in which there
// is a file "password".
func loaded(t *testing.T, text string) *config.Config {
	t.Helper()
	file := written(t, text)
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func written(t *testing.T, text string) (file string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"password": "hunter2", "fairway.yaml": strings.ReplaceAll(text, "$DIR", dir)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "fairway.yaml")
}

// A node's own addresses are told from those of its bridges by its peers.
func TestFacing(t *testing.T) {
	peers := []config.Peer{
		{Address: netip.MustParseAddr("127.0.0.5")},
		{Address: netip.MustParseAddr("192.0.2.1")},
		{Interface: "eth9"},
	}
	peers[1].LocalAddress = netip.MustParseAddr("192.0.2.2")
	if got, want := facing(peers), []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.2")}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// everything has a value other than the zero one in every key of peers and
// announcements.
const everything = `
node: n1
bgp: {asn: 64512, routerID: 10.0.0.9, gracefulRestart: {longLivedTime: 1h}}
templates:
- {name: tor, asn: 65000, port: 1179, localASN: 64999, holdTime: 30s, keepaliveTime: 10s, passwordFile: $DIR/password}
peers:
- name: tor
  template: tor
  address: 10.0.0.1
  localAddress: 10.0.0.9
  ebgpMultihop: 2
  connectRetryTime: 7s
  addPaths: {receive: true}
  extendedMessages: true
  shutdown: true
  shutdownMessage: until Monday
  bfd: {enabled: true, interval: 50ms, receiveInterval: 60ms, multiplier: 5}
  accept: {max: 7, prefixes: [{prefix: 10.0.0.0/8, ge: 16, le: 24}]}
- {name: link, interface: eth1}
- {name: lan, template: tor, range: 10.0.1.0/24, most: 9, ttlSecurity: 1, connectRetryTime: 7s, accept: {prefixes: [{prefix: 0.0.0.0/0}]}}
- {name: reflector, address: 10.0.0.2, asn: 64512, routeReflectorClient: true, passive: true}
announcements:
- pools: [web]
  peers: [tor]
  communities: ["64512:100", graceful-shutdown]
  largeCommunities: ["1:2:3"]
  localPreference: 50
  med: 0
  prepend: 3
  nextHop: [10.0.0.8, "fd00::8"]
  aggregate: {ipv4: 24, ipv6: 64, specifics: true}
- {peers: [lan], announce: false}
- {nextHop: unchanged}
pools:
- {name: web, addresses: [10.9.0.0/24], announce: false}
`

// A key that reaches the agent in no peer was forgotten.
func TestEveryKeyReachesTheAgent(t *testing.T) {
	s := settingsOf(loaded(t, everything), nil)
	set := map[string]bool{}
	for _, p := range s.Peers {
		fields(set, reflect.ValueOf(p))
	}
	for _, rg := range s.Ranges {
		fields(set, reflect.ValueOf(rg))
	}
	for _, r := range s.Rules {
		fields(set, reflect.ValueOf(r))
	}
	for _, b := range s.BFD {
		fields(set, reflect.ValueOf(b))
	}
	fields(set, reflect.ValueOf(s.Local.GracefulRestart))
	for _, v := range []any{speaker.Peer{}, speaker.Range{}, speaker.Session{}, speaker.Accept{}, speaker.PrefixRule{}, agent.Rule{}, speaker.Attributes{}, agent.Aggregate{}, agent.BFD{}, speaker.GracefulRestart{}} {
		for f := range reflect.TypeOf(v).Fields() {
			if name := reflect.TypeOf(v).Name() + "." + f.Name; !set[name] && name != "GracefulRestart.Restarting" {
				t.Errorf("no key sets %s", name)
			}
		}
	}
}

// fields notes those of v, and of what is in v, that are not zero.
func fields(set map[string]bool, v reflect.Value) {
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			fields(set, v.Index(i))
		}
	case reflect.Struct:
		for f, inner := range v.Fields() {
			if !inner.IsZero() {
				set[v.Type().Name()+"."+f.Name] = true
			}
			fields(set, inner)
		}
	}
}

func TestSettings(t *testing.T) {
	s := settingsOf(loaded(t, everything), []netip.Addr{netip.MustParseAddr("10.0.0.9")})
	if len(s.Peers) != 3 || len(s.Ranges) != 1 || len(s.Rules) != 3 || len(s.BFD) != 1 || s.Unmet != nil {
		t.Fatalf("settings %+v", s)
	}
	tor, link, lan := s.Peers[0], s.Peers[1], s.Ranges[0]
	if tor.ASN != 65000 || tor.Port != 1179 || tor.Password != "hunter2" || tor.Accept.Prefixes[0] != (speaker.PrefixRule{Network: netip.MustParsePrefix("10.0.0.0/8"), AtLeast: 16, AtMost: 24}) {
		t.Errorf("tor %+v", tor)
	}
	if link.Interface != "eth1" || link.Address.IsValid() || link.ASN != 0 || len(link.Families) != 2 {
		t.Errorf("link %+v", link)
	}
	if lan.Most != 9 || lan.ConnectRetry != 0 || lan.Accept.Prefixes[0].AtMost != 0 || lan.Accept.Max != 10_000 {
		t.Errorf("lan %+v", lan)
	}
	if r := s.Rules[0]; *r.Attributes.MED != 0 || r.Attributes.Communities[1] != speaker.GracefulShutdown || r.Withhold || r.OwnNextHop {
		t.Errorf("first rule %+v", r)
	}
	if hops := s.Rules[0].Attributes.NextHops; len(hops) != 2 || hops[0].String() != "10.0.0.8" || hops[1].String() != "fd00::8" {
		t.Errorf("next hops %v", hops)
	}
	if !s.Rules[1].Withhold || !s.Rules[2].OwnNextHop {
		t.Errorf("other rules %+v", s.Rules[1:])
	}
}

// check runs the check command and gives all that it says.
func check(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := command()
	cmd.SetArgs(append([]string{"check"}, args...))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		out.WriteString("refused: " + err.Error() + "\n")
	}
	return strings.ReplaceAll(out.String(), filepath.Dir(args[0])+"/", "")
}

const forRacks = `
store: kubernetes
node: n1
bgp: {asn: 64512}
templates: [{name: tor, asnFrom: {label: example.com/tor-asn}, holdTime: 9s}]
peers:
- {name: tor-a, template: tor, addressFrom: {annotation: example.com/tor-a}}
- {name: r1, address: "fd00::1", asn: 65001, nodeSelector: {rack: r1}}
- {name: link, interface: eth1}
`

func TestCheckPrintsThePeersOfANode(t *testing.T) {
	file := written(t, forRacks)
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "fairway.yaml: good: 3 peers, 0 pools\nThe peers depend on the node: see with --labels and --annotations which ones it would have.\n"},
		{[]string{"--labels", "rack=r1,example.com/tor-asn=65000", "--annotations", "example.com/tor-a=10.1.0.1"}, `fairway.yaml: good: node n1, 3 peers, 0 pools
This node's AS: 64512
PEER    ADDRESS    AS         FAMILIES    HOLD TIME   TEMPLATE
tor-a   10.1.0.1   65000      ipv4        9s          tor
r1      fd00::1    65001      ipv6        1m30s       -
link    eth1       external   ipv4,ipv6   1m30s       -
`},
		{[]string{"--labels", "rack=r2"}, `This node's AS: 64512
PEER   ADDRESS   AS         FAMILIES    HOLD TIME   TEMPLATE
link   eth1      external   ipv4,ipv6   1m30s       -
refused: fairway.yaml: peer tor-a: asnFrom label example.com/tor-asn: node n1 has no such label
fairway.yaml: peer tor-a: addressFrom annotation example.com/tor-a: node n1 has no such annotation
`},
	} {
		if got := check(t, append([]string{file}, c.args...)...); got != c.want {
			t.Errorf("check %v:\n%s\nwant:\n%s", c.args, got, c.want)
		}
	}
}

func TestCheckCounts(t *testing.T) {
	const one = "store: embedded\nbgp: {asn: 64512, routerID: 10.0.0.1}\npeers: [{name: tor, address: 10.0.0.2, asn: 65000}]\npools: [{name: web, addresses: [10.9.0.0/24]}]\nnode: n1\n"
	if got := check(t, written(t, one)); !strings.Contains(got, "good: node n1, 1 peer, 1 pool\n") {
		t.Errorf("a file with a peer and a pool: %s", got)
	}
	if got := check(t, "--help"); strings.Contains(got, "default []") {
		t.Errorf("what is empty anyway is called a default:\n%s", got)
	}
}
