package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/speaker"
)

const withMesh = `
node: n1
store: kubernetes
bgp:
  asn: 64512
  mesh: {enabled: true, template: nodes, maxNodes: 12}
templates:
- {name: nodes, families: [ipv6], holdTime: 30s, keepaliveTime: 10s, connectRetryTime: 7s, ttlSecurity: 1, passwordFile: $DIR/password,
   accept: {max: 7}, bfd: {enabled: true, interval: 50ms, receiveInterval: 60ms, multiplier: 5}}
`

func TestMeshReachesTheAgent(t *testing.T) {
	if m := settingsOf(loaded(t, everything), nil).Mesh; m != nil {
		t.Errorf("without one there is a mesh: %+v", m)
	}
	got := settingsOf(loaded(t, withMesh), nil).Mesh
	want := &agent.Mesh{
		Families: []speaker.Family{speaker.IPv6}, Learn: true, MaxPrefixes: 7, MaxNodes: 12,
		Session: speaker.Session{HoldTime: 30 * time.Second, Keepalive: 10 * time.Second, ConnectRetry: 7 * time.Second, TTLSecurity: 1, Password: "hunter2"},
		BFD:     &agent.BFD{Interval: 50 * time.Millisecond, ReceiveInterval: 60 * time.Millisecond, Multiplier: 5},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the mesh is\n%+v\nwant\n%+v", got, want)
	}
	plain := settingsOf(loaded(t, "store: kubernetes\nnode: n1\nbgp: {asn: 64512, mesh: {enabled: true, learn: false}}\n"), nil).Mesh
	if want := (&agent.Mesh{MaxNodes: 200}); !reflect.DeepEqual(plain, want) {
		t.Errorf("a plain mesh is\n%+v\nwant\n%+v", plain, want)
	}
}

func TestCheckSpeaksOfTheMesh(t *testing.T) {
	const want = "This node's AS: 64512\nMesh: every other node of the cluster that has one is a peer, up to 12 nodes\n"
	if got := check(t, written(t, withMesh)); !strings.HasSuffix(got, want) {
		t.Errorf("check says\n%s\nwant\n%s", got, want)
	}
}
