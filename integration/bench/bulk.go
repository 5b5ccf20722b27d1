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
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairway-network/fairway/speaker"
)

// bulkPrefixes are announced at once, and withdrawn at once.
const bulkPrefixes = 10_000

// bulk measures how long 10,000 prefixes take from the first call until they are in
// a router's (FRR's) table, and out of it again: with Fairway's speaker, which is
// called, and with daemons that learn them from the kernel, as they have to.
func bulk(ctx context.Context, b *bench, out io.Writer) error {
	tellers := []teller{{"fairway", b.tellWithFairway}, {"BIRD", b.tellWithBIRD}, {"FRR", b.tellWithFRR}}
	told, withdrawn := make(map[string][]time.Duration), make(map[string][]time.Duration)
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
	fmt.Fprintf(out, "\n### Announcing in bulk\n\n%d prefixes over a session that is up, from the first call until FRR has them all, and until it has none; BIRD and FRR learn them from the kernel, the first call being `ip -batch`. FRR is asked without a pause, which takes it some milliseconds. Medians of %d runs, in turn.\n\n", bulkPrefixes, rounds)
	fmt.Fprint(out, "| | fairway | BIRD | FRR | fairway / BIRD | fairway / FRR |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, row := range []struct {
		name          string
		took          map[string][]time.Duration
		ofBIRD, ofFRR float64
	}{{"announced", told, 0.8, 0.6}, {"withdrawn", withdrawn, 1, 0}} {
		m := func(name string) time.Duration { return median(row.took[name]) }
		fmt.Fprintf(out, "| %s | %s ms | %s ms | %s ms | %s | %s |\n", row.name, ms(m("fairway")), ms(m("BIRD")), ms(m("FRR")),
			verdict(ratio(m("fairway"), m("BIRD")), row.ofBIRD, true), verdict(ratio(m("fairway"), m("FRR")), row.ofFRR, true))
	}
	return nil
}

// teller is a daemon on the node that announces.
type teller struct {
	name  string
	start func(ctx context.Context, node int, dir string) (telling, error)
}

// telling is one that runs.
type telling struct {
	announce, withdraw func(ctx context.Context) error
	stop               func()
}

// tell is one run: a node and a router in namespaces of their own.
func (b *bench) tell(ctx context.Context, t teller) (told, withdrawn time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp(b.dir, "tell-")
	if err != nil {
		return 0, 0, err
	}
	node, endNode, err := namespace(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer endNode()
	tor, endTor, err := namespace(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer endTor()
	if err := linkBoth(ctx, node, tor); err != nil {
		return 0, 0, err
	}
	r, err := startReceiver(ctx, tor, filepath.Join(dir, "tor"))
	if err != nil {
		return 0, 0, err
	}
	defer r.stop()
	running, err := t.start(ctx, node, dir)
	if err != nil {
		return 0, 0, err
	}
	defer running.stop()
	if err := r.await(ctx, 0); err != nil {
		return 0, 0, err
	}
	if told, err = r.after(ctx, running.announce, bulkPrefixes); err != nil {
		return 0, 0, err
	}
	withdrawn, err = r.after(ctx, running.withdraw, 0)
	return told, withdrawn, err
}

// receiver is FRR's bgpd as the router, without a kernel.
type receiver struct {
	dir  string
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
	return receiver{dir, stop}, nil
}

// has is the number of prefixes in the router's table, and whether the session is up.
func (r receiver) has(ctx context.Context) (n int, up bool, err error) {
	said, err := exec.CommandContext(ctx, "vtysh", "--vty_socket", r.dir, "-d", "bgpd", "-c", "show bgp ipv4 unicast summary json").CombinedOutput()
	if err != nil {
		return 0, false, fmt.Errorf("ask FRR: %w: %s", err, said)
	}
	var summary struct {
		Peers map[string]struct {
			PfxRcd int
			State  string
		}
	}
	if err := json.Unmarshal(said, &summary); err != nil {
		return 0, false, fmt.Errorf("FRR's summary: %w: %s", err, said)
	}
	p := summary.Peers["192.0.2.2"]
	return p.PfxRcd, p.State == "Established", nil
}

// await waits until the router has n prefixes over a session that is up.
func (r receiver) await(ctx context.Context, n int) error {
	said := "nothing"
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
	}
}

// after is the time from the begin of a call until the router has n prefixes, which may
// be before the call returns.
func (r receiver) after(ctx context.Context, call func(context.Context) error, n int) (time.Duration, error) {
	begun := time.Now()
	called := make(chan error, 1)
	go func() { called <- call(ctx) }()
	err := r.await(ctx, n)
	took := time.Since(begun)
	return took, errors.Join(err, <-called)
}

func bulkPrefix(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24)
}

func (b *bench) tellWithFairway(ctx context.Context, node int, dir string) (telling, error) {
	log, err := os.Create(filepath.Join(dir, "fairway.log"))
	if err != nil {
		return telling{}, err
	}
	c := speaker.NewChild(speaker.Spawn{
		Path: "nsenter", Args: []string{fmt.Sprintf("--net=/proc/%d/ns/net", node), "--", b.speaker},
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	d := speaker.Desired{
		Local: speaker.Local{ASN: 64512, RouterID: netip.MustParseAddr("192.0.2.2"),
			GracefulRestart: speaker.GracefulRestart{Enabled: true, Time: 2 * time.Minute, Deferral: 10 * time.Second}},
		Peers: []speaker.Peer{{Name: "tor", Address: netip.MustParseAddr("192.0.2.1"), ASN: 65001}},
	}
	full := d
	for n := range bulkPrefixes {
		full.Announcements = append(full.Announcements, speaker.Announcement{Prefix: bulkPrefix(n)})
	}
	return telling{
		announce: func(ctx context.Context) error { return c.Set(ctx, full) },
		withdraw: func(ctx context.Context) error { return c.Set(ctx, d) },
		stop: func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_ = errors.Join(c.Close(ctx, speaker.Forward), log.Close())
		},
	}, c.Set(ctx, d)
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
	if err := errors.Join(err, err2); err != nil {
		stop()
		return telling{}, err
	}
	return telling{announce, withdraw, stop}, nil
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
