package main

import (
	"encoding/json"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent"
)

func TestGetPeers(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	peers := []agent.PeerStatus{
		{Name: "lan 10.0.9.7", Range: "lan", Address: netip.MustParseAddr("10.0.9.7"), ASN: 4200000001, Session: "Established", Since: now.Add(-3*time.Minute - 20*time.Second),
			Advertised: 2, Received: 7, Accepted: 5, RouterID: netip.MustParseAddr("192.0.2.1"), HoldTime: 90 * time.Second,
			Families: []agent.FamilyStatus{{Family: "ipv4"}, {Family: "ipv6"}}, Capabilities: []string{"four-octet ASNs", "route refresh"},
			BFD: &agent.BFDStatus{State: "Up"}},
		{Name: "tor", Address: netip.MustParseAddr("fd00::1"), ASN: 65000, Session: "Idle", Since: now.Add(-12 * time.Second), Flaps: 1, LastError: "hold timer expired"},
		{Name: "unnumbered", Interface: "eth1", ASN: 65000, Session: "Active"},
	}
	for format, want := range map[string]string{
		"": `
PEER           ADDRESS    AS           SESSION       UPTIME     FLAPS   SENT   ACCEPTED   RECEIVED   BFD   LAST ERROR
lan 10.0.9.7   10.0.9.7   4200000001   Established   3m20s      0       2      5          7          Up
tor            fd00::1    65000        Idle          down 12s   1       0      0          0          -     hold timer expired
unnumbered     eth1       65000        Active        never      0       0      0          0          -
`,
		"wide": `
PEER           ADDRESS    AS           SESSION       UPTIME     FLAPS   SENT   ACCEPTED   RECEIVED   BFD   RANGE   ROUTER ID   HOLD    FAMILIES    OFFERED                          LAST ERROR
lan 10.0.9.7   10.0.9.7   4200000001   Established   3m20s      0       2      5          7          Up    lan     192.0.2.1   1m30s   ipv4,ipv6   four-octet ASNs, route refresh
tor            fd00::1    65000        Idle          down 12s   1       0      0          0          -     -       -           -       -           -                                hold timer expired
unnumbered     eth1       65000        Active        never      0       0      0          0          -     -       -           -       -           -
`,
	} {
		var out strings.Builder
		if err := peerFormats()[format](&out, peers, now); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for line := range strings.Lines(out.String()) {
			got.WriteString(strings.TrimRight(line, " \n") + "\n")
		}
		if got.String() != strings.TrimPrefix(want, "\n") {
			t.Errorf("-o %q:\n%s\nwant%s", format, got.String(), want)
		}
	}
	var out strings.Builder
	var back []agent.PeerStatus
	if err := peerFormats()["json"](&out, peers, now); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil || len(back) != 3 || back[0].Accepted != 5 {
		t.Errorf("%v: %s", err, out.String())
	}
}

// refusal is what the program says of arguments, nil if it takes them.
func refusal(t *testing.T, args ...string) error {
	t.Helper()
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(io.Discard)
	return cmd.ExecuteContext(t.Context())
}

// What a group of commands does not know is an error, not a page of help.
func TestUnknownCommandsOfAGroup(t *testing.T) {
	for _, args := range [][]string{{"get", "pools"}, {"peer", "shut"}} {
		if err := refusal(t, args...); err == nil || !strings.Contains(err.Error(), `unknown command "`+args[1]+`"`) {
			t.Errorf("fairway %s: %v", strings.Join(args, " "), err)
		}
	}
}

// Arguments that are missing, or too many, are named.
func TestArguments(t *testing.T) {
	for line, want := range map[string]string{
		"check":                        "fairway check needs the file to check",
		"check a b":                    "fairway check takes one argument, the file to check, and was given 2",
		"peer disable":                 "fairway peer disable needs the name of a peer",
		"agent maintenance":            "fairway agent maintenance needs on or off",
		"status now":                   `fairway status takes no arguments, and was given "now"`,
		"get peers tor-a":              `fairway get peers takes no arguments, and was given "tor-a"`,
		"status -o yaml --run-dir /no": "-o yaml: write json, or leave it out for people",
	} {
		if err := refusal(t, strings.Fields(line)...); err == nil || err.Error() != want {
			t.Errorf("fairway %s: %v, want %s", line, err, want)
		}
	}
}
