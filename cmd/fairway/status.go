package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/spf13/cobra"
)

const defaultRunDir = "/run/fairway"

func statusCommand() *cobra.Command {
	var runDir, output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the agent of this node holds, leases and announces",
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("-o %s: write json, or leave it out for people", output)
			}
			body, err := call(cmd.Context(), runDir, http.MethodGet, "/v1/status", nil)
			if err != nil {
				return err
			}
			if output != "" {
				_, err := cmd.OutOrStdout().Write(body)
				return err
			}
			var s agent.Status
			if err := json.Unmarshal(body, &s); err != nil {
				return fmt.Errorf("the agent's answer: %w", err)
			}
			return show(cmd.OutOrStdout(), s, time.Now())
		},
	}
	runDirFlag(cmd, &runDir)
	cmd.Flags().StringVarP(&output, "output", "o", "", "json for programs")
	return cmd
}

// runDirFlag is how all commands that ask the agent are told where it is.
func runDirFlag(cmd *cobra.Command, runDir *string) {
	cmd.Flags().StringVar(runDir, "run-dir", defaultRunDir, "the agent's runDir")
}

// call asks the agent that has its control socket in runDir, with ask as JSON
// unless it is nil.
func call(ctx context.Context, runDir, method, path string, ask any) ([]byte, error) {
	var asked bytes.Buffer
	if ask != nil {
		if err := json.NewEncoder(&asked).Encode(ask); err != nil {
			return nil, err
		}
	}
	socket := filepath.Join(runDir, agent.ControlSocket)
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, &asked)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no agent answers on %s (is it running? see --run-dir): %w", socket, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("the agent's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the agent: %s", strings.TrimSpace(string(body)))
	}
	return body, nil
}

// show prints s as tables.
func show(out io.Writer, s agent.Status, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "NODE\t%s\n", s.Node)
	if s.Trouble != "" {
		fmt.Fprintf(w, "TROUBLE\t%s\n", oneLine(s.Trouble))
	}
	if s.Silent != "" {
		fmt.Fprintf(w, "SPEAKER\tcan't be asked for its sessions and routes: %s\n", oneLine(s.Silent))
	}
	if s.Cordoned {
		fmt.Fprintf(w, "CORDONED\tno new block is claimed\n")
	}
	showUpkeep(w, s.Upkeep)
	fmt.Fprintf(w, "\nPOOL\tLEASED\tFREE\tCOOLING\tLENT\tBLOCKS\tSTATE\n")
	for _, p := range s.Pools {
		state := "active"
		if p.Draining {
			state = "draining"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%s\n", p.Name, p.Leased, p.Free, p.Cooling, p.Lent, p.Blocks, state)
	}
	showBlocks(w, s, now)
	fmt.Fprintf(w, "\nADDRESS\tPOOL\tOWNER\tAGE\n")
	for _, l := range s.Leases {
		owner := l.Network + "/" + l.Container + "/" + l.Interface
		if l.Pod != "" {
			owner = l.Namespace + "/" + l.Pod
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.Address, l.Pool, owner, age(now, l.Since))
	}
	fmt.Fprintln(w)
	showPeers(w, s.Peers, now)
	return w.Flush()
}

// oneLine is text that may be several errors, for a cell of a table.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

// showBlocks prints what the node holds, has lent and asks for. What there is
// not gets no table.
func showBlocks(w io.Writer, s agent.Status, now time.Time) {
	fmt.Fprintf(w, "\nBLOCK\tPOOL\tLEASES\tAGE\tSTATE\tLENT BY\n")
	for _, b := range s.Blocks {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", b.Prefix, b.Pool, b.Leases, age(now, b.Created), b.State, b.Lender)
	}
	if len(s.Loans) > 0 {
		fmt.Fprintf(w, "\nLENT\tOF BLOCK\tPOOL\tTO\n")
	}
	for _, l := range s.Loans {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.Prefix, l.Block, l.Pool, l.Node)
	}
	if len(s.Requests) > 0 {
		fmt.Fprintf(w, "\nREQUEST\tFAMILY\tLACKS\tGRANTED\tBY\n")
	}
	for _, r := range s.Requests {
		lacks, granted := fmt.Sprint(r.Count), "not yet"
		if r.Want.IsValid() {
			lacks = r.Want.String()
		}
		if r.Granted.IsValid() {
			granted = r.Granted.String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Pool, r.Family, lacks, granted, r.Lender)
	}
}

// age of something that began at since.
func age(now, since time.Time) string {
	if since.IsZero() {
		return "never"
	}
	return now.Sub(since).Round(time.Second).String()
}
