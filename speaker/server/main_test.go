//go:debug multipathtcp=0

package server

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"testing"

	"github.com/fairway-network/fairway/internal/namespace"
	"github.com/fairway-network/fairway/speaker"
)

// asChild makes the test binary the process of a Child, one whose sink can't be
// opened where the value is withoutSink.
const (
	asChild     = "FAIRWAY_SPEAKER_TEST_CHILD"
	withoutSink = "without sink"
	// childMark tells the process of one Child from the others'.
	childMark = "FAIRWAY_SPEAKER_TEST_CHILD_MARK"
)

// asParent makes the test binary an agent whose speaker is a Child, with the
// Desired in the variable. It says which process the child is and waits.
const asParent = "FAIRWAY_SPEAKER_TEST_PARENT"

func beParent() error {
	var d speaker.Desired
	if err := json.Unmarshal([]byte(os.Getenv(asParent)), &d); err != nil {
		return err
	}
	for i := range d.Peers {
		d.Peers[i].Password = "" // stars, by now
	}
	ctx := context.Background()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	c := childOf(speaker.Spawn{Path: os.Args[0], Env: []string{asChild + "=1"}, Log: log})
	if err := errors.Join(c.Set(ctx, d), c.Flush(ctx, d.Prefixes())); err != nil {
		return err
	}
	fmt.Println(c.pid())
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// TestMain runs the tests in namespaces of their own where it may, with addresses to
// peer on.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asChild) != "":
		var open func(*slog.Logger) (Sink, error)
		if os.Getenv(asChild) == withoutSink {
			open = func(*slog.Logger) (Sink, error) { return nil, errors.New("no sink here") }
		}
		if err := ServeChild(context.Background(), os.Stderr, open); err != nil {
			os.Exit(1)
		}
	case os.Getenv(asParent) != "":
		if err := beParent(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		os.Exit(patient(m))
	}
}

// patient runs more tests side by side than there are processors: nearly all
// they do is to wait for BGP's timers.
func patient(m *testing.M) int {
	flag.Bool("update", false, "write the rows of docs/interop.md that the tests fill")
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return namespace.Main(m, furnish)
}

// furnish gives the loopback interface addresses.
func furnish() error {
	for name, value := range map[string]string{
		"ipv6/ip_nonlocal_bind": "1",
		"ipv4/tcp_wmem":         "4096 16384 32768", // a router that does not read is soon noticed
		"ipv4/tcp_rmem":         "4096 16384 32768",
	} {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
			return err
		}
	}
	// The node is 10.0.0.1 and fd00::1, routers are the others: dialled from
	// the node's address, as over a link.
	commands := [][]string{
		{"link", "set", "lo", "up"},
		{"addr", "add", "10.0.0.1/32", "dev", "lo"},
		{"addr", "add", "fd00::1/128", "dev", "lo", "nodad"},
	}
	for i := 2; i <= 9; i++ {
		commands = append(commands,
			[]string{"addr", "add", fmt.Sprintf("10.0.0.%d/32", i), "dev", "lo"},
			[]string{"route", "change", "local", fmt.Sprintf("10.0.0.%d", i), "dev", "lo", "table", "local", "src", "10.0.0.1"},
			[]string{"-6", "route", "add", "local", fmt.Sprintf("fd00::%d/128", i), "dev", "lo", "table", "local", "src", "fd00::1"})
	}
	for _, c := range commands {
		if out, err := exec.Command("ip", c...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", c, err, out)
		}
	}
	return nil
}
