package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/fairway-network/fairway/integration/lab"
)

// pod is a network namespace in a node, wired by CNI as a container runtime
// would, with a web server in it.
type pod struct {
	name  string
	app   string
	node  *lab.Node
	addrs []netip.Addr
}

// networkFile is the CNI network configuration of an application's pods.
func (p *pod) networkFile() string { return "/etc/cni/net.d/10-" + p.app + ".conf" }

// run makes the pod and starts its server.
func (p *pod) run(ctx context.Context) error {
	for _, line := range [][]string{
		{"ip", "netns", "add", p.name},
		{"ip", "-n", p.name, "link", "set", "lo", "up"}, // runtimes have a plugin for this
	} {
		if _, err := p.node.Exec(ctx, line...); err != nil {
			return err
		}
	}
	if err := p.wire(ctx); err != nil {
		return err
	}
	_, err := p.node.Start(ctx, p.name, "ip", "netns", "exec", p.name, "roadside", "serve", p.name, "[::]:80")
	return err
}

// wire runs the plugin that the network configuration names.
func (p *pod) wire(ctx context.Context) error {
	cmd := p.node.Command(ctx, "sh", "-c", `exec /opt/cni/bin/ptp <"$1"`, "sh", p.networkFile())
	cmd.Env = append(cmd.Env, "CNI_COMMAND=ADD", "CNI_CONTAINERID="+p.name, "CNI_NETNS=/run/netns/"+p.name,
		"CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin")
	out, err := cmd.Output()
	if err != nil {
		var ended *exec.ExitError
		if errors.As(err, &ended) {
			out = append(out, ended.Stderr...)
		}
		return fmt.Errorf("pod %s on %s: ptp ADD: %w: %s", p.name, p.node.Name(), err, out)
	}
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return fmt.Errorf("pod %s on %s: result of ptp: %w", p.name, p.node.Name(), err)
	}
	for _, ip := range result.IPs {
		p.addrs = append(p.addrs, ip.Address.Addr())
	}
	if len(p.addrs) != 2 {
		return fmt.Errorf("pod %s on %s: addresses %v, want one of each family: %s", p.name, p.node.Name(), p.addrs, out)
	}
	return nil
}

// inside returns the command line that runs in the pod.
func (p *pod) inside(argv ...string) []string {
	return append([]string{"ip", "netns", "exec", p.name}, argv...)
}

func (p *pod) String() string {
	return fmt.Sprintf("%-8s on %s: %s", p.name, p.node.Name(), strings.Trim(fmt.Sprint(p.addrs), "[]"))
}

// url of the pod's web server at one of its addresses.
func url(a netip.Addr) string {
	return "http://" + host(a) + "/"
}

func host(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}
