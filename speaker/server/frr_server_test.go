package server

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/speaker"
)

// Two routers, eBGP and iBGP, each over IPv4 and IPv6 sessions: four sessions.
func TestFRRFamilies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		asn    uint32
		v4, v6 string
		path   string
	}{
		{"eBGP", routerASN, "10.0.0.2", "fd00::2", "64512"},
		{"iBGP", nodeASN, "10.0.0.3", "fd00::3", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v4 := startFRR(t, c.v4, c.asn, neighbor("10.0.0.1", nodeASN, speaker.IPv4))
			v6 := startFRR(t, c.v6, c.asn, neighbor("fd00::1", nodeASN, speaker.IPv6))
			s := newTestServer(t)
			d := speaker.Desired{Local: local(), Peers: []speaker.Peer{v4.peer("tor4"), v6.peer("tor6")}, Announcements: announce("10.1.0.0/26", "2001:db8:1::/64")}
			must(t, s.Set(t.Context(), d))
			must(t, s.Flush(within(t, soon), d.Prefixes()))
			v4.has(t, "10.1.0.0/26")
			v6.has(t, "2001:db8:1::/64")
			r4, r6 := v4.routes(t, speaker.IPv4)["10.1.0.0/26"][0], v6.routes(t, speaker.IPv6)["2001:db8:1::/64"][0]
			if !r4.Valid || !r6.Valid || r4.Path != c.path || r6.Path != c.path {
				t.Errorf("routes %+v and %+v: want valid ones with path %q", r4, r6, c.path)
			}
			if r4.Nexthops[0].IP != "10.0.0.1" || r6.Nexthops[0].IP != "fd00::1" {
				t.Errorf("next hops %v and %v: want the node's address of each session", r4.Nexthops, r6.Nexthops)
			}
			must(t, s.Close(within(t, soon), speaker.Withdraw))
			v4.has(t)
			v6.has(t)
		})
	}
}

// One peer with the wrong password and one with the wrong ASN have no session
// and say why, and the third does not notice.
func TestFRRRefusedPeers(t *testing.T) {
	t.Parallel()
	good := startFRR(t, "10.0.0.2", routerASN, neighbor("10.0.0.1", nodeASN, speaker.IPv4, "password right"))
	secret := startFRR(t, "10.0.0.3", routerASN, neighbor("10.0.0.1", nodeASN, speaker.IPv4, "password right"))
	ours := startFRR(t, "10.0.0.4", routerASN, neighbor("10.0.0.1", nodeASN, speaker.IPv4))
	theirs := startFRR(t, "10.0.0.5", routerASN, neighbor("10.0.0.1", nodeASN+7, speaker.IPv4))
	with := func(p speaker.Peer, password speaker.Secret, asn uint32) speaker.Peer {
		p.Password, p.ASN = password, asn
		return p
	}
	s := newTestServer(t)
	d := speaker.Desired{Local: local(), Announcements: announce("10.1.0.0/26"), Peers: []speaker.Peer{with(good.peer("good"), "right", routerASN)}}
	must(t, s.Set(t.Context(), d))
	must(t, s.Flush(within(t, soon), d.Prefixes()))
	since := stateOf(t, s, "good").Since
	d.Peers = append(d.Peers, with(secret.peer("password"), "wrong", routerASN), with(ours.peer("asn"), "", routerASN+1), theirs.peer("their-asn"))
	must(t, s.Set(t.Context(), d))
	for name, words := range map[string]string{
		"password":  "password",
		"asn":       "as number mismatch",
		"their-asn": "refused our OPEN",
	} {
		eventually(t, name+" says why", func() bool { return strings.Contains(stateOf(t, s, name).LastError, words) })
		if p := stateOf(t, s, name); p.Established() {
			t.Errorf("state of %s: %+v", name, p)
		}
	}
	if p := stateOf(t, s, "good"); !p.Established() || p.Since != since {
		t.Errorf("the good session did not stay up: %+v, was up since %v", p, since)
	}
	good.has(t, "10.1.0.0/26")
	d.Peers = []speaker.Peer{with(good.peer("renamed"), "right", routerASN), with(secret.peer("password"), "right", routerASN)}
	must(t, s.Set(t.Context(), d))
	secret.has(t, "10.1.0.0/26")
	if p := stateOf(t, s, "renamed"); p.Since != since {
		t.Errorf("taking peers away touched the session that stays: %+v", p)
	}
	d.Peers = d.Peers[1:]
	must(t, s.Set(t.Context(), d))
	good.has(t)
}

// The agent is killed, which ends its speaker without a word; the next agent
// starts as a restarting speaker. FRR has the route all the time.
func TestFRRAgentKilled(t *testing.T) {
	t.Parallel()
	f := startFRR(t, "10.0.0.7", routerASN, neighbor("10.0.0.1", nodeASN, speaker.IPv4)+neighbor("10.0.0.8", observerASN, speaker.IPv4))
	behind := f.observe(t, "10.0.0.8")
	d := speaker.Desired{Local: local(), Peers: []speaker.Peer{f.peer("tor")}, Announcements: announce("10.1.0.0/26")}
	pid := killedAgent(t, d, func() { behind.has(t, "10.1.0.0/26") })
	eventually(t, "the child ends with its parent", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/status", pid))
		return err != nil || zombie(pid)
	})
	eventually(t, "FRR sees that the session is gone", func() bool {
		paths := f.routes(t, speaker.IPv4)["10.1.0.0/26"]
		if len(paths) == 0 {
			t.Fatal("the route went with the agent")
		}
		return paths[0].Stale
	})
	d.Local.Restarting = true
	c := newTestChild(t)
	must(t, c.Set(t.Context(), d))
	eventually(t, "the route is fresh again", func() bool {
		paths := f.routes(t, speaker.IPv4)["10.1.0.0/26"]
		if len(paths) == 0 {
			t.Fatal("the route was absent while the next agent started")
		}
		return !paths[0].Stale
	})
	behind.neverLost(t)
	var neighbors map[string]struct{ GracefulRestartInfo struct{ RBit bool } }
	f.ask(t, &neighbors, "show bgp neighbors 10.0.0.1")
	if !neighbors["10.0.0.1"].GracefulRestartInfo.RBit {
		t.Errorf("FRR saw no restart bit: %+v", neighbors)
	}
}

// killedAgent runs an agent until its announcements have left and arrived,
// kills it and gives the process ID of its child.
func killedAgent(t *testing.T, d speaker.Desired, arrived func()) int {
	t.Helper()
	w, err := json.Marshal(d)
	must(t, err)
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), asParent+"="+string(w))
	agent.Stderr = t.Output()
	_, err = agent.StdinPipe() // its end is the agent's
	must(t, err)
	out, err := agent.StdoutPipe()
	must(t, err)
	must(t, agent.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	must(t, err)
	arrived()
	must(t, agent.Process.Kill())
	_ = agent.Wait()
	return pid
}

// zombie says whether a process has ended; in the test's namespace nobody
// collects it.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && strings.Contains(string(b), "State:\tZ")
}
