package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/config"
	"github.com/fairway-network/fairway/internal/namespace"
)

// assemble makes the parts of an agent whose file has these lines about routes.
func assemble(t *testing.T, routes string) {
	t.Helper()
	if err := assembled(t, "routes: "+routes+"\n"); err != nil {
		t.Fatal(err)
	}
}

// assembled makes the parts of an agent whose file has these lines.
func assembled(t *testing.T, lines string) error {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "fairway.yaml")
	text := "node: here\nrunDir: " + dir + "\nstateDir: " + dir + "\n" + lines
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	_, closeAll, err := partsOf(t.Context(), c, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		return err
	}
	return closeAll()
}

// An agent with BGP whose other half was not installed says so at once, and where it
// belongs.
func TestAgentWithoutSpeakerProgram(t *testing.T) {
	namespace.Enter(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(filepath.Dir(self), "fairway-speaker") + " is missing: install it there"
	if err := assembled(t, "bgp: {asn: 64512, routerID: 192.0.2.1}\n"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// An agent that learns no routes leaves none in the kernel of one that did.
func TestLearnedRoutesGoWhenSwitchedOff(t *testing.T) {
	namespace.Enter(t)
	namespace.IP(t, "link add uplink type veth peer name tor")
	namespace.IP(t, "addr add 192.0.2.1/24 dev uplink")
	namespace.IP(t, "addr add 2001:db8::1/64 dev uplink nodad")
	namespace.IP(t, "link set uplink up")
	for routes, stay := range map[string]string{
		"{learned: {enabled: false}}":                                   "other table77",
		"{kernel: {enabled: false}}":                                    "other table77",
		"{learned: {enabled: false, table: 77}}":                        "other learned",
		"{kernel: {enabled: false}, learned: {enabled: true}}":          "other learned table77",
		"{kernel: {enabled: false}, learned: {protocol: 119}}":          "other learned table77",
		"{kernel: {enabled: true}}":                                     "other learned table77",
		"{kernel: {enabled: true, metric: 7}, learned: {metric: 4095}}": "other learned table77",
	} {
		for _, r := range []string{
			"-4 route replace default via 192.0.2.2 proto 118 metric 4096", "-6 route replace 2001:db8:1::/48 via 2001:db8::2 proto 118 metric 4096",
			"-4 route replace 10.0.0.0/8 via 192.0.2.2 proto 118 metric 77", "-4 route replace 172.16.0.0/12 via 192.0.2.2 proto static metric 4096",
			"-4 route replace 10.0.0.0/8 via 192.0.2.2 proto 118 metric 4096 table 77",
		} {
			namespace.IP(t, r)
		}
		assemble(t, routes)
		left := map[string]int{}
		for line := range strings.Lines(namespace.IP(t, "-4 route show table all") + namespace.IP(t, "-6 route show table all")) {
			switch {
			case strings.Contains(line, "table 77"):
				left["table77"]++
			case strings.Contains(line, "proto 118"):
				left["learned"]++
			case strings.Contains(line, "proto static"):
				left["other"]++
			}
		}
		for name, all := range map[string]int{"learned": 3, "other": 1, "table77": 1} {
			want := 0
			if strings.Contains(stay, name) {
				want = all
			}
			if left[name] != want {
				t.Errorf("with %s there are %d routes of %s, want %d", routes, left[name], name, want)
			}
		}
	}
}
