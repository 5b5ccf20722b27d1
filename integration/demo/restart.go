package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fairway-network/fairway/integration/lab"
)

const (
	requestRate = 200             // requests a second, each on a new connection
	beforeKill  = time.Second     // of the stream, and after the agent's return
	agentAway   = 2 * time.Second // between the agent's death and its next start
)

func (r *road) showRestart(ctx context.Context) error {
	r.step("An agent dies and comes back", fmt.Sprintf(
		"The client sends %d requests a second to web-1. Meanwhile node1's agent is killed (SIGKILL) and started again: the router keeps its routes (graceful restart).", requestRate))
	stream, err := r.startStream(ctx)
	if err != nil {
		return err
	}
	err = r.restartAgent(ctx)
	count, streamErr := stream.end(ctx)
	if err := errors.Join(err, streamErr); err != nil {
		return err
	}
	r.fact("%d requests sent, %d lost; the slowest took %d ms.", count.Sent, count.Lost, count.Slowest)
	if count.Lost > 0 || count.Sent < requestRate {
		return fmt.Errorf("%d of %d requests were lost over the restart: %s", count.Lost, count.Sent, count.FirstError)
	}
	return nil
}

func (r *road) restartAgent(ctx context.Context) error {
	node := r.nodes[0]
	if err := pass(ctx, beforeKill); err != nil {
		return err
	}
	if err := killAgent(ctx, node); err != nil {
		return err
	}
	r.command(node.Name(), "kill -KILL $(pidof fairway)", "")
	if err := r.await(ctx, "the router to keep node1's routes as stale", func(ctx context.Context) error { return r.stale(ctx, true) }); err != nil {
		return err
	}
	if _, err := r.say(ctx, r.tor, "vtysh", "-c", "show bgp ipv4 unicast"); err != nil {
		return err
	}
	r.fact("the routes of node1 are marked S for stale, and stay in use.")
	if err := pass(ctx, agentAway); err != nil {
		return err
	}
	if _, err := node.Start(ctx, "fairway", "fairway", "agent", "--config", "/etc/fairway/fairway.yaml"); err != nil {
		return err
	}
	r.command(node.Name(), "fairway agent --config /etc/fairway/fairway.yaml &", "")
	err := r.await(ctx, "the router to have node1's routes anew", func(ctx context.Context) error {
		return errors.Join(r.established(ctx, "ipv4", "10.0.1.2"), r.established(ctx, "ipv6", "fd00:0:1::2"), r.stale(ctx, false))
	})
	if err != nil {
		return err
	}
	r.fact("the sessions are back and the routes fresh.")
	return pass(ctx, beforeKill)
}

// killAgent kills the agent of a node and waits until its speaker is gone too.
func killAgent(ctx context.Context, n *lab.Node) error {
	all, err := n.Processes()
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(p lab.Process) bool { return !strings.HasPrefix(p.Comm, "fairway") })
	agent := slices.IndexFunc(all, func(p lab.Process) bool { return slices.Contains(p.Args, "agent") })
	if agent < 0 {
		return fmt.Errorf("no agent runs on %s: %+v", n.Name(), all)
	}
	if err := all[agent].Signal(syscall.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	for _, p := range all {
		if err := p.Gone(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stale checks that all of node1's pods' routes on the router are stale, or
// that none is.
func (r *road) stale(ctx context.Context, want bool) error {
	for _, p := range r.pods {
		if p.node != r.nodes[0] {
			continue
		}
		for _, a := range p.addrs {
			family := "ipv4"
			if a.Is6() {
				family = "ipv6"
			}
			var route struct {
				Paths []struct{ Stale bool }
			}
			if err := r.askRouter(ctx, &route, "show bgp "+family+" unicast "+a.String()+" json"); err != nil {
				return err
			}
			if len(route.Paths) != 1 || route.Paths[0].Stale != want {
				return fmt.Errorf("paths to %s on the router: %+v, want one with stale=%t", a, route.Paths, want)
			}
		}
	}
	return nil
}

func (r *road) established(ctx context.Context, family, peer string) error {
	var summary struct {
		Peers map[string]struct{ State string }
	}
	if err := r.askRouter(ctx, &summary, "show bgp "+family+" unicast summary json"); err != nil {
		return err
	}
	if state := summary.Peers[peer].State; state != "Established" {
		return fmt.Errorf("session with %s is %q", peer, state)
	}
	return nil
}

func (r *road) askRouter(ctx context.Context, into any, command string) error {
	out, err := r.tor.Exec(ctx, "vtysh", "-c", command)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// pass lets the stream run on for a while.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// requests is a stream of requests that runs.
type requests struct {
	cmd      *exec.Cmd
	out, err bytes.Buffer
	client   *lab.Node
}

// tally is what the stream counted.
type tally struct {
	Sent, Lost int
	Slowest    int64
	FirstError string
}

func (r *road) startStream(ctx context.Context) (*requests, error) {
	target := url(r.pods[0].addrs[0])
	s := &requests{cmd: r.client.Command(ctx, "roadside", "stream", target, fmt.Sprint(requestRate)), client: r.client}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.err
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("stream of requests: %w", err)
	}
	r.command(r.client.Name(), fmt.Sprintf("roadside stream %s %d &", target, requestRate), "")
	return s, nil
}

// end stops the stream and returns what it counted.
func (s *requests) end(ctx context.Context) (tally, error) {
	all, err := s.client.Processes()
	if err != nil {
		return tally{}, err
	}
	for _, p := range all {
		if p.Comm == "roadside" {
			if err := p.Signal(syscall.SIGINT); err != nil {
				return tally{}, err
			}
		}
	}
	if err := s.cmd.Wait(); err != nil {
		return tally{}, fmt.Errorf("stream of requests: %w: %s", err, s.err.String())
	}
	var t tally
	if err := json.Unmarshal(s.out.Bytes(), &t); err != nil {
		return tally{}, fmt.Errorf("stream of requests: %w: %q", err, s.out.String())
	}
	return t, ctx.Err()
}
