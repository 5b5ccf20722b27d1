package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/fairway-network/fairway/integration/lab"
)

// soon bounds each wait for the network to converge.
const soon = 15 * time.Second

// road is the lab as the demo knows it.
type road struct {
	*teller
	tor, client, db *lab.Node
	nodes           []*lab.Node
	pods            []*pod
}

func newRoad(l *lab.Lab, t *teller) (*road, error) {
	r := &road{teller: t, nodes: make([]*lab.Node, 2)}
	for name, at := range map[string]**lab.Node{
		"tor": &r.tor, "client": &r.client, "db": &r.db, "node1": &r.nodes[0], "node2": &r.nodes[1],
	} {
		n, err := l.Node(name)
		if err != nil {
			return nil, err
		}
		*at = n
	}
	for i, n := range r.nodes {
		for _, app := range []string{"web", "batch"} {
			r.pods = append(r.pods, &pod{name: fmt.Sprintf("%s-%d", app, i+1), app: app, node: n})
		}
	}
	return r, nil
}

func (r *road) showAll(ctx context.Context) error {
	for _, show := range []func(context.Context) error{
		r.showSessions, r.showPods, r.showRouter, r.showSpeakers, r.showClient, r.showDatabase, r.showFirewall, r.showRestart,
	} {
		if err := show(ctx); err != nil {
			return err
		}
	}
	return nil
}

// neighbours are the nodes' ends of the router's sessions.
func neighbours() map[string][]string {
	return map[string][]string{"ipv4": {"10.0.1.2", "10.0.2.2"}, "ipv6": {"fd00:0:1::2", "fd00:0:2::2"}}
}

func (r *road) showSessions(ctx context.Context) error {
	r.step("BGP sessions", "The agent of each node speaks BGP with the router, one session for IPv4 and one for IPv6.")
	begin := time.Now()
	err := r.await(ctx, "all BGP sessions", func(ctx context.Context) error {
		for family, peers := range neighbours() {
			for _, peer := range peers {
				if err := r.established(ctx, family, peer); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := r.say(ctx, r.tor, "vtysh", "-c", "show bgp summary established"); err != nil {
		return err
	}
	r.fact("all four sessions are established, %s after the lab was up.", time.Since(begin).Round(100*time.Millisecond))
	return nil
}

func (r *road) showPods(ctx context.Context) error {
	r.step("Pods", "Two applications, web and batch, each with a pool of its own. The reference plugin ptp wires the pods, fairway-ipam leases the addresses.")
	r.command(r.nodes[0].Name(), "CNI_COMMAND=ADD CNI_CONTAINERID=web-1 CNI_NETNS=/run/netns/web-1 ... ptp <"+r.pods[0].networkFile(), "")
	var making sync.WaitGroup
	errs := make([]error, len(r.pods))
	for i, p := range r.pods {
		making.Go(func() { errs[i] = p.run(ctx) })
	}
	making.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, p := range r.pods {
		r.fact("%s", p)
	}
	_, err := r.say(ctx, r.nodes[0], "fairway", "status")
	return err
}

// ports are the router's interfaces by the node that they lead to.
func ports() map[string]string { return map[string]string{"node1": "eth3", "node2": "eth4"} }

func (r *road) showRouter(ctx context.Context) error {
	r.step("The router's BGP table", "The router knows the pods' blocks, not single pods: a pod that comes or goes inside a block changes nothing here.")
	for _, p := range r.pods {
		for _, a := range p.addrs {
			if err := r.await(ctx, "the router's way to "+a.String(), func(ctx context.Context) error { return r.leadsTo(ctx, a, p.node) }); err != nil {
				return err
			}
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		if _, err := r.say(ctx, r.tor, "vtysh", "-c", "show bgp "+family+" unicast"); err != nil {
			return err
		}
	}
	r.fact("the router sends all %d addresses to the nodes that hold them.", 2*len(r.pods))
	return nil
}

// leadsTo checks that the router's kernel sends an address to a node.
func (r *road) leadsTo(ctx context.Context, a netip.Addr, n *lab.Node) error {
	out, err := r.tor.Exec(ctx, "ip", "route", "get", a.String())
	if err != nil {
		return err
	}
	if want := "dev " + ports()[n.Name()]; !strings.Contains(out, want+" ") {
		return fmt.Errorf("the router's way is %q, want %s", strings.TrimSpace(out), want)
	}
	return nil
}

func (r *road) showSpeakers(ctx context.Context) error {
	r.step("The nodes' own view", "The speaker is an embedded GoBGP, so the gobgp command reads it on every node.")
	for _, n := range r.nodes {
		for _, family := range []string{"ipv4", "ipv6"} {
			out, err := r.say(ctx, n, "gobgp", "--target", "unix:///run/fairway/gobgp.sock", "global", "rib", "-a", family)
			if err != nil {
				return err
			}
			if err := r.holdsOwn(out, n, family == "ipv6"); err != nil {
				return err
			}
		}
	}
	return nil
}

// holdsOwn checks that a table printed by gobgp covers a node's pods.
func (r *road) holdsOwn(table string, n *lab.Node, v6 bool) error {
	var prefixes []netip.Prefix
	for _, word := range strings.Fields(table) {
		if p, err := netip.ParsePrefix(word); err == nil {
			prefixes = append(prefixes, p)
		}
	}
	for _, p := range r.pods {
		for _, a := range p.addrs {
			if p.node == n && a.Is6() == v6 && !covers(prefixes, a) {
				return fmt.Errorf("%s announces %v: %s of pod %s is not among them", n.Name(), prefixes, a, p.name)
			}
		}
	}
	return nil
}

func covers(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (r *road) showClient(ctx context.Context) error {
	r.step("From outside to a pod", "The client asks every pod for a page at the pod's own address. The pod sees the client's own address: no proxy, no translation.")
	for _, p := range r.pods {
		for _, a := range p.addrs {
			client := "192.0.2.10"
			if a.Is6() {
				client = "2001:db8:c::10"
			}
			page, err := r.say(ctx, r.client, "curl", "-sS", "--max-time", "5", "--retry", "5", "--retry-connrefused", url(a))
			if err != nil {
				return err
			}
			if want := fmt.Sprintf("this is %s at %s, you are %s\n", p.name, a, client); page != want {
				return fmt.Errorf("page of %s: %q, want %q", url(a), page, want)
			}
		}
	}
	return nil
}

// databases are the database's addresses.
func databases() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8:d::10")}
}

func (r *road) showDatabase(ctx context.Context) error {
	r.step("From a pod to the outside", "A web pod connects to the database, which sees the pod's own address.")
	for _, p := range r.pods {
		if p.app != "web" {
			continue
		}
		for i, db := range databases() {
			answer, err := r.say(ctx, p.node, p.inside("roadside", "ask", host(db)+":5432")...)
			if err != nil {
				return err
			}
			if want := fmt.Sprintf("this is the database, you are %s\n", p.addrs[i]); answer != want {
				return fmt.Errorf("the database told pod %s %q, want %q", p.name, answer, want)
			}
		}
	}
	return nil
}

func (r *road) showFirewall(ctx context.Context) error {
	r.step("A firewall that knows the application", "The database's firewall names the web pool, which holds wherever web's pods run. Batch is refused.")
	for _, p := range r.pods {
		if p.app != "batch" {
			continue
		}
		for _, db := range databases() {
			argv := p.inside("roadside", "ask", host(db)+":5432")
			answer, err := p.node.Exec(ctx, argv...)
			if err == nil {
				return fmt.Errorf("the firewall let pod %s in: %q", p.name, answer)
			}
			if !strings.Contains(err.Error(), "connection refused") {
				return fmt.Errorf("pod %s should be refused: %w", p.name, err)
			}
			r.command(p.node.Name(), strings.Join(argv, " "), "connection refused")
		}
	}
	_, err := r.say(ctx, r.db, "nft", "list", "chain", "inet", "firewall", "input")
	return err
}

// say runs a command on a node and shows it.
func (r *road) say(ctx context.Context, n *lab.Node, argv ...string) (string, error) {
	out, err := n.Exec(ctx, argv...)
	if err != nil {
		return "", err
	}
	r.command(n.Name(), quoted(argv), out)
	return out, nil
}

// quoted is a command line as a person would type it.
func quoted(argv []string) string {
	words := make([]string, len(argv))
	for i, w := range argv {
		if words[i] = w; strings.ContainsAny(w, " \t") {
			words[i] = "'" + w + "'"
		}
	}
	return strings.Join(words, " ")
}

func (r *road) await(ctx context.Context, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	return lab.Await(ctx, what, func() error { return check(ctx) })
}
