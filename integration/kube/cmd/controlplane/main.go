// Command controlplane brings a Kubernetes control plane up for a person who
// wants to try something, says how to reach it, and takes it down at an
// interrupt.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/fairway-network/fairway/integration/kube"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
}

// run holds a control plane, with the manifests in files applied, until ctx
// ends.
func run(ctx context.Context, files []string) error {
	c, err := kube.Up(ctx, kube.Options{Controllers: []string{"*"}})
	if err != nil {
		return err
	}
	if err := c.ApplyFiles(ctx, files...); err != nil {
		return errors.Join(err, c.Down())
	}
	fmt.Printf("export KUBECONFIG=%s PATH=%s:$PATH\n# Control-C ends it.\n", c.Kubeconfig(), c.Programs())
	<-ctx.Done()
	return c.Down()
}
