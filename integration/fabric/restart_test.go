package fabric

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fairway-network/fairway/integration/interop"
	"github.com/fairway-network/fairway/integration/lab/labtest"
	implementation "github.com/fairway-network/fairway/integration/router"
)

// disturbance is something that happens to an agent.
type disturbance struct {
	name string
	do   func(f *fabric)
	// rewrites says that the router may write its kernel's route anew, in one step:
	// what it is told of the prefix has changed.
	rewrites bool
	keeps    bool // the sessions that there are
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
		{name: "a peer is added and removed", keeps: true, do: func(f *fabric) {
			f.reload(strings.Replace(agentConfig, "pools:", spare+"pools:", 1), "the peer is there", func(peers string) bool { return strings.Contains(peers, "spare") })
			f.reload(agentConfig, "the peer is gone", func(peers string) bool { return !strings.Contains(peers, "spare") })
		}},
		{name: "timers are reloaded", keeps: true, do: func(f *fabric) {
			f.reload(strings.ReplaceAll(agentConfig, "holdTime: 9s", "holdTime: 12s")+
				"- {name: other, addresses: [10.244.121.0/24], blockSize: 16}\n", "the file is in force", func(string) bool {
				return strings.Contains(f.Log(f.t), "the changed configuration is in force")
			})
		}},
		{name: "what is said of the routes is reloaded", rewrites: true, keeps: true, do: (*fabric).retell},
		{name: "aggregation is reloaded", rewrites: true, keeps: true, do: (*fabric).aggregate},
		{name: "maintenance", rewrites: true, do: (*fabric).maintain},
	}
}

// maintain asks the router to prefer other ways, for both sessions and for one.
func (f *fabric) maintain() {
	f.t.Helper()
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
}

// retell says other things of the routes.
func (f *fabric) retell() {
	f.t.Helper()
	for _, c := range []struct {
		rule string
		has  [2]bool // communities 64512:1 and 64512:2
	}{
		{`{communities: ["64512:1"]}`, [2]bool{true, false}},
		{`{peers: [tor4, tor6], communities: ["64512:2"], largeCommunities: ["64512:1:2"], med: 7, prepend: 2}`, [2]bool{false, true}},
		{`{communities: ["64512:1"], nextHop: unchanged}`, [2]bool{true, false}}, // it is none of the loopback
		{"", [2]bool{false, false}},
	} {
		f.rule(c.rule)
		for i, has := range c.has {
			f.tagged(4, 64512, uint16(i+1), has)
			f.tagged(6, 64512, uint16(i+1), has)
		}
	}
}

// rule gives the agent one rule of announcements, or none.
func (f *fabric) rule(rule string) {
	f.t.Helper()
	config := agentConfig
	if rule != "" {
		config += "announcements:\n- " + rule + "\n"
	}
	f.Configure(f.t, config)
}

// aggregate has the node hold adjacent blocks, and tells of them as one, apart, and both
// together.
func (f *fabric) aggregate() {
	f.t.Helper()
	var more []string
	for i := range blockSize {
		more = append(more, fmt.Sprintf("more%d", i))
		if out, err := f.CNI(f.t, "ADD", more[i], "web"); err != nil {
			f.t.Fatalf("%v: %s", err, out)
		}
	}
	var joined, apart []string
	for _, a := range f.pod { // its block, and the one that makes a shorter prefix of it
		both := netip.PrefixFrom(a, a.BitLen()-3).Masked()
		one := netip.PrefixFrom(both.Addr(), a.BitLen()-2)
		two := netip.PrefixFrom(both.Addr().Next().Next().Next().Next(), a.BitLen()-2)
		joined, apart = append(joined, both.String()), append(apart, one.String(), two.String())
	}
	f.forwards(joined)
	for _, c := range []struct {
		rule string
		want []string
	}{
		{"{aggregate: {ipv4: 30, ipv6: 126}}", apart},
		{"{aggregate: {specifics: true}}", slices.Concat(joined, apart)},
		{"", joined},
	} {
		f.rule(c.rule)
		f.forwards(c.want)
	}
	for _, c := range more {
		if out, err := f.CNI(f.t, "DEL", c, "web"); err != nil {
			f.t.Fatalf("%v: %s", err, out)
		}
	}
}

// forwards waits until the router's kernel has exactly these routes to the pool.
func (f *fabric) forwards(want []string) {
	f.t.Helper()
	slices.Sort(want)
	f.await(fmt.Sprintf("the router forwards %q", want), func() error {
		var got []string
		for _, family := range []int{4, 6} {
			out, err := f.tor.Exec(f.t.Context(), "ip", fmt.Sprintf("-%d", family), "route")
			if err != nil {
				return err
			}
			for line := range strings.Lines(out) {
				if strings.HasPrefix(line, pool(family)) {
					got = append(got, strings.Fields(line)[0])
				}
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("it has %q", got)
		}
		return nil
	})
}

// TestMain has all routers tried side by side: nearly all that the tests do is to wait.
func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the rows of docs/interop.md")
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Whatever happens to an agent, a client behind the router loses no packet, and the
// router's kernel keeps its routes.
func TestNothingIsLost(t *testing.T) {
	table := interop.Open(t)
	for _, r := range routers() {
		t.Run(r.name, func(t *testing.T) {
			options := []string{"next hop unchanged", "aggregation", "aggregation with the more-specifics", "maintenance by command", "drain", "no packet lost"}
			// OpenBGPD waits longer after each session that has ended, for minutes after some.
			labels := r.name != string(implementation.OpenBGPD)
			if labels {
				options = append(options, "templates and labels")
			}
			for _, option := range options {
				table.Try(t, option, implementation.Implementation(r.name), implementation.IPv4, implementation.IPv6)
			}
			t.Parallel()
			f := newFabric(t, r)
			w := labtest.WatchRoutes(t, f.tor)
			for _, d := range disturbances() {
				f.disturb(t, w, d)
			}
			if labels {
				f.label()
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
	before, err := f.Peers(t)
	must(t, err)
	d.do(f)
	f.fresh()
	if after, err := f.Peers(t); err != nil || d.keeps {
		must(t, err)
		labtest.Undisturbed(t, before["tor4"], after["tor4"])
		labtest.Undisturbed(t, before["tor6"], after["tor6"])
	}
	for _, s := range streams {
		s.Flows()
	}
	events := w.Section(pool4, pool6)
	t.Logf("%s: the router's kernel was told of %d changes", d.name, len(events))
	if len(events) > 0 && !d.rewrites {
		t.Errorf("%s: the router's kernel was told of %d changes: %q", d.name, len(events), events)
	}
	for i, s := range streams {
		count := s.End()
		t.Logf("%s: %s: %s", d.name, f.pod[i], count)
		if len(count.Lost) > f.router.drops(f.pod[i], events) {
			t.Errorf("%s: to %s %s: %v", d.name, f.pod[i], count, count.Lost)
		}
	}
}

// avoided waits until the router is asked to prefer other ways (RFC 8326), or not, for
// each family.
func (f *fabric) avoided(v4, v6 bool) {
	f.t.Helper()
	f.tagged(4, 65535, 0, v4)
	f.tagged(6, 65535, 0, v6)
}

// tagged waits until the router's route has a community, or has it not.
func (f *fabric) tagged(family int, asn, value uint16, want bool) {
	f.t.Helper()
	f.await(fmt.Sprintf("community %d:%d is with the IPv%d route: %t", asn, value, family, want), func() error {
		out, err := f.router.tagged(f.tor, family, asn, value)
		if err == nil && strings.Contains(out, pool(family)) != want {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
}

// A session is shut by command, with the words at the router, and stays so; the
// other is not touched.
func (f *fabric) disablePeer(t *testing.T) {
	t.Helper()
	f.Run(f.t, "peer", "disable", "tor4", "--message", "new optics")
	f.await("the router has no route of that session", func() error { return f.without(4) })
	if _, err := f.router.stale(f.tor, 6); err != nil {
		t.Errorf("the other session: %v", err)
	}
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

// without is an error unless the router has no route of a family.
func (f *fabric) without(family int) error {
	_, err := f.router.stale(f.tor, family)
	if errors.As(err, new(errNone)) {
		return nil
	}
	return fmt.Errorf("it has an IPv%d route: %w", family, err)
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
	f.await("the router has no route", func() error { return errors.Join(f.without(4), f.without(6)) })
	ctx, cancel := context.WithTimeout(t.Context(), labtest.Soon)
	defer cancel()
	must(t, p.Gone(ctx))
}
