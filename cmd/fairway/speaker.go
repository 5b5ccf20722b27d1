package main

import (
	"context"
	"errors"
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

// unlearn removes what an agent with other settings left in the kernel, where these
// are to learn nothing: no speaker is there to do it. An error is for the log
// alone, since such an agent may have no rights to the kernel's routes.
func unlearn(ctx context.Context, l config.LearnedRoutes, log *slog.Logger) {
	if *l.Enabled {
		return
	}
	if err := flush(ctx, kernel.Config{Table: int(l.Table), Protocol: int(l.Protocol)}, log); err != nil {
		log.Warn("learned routes of before, if any, stay in the kernel: remove them with ip route flush", "table", l.Table, "protocol", l.Protocol, "error", err)
	}
}

func flush(ctx context.Context, c kernel.Config, log *slog.Logger) error {
	table, err := kernel.New(c, log)
	if err != nil {
		return err
	}
	return errors.Join(table.Flush(ctx), table.Close())
}
