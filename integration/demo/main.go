// Command demo shows Fairway at work in a lab of network namespaces: an
// outside client, a database with a firewall, a top-of-rack router and two nodes. It
// ends with an error as soon as something does not hold. It needs root, the
// programs that the lab's nodes run, and what make build leaves in bin.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/fairway-network/fairway/integration/lab"
)

// longest is how long the whole demo may take.
const longest = 2 * time.Minute

type options struct {
	topology string
	keep     bool
	down     bool
}

func main() {
	var o options
	flag.StringVar(&o.topology, "topology", "integration/topologies/road.clab.yml", "the road's topology file")
	flag.BoolVar(&o.keep, "keep", false, "leave the lab up, with its pods, and say what to try")
	flag.BoolVar(&o.down, "down", false, "take a lab down that was left up")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	topology, err := lab.Load(o.topology)
	if err != nil {
		return err
	}
	if o.down {
		return takeDown(topology.Name)
	}
	if err := ready(topology); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	return perform(ctx, topology, o.keep)
}

// ready says what is missing before anything is begun.
func ready(topology *lab.Topology) error {
	var errs []error
	for _, program := range []string{"unshare", "nsenter", "setpriv", "ip", "nft", "curl", "vtysh", "gobgp"} {
		if _, err := exec.LookPath(program); err != nil {
			errs = append(errs, fmt.Errorf("%w: install it (make setup)", err))
		}
	}
	for _, n := range topology.Nodes {
		for _, b := range n.Binds {
			if _, err := os.Stat(filepath.Join(topology.Dir, b.Source)); err != nil {
				errs = append(errs, fmt.Errorf("%w: build it (make build)", err))
			}
		}
	}
	return errors.Join(errs...)
}

func takeDown(name string) error {
	l, err := lab.Open(lab.DefaultDir(name))
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Printf("The lab %s is not up.\n", name)
		return nil
	}
	if err != nil {
		return err
	}
	if err := l.Down(); err != nil {
		return err
	}
	fmt.Printf("The lab %s is down: every process, namespace and link of it.\n", name)
	return nil
}

// perform shows everything, and leaves nothing behind unless it is asked to
// keep the lab and all went well.
func perform(ctx context.Context, topology *lab.Topology, keep bool) (err error) {
	begin := time.Now()
	t := newTeller(os.Stdout)
	t.title("Fairway: every application on its own addresses, reachable by its own addresses")
	t.step("The lab", "A client, a database, a top-of-rack router (FRR) and two nodes, each a set of namespaces joined by veth links.")
	l, err := lab.Up(ctx, topology, lab.Options{Persist: keep})
	if errors.Is(err, lab.ErrUp) {
		return fmt.Errorf("%w (make lab-down)", err)
	}
	if err != nil {
		return err
	}
	t.fact("%d nodes and %d links are up after %s.", len(topology.Nodes), len(topology.Links), time.Since(begin).Round(time.Millisecond))
	defer func() {
		if err != nil {
			showLogs(l)
		}
		if err == nil && keep {
			t.whatToTry(l)
			return
		}
		err = errors.Join(err, l.Down())
	}()
	r, err := newRoad(l, t)
	if err != nil {
		return err
	}
	if err := r.showAll(ctx); err != nil {
		return err
	}
	t.fact("All of it held, in %s.", time.Since(begin).Round(100*time.Millisecond))
	return nil
}

func showLogs(l *lab.Lab) {
	for _, n := range l.Nodes() {
		logs := n.Logs()
		for _, file := range slices.Sorted(maps.Keys(logs)) {
			if logs[file] != "" {
				fmt.Fprintf(os.Stderr, "--- %s: %s\n%s\n", n.Name(), file, logs[file])
			}
		}
	}
}
