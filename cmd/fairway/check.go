package main

import (
	"fmt"

	"github.com/fairway-network/fairway/config"
	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong with an agent's configuration, without starting one",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := config.Load(args[0])
			if err != nil {
				return err
			}
			for _, w := range c.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: good: node %s, %d peers, %d pools\n", args[0], c.Node, len(c.Peers), len(c.Pools))
			return nil
		},
	}
}
