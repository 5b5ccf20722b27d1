// GoBGP's listener must not be MPTCP: the kernel ignores TCP MD5 keys there.
//go:debug multipathtcp=0

// Command fairway-speaker is what the agent starts for BGP. It is a program of its
// own for the agent's sake, which would link all of GoBGP otherwise. Nobody types it:
// it does not end on the signals that end the agent, which says when.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/fairway-network/fairway/routes/kernel"
	"github.com/fairway-network/fairway/speaker/server"
)

// settled is how long after its start the process gives back to the kernel what only
// the start needed.
const settled = 2 * time.Second

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fairway-speaker:", err)
		os.Exit(1)
	}
}

// run serves the process that started this one. Without -learned-table it learns no
// routes.
func run(ctx context.Context, args []string) error {
	var learned kernel.Config
	flags := flag.NewFlagSet("fairway-speaker", flag.ContinueOnError)
	flags.IntVar(&learned.Table, "learned-table", 0, "the route table for learned routes")
	flags.IntVar(&learned.Protocol, "learned-protocol", 0, "the protocol number that marks them; 0 is their own default")
	flags.IntVar(&learned.Metric, "learned-metric", 0, "their metric; 0 is their own default")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q: the agent starts this program, with flags alone", flags.Arg(0))
	}
	open := func(log *slog.Logger) (server.Sink, error) { return kernel.NewLearned(learned, log) }
	if learned.Table == 0 {
		open = nil
	}
	time.AfterFunc(settled, debug.FreeOSMemory)
	return server.ServeChild(ctx, os.Stderr, open)
}
