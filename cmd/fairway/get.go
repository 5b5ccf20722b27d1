package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/spf13/cobra"
)

// getCommand lists things as kubectl does.
func getCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get",
		Short: "List one kind of thing that the agent of this node has",
		Args:  cobra.NoArgs, // of its own
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(getPeersCommand())
	return cmd
}

func getPeersCommand() *cobra.Command {
	var runDir, output string
	cmd := &cobra.Command{
		Use:     "peers",
		Aliases: []string{"peer"},
		Short:   "List the BGP sessions of this node",
		Long: `Lists the BGP sessions by name. SENT prefixes were written to the router,
RECEIVED ones came from it, and ACCEPTED ones pass this node's filter. FLAPS are
sessions that were lost. LAST ERROR is why the last session ended or none comes
about, and stays until another takes its place.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			print, ok := peerFormats()[output]
			if !ok {
				return fmt.Errorf("-o %s: write wide or json, or leave it out for a table", output)
			}
			body, err := call(cmd.Context(), runDir, http.MethodGet, "/v1/status", nil)
			if err != nil {
				return err
			}
			var s agent.Status
			if err := json.Unmarshal(body, &s); err != nil {
				return fmt.Errorf("the agent's answer: %w", err)
			}
			slices.SortFunc(s.Peers, func(a, b agent.PeerStatus) int { return strings.Compare(a.Name, b.Name) })
			return print(cmd.OutOrStdout(), s.Peers, time.Now())
		},
	}
	runDirFlag(cmd, &runDir)
	cmd.Flags().StringVarP(&output, "output", "o", "", "wide for more columns, json for programs")
	return cmd
}

// peerFormat prints peers, which are sorted.
type peerFormat func(out io.Writer, peers []agent.PeerStatus, now time.Time) error

func peerFormats() map[string]peerFormat {
	table := func(show func(io.Writer, []agent.PeerStatus, time.Time)) peerFormat {
		return func(out io.Writer, peers []agent.PeerStatus, now time.Time) error {
			w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
			show(w, peers, now)
			return w.Flush()
		}
	}
	return map[string]peerFormat{
		"":     table(showPeers),
		"wide": table(showPeersWide),
		"json": func(out io.Writer, peers []agent.PeerStatus, _ time.Time) error {
			if peers == nil {
				peers = []agent.PeerStatus{}
			}
			e := json.NewEncoder(out)
			e.SetIndent("", "  ")
			return e.Encode(peers)
		},
	}
}

// showPeers prints what fits on a screen; the last error may be long, and is last.
func showPeers(w io.Writer, peers []agent.PeerStatus, now time.Time) {
	fmt.Fprintln(w, "PEER\tADDRESS\tAS\tSESSION\tUPTIME\tFLAPS\tSENT\tACCEPTED\tRECEIVED\tBFD\tLAST ERROR")
	for _, p := range peers {
		fmt.Fprintf(w, "%s\t%s\n", peerColumns(p, now), p.LastError)
	}
}

// showPeersWide adds what was agreed on with the router.
func showPeersWide(w io.Writer, peers []agent.PeerStatus, now time.Time) {
	fmt.Fprintln(w, "PEER\tADDRESS\tAS\tSESSION\tUPTIME\tFLAPS\tSENT\tACCEPTED\tRECEIVED\tBFD\tRANGE\tROUTER ID\tHOLD\tFAMILIES\tOFFERED\tLAST ERROR")
	for _, p := range peers {
		id, hold := "-", "-"
		if p.RouterID.IsValid() {
			id, hold = p.RouterID.String(), p.HoldTime.String()
		}
		var families []string
		for _, f := range p.Families {
			families = append(families, f.Family)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", peerColumns(p, now), orDash(p.Range), id, hold,
			orDash(strings.Join(families, ",")), orDash(strings.Join(p.Capabilities, ", ")), p.LastError)
	}
}

func peerColumns(p agent.PeerStatus, now time.Time) string {
	address := orDash(p.Interface) // a found router's address has it as its zone
	if p.Address.IsValid() {
		address = p.Address.String()
	}
	return fmt.Sprintf("%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%d\t%s", p.Name, address, p.ASN, p.Session, uptime(p, now),
		p.Flaps, p.Advertised, p.Accepted, p.Received, bfdOf(p))
}

// uptime of a session, or how long there has been none.
func uptime(p agent.PeerStatus, now time.Time) string {
	switch {
	case p.Since.IsZero():
		return "never"
	case p.Established():
		return age(now, p.Since)
	}
	return "down " + age(now, p.Since)
}

// bfdOf is the BFD session with a peer in words.
func bfdOf(p agent.PeerStatus) string {
	switch {
	case p.BFD == nil:
		return "-"
	case p.BFD.Problem != "":
		return p.BFD.State + ": " + p.BFD.Problem
	}
	return p.BFD.State
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
