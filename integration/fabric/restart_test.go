package fabric

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/fairway-network/fairway/integration/lab/labtest"
)

// disturbance is something that happens to an agent.
type disturbance struct {
	name string
	do   func(f *fabric)
	// rewrites says that the router may write its kernel's route anew, in one step:
	// what it is told of the prefix has changed.
	rewrites bool
}

// again starts the agent, once the router has noticed that it is gone.
func (f *fabric) again() {
	f.t.Helper()
	f.await("the router keeps the routes as stale ones", func() error { return f.router.holds(f.tor, true) })
	f.start()
}

// reload hands the agent another file and waits for what it makes of it.
func (f *fabric) reload(config, what string, holds func(peers string) bool) {
	f.t.Helper()
	f.configure(config)
	f.await(what, func() error {
		s, err := f.status()
		var names []string
		for _, p := range s.Peers {
			names = append(names, p.Name)
		}
		if peers := strings.Join(names, " "); err == nil && !holds(peers) {
			err = fmt.Errorf("peers %q", peers)
		}
		return err
	})
}

func disturbances() []disturbance {
	return []disturbance{
		{name: "the agent is killed", do: func(f *fabric) {
			f.end("agent", syscall.SIGKILL)
			f.again()
		}},
		{name: "the program is replaced, the agent stopped and started", do: func(f *fabric) {
			f.upgrade()
			f.end("agent", syscall.SIGTERM)
			f.again()
		}},
		{name: "the speaker is killed twice", do: func(f *fabric) {
			for range 2 {
				f.end("speaker", syscall.SIGKILL)
				f.fresh()
			}
		}},
		{name: "the connections are cut", do: func(f *fabric) {
			before, err := f.status()
			must(f.t, err)
			for _, p := range before.Peers {
				labtest.Exec(f.t, f.node, "ss", "-K", "dst", fmt.Sprintf("[%s]", p.Address))
			}
			f.await("the sessions are others", func() error {
				now, err := f.status()
				for i, p := range now.Peers {
					if err == nil && (!p.Established() || p.Since.Equal(before.Peers[i].Since)) {
						err = fmt.Errorf("%+v", p)
					}
				}
				return err
			})
		}},
		{name: "a peer is added and removed", do: func(f *fabric) {
			f.reload(strings.Replace(agentConfig, "pools:", spare+"pools:", 1), "the peer is there", func(peers string) bool { return strings.Contains(peers, "spare") })
			f.reload(agentConfig, "the peer is gone", func(peers string) bool { return !strings.Contains(peers, "spare") })
		}},
		{name: "timers are reloaded", do: func(f *fabric) {
			f.reload(strings.ReplaceAll(agentConfig, "holdTime: 9s", "holdTime: 12s")+
				"- {name: other, addresses: [10.244.121.0/24], blockSize: 16}\n", "the file is in force", func(string) bool {
				return strings.Contains(f.agentLog(), "the changed configuration is in force")
			})
		}},
		{name: "maintenance", rewrites: true, do: func(f *fabric) {
			f.run("agent", "maintenance", "on")
			f.run("agent", "maintenance", "off")
		}},
	}
}

// Whatever happens to the agent, a client behind the router loses no packet, and the
// router's kernel keeps its routes.
func TestNothingIsLost(t *testing.T) {
	for _, r := range routers() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			f := newFabric(t, r)
			w := f.watchRoutes()
			for _, d := range disturbances() {
				f.disturb(t, w, d)
			}
		})
	}
}

func (f *fabric) disturb(t *testing.T, w *watcher, d disturbance) {
	t.Helper()
	streams := []*stream{f.newStream(f.pod[0]), f.newStream(f.pod[1])}
	for _, s := range streams {
		s.flows(t)
	}
	d.do(f)
	f.fresh()
	for i, s := range streams {
		s.flows(t)
		sent, lost := s.end()
		t.Logf("%s: %s: %d packets sent, %d lost", d.name, f.pod[i], sent, len(lost))
		if len(lost) > 0 {
			t.Errorf("%s: of %d packets to %s %d were lost: %v", d.name, sent, f.pod[i], len(lost), lost)
		}
	}
	if events := w.section(); len(events) > 0 && !d.rewrites {
		t.Errorf("%s: the router's kernel was told of %d changes: %q", d.name, len(events), events)
	}
}
