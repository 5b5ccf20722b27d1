package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// none is for a command that takes no arguments.
func none(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, and was given %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// one is for a command that takes one argument, which what says.
func one(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return fmt.Errorf("%s needs %s", cmd.CommandPath(), what)
		case 1:
			return nil
		}
		return fmt.Errorf("%s takes one argument, %s, and was given %d", cmd.CommandPath(), what, len(args))
	}
}
