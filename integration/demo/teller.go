package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fairway-network/fairway/integration/lab"
)

// teller tells the story: numbered steps, commands and what they printed.
type teller struct {
	out   io.Writer
	bold  func(string) string
	dim   func(string) string
	steps int
}

func newTeller(out *os.File) *teller {
	plain := func(s string) string { return s }
	t := &teller{out: out, bold: plain, dim: plain}
	if info, err := out.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		t.bold = func(s string) string { return "\x1b[1m" + s + "\x1b[0m" }
		t.dim = func(s string) string { return "\x1b[2m" + s + "\x1b[0m" }
	}
	return t
}

func (t *teller) title(text string) {
	fmt.Fprintf(t.out, "\n%s\n%s\n", t.bold(text), strings.Repeat("=", len(text)))
}

// step begins a numbered step and says in a sentence or two what it shows.
func (t *teller) step(name, why string) {
	t.steps++
	fmt.Fprintf(t.out, "\n%s\n   %s\n\n", t.bold(fmt.Sprintf("%d. %s", t.steps, name)), why)
}

// command shows a command line on a node and what it printed.
func (t *teller) command(node, line, output string) {
	fmt.Fprintf(t.out, "   %s# %s\n", node, t.bold(line))
	for text := range strings.Lines(strings.TrimRight(output, "\n")) {
		fmt.Fprintf(t.out, "   %s\n", t.dim(strings.TrimRight(text, "\n")))
	}
}

// fact states what was found to hold.
func (t *teller) fact(format string, args ...any) {
	fmt.Fprintf(t.out, "   => %s\n", fmt.Sprintf(format, args...))
}

func (t *teller) whatToTry(l *lab.Lab) {
	fmt.Fprintf(t.out, "\n%s\n\n", t.bold("The lab stays up. To try:"))
	for _, line := range []string{
		"exec " + l.Name() + " tor vtysh",
		"exec " + l.Name() + " node1 fairway status",
		"exec " + l.Name() + " node1 gobgp global rib",
		"exec " + l.Name() + " node1 gobgp neighbor",
		"exec " + l.Name() + " client",
		"exec " + l.Name() + " db nft list ruleset",
		"down " + l.Name(),
	} {
		fmt.Fprintf(t.out, "   bin/lab %s\n", line)
	}
	fmt.Fprintf(t.out, "\n   Logs and disks of the nodes: %s/nodes\n", l.Dir())
}
