package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/config"
)

// reloader makes a changed file, and a changed node, the settings of a running
// agent.
type reloader struct {
	file    string
	running *config.Config // as it stands in the file
	where   *where
	now     inForce // of running
	told    string  // of unmet, to the log
	agent   *agent.Agent
	log     *slog.Logger
	level   *slog.LevelVar
}

// inForce is what of a configuration is in force on a node.
type inForce struct {
	here    *config.Config
	unmet   error         // what can't be in force
	awaited []config.Peer // the node's peers that are not, for that reason
}

// settings are those of an agent on a host with these addresses.
func (f inForce) settings(host []netip.Addr) agent.Settings {
	s := settingsOf(f.here, host)
	s.Unmet, s.Facing = f.unmet, facing(f.here.Peers)
	for _, p := range f.awaited {
		s.Awaited = append(s.Awaited, peerOf(p))
	}
	return s
}

// same says whether nothing of f is another in g.
func (f inForce) same(g inForce) bool {
	return reflect.DeepEqual(f.here, g.here) && words(f.unmet) == words(g.unmet) && reflect.DeepEqual(f.awaited, g.awaited)
}

// where is the node that an agent runs on.
type where struct {
	cluster agent.Cluster // nil for none
	last    agent.ClusterState
	good    *config.Node // as it was when all could be resolved, or first; see Node.Follow
}

// resolve gives c as it is in force here.
func (w *where) resolve(c *config.Config) inForce {
	if w.cluster == nil {
		here, err := c.For(c.Self())
		return inForce{here, err, c.Awaited(c.Self(), here)}
	}
	// A Node object that goes, to come back perhaps, takes no session with it.
	if state := w.cluster.State(); state.Machine != "" {
		w.last = state
	}
	now := config.Node{Name: c.Node, Labels: w.last.Labels, Annotations: w.last.Annotations, Before: w.good, Unseen: w.last.Machine == ""}
	here, err := c.For(now)
	awaited := c.Awaited(now, here)
	switch {
	case now.Unseen && c.Depends():
		err = fmt.Errorf("the Node object %s has not been seen yet: what depends on its labels waits", c.Node)
	case err == nil || w.good == nil:
		now.Before = nil
		w.good = &now
	default:
		was := w.good.Follow(now, c)
		w.good = &was
	}
	return inForce{here, err, awaited}
}

// refresh has the node looked at anew, if there is one and it is needed.
func (w *where) refresh(needed bool) {
	if w.cluster != nil && needed {
		w.cluster.Refresh()
	}
}

// begin gives the settings to start with.
func (r *reloader) begin() (agent.Settings, error) {
	host, err := hostAddresses()
	if err != nil {
		return agent.Settings{}, fmt.Errorf("this host's addresses: %w", err)
	}
	r.now = r.where.resolve(r.running)
	return r.now.settings(host), nil
}

// lookAgain is how often the node is looked at while it lacks what the configuration
// needs: somebody is about to label it.
const lookAgain = 30 * time.Second

// watch reloads when the file or the node changes or hup says so, until ctx ends.
func (r *reloader) watch(ctx context.Context, hup <-chan os.Signal) {
	file, node := make(chan struct{}, 1), make(chan struct{}, 1)
	go func() {
		if err := config.Watch(ctx, r.file, ring(file)); err != nil && ctx.Err() == nil {
			r.log.Warn("the configuration file is not watched; send SIGHUP after a change", "err", err)
		}
	}()
	if r.where.cluster != nil {
		go func() { _ = r.where.cluster.Watch(ctx, ring(node)) }()
	}
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-node:
			r.follow()
			continue
		case <-again.C:
			r.where.refresh(r.now.unmet != nil)
			continue
		case <-hup:
			r.where.refresh(true)
		case <-file:
		}
		if err := r.reload(ctx); err != nil {
			r.log.Error("the changed configuration is refused; the running one stays in force", "file", r.file, "err", err)
		}
	}
}

// ring gives a function that signals on a channel of size one.
func ring(on chan<- struct{}) func() {
	return func() {
		select {
		case on <- struct{}{}:
		default:
		}
	}
}

// follow makes what the node says now the settings.
func (r *reloader) follow() {
	now := r.where.resolve(r.running)
	if now.same(r.now) {
		return
	}
	if err := r.apply(now); err != nil {
		r.log.Error("what this node's labels say now is refused; the rest stays in force", "err", err)
		return
	}
	r.log.Info("the configuration is in force as this node's labels have it", "asn", now.here.BGP.ASN, "peers", len(now.here.Peers))
}

func (r *reloader) reload(ctx context.Context) error {
	c, err := config.Load(r.file)
	if err != nil {
		return err
	}
	if reflect.DeepEqual(c, r.running) {
		return nil
	}
	if err := sameFixed(r.running, c); err != nil {
		return err
	}
	if c.Routes.Kernel.Sysctls == config.CheckSysctls {
		if err := forward(ctx, c, r.log); err != nil {
			return err
		}
	}
	now := r.where.resolve(c)
	if err := r.apply(now); err != nil {
		return err
	}
	r.level.Set(c.Log.Level)
	r.running = c
	warn(r.log, c)
	if c.Routes.Kernel.Sysctls == config.SetSysctls {
		// Only now: a refused configuration changes nothing on the host.
		if err := forward(ctx, c, r.log); err != nil {
			r.log.Error("the changed configuration is in force without kernel settings that its pods need", "err", err)
		}
	}
	r.log.Info("the changed configuration is in force", "file", r.file, "peers", len(now.here.Peers), "pools", len(c.Pools))
	return nil
}

// apply makes now the settings of the agent, or changes nothing.
func (r *reloader) apply(now inForce) error {
	host, err := hostAddresses()
	if err != nil {
		return err
	}
	if err := r.agent.Reload(now.settings(host)); err != nil {
		return err
	}
	r.now = now
	r.tellUnmet()
	return nil
}

// tellUnmet logs what can't be in force, when that is news.
func (r *reloader) tellUnmet() {
	switch text := words(r.now.unmet); {
	case text == r.told:
	case text == "":
		r.log.Info("all of the configuration is in force on this node")
	default:
		r.log.Error("some of the configuration can't be in force on this node; the rest is", "err", r.now.unmet)
	}
	r.told = words(r.now.unmet)
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// sameFixed refuses a change of what an agent can't change while it runs.
func sameFixed(old, c *config.Config) error {
	var errs []error
	for _, fixed := range []struct {
		key  string
		same bool
	}{
		{"node", old.Node == c.Node},
		{"store", old.Store == c.Store},
		{"kubernetes", old.Kubernetes == c.Kubernetes},
		{"stateDir", old.StateDir == c.StateDir},
		{"runDir", old.RunDir == c.RunDir},
		{"ipam.socket", old.IPAM.Socket == c.IPAM.Socket},
		{"routes.kernel", old.Routes.Kernel == c.Routes.Kernel},
		{"routes.learned", reflect.DeepEqual(old.Routes.Learned, c.Routes.Learned)},
		{"metrics.address", old.Metrics == c.Metrics},
		{"health.address", old.Health.Address == c.Health.Address},
		{"log.format", old.Log.Format == c.Log.Format},
	} {
		if !fixed.same {
			errs = append(errs, fmt.Errorf("%s changed: that takes a restart of the agent", fixed.key))
		}
	}
	return errors.Join(errs...)
}
