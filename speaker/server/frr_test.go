package server

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/internal/namespace"
	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
)

const bgpdPath = "/usr/lib/frr/bgpd"

// frr is FRR's bgpd on a loopback address of the test's own namespace.
type frr struct {
	address string
	dir     string
	asn     uint32
}

// startFRR runs bgpd with the configuration of one BGP instance.
func startFRR(t *testing.T, address string, asn uint32, config string) *frr {
	t.Helper()
	namespace.Need(t)
	if _, err := os.Stat(bgpdPath); err != nil {
		t.Skip("FRR is not installed: ", err)
	}
	f := &frr{address: address, asn: asn, dir: shortDir(t)}
	conf := filepath.Join(f.dir, "bgpd.conf")
	must(t, os.WriteFile(conf, []byte(fmt.Sprintf("hostname tor\nrouter bgp %d\n bgp router-id 192.0.2.1\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n bgp graceful-restart stalepath-time 60\n%s", asn, config)), 0o644))
	cmd := exec.Command(bgpdPath, "-Z", "-n", "-S", "-f", conf, "-l", address, "-p", "179", "-P", "0",
		"--vty_socket", f.dir, "-i", filepath.Join(f.dir, "pid"), "--log", "file:"+filepath.Join(f.dir, "log"))
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			out, _ := os.ReadFile(filepath.Join(f.dir, "log"))
			t.Logf("bgpd's log:\n%s", out)
		}
	})
	eventually(t, "bgpd answers", func() bool { return exec.Command("vtysh", "--vty_socket", f.dir, "-c", "show version").Run() == nil })
	return f
}

// shortDir is a temporary directory with a path that unix sockets can have.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bgp")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// ask runs a show command with JSON output.
func (f *frr) ask(t *testing.T, into any, command string) {
	t.Helper()
	out, err := exec.Command("vtysh", "--vty_socket", f.dir, "-c", command+" json").Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// frrRoute is a path in FRR's table.
type frrRoute struct {
	Valid    bool
	Stale    bool
	Nexthops []struct{ IP string }
	Path     string
}

// routes gives FRR's table of the prefix's family.
func (f *frr) routes(t *testing.T, family speaker.Family) map[string][]frrRoute {
	t.Helper()
	var table struct{ Routes map[string][]frrRoute }
	f.ask(t, &table, fmt.Sprintf("show bgp %s unicast", family))
	return table.Routes
}

// has waits until FRR's tables are exactly want.
func (f *frr) has(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	eventually(t, fmt.Sprintf("FRR has %v", want), func() bool {
		got = got[:0]
		for _, family := range []speaker.Family{speaker.IPv4, speaker.IPv6} {
			for p := range f.routes(t, family) {
				got = append(got, p)
			}
		}
		return sameSet(got, want)
	})
}

func (f *frr) peer(name string, families ...speaker.Family) speaker.Peer {
	return speaker.Peer{Name: name, Address: netip.MustParseAddr(f.address), ASN: f.asn, Session: speaker.Session{Families: families, HoldTime: 9 * time.Second}}
}

// neighbor is FRR's configuration for a session with the node.
func neighbor(address string, asn uint32, family speaker.Family, extra ...string) string {
	lines := []string{fmt.Sprintf("neighbor %s remote-as %d", address, asn),
		fmt.Sprintf("neighbor %s passive", address),
		fmt.Sprintf("neighbor %s disable-connected-check", address)}
	for _, e := range extra {
		lines = append(lines, fmt.Sprintf("neighbor %s %s", address, e))
	}
	lines = append(lines, fmt.Sprintf("address-family %s unicast", family), fmt.Sprintf(" neighbor %s activate", address), "exit-address-family")
	return " " + strings.Join(lines, "\n ") + "\n"
}

const observerASN = 64599

// observe gives a router behind FRR, which hears of every moment in which FRR
// has no route. FRR's configuration needs neighbor(address, observerASN, IPv4).
func (f *frr) observe(t *testing.T, address string) *router {
	t.Helper()
	r := startRouter(t, address, observerASN)
	p := peerWithDefaults(f.peer("frr"))
	dials := peerOf(p, speaker.Local{ASN: observerASN}, false)
	dials.Transport.LocalAddress = address
	must(t, r.bgp.AddPeer(t.Context(), &api.AddPeerRequest{Peer: dials}))
	return r
}

// neverLost fails when a route was withdrawn for a while.
func (r *router) neverLost(t *testing.T) {
	t.Helper()
	for _, h := range r.log() {
		if h[0] == '-' {
			t.Errorf("a router behind FRR heard %v: want no withdrawal", r.log())
			return
		}
	}
}
