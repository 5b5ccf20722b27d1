package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/pools"
	store "github.com/fairway-network/fairway/pools/kube"
	clientrest "k8s.io/client-go/rest"
)

const (
	manyBlocks  = 100_000
	blocksANode = 20
)

// kubeController measures the controller, and the calls of an agent, with a
// hundred thousand blocks.
func kubeController(ctx context.Context, b *bench, out io.Writer) error {
	return ground(ctx, func(c *kube.Cluster) error {
		if err := firstBlock(ctx, c); err != nil {
			return err
		}
		if err := runController(ctx, b, c, "empty", func(*controllerRun) error { return nil }); err != nil { // its pages are in memory then
			return err
		}
		var idle, full controllerRun
		if err := runController(ctx, b, c, "empty", func(r *controllerRun) error { idle = *r; return nil }); err != nil {
			return err
		}
		size, took, err := fillEtcd(ctx, c)
		if err != nil {
			return err
		}
		if err := runController(ctx, b, c, "full", func(r *controllerRun) error { full = *r; return nil }); err != nil {
			return err
		}
		fmt.Fprintf(out, "\n### The controller with %d blocks\n\n%d nodes with %d blocks each, out of one /8; an AddressBlock is %d bytes in etcd (all were there after %.0f s, written into etcd). From exec to ready: %s s, with none %.2f s. Resident memory: %.1f MB, with none %.1f MB, more by %s MB.\n",
			manyBlocks, manyBlocks/blocksANode, blocksANode, size, took.Seconds(), verdict(full.ready.Seconds(), 2, true), idle.ready.Seconds(),
			full.resident, idle.resident, verdict(full.resident-idle.resident, 64, true))
		return callsOfAgents(ctx, c, out)
	})
}

// firstBlock is the one that the others are copied from.
func firstBlock(ctx context.Context, c *kube.Cluster) error {
	s, err := storeOf(ctx, c, "node-0")
	if err != nil {
		return err
	}
	_, err = s.Create(ctx, pools.Block{Prefix: cellOf(0), Pool: "many", Node: "node-0", Machine: "01234567-89ab-cdef-0123-456789abcdef"})
	return err
}

// cellOf is the nth /26 of 10.0.0.0/8.
func cellOf(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 10), byte(n >> 2), byte(n << 6)}), 26)
}

// fillEtcd copies the first block.
func fillEtcd(ctx context.Context, c *kube.Cluster) (size int, took time.Duration, err error) {
	const under = "/registry/fairway.network/addressblocks/"
	first, err := c.Stored(ctx, under+nameOf(0))
	if err != nil {
		return 0, 0, err
	}
	var about struct{ Metadata struct{ UID string } }
	if err := json.Unmarshal(first, &about); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	pairs := make([]kube.Pair, 0, manyBlocks)
	for n := 1; n < manyBlocks; n++ {
		p := cellOf(n)
		text := first
		for _, swap := range [][2]string{
			{nameOf(0), nameOf(n)}, {cellOf(0).String(), p.String()}, {`"10-0-0-0-24"`, fmt.Sprintf("%q", placeOf(p))},
			{`"node-0"`, fmt.Sprintf(`"node-%d"`, n/blocksANode)}, {about.Metadata.UID, fmt.Sprintf("%s%08x", about.Metadata.UID[:28], n)},
		} {
			text = bytes.ReplaceAll(text, []byte(swap[0]), []byte(swap[1]))
		}
		pairs = append(pairs, kube.Pair{Key: []byte(under + nameOf(n)), Value: text})
	}
	if err := c.Store(ctx, pairs); err != nil {
		return 0, 0, err
	}
	// The API server's cache has the last one when it shows it.
	client, err := store.NewClient(c.Config(), store.Options{})
	if err != nil {
		return 0, 0, err
	}
	for {
		blocks, err := client.Store("").List(ctx, "many")
		if err != nil {
			return 0, 0, err
		}
		if len(blocks) == manyBlocks {
			return len(first), time.Since(began), nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
}

func nameOf(n int) string {
	a := cellOf(n).Addr().As4()
	return fmt.Sprintf("%d-%d-%d-%d-26", a[0], a[1], a[2], a[3])
}

func placeOf(p netip.Prefix) string {
	a := p.Addr().As4()
	return fmt.Sprintf("%d-%d-%d-0-24", a[0], a[1], a[2])
}

// controllerRun is one life of a controller.
type controllerRun struct {
	ready    time.Duration // from exec
	resident float64       // MB, some seconds later
}

// runController runs the program until use returns.
func runController(ctx context.Context, b *bench, c *kube.Cluster, name string, use func(*controllerRun) error) (err error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	health := free.Addr().String()
	if err := free.Close(); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(b.dir, "controller-"+name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(b.controller, "--kubeconfig", c.Kubeconfig(), "--leader-elect=false", "--health", health)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r := &controllerRun{}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cmd.Process.Kill(), ended(cmd)) }()
	if err := awaitOK(ctx, "http://"+health+"/readyz"); err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("the controller is not ready: %w\n%s", err, text)
	}
	r.ready = time.Since(began)
	// It counts, collects, and is quiet.
	select {
	case <-time.After(15 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	resident, _, err := memory([]int{cmd.Process.Pid})
	if err != nil {
		return err
	}
	r.resident = float64(resident) / 1e6
	return use(r)
}

// ended waits for a program that was killed.
func ended(cmd *exec.Cmd) error {
	err := cmd.Wait()
	var status *exec.ExitError
	if errors.As(err, &status) {
		return nil
	}
	return err
}

func awaitOK(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(r)
		if err == nil {
			if err := answer.Body.Close(); err != nil {
				return err
			}
			if answer.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(answer.Status)
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// callsOfAgents measures what an agent's calls cost the API server among so
// many blocks.
func callsOfAgents(ctx context.Context, c *kube.Cluster, out io.Writer) error {
	const times = 20
	config, err := c.NodeAgentConfig(ctx, kube.AgentAccount(), "node-7")
	if err != nil {
		return err
	}
	sizes := &wireMeter{}
	config = clientrest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { sizes.next = next; return sizes })
	client, err := store.NewClient(config, store.Options{})
	if err != nil {
		return err
	}
	s := client.Store("node-7")
	fmt.Fprintf(out, "\nWhat one call of an agent costs then, mean of %d:\n\n| call | API server, ms of processor time | etcd | answer, kB | time, ms |\n| --- | --- | --- | --- | --- |\n", times)
	spare := manyBlocks
	for _, call := range []struct {
		what string
		make func() error
	}{
		{"claim: make a block", func() error {
			spare++
			_, err := s.Create(ctx, pools.Block{Prefix: cellOf(spare), Pool: "many", Node: "node-7"})
			return err
		}},
		{"read one block", func() error { _, err := s.Block(ctx, cellOf(140)); return err }},
		{"a pool's blocks, before a first claim (all of them)", func() error { _, err := s.List(ctx, "many"); return err }},
		{"a pool's blocks, of a pool with none", func() error { _, err := s.List(ctx, "few"); return err }},
		{"own blocks, at a start or an audit", func() error { _, err := s.Own(ctx); return err }},
		{"what is inside a block", func() error { _, err := s.Inside(ctx, cellOf(140)); return err }},
	} {
		sizes.bytes.Store(0)
		before, err := c.CPUTime()
		if err != nil {
			return err
		}
		began := time.Now()
		for range times {
			if err := call.make(); err != nil {
				return err
			}
		}
		took := time.Since(began) / times
		after, err := c.CPUTime()
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "| %s | %s | %s | %.1f | %s |\n", call.what, ms((after.APIServer-before.APIServer)/times), ms((after.Etcd-before.Etcd)/times),
			float64(sizes.bytes.Load())/times/1e3, ms(took))
	}
	return nil
}
