// Command bench measures Fairway against its peers in one run: fairway-ipam
// against host-local (the CNI project's reference plugin) and an empty Go
// program, the agent's restart, and the agent at rest; announced and learned routes against
// BIRD and FRR; and agents, pods and the controller on a real Kubernetes API server. Contestants take turns in each
// round, so that a noisy machine is noisy to all of them.
//
// It runs as root, in a network namespace that it makes for itself, and keeps
// its files on a tmpfs. It prints Markdown; with -write it replaces the parts of
// that file whose sections were run: between the lines <!-- bench --> and
// <!-- /bench -->, and for these routes and each section on Kubernetes between such as
// <!-- bench kube-pods --> and <!-- /bench kube-pods -->.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// inside is set for the run in the namespace of its own.
const inside = "FAIRWAY_BENCH_INSIDE"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Children ask to be killed when the thread that started them ends.
	runtime.LockOSThread()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what a person chooses.
type options struct {
	sections []string
	rounds   int
	series   int
	write    string
	data     string
}

func parseOptions(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", "", "sections to run, of "+strings.Join(sectionNames(), ",")+" (all)")
	flags.IntVar(&o.rounds, "rounds", 300, "rounds of each measurement; the slow ones take fewer")
	flags.IntVar(&o.series, "series", 10, "invocations of one contestant before it is the next one's turn")
	flags.StringVar(&o.write, "write", "", "file whose benchmark part is to be replaced")
	flags.StringVar(&o.data, "data", "", "folder for host-local's files, such as /var/lib/cni-bench (a tmpfs)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.sections = sectionNames()
	if *only != "" {
		o.sections = strings.Split(*only, ",")
	}
	if o.rounds < 1 || o.series < 1 {
		return o, fmt.Errorf("-rounds %d -series %d: each must be at least 1", o.rounds, o.series)
	}
	for _, name := range o.sections {
		if !slices.Contains(sectionNames(), name) {
			return o, fmt.Errorf("-only %s: there is no such section; use %s", name, strings.Join(sectionNames(), ", "))
		}
	}
	return o, nil
}

type section struct {
	name string
	run  func(ctx context.Context, b *bench, out io.Writer) error
}

func sections() []section {
	return []section{
		{"alone", alone},
		{"together", together},
		{"request", request},
		{"restart", restart},
		{"rest", rest},
		{"announce", announceOne},
		{"bulk", bulk},
		{"session", sessionUp},
		{"speaker-memory", speakerMemory},
		{"fib-events", fibEvents},
		{"learned", learnedKernel},
		{"kube-pods", kubePods},
		{"kube-claims", kubeClaims},
		{"kube-routes", kubeRoutes},
		{"kube-sizes", kubeSizes},
		{"kube-watches", kubeWatches},
		{"kube-controller", kubeController},
	}
}

func sectionNames() []string {
	var names []string
	for _, s := range sections() {
		names = append(names, s.name)
	}
	return names
}

func run(ctx context.Context, args []string) error {
	o, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if os.Getenv(inside) == "" {
		return enterNamespace(ctx, args)
	}
	// Agents would look for what it may mean to them.
	if err := os.Unsetenv(inside); err != nil {
		return err
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.cleanUp()
	for _, p := range parts() {
		if err := p.report(ctx, b, o); err != nil {
			return err
		}
	}
	return nil
}

// part of the page of results, between <!-- mark --> and <!-- /mark -->.
type part struct {
	mark     string
	sections []section
}

// parts are one for the node alone, and one for each section on routes and on
// Kubernetes, which take long: each can be made anew for itself.
func parts() []part {
	alone := []string{"alone", "together", "request", "restart", "rest"}
	node := part{mark: "bench"}
	var others []part
	for _, s := range sections() {
		if slices.Contains(alone, s.name) {
			node.sections = append(node.sections, s)
		} else {
			others = append(others, part{"bench " + s.name, []section{s}})
		}
	}
	return append([]part{node}, others...)
}

// report runs those of the part's sections that were chosen, if any.
func (p part) report(ctx context.Context, b *bench, o options) error {
	chosen := slices.DeleteFunc(p.sections, func(s section) bool { return !slices.Contains(o.sections, s.name) })
	if len(chosen) == 0 {
		return nil
	}
	var report bytes.Buffer
	out := io.MultiWriter(os.Stdout, &report)
	describe(out)
	for _, s := range chosen {
		if err := s.run(ctx, b, out); err != nil {
			return fmt.Errorf("section %s: %w", s.name, err)
		}
	}
	if o.write == "" {
		return nil
	}
	return replacePart(o.write, p.mark, report.Bytes())
}

// enterNamespace runs this program again in a network namespace of its own.
func enterNamespace(ctx context.Context, args []string) error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root: run it with sudo")
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}

// bench is what all sections share.
type bench struct {
	dir    string // on a tmpfs
	data   string // of host-local
	rounds int
	series int
	// programs; host-local as a plain go build makes it, and as released
	fairway, speaker, controller, plugin, hostLocal, hostLocalStatic, empty, relay string
}

func newBench(ctx context.Context, o options) (*bench, error) {
	if out, err := exec.CommandContext(ctx, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	dir, err := os.MkdirTemp("/dev/shm", "fairway-bench-")
	if err != nil {
		return nil, fmt.Errorf("a folder on a tmpfs: %w", err)
	}
	b := &bench{dir: dir, data: filepath.Join(dir, "host-local"), rounds: o.rounds, series: o.series}
	if o.data != "" {
		b.data = filepath.Join(o.data, filepath.Base(dir))
	}
	bin := filepath.Join(dir, "bin")
	if err := errors.Join(os.Mkdir(bin, 0o755), buildAll(ctx, bin)); err != nil {
		b.cleanUp()
		return nil, err
	}
	for name, path := range map[string]*string{"fairway": &b.fairway, "fairway-speaker": &b.speaker, "fairway-controller": &b.controller, "fairway-ipam": &b.plugin, "host-local": &b.hostLocal, "static/host-local": &b.hostLocalStatic, "empty": &b.empty, "relay": &b.relay} {
		*path = filepath.Join(bin, name)
	}
	return b, nil
}

// buildAll builds Fairway's programs as they are shipped, and host-local both
// by a plain go build and, in a folder of its own, as its releases are.
func buildAll(ctx context.Context, bin string) error {
	const hostLocal = "github.com/containernetworking/plugins/plugins/ipam/host-local"
	const plugin = "github.com/fairway-network/fairway/cmd/fairway-ipam"
	shipped := []string{"-trimpath", "-ldflags=-s -w", "-ldflags=" + plugin + "=-s -w -E fairway_start"}
	err := build(ctx, bin, "0", append(slices.Clone(shipped),
		"github.com/fairway-network/fairway/cmd/fairway",
		"github.com/fairway-network/fairway/cmd/fairway-speaker",
		"github.com/fairway-network/fairway/cmd/fairway-controller",
		plugin,
		"github.com/fairway-network/fairway/integration/bench/empty",
		"github.com/fairway-network/fairway/integration/bench/relay")...)
	static := filepath.Join(bin, "static") + "/"
	return errors.Join(err, build(ctx, bin, "1", hostLocal), build(ctx, static, "0", append(shipped, hostLocal)...))
}

func build(ctx context.Context, bin, cgo string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", bin}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

func (b *bench) cleanUp() { _ = errors.Join(os.RemoveAll(b.dir), os.RemoveAll(b.data)) }

// describe says under what conditions the numbers came about.
func describe(out io.Writer) {
	model := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	load, _, _ := strings.Cut(readLine("/proc/loadavg"), " ")
	fmt.Fprintf(out, "%s, %d cores, Linux %s, %s, load %s at the start, %s.\n",
		model, runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(), load, time.Now().UTC().Format("2 January 2006"))
}

func readLine(path string) string {
	b, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// replacePart puts report between the marks of the file at path.
func replacePart(path, mark string, report []byte) error {
	begin, end := "<!-- "+mark+" -->\n", "<!-- /"+mark+" -->"
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(old, []byte(begin))
	_, tail, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the lines %s and %s between which the results go", path, strings.TrimSpace(begin), end)
	}
	return os.WriteFile(path, slices.Concat(head, []byte(begin), report, []byte(end), tail), 0o644)
}
