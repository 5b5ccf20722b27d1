package main

import (
	"strings"
	"testing"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/config"
)

// shown is a cluster that shows a node.
type shown struct {
	agent.Cluster
	state     agent.ClusterState
	refreshed bool
}

func (s *shown) Refresh() { s.refreshed = true }

func (s *shown) State() agent.ClusterState { return s.state }

func names(c *config.Config) string {
	var out []string
	for _, p := range c.Peers {
		out = append(out, p.Name)
	}
	return strings.Join(out, " ")
}

// A node is looked at again while the configuration waits for something of it.
func TestNodeIsRefreshed(t *testing.T) {
	cluster := &shown{}
	w := &where{cluster: cluster}
	for _, needed := range []bool{false, true} {
		if w.refresh(needed); cluster.refreshed != needed {
			t.Errorf("needed %t: refreshed %t", needed, cluster.refreshed)
		}
	}
	(&where{}).refresh(true) // without a cluster
}

func TestPeersFollowTheNode(t *testing.T) {
	c := loaded(t, forRacks)
	cluster := &shown{}
	w := &where{cluster: cluster}
	look := func(when, peers, unmet string) {
		t.Helper()
		now := w.resolve(c)
		here, err := now.here, now.unmet
		if names(here) != peers || !strings.HasPrefix(words(err), unmet) || (err == nil) != (unmet == "") {
			t.Errorf("%s: peers %q, %v; want %q, %q", when, names(here), err, peers, unmet)
		}
	}
	look("before the node was seen", "link", "the Node object n1 has not been seen yet")
	cluster.state = agent.ClusterState{Machine: "m1", Labels: map[string]string{"rack": "r1"}}
	look("seen", "r1 link", "peer tor-a: asnFrom label example.com/tor-asn: node n1 has no such label")
	cluster.state.Labels = map[string]string{"rack": "r2", "example.com/tor-asn": "65000"}
	cluster.state.Annotations = map[string]string{"example.com/tor-a": "10.0.0.1"}
	look("labelled", "tor-a link", "")
	cluster.state.Labels = map[string]string{"rack": "r1"}
	look("its label lost", "tor-a r1 link", "peer tor-a: asnFrom label example.com/tor-asn: node n1 has no such label; it stays as it was")
	cluster.state.Labels = map[string]string{"rack": "r1"}
	look("and again", "tor-a r1 link", "peer tor-a: asnFrom label")
	cluster.state.Labels = map[string]string{"rack": "r2", "example.com/tor-asn": "65000"}
	look("labelled again", "tor-a link", "")
	cluster.state.Labels = map[string]string{"rack": "r1", "example.com/tor-asn": "65000"}
	look("moved", "tor-a r1 link", "")
	for range 2 { // what it was is remembered for as long as something is lost
		cluster.state.Labels = map[string]string{"example.com/tor-asn": "65000"}
		look("without the rack", "tor-a r1 link", "peer r1: nodeSelector label rack: node n1 has no such label; it stays as it was")
	}
	cluster.state.Labels = map[string]string{"rack": "r2", "example.com/tor-asn": "65000"}
	look("moved back", "tor-a link", "")
	cluster.state.Labels = map[string]string{"rack": "r1"}
	look("moved, with another label lost", "tor-a r1 link", "peer tor-a")
	cluster.state.Labels = map[string]string{"rack": "r2"}
	look("moved back, with the other still lost", "tor-a link", "peer tor-a")
	cluster.state.Labels = nil
	look("both lost", "tor-a link", "peer tor-a")
	cluster.state.Labels = map[string]string{"rack": "r1"}
	look("to and fro", "tor-a r1 link", "peer tor-a")
	cluster.state.Labels = nil
	look("both lost after that", "tor-a r1 link", "peer tor-a")
	cluster.state.Labels = map[string]string{"rack": "r2", "example.com/tor-asn": "65000"}
	look("all back", "tor-a link", "")
	cluster.state = agent.ClusterState{Seen: true}
	look("gone", "tor-a link", "")
}

// The peers that are configured for the node and can't be in force there are awaited:
// all of them while nobody knows the node.
func TestPeersAreAwaited(t *testing.T) {
	c := loaded(t, forRacks)
	cluster := &shown{}
	w := &where{cluster: cluster}
	for _, look := range []struct {
		when    string
		state   agent.ClusterState
		awaited string
	}{
		{"before the node was seen", agent.ClusterState{}, "tor-a r1"},
		{"without a label", agent.ClusterState{Machine: "m1", Labels: map[string]string{"rack": "r1"}}, "tor-a"},
		{"labelled", agent.ClusterState{
			Machine: "m1", Labels: map[string]string{"example.com/tor-asn": "65000"}, Annotations: map[string]string{"example.com/tor-a": "10.0.0.1"},
		}, ""},
	} {
		cluster.state = look.state
		var awaited []string
		for _, p := range w.resolve(c).settings(nil).Awaited {
			awaited = append(awaited, p.Name)
			if len(p.Families) == 0 {
				t.Errorf("%s: %s has no family", look.when, p.Name)
			}
		}
		if got := strings.Join(awaited, " "); got != look.awaited {
			t.Errorf("%s: %q, want %q", look.when, got, look.awaited)
		}
	}
}
