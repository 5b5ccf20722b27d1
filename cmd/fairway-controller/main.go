// Command fairway-controller is what "fairway controller" runs. It is a program
// of its own for the sake of all others: what leader election links would take
// milliseconds of every start of an agent.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/fairway-network/fairway/controller"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// version is set by the linker.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "fairway controller:", err)
		stop()
		os.Exit(1)
	}
}

// controllerFlags are what a person can say about a controller.
type controllerFlags struct {
	kubeconfig, namespace, identity, health string
	elect                                   bool
	level, format                           string
}

func command() *cobra.Command {
	var f controllerFlags
	cmd := &cobra.Command{
		Use:   "fairway-controller",
		Short: "Run the controller of a Kubernetes cluster: accept pools, free the blocks of nodes that are gone, report",
		Args:  cobra.NoArgs,
		// A person sees the error once, from main, and no help text over it.
		SilenceErrors: true, SilenceUsage: true,
		Version: version,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runController(cmd.Context(), f, cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "how to reach the API server; without it, as a pod does")
	flags.StringVar(&f.namespace, "namespace", "fairway-system", "where the Lease of the leader election is")
	flags.StringVar(&f.identity, "identity", "", "this controller's name among the others; without it, the host name and a random part")
	flags.BoolVar(&f.elect, "leader-elect", true, "wait until no other controller leads; needed wherever more than one could run")
	flags.StringVar(&f.health, "health", "", "loopback address, such as 127.0.0.1:9911, on which /healthz and /readyz answer over HTTP; none without it")
	flags.StringVar(&f.level, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&f.format, "log-format", "text", "text or json")
	return cmd
}

// runController runs a controller until ctx ends.
func runController(ctx context.Context, f controllerFlags, stderr io.Writer) error {
	log, err := f.logger(stderr)
	if err != nil {
		return err
	}
	klog.SetSlogLogger(log) // client-go speaks through it
	o := controller.Options{Elect: f.elect, Namespace: f.namespace, Identity: f.identity, Log: log}
	if f.health != "" {
		if o.Health, err = netip.ParseAddrPort(f.health); err != nil {
			return fmt.Errorf("--health %q is no address and port: write 127.0.0.1:9911", f.health)
		}
	}
	if o.Config, err = f.config(); err != nil {
		return err
	}
	c, err := controller.New(o)
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

func (f controllerFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: it is debug, info, warn or error", f.level)
	}
	options := &slog.HandlerOptions{Level: level}
	switch f.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("--log-format %q: it is text or json", f.format)
}

// config is the API server and who the controller is there.
func (f controllerFlags) config() (*rest.Config, error) {
	if f.kubeconfig != "" {
		config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("--kubeconfig %s: %w", f.kubeconfig, err)
		}
		return config, nil
	}
	config, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, errors.New("this is no pod of a Kubernetes cluster: say with --kubeconfig FILE how to reach the API server")
	}
	return config, err
}
