// Command fairway is the agent of a node, and what a person types to look
// after it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "fairway:", err)
		stop()
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "fairway",
		Short: "Give pods routable addresses out of fixed pools, and tell the routers where they are",
		// A person sees the error once, from main, and no help text over it.
		SilenceErrors: true, SilenceUsage: true,
		Version: version,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(agentCommand(), checkCommand(), statusCommand(), getCommand(), peerCommand(), controllerCommand(), installCommand())
	return root
}
