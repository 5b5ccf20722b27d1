//go:debug multipathtcp=0

// Package learned tests learned routes from router to kernel: FRR, BIRD, OpenBGPD and
// GoBGP as top-of-rack routers in namespaces of their own, and a node, which is the test's
// own namespace, with the speaker's process and the kernel's routes.
package learned

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"

	"github.com/fairway-network/fairway/internal/namespace"
	"github.com/fairway-network/fairway/routes/kernel"
	"github.com/fairway-network/fairway/speaker"
	"github.com/fairway-network/fairway/speaker/server"
)

// What makes the test binary something else than a test.
const (
	asChild = "FAIRWAY_LEARNED_TEST_CHILD"
	asAgent = "FAIRWAY_LEARNED_TEST_AGENT" // its value is a speaker.Desired
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the rows of docs/interop.md that the tests fill")
	switch {
	case os.Getenv(asChild) != "":
		open := func(log *slog.Logger) (server.Sink, error) { return kernel.NewLearned(kernel.Config{}, log) }
		if err := server.ServeChild(context.Background(), os.Stderr, open); err != nil {
			os.Exit(1)
		}
	case os.Getenv(asAgent) != "":
		if err := beAgent(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		os.Exit(namespace.Main(m, func() error { return nil }))
	}
}

func spawn(log *slog.Logger) speaker.Spawn {
	return speaker.Spawn{Path: "/proc/self/exe", Env: []string{asChild + "=1"}, Log: log}
}

// beAgent is an agent as far as BGP is concerned, until it is killed.
func beAgent() error {
	var d speaker.Desired
	if err := json.Unmarshal([]byte(os.Getenv(asAgent)), &d); err != nil {
		return err
	}
	for i := range d.Peers {
		d.Peers[i].Password = "" // stars, by now
	}
	if err := os.Unsetenv(asAgent); err != nil {
		return err
	}
	c := speaker.NewChild(spawn(slog.New(slog.NewTextHandler(os.Stderr, nil))))
	if err := c.Set(context.Background(), d); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
