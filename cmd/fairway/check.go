package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/fairway-network/fairway/config"
	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	var labels, annotations map[string]string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong with an agent's configuration, and which peers it gives a node, without starting an agent",
		Args:  one("the file to check"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := config.Load(args[0])
			if err != nil {
				return err
			}
			for _, w := range c.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			node, known := c.Self(), c.Store == config.Embedded || !c.Depends()
			if cmd.Flags().Changed("labels") || cmd.Flags().Changed("annotations") {
				node, known = config.Node{Name: c.Node, Labels: labels, Annotations: annotations}, true
			}
			return sayGood(cmd.OutOrStdout(), args[0], c, node, known)
		},
	}
	cmd.Flags().StringToStringVar(&labels, "labels", nil, "the `KEY=VALUE,...` labels of a node, to see which peers it would have")
	cmd.Flags().StringToStringVar(&annotations, "annotations", nil, "the `KEY=VALUE,...` annotations of that node")
	for _, name := range []string{"labels", "annotations"} {
		cmd.Flags().Lookup(name).DefValue = "" // or the help says "(default [])"
	}
	return cmd
}

// sayGood prints what c gives a node, if that is known, and what it can't give.
func sayGood(out io.Writer, file string, c *config.Config, node config.Node, known bool) error {
	if !known {
		fmt.Fprintf(out, "%s: good: %s, %s\n", file, counted(len(c.Peers), "peer"), counted(len(c.Pools), "pool"))
		fmt.Fprintln(out, "The peers depend on the node: see with --labels and --annotations which ones it would have.")
		return nil
	}
	here, err := c.For(node)
	if err != nil {
		var lines []string
		for line := range strings.SplitSeq(err.Error(), "\n") {
			lines = append(lines, file+": "+line)
		}
		err = errors.New(strings.Join(lines, "\n"))
	} else {
		fmt.Fprintf(out, "%s: good: node %s, %s, %s\n", file, c.Node, counted(len(here.Peers), "peer"), counted(len(c.Pools), "pool"))
	}
	if len(here.Peers) == 0 && !here.BGP.Mesh.Enabled {
		return err
	}
	fmt.Fprintf(out, "This node's AS: %d\n", here.BGP.ASN)
	if here.BGP.Mesh.Enabled {
		fmt.Fprintf(out, "Mesh: every other node of the cluster that has one is a peer, up to %d nodes\n", here.BGP.Mesh.MaxNodes)
	}
	if len(here.Peers) == 0 {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "PEER\tADDRESS\tAS\tFAMILIES\tHOLD TIME\tTEMPLATE")
	for _, p := range here.Peers {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, placeOf(p), asnOf(p), familiesOf(p), p.HoldTime, cmp.Or(p.Template, "-"))
	}
	return errors.Join(table.Flush(), err)
}

// counted is "1 peer", "2 peers".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// placeOf is where the router is.
func placeOf(p config.Peer) string {
	switch {
	case p.Range.IsValid():
		return p.Range.String()
	case p.Address.IsValid():
		return p.Address.String()
	}
	return p.Interface
}

func asnOf(p config.Peer) string {
	if p.ASN == 0 {
		return "external"
	}
	return fmt.Sprint(uint32(p.ASN))
}

func familiesOf(p config.Peer) string {
	var out []string
	for _, f := range p.Families {
		out = append(out, string(f))
	}
	return strings.Join(out, ",")
}
