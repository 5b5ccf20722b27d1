package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fairway-network/fairway/speaker"
)

const (
	// learnedRoutes are announced by one router, all at once.
	learnedRoutes = 100_000
	// firstBytes have come when the router has begun with its UPDATEs.
	firstBytes   = 10_000
	learnedAddrs = "192.0.2.1 192.0.2.2" // of the router and of the node
	// restTime is after which a daemon has given back what it needed in haste.
	restTime = 4 * time.Second
)

// learnedKernel measures how long it takes until what a router tells is in the
// kernel, for daemons in turn.
func learnedKernel(ctx context.Context, b *bench, out io.Writer) error {
	learners := []learner{
		{"fairway", b.learnWithFairway},
		{"BIRD", b.learnWithBIRD},
		{"FRR", b.learnWithFRR},
	}
	runs := make(map[string][]lesson)
	rounds := max(b.rounds/60, 3)
	for range rounds {
		for _, l := range learners {
			r, err := b.learn(ctx, l)
			if err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			runs[l.name] = append(runs[l.name], r)
		}
	}
	fmt.Fprintf(out, "\n### Learned routes\n\n%d routes of one router, from its first UPDATEs to the last route in the node's kernel; "+
		"medians of %d runs, in turn. Processor time is that of the daemon's processes in the same span, memory (PSS) what they have at its end, and at rest %v later.\n\n", learnedRoutes, rounds, restTime)
	fmt.Fprint(out, "| | fairway | BIRD | FRR | fairway / BIRD | fairway / FRR |\n| --- | --- | --- | --- | --- | --- |\n")
	row := func(what string, cell func(float64) string, atMost [2]float64, of func(lesson) float64) {
		m := func(name string) float64 {
			var sample []float64
			for _, r := range runs[name] {
				sample = append(sample, of(r))
			}
			return median(sample)
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s |\n", what, cell(m("fairway")), cell(m("BIRD")), cell(m("FRR")),
			verdict(m("fairway")/m("BIRD"), atMost[0], true), verdict(m("fairway")/m("FRR"), atMost[1], true))
	}
	seconds := func(v float64) string { return fmt.Sprintf("%.2f s", v) }
	row("time", seconds, [2]float64{1.1, 0.55}, func(r lesson) float64 { return r.took.Seconds() })
	row("processor time", seconds, [2]float64{}, func(r lesson) float64 { return r.cpu.Seconds() })
	megabytes := func(v float64) string { return fmt.Sprintf("%.0f MB", v) }
	row("memory", megabytes, [2]float64{}, func(r lesson) float64 { return float64(r.memory) / 1e6 })
	row("memory at rest", megabytes, [2]float64{}, func(r lesson) float64 { return float64(r.atRest) / 1e6 })
	return nil
}

// lesson is what one run took.
type lesson struct {
	took   time.Duration
	cpu    time.Duration // of the daemon's processes, meanwhile
	memory int64         // that they have in the end, in bytes
	atRest int64         // and a while later
}

// learner is a daemon that learns on the node. start returns at once, with what
// ends it.
type learner struct {
	name  string
	start func(ctx context.Context, node int, dir string) (stop func(), err error)
}

// learn is one run: a node and a router in namespaces of their own.
func (b *bench) learn(ctx context.Context, l learner) (lesson, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp(b.dir, "learn-")
	if err != nil {
		return lesson{}, err
	}
	node, endNode, err := namespace(ctx)
	if err != nil {
		return lesson{}, err
	}
	defer endNode()
	tor, endTor, err := namespace(ctx)
	if err != nil {
		return lesson{}, err
	}
	defer endTor()
	if err := linkBoth(ctx, node, tor); err != nil {
		return lesson{}, err
	}
	stopRouter, err := startTeacher(ctx, tor)
	if err != nil {
		return lesson{}, err
	}
	defer stopRouter()
	before, err := installed(node)
	if err != nil {
		return lesson{}, err
	}
	stop, err := l.start(ctx, node, dir)
	if err != nil {
		return lesson{}, err
	}
	defer stop()
	return awaitLearned(ctx, node, before)
}

// awaitLearned measures from the router's first UPDATEs to the last route.
func awaitLearned(ctx context.Context, node, before int) (lesson, error) {
	var begun time.Time
	var already time.Duration
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			has, err := installed(node)
			return lesson{}, errors.Join(ctx.Err(), fmt.Errorf("%d routes have come", has-before), err)
		}
		if begun.IsZero() {
			got, err := receivedBytes(node)
			if err != nil {
				return lesson{}, err
			}
			if got > firstBytes {
				begun = time.Now()
				already, err = processorTime(inNamespace(node))
			}
			if err != nil {
				return lesson{}, err
			}
			continue
		}
		if n%5 > 0 { // counting walks through the table
			continue
		}
		has, err := installed(node)
		if err != nil {
			return lesson{}, err
		}
		if has-before >= learnedRoutes {
			return summed(ctx, node, time.Since(begun), already)
		}
	}
}

// summed is a run that took so long, with what the processes in a namespace took of
// the processor but for what they had taken already.
func summed(ctx context.Context, node int, took, already time.Duration) (lesson, error) {
	daemons := inNamespace(node)
	cpu, err := processorTime(daemons)
	if err != nil {
		return lesson{}, err
	}
	_, proportional, err := memory(daemons)
	if err != nil {
		return lesson{}, err
	}
	select {
	case <-time.After(restTime):
	case <-ctx.Done():
		return lesson{}, ctx.Err()
	}
	_, atRest, err := memory(daemons)
	return lesson{took, cpu - already, proportional, atRest}, err
}

// inNamespace are the processes in the network namespace of one, that one excepted.
func inNamespace(pid int) []int {
	link := func(pid string) string { name, _ := os.Readlink("/proc/" + pid + "/ns/net"); return name }
	namespace := link(strconv.Itoa(pid))
	entries, _ := os.ReadDir("/proc")
	var found []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n != pid && link(e.Name()) == namespace {
			found = append(found, n)
		}
	}
	return found
}

// installed is the number of prefixes in the main table of a namespace.
func installed(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/fib_triestat", pid))
	if err != nil {
		return 0, err
	}
	_, main, _ := strings.Cut(string(text), "Main:")
	_, rest, found := strings.Cut(main, "Prefixes:")
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		return 0, nil // one table for all, as long as nobody needs more
	}
	return strconv.Atoi(fields[0])
}

// receivedBytes is what has come over the link to the router.
func receivedBytes(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(text), "up0:")
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		return 0, errors.New("the link to the router is gone")
	}
	return strconv.Atoi(fields[0])
}

// namespace gives the process that holds a new network namespace.
func namespace(ctx context.Context) (pid int, end func(), err error) {
	cmd := exec.CommandContext(ctx, "unshare", "--net", "--", "sh", "-c", "ip link set lo up && echo && exec sleep infinity")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	end, err = launch(cmd)
	if err != nil {
		return 0, nil, err
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // until it is there
		end()
		return 0, nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return cmd.Process.Pid, end, nil
}

// launch starts a program that ends with this one, or by the function returned.
func launch(cmd *exec.Cmd) (end func(), err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}, nil
}

func linkBoth(ctx context.Context, node, tor int) error {
	addresses := strings.Fields(learnedAddrs)
	for _, line := range []string{
		"link add up0 type veth peer name node0 netns " + strconv.Itoa(tor),
		"addr add " + addresses[1] + "/24 dev up0", "link set up0 up",
	} {
		if err := runIn(ctx, node, append([]string{"ip"}, strings.Fields(line)...)...); err != nil {
			return err
		}
	}
	return errors.Join(runIn(ctx, tor, "ip", "addr", "add", addresses[0]+"/24", "dev", "node0"), runIn(ctx, tor, "ip", "link", "set", "node0", "up"))
}

func enter(ctx context.Context, pid int, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", pid), "--"}, argv...)...)
}

func runIn(ctx context.Context, pid int, argv ...string) error {
	if out, err := enter(ctx, pid, argv...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return nil
}

// daemonIn starts a daemon with its files in dir.
func daemonIn(ctx context.Context, pid int, dir, name string, argv ...string) (end func(), err error) {
	cmd := enter(ctx, pid, argv...)
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	return launch(cmd)
}

// awaitDaemon waits until a question is answered.
func awaitDaemon(ctx context.Context, argv ...string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := exec.CommandContext(ctx, argv[0], argv[1:]...).Run()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", strings.Join(argv, " "), err, ctx.Err())
		}
	}
}

func (b *bench) learnWithFairway(ctx context.Context, node int, dir string) (func(), error) {
	log, err := os.Create(filepath.Join(dir, "fairway.log"))
	if err != nil {
		return nil, err
	}
	c := speaker.NewChild(speaker.Spawn{
		Path: "nsenter", Args: []string{fmt.Sprintf("--net=/proc/%d/ns/net", node), "--", b.speaker, "--learned-table=254"},
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	stop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = errors.Join(c.Close(ctx, speaker.Forward), log.Close())
	}
	rule := speaker.PrefixRule{Network: netip.MustParsePrefix("10.0.0.0/7"), AtLeast: 8, AtMost: 24}
	return stop, c.Set(ctx, speaker.Desired{
		Local: speaker.Local{ASN: 64512, RouterID: netip.MustParseAddr("192.0.2.2"),
			GracefulRestart: speaker.GracefulRestart{Enabled: true, Time: 2 * time.Minute, Deferral: 10 * time.Second}},
		Peers: []speaker.Peer{{Name: "tor", Address: netip.MustParseAddr("192.0.2.1"), ASN: 65001,
			Accept: speaker.Accept{Prefixes: []speaker.PrefixRule{rule}, Max: 2 * learnedRoutes}}},
	})
}

func (b *bench) learnWithBIRD(ctx context.Context, node int, dir string) (func(), error) {
	file := filepath.Join(dir, "bird.conf")
	conf := "router id 192.0.2.2;\nprotocol device {}\nprotocol kernel { ipv4 { import none; export all; }; }\n" +
		"protocol bgp tor {\n local as 64512;\n neighbor 192.0.2.1 as 65001;\n connect delay time 1;\n ipv4 { import filter { if net ~ [ 10.0.0.0/7{8,24} ] then accept; reject; }; export none; };\n}\n"
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	return daemonIn(ctx, node, dir, "bird", "bird", "-f", "-c", file, "-s", filepath.Join(dir, "bird.ctl"), "-P", filepath.Join(dir, "bird.pid"))
}

func (b *bench) learnWithFRR(ctx context.Context, node int, dir string) (func(), error) {
	const conf = `hostname node
router bgp 64512
 bgp router-id 192.0.2.2
 no bgp ebgp-requires-policy
 neighbor 192.0.2.1 remote-as 65001
 address-family ipv4 unicast
  neighbor 192.0.2.1 prefix-list fabric in
 exit-address-family
ip prefix-list fabric permit 10.0.0.0/7 ge 8 le 24
`
	return b.startFRR(ctx, node, dir, conf)
}

// startFRR starts zebra, and bgpd with a configuration, and returns what ends them.
func (b *bench) startFRR(ctx context.Context, node int, dir, conf string) (func(), error) {
	// zebra insists on being the user that it is packaged with.
	if out, err := exec.CommandContext(ctx, "sh", "-c", `chmod a+x "$1" && chown frr "$2"`, "sh", b.dir, dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("give %s to FRR: %w: %s", dir, err, out)
	}
	files := map[string]string{"zebra": "hostname node\n", "bgpd": conf}
	var ends []func()
	stop := func() {
		for _, end := range ends {
			end()
		}
	}
	for _, name := range []string{"zebra", "bgpd"} {
		file := filepath.Join(dir, name+".conf")
		if err := os.WriteFile(file, []byte(files[name]), 0o644); err != nil {
			stop()
			return nil, err
		}
		argv := []string{"/usr/lib/frr/" + name, "-f", file, "-P", "0", "--vty_socket", dir, "-z", filepath.Join(dir, "zserv.api"), "-i", filepath.Join(dir, name+".pid")}
		end, err := daemonIn(ctx, node, dir, name, argv...)
		if err != nil {
			stop()
			return nil, err
		}
		ends = append(ends, end)
		if err := awaitDaemon(ctx, "vtysh", "--vty_socket", dir, "-d", name, "-c", "show version"); err != nil {
			stop()
			return nil, err
		}
	}
	return stop, nil
}
