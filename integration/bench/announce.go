package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// announceOne measures how long one prefix takes from the call until it is in the
// kernel of a router: of BIRD, and of FRR.
func announceOne(ctx context.Context, b *bench, out io.Writer) error {
	rounds := min(max(b.rounds/3, 5), 100)
	fmt.Fprintf(out, "\n### Announcing one prefix\n\nFrom the call until the router has it in its kernel, which tells so by itself; the sessions are up, and there are no other prefixes. The node's daemons have one processor, the router and the caller the other. BIRD and FRR learn it from the kernel, the call being one netlink message. p50 / p99 in ms; %d of each, in turn. Ratios are of the medians.\n\n", rounds)
	fmt.Fprint(out, "| router | | fairway | BIRD | FRR | two Go processes | fairway / BIRD | fairway / FRR | fairway / two Go processes |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range []struct {
		kernelRouter
		ofFRR float64
	}{{kernelRouter{"BIRD", b.routeWithBIRD}, 0.05}, {kernelRouter{"FRR", b.routeWithFRR}, 0}} { // FRR takes its time as the router, too
		told, withdrawn, err := b.announceTo(ctx, r.kernelRouter, rounds)
		if err != nil {
			return fmt.Errorf("router %s: %w", r.name, err)
		}
		for _, row := range []struct {
			name string
			times
			ofBIRD, ofFRR float64
		}{{"announced", told, 1.15, r.ofFRR}, {"withdrawn", withdrawn, 0, 0}} {
			fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s | %s | %s | %.3g |\n", r.name, row.name, row.cell("fairway"), row.cell("BIRD"), row.cell("FRR"), row.cell("relay"),
				verdict(row.ratio("fairway", "BIRD"), row.ofBIRD, true), verdict(row.ratio("fairway", "FRR"), row.ofFRR, true), row.ratio("fairway", "relay"))
		}
	}
	return nil
}

// announceTo has all tellers announce to routers of a kind, each to one of its own.
func (b *bench) announceTo(ctx context.Context, r kernelRouter, rounds int) (told, withdrawn times, err error) {
	told, withdrawn = times{}, times{}
	free, err := pinSelf()
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, free()) }()
	tellers := append(b.tellers(), teller{"relay", b.tellWithRelay})
	var roads []road
	for _, t := range tellers {
		m, err := b.newRoad(ctx, t, r)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", t.name, err)
		}
		defer m.end()
		roads = append(roads, m)
	}
	for n := range rounds {
		for i := range tellers {
			i = turn(n, i, len(tellers))
			name := tellers[i].name
			in, err := roads[i].time(ctx, n, true)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", name, err)
			}
			gone, err := roads[i].time(ctx, n, false)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", name, err)
			}
			told[name], withdrawn[name] = append(told[name], in), append(withdrawn[name], gone)
		}
	}
	return told, withdrawn, nil
}

// road is a node's daemon, and a router that brings to its kernel what it is told.
type road struct {
	pair
	telling
	events <-chan routeEvent
}

// newRoad starts both, until ctx ends, and waits until a prefix gets through.
func (b *bench) newRoad(ctx context.Context, t teller, r kernelRouter) (m road, err error) {
	defer func() {
		if err != nil {
			m.end()
		}
	}()
	if m.pair, err = b.newPair(ctx); err != nil {
		return m, err
	}
	var stop func()
	if m.events, stop, err = routeEvents(m.tor); err != nil {
		return m, err
	}
	m.ends = append(m.ends, stop)
	dir := filepath.Join(m.dir, "tor")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return m, err
	}
	if stop, err = r.start(ctx, m.tor, dir); err != nil {
		return m, err
	}
	m.ends = append(m.ends, stop)
	if m.telling, err = t.start(ctx, m.node, m.dir); err != nil {
		return m, err
	}
	m.ends = append(m.ends, m.telling.stop)
	if err := m.apart(); err != nil {
		return m, err
	}
	if _, err := m.time(ctx, bulkPrefixes, true); err != nil {
		return m, err
	}
	_, err = m.time(ctx, bulkPrefixes, false)
	return m, err
}

// time is how long the nth prefix takes to the router's kernel, or out of it.
func (m road) time(ctx context.Context, n int, announced bool) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	begun := time.Now()
	called := make(chan error, 1)
	go func() { called <- m.one(ctx, bulkPrefix(n), announced) }()
	if err := awaitRoute(ctx, m.events, routeEvent{bulkPrefix(n), !announced}); err != nil {
		return 0, errors.Join(err, <-called)
	}
	return time.Since(begun), <-called
}

// kernelRouter is a router that brings what it is told to its kernel, and helps
// graceful restarts.
type kernelRouter struct {
	name  string
	start func(ctx context.Context, tor int, dir string) (stop func(), err error)
}

func (b *bench) routeWithBIRD(ctx context.Context, tor int, dir string) (func(), error) {
	const conf = "router id 192.0.2.1;\nprotocol device {}\nprotocol kernel { ipv4 { import none; export all; }; }\n" +
		"protocol bgp node {\n local 192.0.2.1 as 65001;\n neighbor 192.0.2.2 as 64512;\n passive on;\n graceful restart aware;\n ipv4 { import all; export none; };\n}\n"
	file, socket := filepath.Join(dir, "bird.conf"), filepath.Join(dir, "bird.ctl")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	stop, err := daemonIn(ctx, tor, dir, "bird", "bird", "-f", "-c", file, "-s", socket, "-P", filepath.Join(dir, "bird.pid"))
	if err != nil {
		return nil, err
	}
	return stop, awaitDaemon(ctx, "birdc", "-s", socket, "show", "status")
}

func (b *bench) routeWithFRR(ctx context.Context, tor int, dir string) (func(), error) {
	const conf = `hostname tor
router bgp 65001
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 neighbor 192.0.2.2 remote-as 64512
 neighbor 192.0.2.2 timers connect 1
 neighbor 192.0.2.2 passive
`
	return b.startFRR(ctx, tor, dir, conf)
}
