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
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/config"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

func agentCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "agent --config FILE",
		Short: "Run the agent of this node",
		Args:  none,
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
	var wait bool
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Make the running agent withdraw its announcements and routes, and end",
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := "/v1/drain"
			if wait {
				path += "?wait"
			}
			if _, err := call(cmd.Context(), runDir, http.MethodPost, path, nil); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "withdrawn; the agent has ended")
			return nil
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "serve no new pods, and wait for the last one to go before the sessions are closed")
	runDirFlag(cmd, &runDir)
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
	parts, closeParts, err := partsOf(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeParts()) }()
	r := &reloader{file: file, running: c, where: &where{cluster: parts.Cluster}, log: log, level: level}
	settings, err := r.begin()
	if err != nil {
		return err
	}
	a, err := agent.New(ctx, parts, settings)
	if err != nil {
		return err
	}
	r.agent = a
	r.follow() // the node may have been seen meanwhile
	r.tellUnmet()
	reloads, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-reloads.Done():
		case <-a.Started():
			collect()
			defer time.AfterFunc(settled, debug.FreeOSMemory).Stop()
			// Not before: pods wait for the first pass, and the file was just read.
			r.watch(reloads, hup)
		}
	}()
	return a.Run(ctx)
}

// settled is how long after its start an agent gives back to the kernel what only the
// start needed: what waited for it comes first.
const settled = 2 * time.Second

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
		Version: version, MetricsAddress: c.Metrics.Address, HealthAddress: c.Health.Address,
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
	unlearn(ctx, c.Routes.Learned, log)
	if parts.Speaker, err = speakerOf(c, log); err != nil {
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
