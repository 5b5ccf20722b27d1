package integration

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/integration/lab/labtest"
)

// processing is what routers, agent and kernel may take beyond BFD's Detection
// Time on a busy machine; without BFD the sessions would last for 90 s.
const processing = 2 * time.Second

// BFD and BGP, end to end, with what docs/bfd.md says of routers and graceful
// restart.
func TestBFD(t *testing.T) {
	f := newDual(t, dualAgent)
	for _, step := range []struct {
		name string
		run  func(*dual)
	}{
		{"the path to FRR is lost", func(f *dual) { f.losePath("tor1", "tor2") }},
		{"the path to BIRD is lost", func(f *dual) { f.losePath("tor2", "tor1") }},
		{"plain bfd at BIRD takes a dead agent for a lost path", (*dual).dieUnderPlainBIRD},
		{"bfd graceful at BIRD takes a lost path for a dead agent", (*dual).losePathUnderGracefulBIRD},
		{"FRR and bfd graceful at BIRD keep routes over restarts", (*dual).restart},
		{"FRR with check-control-plane-failure ignores a lost path", (*dual).losePathUnderCarefulFRR},
		{"BFD is taken away and given back", (*dual).reload},
		{"the path to a router of a range is lost", (*dual).losePathToRange},
	} {
		if !t.Run(step.name, func(t *testing.T) { f.t = t; step.run(f) }) {
			break // nothing is where the next one expects it
		}
	}
	f.t = t
}

// losePath loses the path to the router that the client goes by, with all links
// up. The traffic is back within the Detection Time and what it takes to process, the
// agent has ended that BGP session, and the other one has not noticed.
func (f *dual) losePath(name, other string) {
	f.t.Helper()
	f.prefer(name)
	before := f.mustPeers()
	s := f.stream()
	s.Flows()
	cut := f.cut(name)
	f.goesBy(other)
	f.lost(name, cut)
	s.Flows()
	count := s.End()
	after := f.mustPeers()
	f.t.Log(count)
	if len(count.Lost) == 0 || count.Gap > bfdDetection+processing {
		f.t.Errorf("%s, want some lost and at most %s + %s without a packet", count, bfdDetection, processing)
	}
	if p := after[name]; p.BFD.Failures != before[name].BFD.Failures+1 || !strings.Contains(p.LastError, "BFD") {
		f.t.Errorf("the agent says of %s: %+v", name, p)
	}
	labtest.Undisturbed(f.t, before[other], after[other])
	f.mend(name)
	f.whole()
}

// lost waits until the agent's log says that BFD and then BGP with a router is gone,
// and checks when that was.
func (f *dual) lost(name string, cut time.Time) {
	f.t.Helper()
	for _, what := range []string{"BFD session lost", "BGP session lost"} {
		line := regexp.MustCompile(`(?m)^time=(\S+) .*msg="` + what + `.* peer=` + name + ` `)
		var at time.Time
		f.await("the agent says "+what, func() error {
			for _, m := range line.FindAllStringSubmatch(f.Log(f.t), -1) {
				var err error
				if at, err = time.Parse(time.RFC3339, m[1]); err == nil && at.After(cut) {
					return nil
				}
			}
			return errNotYet
		})
		took := at.Sub(cut)
		f.t.Logf("%s: %s %s after the cut", name, what, took.Round(time.Millisecond))
		if took > bfdDetection+processing {
			f.t.Errorf("%s: %s after %s, want %s + %s at most", name, what, took, bfdDetection, processing)
		}
	}
}

// has waits until a router's path to the block is "none", "fresh" or "stale".
func (f *dual) has(router, want string) {
	f.t.Helper()
	f.await("the path at "+router+" is "+want, func() error {
		if got := map[string]func() string{"tor1": f.atTor1, "tor2": f.atTor2}[router](); got != want {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

func (f *dual) dieUnderPlainBIRD() {
	f.t.Helper()
	f.End(f.t, "agent", syscall.SIGKILL)
	f.has("tor2", "none")
	if got := f.atTor1(); got != "stale" {
		f.t.Errorf("at tor1 the path is %s", got)
	}
	f.Start(f.t)
	f.whole()
}

func (f *dual) losePathUnderGracefulBIRD() {
	f.t.Helper()
	f.configureBIRD("bfd graceful")
	f.whole()
	f.cut("tor2")
	f.has("tor2", "stale")
	f.mend("tor2")
	f.whole()
}

// restart kills the agent, which comes back when BFD has long called it down; stops
// it, and it comes back; kills it, and it is back at once. No packet is lost, and no
// router takes the route out of its kernel.
func (f *dual) restart() {
	f.t.Helper()
	watches := map[string]*labtest.Watch{"tor1": labtest.WatchRoutes(f.t, f.tor1), "tor2": labtest.WatchRoutes(f.t, f.tor2)}
	s := f.stream()
	for _, how := range []struct {
		signal syscall.Signal
		long   bool
	}{{syscall.SIGKILL, true}, {syscall.SIGTERM, true}, {syscall.SIGKILL, false}} {
		s.Flows()
		f.End(f.t, "agent", how.signal)
		if how.long {
			f.await("BFD is down at the routers", func() error {
				if f.bfdAtTor1() == "up" || f.bfdAtTor2() == "Up" {
					return errNotYet
				}
				return nil
			})
			f.has("tor1", "stale")
			f.has("tor2", "stale")
		}
		f.Start(f.t)
		f.whole()
	}
	s.Flows()
	count := s.End()
	f.t.Log(count)
	if len(count.Lost) != 0 {
		f.t.Errorf("%s, want none lost: %v", count, count.Lost)
	}
	for name, w := range watches {
		if events := w.Section("Deleted " + podBlock); len(events) > 0 {
			f.t.Errorf("%s took the route out of its kernel: %q", name, events)
		}
	}
}

// losePathUnderCarefulFRR: the route stays, at the router that the path is lost to.
func (f *dual) losePathUnderCarefulFRR() {
	f.t.Helper()
	f.configureTor1("neighbor 10.0.1.2 bfd check-control-plane-failure")
	f.whole()
	f.cut("tor1")
	f.await("FRR's BGP knows that BFD is down", func() error {
		var neighbors map[string]struct {
			BFD struct{ Status string } `json:"peerBfdInfo"`
		}
		out := f.say(f.tor1, "vtysh", "-d", "bgpd", "-c", "show bgp neighbors 10.0.1.2 json")
		if err := json.Unmarshal([]byte(out), &neighbors); err != nil || neighbors["10.0.1.2"].BFD.Status != "Down" {
			return fmt.Errorf("%w: %s", errNotYet, out)
		}
		return nil
	})
	if got := f.atTor1(); got != "fresh" {
		f.t.Errorf("at tor1 the path is %s: docs/bfd.md says that FRR does nothing", got)
	}
	f.mend("tor1")
	f.configureTor1("no neighbor 10.0.1.2 bfd check-control-plane-failure")
	f.whole()
}

// reload takes BFD from one peer, which is no failure here, and gives it back; the
// other peer is not disturbed.
func (f *dual) reload() {
	f.t.Helper()
	before := f.mustPeers()
	without := strings.Replace(dualAgent, "asn: 65002, bfd: {enabled: true", "asn: 65002, bfd: {enabled: false", 1)
	f.Configure(f.t, without)
	f.await("tor2 has a session without BFD", func() error {
		if p := f.mustPeers()["tor2"]; p.Session != "Established" || p.BFD != nil {
			return errNotYet
		}
		return nil
	})
	f.Configure(f.t, dualAgent)
	f.whole()
	labtest.Undisturbed(f.t, before["tor1"], f.mustPeers()["tor1"])
}

// losePathToRange has tor1 come as a router of a range.
func (f *dual) losePathToRange() {
	f.t.Helper()
	f.Configure(f.t, strings.Replace(dualAgent, "name: tor1, address: 10.0.1.1", "name: rack, range: 10.0.1.0/24", 1))
	const name = "rack/10.0.1.1"
	f.await("the router of the range is watched", func() error {
		if p := f.mustPeers()[name]; !up(p) {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	f.lost(name, f.cut("tor1"))
	f.mend("tor1")
	f.Configure(f.t, dualAgent)
	f.whole()
}
