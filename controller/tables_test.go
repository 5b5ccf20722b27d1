package controller

import (
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools/exchange"
)

// A list shows no UID and version, and what a change has shown counts more than
// what was read.
func TestUnknownBlocksBecomeKnown(t *testing.T) {
	all := blocks{}
	listed := lies("web", "dead", "10.0.0.0/28", "")
	listed.version = 0
	all.put(listed)
	is := func(string, string) bool { return true }
	if found, unknown := all.suspects(is); len(found) != 0 || len(unknown) != 1 {
		t.Fatalf("found %v, unknown %v", found, unknown)
	}
	read := listed.stored(listed.Prefix)
	read.UID, read.Version, read.Node, read.Tenure = string(aUID(3)), "33", "other", 2
	if err := all.know(read); err != nil {
		t.Fatal(err)
	}
	if found, unknown := all.suspects(is); len(unknown) != 0 || len(found) != 1 || found[0] != read {
		t.Fatalf("found %+v, unknown %v; want %+v", found, unknown, read)
	}
	late := read
	late.Version = "22"
	if err := all.know(late); err != nil || all.of("web")[0].version != 33 {
		t.Errorf("a late answer counts: %v", err)
	}
	all.drop(listed)
	if err := all.know(read); err != nil || len(all.of("web")) != 0 {
		t.Errorf("a removed block is back: %v", err)
	}
}

func TestANodeIsGoneOnEvidenceOnly(t *testing.T) {
	now := day()
	all := nodes{}
	all.put(node{name: "old", machine: "m1", made: now.Add(-time.Hour)})
	all.put(node{name: "again", machine: "m2", made: now.Add(-takeOverTime + time.Second)})
	all.put(node{name: "out", machine: "m3", made: now.Add(-time.Hour), out: true})
	gone := all.gone(now)
	for _, c := range []struct {
		node, machine string
		want          bool
	}{
		{"old", "m1", false}, {"old", "", false}, {"old", "m0", true},
		{"again", "m2", false}, {"again", "m1", false}, {"again", "", false},
		{"out", "m3", true}, {"out", "", true},
		{"nobody", "m9", true}, {"nobody", "", true},
	} {
		if got := gone(c.node, c.machine); got != c.want {
			t.Errorf("node %s of machine %q is gone: %v", c.node, c.machine, got)
		}
	}
	if !all.gone(now.Add(time.Second))("again", "m1") {
		t.Error("a node has had its time to take over and the earlier machine is not gone")
	}
}

// A list without any node is one that failed to be one.
func TestWithoutAnyNodeNobodyIsGone(t *testing.T) {
	s := newCluster(&clients{}, nil)
	s.requests.seen([]exchange.Request{{Name: "r", UID: "1", Node: "n1"}})
	s.blocks.since, s.blocks.table = day(), blocks{}
	s.blocks.table.put(lies("web", "n1", "10.0.0.0/28", ""))
	look := func() (found int, gone bool) {
		l := s.leftovers(day())
		return len(l.blocks), len(l.requests) != 1 || l.gone("n1", "machine-n1") || l.gone("n1", "")
	}
	if found, gone := look(); found != 0 || gone {
		t.Error("before the nodes are read, one is gone")
	}
	s.nodes.since, s.nodes.table = day(), nodes{}
	if found, gone := look(); found != 0 || gone {
		t.Error("one of no nodes is gone")
	}
	s.nodes.table.put(node{name: "n2", machine: "m2"})
	if found, gone := look(); found != 1 || !gone {
		t.Error("a node that others have outlived is not gone")
	}
}
