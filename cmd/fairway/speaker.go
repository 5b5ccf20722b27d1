package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

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

// speakerArguments are for a speaker of an agent with these settings.
func speakerArguments(l config.LearnedRoutes) []string {
	if !*l.Enabled {
		return []string{"speaker"}
	}
	return []string{
		"speaker", fmt.Sprintf("--learned-table=%d", l.Table), fmt.Sprintf("--learned-protocol=%d", l.Protocol), fmt.Sprintf("--learned-metric=%d", l.Metric),
	}
}
