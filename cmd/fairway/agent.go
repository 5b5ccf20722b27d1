package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/config"
	"github.com/fairway-network/fairway/speaker"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

func agentCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "agent --config FILE",
		Short: "Run the agent of this node",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runAgent(cmd.Context(), file, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&file, "config", "/etc/fairway/fairway.yaml", "the agent's configuration")
	cmd.AddCommand(drainCommand(), maintenanceCommand())
	return cmd
}

func drainCommand() *cobra.Command {
	var runDir string
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Make the running agent withdraw its announcements and routes, and end",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := call(cmd.Context(), runDir, http.MethodPost, "/v1/drain", nil); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "withdrawn; the agent has ended")
			return nil
		},
	}
	cmd.Flags().StringVar(&runDir, "run-dir", defaultRunDir, "the agent's runDir")
	return cmd
}

// runAgent runs an agent as file says until ctx ends.
func runAgent(ctx context.Context, file string, stderr io.Writer) (err error) {
	// Until the process ends: a SIGHUP that nobody takes would kill the agent
	// while it starts or stops.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	collect := delayCollection()
	defer collect()
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	log, level := logger(c.Log, stderr)
	klog.SetSlogLogger(log) // client-go speaks through it
	warn(log, c)
	host, err := hostAddresses()
	if err != nil {
		return fmt.Errorf("this host's addresses: %w", err)
	}
	parts, closeParts, err := partsOf(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeParts()) }()
	a, err := agent.New(ctx, parts, settingsOf(c, host))
	if err != nil {
		return err
	}
	reloads, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-reloads.Done():
		case <-a.Started():
			collect()
			// Not before: pods wait for the first pass, and the file was just read.
			reloadOnChange(reloads, hup, reloader{file: file, running: c, agent: a, log: log, level: level})
		}
	}()
	return a.Run(ctx)
}

// delayCollection keeps the garbage collector off until the function returned
// is called. Starting allocates a few megabytes, and on a node with two cores
// a collection takes milliseconds out of the time in which no pod can start.
func delayCollection() (collect func()) {
	before := debug.SetGCPercent(-1)
	return sync.OnceFunc(func() { debug.SetGCPercent(before) })
}

// partsOf makes what an agent is made of. The caller closes it.
func partsOf(ctx context.Context, c *config.Config, log *slog.Logger) (_ agent.Parts, closeAll func() error, err error) {
	dirs := []string{c.RunDir, filepath.Dir(c.IPAM.Socket)}
	if c.Store == config.Embedded {
		dirs = append(dirs, c.StateDir)
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return agent.Parts{}, nil, err
		}
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return agent.Parts{}, nil, fmt.Errorf("the kernel's boot ID: %w", err)
	}
	if err := forward(ctx, c, log); err != nil {
		return agent.Parts{}, nil, err
	}
	parts := agent.Parts{
		Node: c.Node, RunDir: c.RunDir, Socket: c.IPAM.Socket, Boot: strings.TrimSpace(string(boot)), Booted: booted(), Log: log,
	}
	closeStore, err := openStore(ctx, c, &parts)
	if err != nil {
		return agent.Parts{}, nil, err
	}
	table, closeTable, err := kernelOf(c, log)
	if err != nil {
		return agent.Parts{}, nil, errors.Join(err, closeStore())
	}
	closeAll = func() error { return errors.Join(closeTable(), closeStore()) }
	parts.Kernel = table
	if parts.Speaker, err = speakerOf(log); err != nil {
		return agent.Parts{}, nil, errors.Join(err, closeAll())
	}
	return parts, closeAll, nil
}

// booted is when this machine was started; zero if the kernel does not say.
func booted() time.Time {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(info.Uptime) * time.Second)
}

// speakerOf is this same program in a process of its own.
func speakerOf(log *slog.Logger) (speaker.Speaker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program for the BGP speaker's process: %w", err)
	}
	return speaker.NewChild(speaker.Spawn{Path: self, Args: []string{"speaker"}, Log: log}), nil
}

func logger(c config.Log, stderr io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(c.Level)
	options := &slog.HandlerOptions{Level: level}
	if c.Format == config.JSON {
		return slog.New(slog.NewJSONHandler(stderr, options)), level
	}
	return slog.New(slog.NewTextHandler(stderr, options)), level
}

func warn(log *slog.Logger, c *config.Config) {
	for _, w := range c.Warnings {
		log.Warn("doubtful configuration", "problem", w.Error())
	}
}

// reloader makes a changed file the settings of a running agent.
type reloader struct {
	file    string
	running *config.Config
	agent   *agent.Agent
	log     *slog.Logger
	level   *slog.LevelVar
}

// reloadOnChange reloads when the file changes or hup says so, until ctx ends.
func reloadOnChange(ctx context.Context, hup <-chan os.Signal, r reloader) {
	changed := make(chan struct{}, 1)
	call := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	go func() {
		if err := config.Watch(ctx, r.file, call); err != nil && ctx.Err() == nil {
			r.log.Warn("the configuration file is not watched; send SIGHUP after a change", "err", err)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		case <-changed:
		}
		if err := r.reload(ctx); err != nil {
			r.log.Error("the changed configuration is refused; the running one stays in force", "file", r.file, "err", err)
		}
	}
}

func (r *reloader) reload(ctx context.Context) error {
	c, err := config.Load(r.file)
	if err != nil {
		return err
	}
	if reflect.DeepEqual(c, r.running) {
		return nil
	}
	if err := sameFixed(r.running, c); err != nil {
		return err
	}
	host, err := hostAddresses()
	if err != nil {
		return err
	}
	if c.Routes.Kernel.Sysctls == config.CheckSysctls {
		if err := forward(ctx, c, r.log); err != nil {
			return err
		}
	}
	if err := r.agent.Reload(settingsOf(c, host)); err != nil {
		return err
	}
	r.level.Set(c.Log.Level)
	r.running = c
	warn(r.log, c)
	if c.Routes.Kernel.Sysctls == config.SetSysctls {
		// Only now: a refused configuration changes nothing on the host.
		if err := forward(ctx, c, r.log); err != nil {
			r.log.Error("the changed configuration is in force without kernel settings that its pods need", "err", err)
		}
	}
	r.log.Info("the changed configuration is in force", "file", r.file, "peers", len(c.Peers), "pools", len(c.Pools))
	return nil
}

// sameFixed refuses a change of what an agent can't change while it runs.
func sameFixed(old, c *config.Config) error {
	var errs []error
	for _, fixed := range []struct {
		key  string
		same bool
	}{
		{"node", old.Node == c.Node},
		{"store", old.Store == c.Store},
		{"kubernetes", old.Kubernetes == c.Kubernetes},
		{"stateDir", old.StateDir == c.StateDir},
		{"runDir", old.RunDir == c.RunDir},
		{"ipam.socket", old.IPAM.Socket == c.IPAM.Socket},
		{"routes.kernel", old.Routes.Kernel == c.Routes.Kernel},
		{"log.format", old.Log.Format == c.Log.Format},
	} {
		if !fixed.same {
			errs = append(errs, fmt.Errorf("%s changed: that takes a restart of the agent", fixed.key))
		}
	}
	return errors.Join(errs...)
}
