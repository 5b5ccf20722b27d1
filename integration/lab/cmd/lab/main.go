// Command lab brings containerlab topology files up as namespaces, enters
// their nodes and takes them down.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/fairway-network/fairway/integration/lab"
)

const usage = `usage: lab up FILE                   bring up the lab of a topology file
       lab exec NAME NODE [COMMAND]  run a command in a node; a shell without one
       lab down NAME                 take the lab down
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if status := (*exec.ExitError)(nil); errors.As(err, &status) {
		os.Exit(max(status.ExitCode(), 1))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "up":
		return up(ctx, args[1])
	case len(args) >= 3 && args[0] == "exec":
		return enter(ctx, args[1], args[2], args[3:])
	case len(args) == 2 && args[0] == "down":
		return down(args[1])
	}
	fmt.Fprint(os.Stderr, usage)
	return errors.New("unknown command")
}

func up(ctx context.Context, file string) error {
	topology, err := lab.Load(file)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	_, err = lab.Up(ctx, topology, lab.Options{Log: log, Persist: true})
	return err
}

func enter(ctx context.Context, name, node string, argv []string) error {
	l, err := lab.Open(lab.DefaultDir(name))
	if err != nil {
		return err
	}
	n, err := l.Node(node)
	if err != nil {
		return err
	}
	if len(argv) == 0 {
		argv = []string{"bash"}
	}
	cmd := n.Command(ctx, argv...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(cmd.Env, "TERM="+os.Getenv("TERM"))
	return cmd.Run()
}

func down(name string) error {
	l, err := lab.Open(lab.DefaultDir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.Down()
}
