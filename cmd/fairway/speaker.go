package main

import (
	"context"
	"os"

	"github.com/fairway-network/fairway/speaker"
	"github.com/spf13/cobra"
)

// speakerCommand is what the agent starts for BGP. It does not end on the
// signals that end the agent: the agent says when.
func speakerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "speaker", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return speaker.ServeChild(context.WithoutCancel(cmd.Context()), os.Stderr)
		},
	}
}
