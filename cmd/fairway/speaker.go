package main

import (
	"context"
	"log/slog"
	"os"
	"strconv"

	"github.com/fairway-network/fairway/config"
	"github.com/fairway-network/fairway/routes/kernel"
	"github.com/fairway-network/fairway/speaker"
	"github.com/spf13/cobra"
)

// speakerCommand is what the agent starts for BGP. It does not end on the
// signals that end the agent: the agent says when. Without -learned-table it
// learns no routes.
func speakerCommand() *cobra.Command {
	var learned kernel.Config
	cmd := &cobra.Command{
		Use: "speaker", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			open := func(log *slog.Logger) (speaker.Sink, error) { return kernel.NewLearned(learned, log) }
			if learned.Table == 0 {
				open = nil
			}
			return speaker.ServeChild(context.WithoutCancel(cmd.Context()), os.Stderr, open)
		},
	}
	cmd.Flags().IntVar(&learned.Table, "learned-table", 0, "the route table for learned routes")
	cmd.Flags().IntVar(&learned.Protocol, "learned-protocol", 0, "the protocol number that marks them; 0 is their own default")
	cmd.Flags().IntVar(&learned.Metric, "learned-metric", 0, "their metric; 0 is their own default")
	return cmd
}

// speakerArguments are for a speaker of an agent with these settings. Learned
// routes go where the agent's own do, and not if it writes none.
func speakerArguments(k config.KernelRoutes) []string {
	args := []string{"speaker"}
	if !k.Enabled {
		return args
	}
	args = append(args, "--learned-table="+strconv.Itoa(int(k.Table)))
	if k.Protocol == kernel.DefaultLearnedProtocol { // taken by the agent's
		args = append(args, "--learned-protocol="+strconv.Itoa(kernel.DefaultProtocol))
	}
	return args
}
