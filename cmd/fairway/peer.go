package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/fairway-network/fairway/agent"
	"github.com/spf13/cobra"
)

// maintenanceCommand has routers prefer other ways before something is taken down.
func maintenanceCommand() *cobra.Command {
	var runDir, peer string
	cmd := &cobra.Command{
		Use:   "maintenance on|off",
		Short: "Ask the routers to prefer other ways than this node, before it or a session is taken down (RFC 8326)",
		Long: `Announces everything with the community GRACEFUL_SHUTDOWN (65535:0) and, to iBGP
peers, with local preference 0, to all peers or to one. Traffic moves to other
ways where there are some, while this node still delivers what arrives. It
returns when the routers have been told. It lasts until it is taken back or the
machine boots, also for an agent that is started anew; "fairway status" shows it.`,
		Args:      cobra.MatchAll(one("on or off"), cobra.OnlyValidArgs),
		ValidArgs: []string{"on", "off"},
		RunE: func(cmd *cobra.Command, args []string) error {
			ask := agent.UpkeepRequest{Peer: peer, On: args[0] == "on"}
			if _, err := call(cmd.Context(), runDir, http.MethodPost, "/v1/maintenance", ask); err != nil {
				return err
			}
			who, what := "all peers", "are asked to prefer other ways"
			if peer != "" {
				who, what = "peer "+peer, "is asked to prefer other ways"
			}
			if !ask.On {
				what = strings.Replace(what, "asked", "no longer asked", 1)
			}
			fmt.Fprintln(cmd.OutOrStdout(), who, what)
			return nil
		},
	}
	runDirFlag(cmd, &runDir)
	cmd.Flags().StringVar(&peer, "peer", "", "of this peer or range alone, by its name")
	return cmd
}

// peerCommand looks after single sessions.
func peerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peer",
		Short: "Shut a BGP session of this node, or open it again",
		Args:  cobra.NoArgs, // of its own
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(disableCommand(), enableCommand())
	return cmd
}

func disableCommand() *cobra.Command {
	var runDir, message string
	cmd := &cobra.Command{
		Use:   "disable NAME",
		Short: "Shut the session with a peer, or those of a range, and keep it shut",
		Long: `Ends the session with a Cease "administrative shutdown" and, where the router
knows RFC 8538, as a hard reset: it forgets this node's routes at once. Let
"fairway agent maintenance on --peer NAME" go before it, so that traffic has
moved by then. It lasts until "fairway peer enable" or until the machine boots,
also for an agent that is started anew. For longer, write it into the
configuration.`,
		Args: one("the name of a peer"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask := agent.UpkeepRequest{Peer: args[0], Message: message}
			if _, err := call(cmd.Context(), runDir, http.MethodPost, "/v1/peer", ask); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "peer %s is disabled\n", args[0])
			return nil
		},
	}
	runDirFlag(cmd, &runDir)
	cmd.Flags().StringVar(&message, "message", "", "words for the people on the other side (RFC 9003), at most 255 bytes")
	return cmd
}

func enableCommand() *cobra.Command {
	var runDir string
	cmd := &cobra.Command{
		Use:   "enable NAME",
		Short: "Open a session again that was disabled",
		Args:  one("the name of a peer"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask := agent.UpkeepRequest{Peer: args[0], On: true}
			if _, err := call(cmd.Context(), runDir, http.MethodPost, "/v1/peer", ask); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "peer %s is enabled\n", args[0])
			return nil
		},
	}
	runDirFlag(cmd, &runDir)
	return cmd
}

// showUpkeep prints what is disabled or under maintenance by command.
func showUpkeep(w io.Writer, u agent.Upkeep) {
	switch {
	case u.Maintenance.Node:
		fmt.Fprintf(w, "MAINTENANCE\tall peers are asked to prefer other ways\n")
	case len(u.Maintenance.Peers) > 0:
		fmt.Fprintf(w, "MAINTENANCE\tasked to prefer other ways: %s\n", strings.Join(u.Maintenance.Peers, ", "))
	}
	for _, peer := range slices.Sorted(maps.Keys(u.Disabled)) {
		words := ""
		if message := u.Disabled[peer]; message != "" {
			words = fmt.Sprintf(": %q", message)
		}
		fmt.Fprintf(w, "DISABLED\tpeer %s%s\n", peer, words)
	}
}
