package fabric

import (
	"context"
	"errors"
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
	f.Start(f.t)
}

// reload hands the agent another file and waits for what it makes of it.
func (f *fabric) reload(config, what string, holds func(peers string) bool) {
	f.t.Helper()
	f.Configure(f.t, config)
	f.await(what, func() error {
		s, err := f.Status(f.t)
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
			f.End(f.t, "agent", syscall.SIGKILL)
			f.again()
		}},
		{name: "the program is replaced, the agent stopped and started", do: func(f *fabric) {
			f.Upgrade(f.t)
			f.End(f.t, "agent", syscall.SIGTERM)
			f.again()
		}},
		{name: "the speaker is killed twice", do: func(f *fabric) {
			for range 2 {
				f.End(f.t, "speaker", syscall.SIGKILL)
				f.fresh()
			}
		}},
		{name: "the connections are cut", do: func(f *fabric) {
			before, err := f.Status(f.t)
			must(f.t, err)
			for _, p := range before.Peers {
				labtest.Exec(f.t, f.Node, "ss", "-K", "dst", fmt.Sprintf("[%s]", p.Address))
			}
			f.await("the sessions are others", func() error {
				now, err := f.Status(f.t)
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
				return strings.Contains(f.Log(f.t), "the changed configuration is in force")
			})
		}},
		{name: "maintenance", rewrites: true, do: func(f *fabric) {
			f.Run(f.t, "agent", "maintenance", "on")
			f.avoided(true, true)
			f.End(f.t, "agent", syscall.SIGKILL) // which ends no maintenance
			f.again()
			f.fresh()
			f.avoided(true, true)
			f.Run(f.t, "agent", "maintenance", "off")
			f.avoided(false, false)
			f.Run(f.t, "agent", "maintenance", "on", "--peer", "tor6")
			f.avoided(false, true)
			f.Run(f.t, "agent", "maintenance", "off", "--peer", "tor6")
			f.avoided(false, false)
		}},
	}
}

// Whatever happens to an agent, a client behind the router loses no packet, and the
// router's kernel keeps its routes.
func TestNothingIsLost(t *testing.T) {
	for _, r := range routers() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			f := newFabric(t, r)
			w := labtest.WatchRoutes(t, f.tor)
			for _, d := range disturbances() {
				f.disturb(t, w, d)
			}
			f.disablePeer(t)
			f.drain(t)
		})
	}
}

func (f *fabric) disturb(t *testing.T, w *labtest.Watch, d disturbance) {
	t.Helper()
	var streams []*labtest.Stream
	for _, a := range f.pod {
		streams = append(streams, labtest.StartStream(t, labtest.End{Node: f.client}, labtest.End{Node: f.Node, Address: a}))
	}
	for _, s := range streams {
		s.Flows()
	}
	d.do(f)
	f.fresh()
	for i, s := range streams {
		s.Flows()
		count := s.End()
		t.Logf("%s: %s: %s", d.name, f.pod[i], count)
		if len(count.Lost) > 0 {
			t.Errorf("%s: to %s %s: %v", d.name, f.pod[i], count, count.Lost)
		}
	}
	if events := w.Section(pool4, pool6); len(events) > 0 && !d.rewrites {
		t.Errorf("%s: the router's kernel was told of %d changes: %q", d.name, len(events), events)
	}
}

// avoided waits until the router is asked to prefer other ways, or not, for each
// family.
func (f *fabric) avoided(v4, v6 bool) {
	f.t.Helper()
	for _, c := range []struct {
		family int
		pool   string
		want   bool
	}{{4, pool4, v4}, {6, pool6, v6}} {
		f.await(fmt.Sprintf("the community is with the IPv%d route: %t", c.family, c.want), func() error {
			out, err := f.router.avoided(f.tor, c.family)
			if err == nil && strings.Contains(out, c.pool) != c.want {
				err = fmt.Errorf("it says %q", out)
			}
			return err
		})
	}
}

// A session is shut by command, with the words at the router, and stays so; the
// other is not touched.
func (f *fabric) disablePeer(t *testing.T) {
	t.Helper()
	f.Run(f.t, "peer", "disable", "tor4", "--message", "new optics")
	f.await("the router has no route of that session, and that of the other", func() error {
		_, _, err := f.router.stale(f.tor)
		if err == nil {
			err = errors.New("it has both")
		} else if !strings.Contains(err.Error(), "4") {
			return err
		} else {
			err = nil
		}
		return err
	})
	if out := f.Run(f.t, "status"); !strings.Contains(out, `peer tor4: "new optics"`) {
		t.Errorf("status:\n%s", out)
	}
	f.Run(f.t, "peer", "enable", "tor4")
	f.fresh()
	if out := f.Run(f.t, "status"); strings.Contains(out, "DISABLED") {
		t.Errorf("status:\n%s", out)
	}
	if _, err := f.Node.Exec(t.Context(), "fairway", "peer", "disable", "thor"); err == nil || !strings.Contains(err.Error(), "there are tor4, tor6") {
		t.Errorf("an unknown peer was disabled: %v", err)
	}
}

// drain waits for the pod, and withdraws everything after that.
func (f *fabric) drain(t *testing.T) {
	t.Helper()
	p := f.Process(t, "agent")
	_, err := f.Node.Start(t.Context(), "drain", "fairway", "agent", "drain", "--wait")
	must(t, err)
	f.await("no new pod is served", func() error {
		out, err := f.CNI(t, "ADD", "c2", "web") // which writes its error to the standard output
		if err == nil {
			_, err = f.CNI(t, "DEL", "c2", "web")
			return errors.Join(errors.New("one was served"), err)
		}
		if !strings.Contains(out, "being drained") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	must(t, f.router.holds(f.tor, false))
	_, err = f.CNI(t, "DEL", "c1", "web")
	must(t, err)
	f.await("the router has no route", func() error {
		_, _, err := f.router.stale(f.tor)
		if err == nil || !strings.Contains(err.Error(), "has no") {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), labtest.Soon)
	defer cancel()
	must(t, p.Gone(ctx))
}
