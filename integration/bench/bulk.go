package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairway-network/fairway/speaker"
)

// bulkPrefixes are announced at once, and withdrawn at once.
const bulkPrefixes = 10_000

// bulk measures how long 10,000 prefixes take from the first call until they are in
// a router's (FRR's) table, and out of it again: with Fairway's speaker, which is
// called, and with daemons that learn them from the kernel, as they have to.
func bulk(ctx context.Context, b *bench, out io.Writer) error {
	tellers := b.tellers()
	told, withdrawn := make(map[string][]span), make(map[string][]span)
	rounds := max(b.rounds/60, 3)
	for n := range rounds {
		for i := range tellers {
			t := tellers[turn(n, i, len(tellers))]
			in, gone, err := b.tell(ctx, t)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			told[t.name], withdrawn[t.name] = append(told[t.name], in), append(withdrawn[t.name], gone)
		}
	}
	fmt.Fprintf(out, "\n### Announcing in bulk\n\n%d prefixes over a session that is up, from the first call until FRR has them all, and until it has none; BIRD and FRR learn them from the kernel, the first call being `ip -batch`. FRR is asked every %v. Medians of %d runs, in turn. Processor time is that of the daemon's processes, and of the router, in the same span.\n\n", bulkPrefixes, askEvery, rounds)
	fmt.Fprint(out, "| | fairway | BIRD | FRR | fairway / BIRD | fairway / FRR |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, row := range []struct {
		name          string
		took          map[string][]span
		of            func(span) time.Duration
		ofBIRD, ofFRR float64
	}{
		{"announced", told, span.elapsed, 0.8, 0.6},
		{"its processor time", told, span.daemonTime, 0, 0},
		{"the router's", told, span.routerTime, 0, 0},
		{"withdrawn", withdrawn, span.elapsed, 1, 0},
		{"its processor time", withdrawn, span.daemonTime, 0, 0},
		{"the router's", withdrawn, span.routerTime, 0, 0},
	} {
		m := func(name string) time.Duration {
			var sample []time.Duration
			for _, s := range row.took[name] {
				sample = append(sample, row.of(s))
			}
			return median(sample)
		}
		fmt.Fprintf(out, "| %s | %s ms | %s ms | %s ms | %s | %s |\n", row.name, ms(m("fairway")), ms(m("BIRD")), ms(m("FRR")),
			verdict(ratio(m("fairway"), m("BIRD")), row.ofBIRD, true), verdict(ratio(m("fairway"), m("FRR")), row.ofFRR, true))
	}
	return nil
}

// span is one way of a run.
type span struct {
	took           time.Duration
	daemon, router time.Duration // of the processor, meanwhile
}

func (s span) elapsed() time.Duration    { return s.took }
func (s span) daemonTime() time.Duration { return s.daemon }
func (s span) routerTime() time.Duration { return s.router }

func (b *bench) tellers() []teller {
	return []teller{{"fairway", b.tellWithFairway}, {"BIRD", b.tellWithBIRD}, {"FRR", b.tellWithFRR}}
}

// teller is a daemon on the node that announces.
type teller struct {
	name  string
	start func(ctx context.Context, node int, dir string) (telling, error)
}

// telling is one that runs.
type telling struct {
	announce, withdraw func(ctx context.Context) error // of all
	one                func(ctx context.Context, p netip.Prefix, announced bool) error
	stop               func()
}

// tell is one run.
func (b *bench) tell(ctx context.Context, t teller) (told, withdrawn span, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	m, told, err := b.meetWithAll(ctx, t)
	if err != nil {
		return told, withdrawn, err
	}
	defer m.end()
	withdrawn, err = m.after(ctx, m.withdraw, 0)
	return told, withdrawn, err
}

// meeting is a node's daemon and a router (FRR) with a session.
type meeting struct {
	pair
	receiver
	telling
}

// meet starts both, each in a namespace of its own, and waits for the session.
func (b *bench) meet(ctx context.Context, t teller) (m meeting, err error) {
	defer func() {
		if err != nil {
			m.end()
		}
	}()
	if m.pair, err = b.newPair(ctx); err != nil {
		return m, err
	}
	if m.receiver, err = startReceiver(ctx, m.tor, filepath.Join(m.dir, "tor")); err != nil {
		return m, err
	}
	m.ends = append(m.ends, m.receiver.stop)
	if m.telling, err = t.start(ctx, m.node, m.dir); err != nil {
		return m, err
	}
	m.ends = append(m.ends, m.telling.stop)
	return m, m.await(ctx, 0)
}

// meetWithAll is meet, after which the router has been told all prefixes, in the span
// told.
func (b *bench) meetWithAll(ctx context.Context, t teller) (m meeting, told span, err error) {
	if m, err = b.meet(ctx, t); err != nil {
		return m, told, err
	}
	if told, err = m.after(ctx, m.announce, bulkPrefixes); err != nil {
		m.end()
	}
	return m, told, err
}

// pair is a node and a router with a link, and a folder for their files.
type pair struct {
	node, tor int // processes that hold their network namespaces
	dir       string
	ends      []func()
}

func (b *bench) newPair(ctx context.Context) (p pair, err error) {
	defer func() {
		if err != nil {
			p.end()
		}
	}()
	if p.dir, err = os.MkdirTemp(b.dir, "pair-"); err != nil {
		return p, err
	}
	for _, pid := range []*int{&p.node, &p.tor} {
		var end func()
		if *pid, end, err = namespace(ctx); err != nil {
			return p, err
		}
		p.ends = append(p.ends, end)
	}
	return p, errors.Join(os.Chmod(p.dir, 0o755), linkBoth(ctx, p.node, p.tor)) // FRR has a user of its own
}

func (p pair) end() {
	for _, end := range slices.Backward(p.ends) {
		end()
	}
}

// after is the span from the begin of a call until the router has n prefixes, which may
// be before the call returns.
func (m meeting) after(ctx context.Context, call func(context.Context) error, n int) (span, error) {
	daemon, router, err := m.processors()
	if err != nil {
		return span{}, err
	}
	begun := time.Now()
	called := make(chan error, 1)
	go func() { called <- call(ctx) }()
	err = m.await(ctx, n)
	s := span{took: time.Since(begun)}
	daemonNow, routerNow, err2 := m.processors()
	s.daemon, s.router = daemonNow-daemon, routerNow-router
	return s, errors.Join(err, err2, <-called)
}

// processors is what the daemons of both sides have taken of the processor.
func (p pair) processors() (node, tor time.Duration, err error) {
	node, errNode := processorTime(daemonsIn(p.node))
	tor, errTor := processorTime(daemonsIn(p.tor))
	return node, tor, errors.Join(errNode, errTor)
}

// daemonsIn are the processes in a namespace but for those that only tell the kernel,
// of which one that has just ended has no name any more.
func daemonsIn(pid int) []int {
	return slices.DeleteFunc(inNamespace(pid), func(p int) bool {
		return slices.Contains([]string{"", "ip", "nsenter"}, readLine(fmt.Sprintf("/proc/%d/comm", p)))
	})
}

// askEvery is how often the router is asked.
const askEvery = 2 * time.Millisecond

// receiver is FRR's bgpd as the router, without a kernel.
type receiver struct {
	vty  *vty
	stop func()
}

func startReceiver(ctx context.Context, tor int, dir string) (receiver, error) {
	const conf = "hostname tor\nrouter bgp 65001\n bgp router-id 192.0.2.1\n no bgp ebgp-requires-policy\n neighbor 192.0.2.2 remote-as 64512\n neighbor 192.0.2.2 timers connect 1\n neighbor 192.0.2.2 passive\n"
	file := filepath.Join(dir, "bgpd.conf")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(file, []byte(conf), 0o644)); err != nil {
		return receiver{}, err
	}
	stop, err := daemonIn(ctx, tor, dir, "bgpd", "/usr/lib/frr/bgpd", "-Z", "-n", "-S", "-f", file, "-P", "0", "--vty_socket", dir, "-i", filepath.Join(dir, "pid"))
	if err != nil {
		return receiver{}, err
	}
	if err := awaitDaemon(ctx, "vtysh", "--vty_socket", dir, "-d", "bgpd", "-c", "show version"); err != nil {
		stop()
		return receiver{}, err
	}
	v, err := dialVTY(ctx, dir, "bgpd")
	if err != nil {
		stop()
		return receiver{}, err
	}
	return receiver{v, sync.OnceFunc(func() { _ = v.conn.Close(); stop() })}, nil
}

// has is the number of prefixes in the router's table, and whether the session is up.
func (r receiver) has(ctx context.Context) (n int, up bool, err error) {
	said, err := r.vty.ask(ctx, "show bgp ipv4 unicast summary json")
	if err != nil {
		return 0, false, fmt.Errorf("ask FRR: %w", err)
	}
	var summary struct {
		Peers map[string]struct {
			PfxRcd int
			State  string
		}
	}
	if err := json.Unmarshal([]byte(said), &summary); err != nil {
		return 0, false, fmt.Errorf("FRR's summary: %w: %s", err, said)
	}
	p := summary.Peers["192.0.2.2"]
	return p.PfxRcd, p.State == "Established", nil
}

// await waits until the router has n prefixes over a session that is up.
func (r receiver) await(ctx context.Context, n int) error {
	said := "nothing"
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		has, up, err := r.has(ctx)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("wait for %d prefixes at the router, which has %s: %w", n, said, ctx.Err())
		case err != nil:
			return err
		case up && has == n:
			return nil
		}
		said = fmt.Sprintf("%d, session up %v", has, up)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func bulkPrefix(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24)
}

func (b *bench) tellWithFairway(ctx context.Context, node int, dir string) (telling, error) {
	f, err := b.newFairwayTeller(node, dir)
	if err != nil {
		return telling{}, err
	}
	all := make([]netip.Prefix, bulkPrefixes)
	for n := range all {
		all[n] = bulkPrefix(n)
	}
	return telling{
		announce: func(ctx context.Context) error { return f.set(ctx, all...) },
		withdraw: func(ctx context.Context) error { return f.set(ctx) },
		one: func(ctx context.Context, p netip.Prefix, announced bool) error {
			if announced {
				return f.set(ctx, p)
			}
			return f.set(ctx)
		},
		stop: f.stop,
	}, f.set(ctx)
}

// fairwayTeller is the speaker as an agent has it.
type fairwayTeller struct {
	child *speaker.Child
	stop  func()
}

func (b *bench) newFairwayTeller(node int, dir string) (fairwayTeller, error) {
	log, err := os.Create(filepath.Join(dir, "fairway.log"))
	if err != nil {
		return fairwayTeller{}, err
	}
	c := speaker.NewChild(speaker.Spawn{
		Path: "nsenter", Args: []string{fmt.Sprintf("--net=/proc/%d/ns/net", node), "--", b.speaker},
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	return fairwayTeller{c, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = errors.Join(c.Close(ctx, speaker.Forward), log.Close())
	}}, nil
}

// set announces these prefixes and no others.
func (f fairwayTeller) set(ctx context.Context, prefixes ...netip.Prefix) error {
	return f.child.Set(ctx, speaker.Desired{
		Local: speaker.Local{ASN: 64512, RouterID: netip.MustParseAddr("192.0.2.2"),
			GracefulRestart: speaker.GracefulRestart{Enabled: true, Time: 2 * time.Minute, Deferral: 10 * time.Second}},
		Peers:         []speaker.Peer{{Name: "tor", Address: netip.MustParseAddr("192.0.2.1"), ASN: 65001}},
		Announcements: speaker.Plainly(prefixes...),
	})
}

// byKernel is a daemon that is told by routes of the kernel.
func byKernel(node int, dir string, stop func()) (telling, error) {
	run := func(word string) (func(context.Context) error, error) {
		var lines strings.Builder
		for n := range bulkPrefixes {
			fmt.Fprintf(&lines, "route %s blackhole %s\n", word, bulkPrefix(n))
		}
		file := filepath.Join(dir, word+".batch")
		return func(ctx context.Context) error { return runIn(ctx, node, "ip", "-batch", file) }, os.WriteFile(file, []byte(lines.String()), 0o600)
	}
	announce, err := run("add")
	withdraw, err2 := run("del")
	kernel, err3 := openKernel(node)
	if err := errors.Join(err, err2, err3); err != nil {
		stop()
		return telling{}, err
	}
	return telling{announce: announce, withdraw: withdraw, one: kernel.blackhole, stop: func() { kernel.Close(); stop() }}, nil
}

// tellWithBIRD gives BIRD room for all events of the kernel: what it misses it sees a
// minute later only.
func (b *bench) tellWithBIRD(ctx context.Context, node int, dir string) (telling, error) {
	file := filepath.Join(dir, "bird.conf")
	conf := "router id 192.0.2.2;\nprotocol device {}\nprotocol kernel { learn; netlink rx buffer 67108864; ipv4 { import all; export none; }; }\n" +
		"protocol bgp tor {\n local as 64512;\n neighbor 192.0.2.1 as 65001;\n connect delay time 1;\n ipv4 { import none; export where net ~ [ 10.0.0.0/8+ ]; };\n}\n"
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return telling{}, err
	}
	stop, err := daemonIn(ctx, node, dir, "bird", "bird", "-f", "-c", file, "-s", filepath.Join(dir, "bird.ctl"), "-P", filepath.Join(dir, "bird.pid"))
	if err != nil {
		return telling{}, err
	}
	return byKernel(node, dir, stop)
}

func (b *bench) tellWithFRR(ctx context.Context, node int, dir string) (telling, error) {
	const conf = `hostname node
router bgp 64512
 bgp router-id 192.0.2.2
 no bgp ebgp-requires-policy
 neighbor 192.0.2.1 remote-as 65001
 neighbor 192.0.2.1 timers connect 1
 neighbor 192.0.2.1 advertisement-interval 0
 address-family ipv4 unicast
  redistribute kernel
 exit-address-family
`
	stop, err := b.startFRR(ctx, node, dir, conf)
	if err != nil {
		return telling{}, err
	}
	return byKernel(node, dir, stop)
}
