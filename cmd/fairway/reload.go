package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/config"
)

// reloader makes a changed file, and a changed node, the settings of a running
// agent.
type reloader struct {
	file    string
	running *config.Config // as it stands in the file
	where   *where
	// here and unmet are what of running is in force on this node, and what can't be.
	here  *config.Config
	unmet error
	told  string // of unmet, to the log
	agent *agent.Agent
	log   *slog.Logger
	level *slog.LevelVar
}

// where is the node that an agent runs on.
type where struct {
	cluster agent.Cluster // nil for none
	last    agent.ClusterState
	good    *config.Node // as it was when all could be resolved, or first
}

// resolve gives c as it is in force here. The error says what of it can't be.
func (w *where) resolve(c *config.Config) (*config.Config, error) {
	if w.cluster == nil {
		return c.For(c.Self())
	}
	// A Node object that goes, to come back perhaps, takes no session with it.
	if state := w.cluster.State(); state.Machine != "" {
		w.last = state
	}
	now := config.Node{Name: c.Node, Labels: w.last.Labels, Annotations: w.last.Annotations}
	now.Before = w.good
	here, err := c.For(now)
	switch {
	case w.last.Machine == "" && c.Depends():
		err = fmt.Errorf("the Node object %s has not been seen yet: what depends on its labels waits", c.Node)
	case err == nil || w.good == nil:
		now.Before = nil
		w.good = &now
	}
	return here, err
}

// begin gives the settings to start with.
func (r *reloader) begin() (agent.Settings, error) {
	host, err := hostAddresses()
	if err != nil {
		return agent.Settings{}, fmt.Errorf("this host's addresses: %w", err)
	}
	r.here, r.unmet = r.where.resolve(r.running)
	s := settingsOf(r.here, host)
	s.Unmet = r.unmet
	return s, nil
}

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
	for {
		select {
		case <-ctx.Done():
			return
		case <-node:
			r.follow()
			continue
		case <-hup:
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
	here, unmet := r.where.resolve(r.running)
	if reflect.DeepEqual(here, r.here) && words(unmet) == words(r.unmet) {
		return
	}
	if err := r.apply(here, unmet); err != nil {
		r.log.Error("what this node's labels say now is refused; the rest stays in force", "err", err)
		return
	}
	r.log.Info("the configuration is in force as this node's labels have it", "asn", here.BGP.ASN, "peers", len(here.Peers))
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
	here, unmet := r.where.resolve(c)
	if err := r.apply(here, unmet); err != nil {
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
	r.log.Info("the changed configuration is in force", "file", r.file, "peers", len(here.Peers), "pools", len(c.Pools))
	return nil
}

// apply makes here the settings of the agent, or changes nothing.
func (r *reloader) apply(here *config.Config, unmet error) error {
	host, err := hostAddresses()
	if err != nil {
		return err
	}
	s := settingsOf(here, host)
	s.Unmet = unmet
	if err := r.agent.Reload(s); err != nil {
		return err
	}
	r.here, r.unmet = here, unmet
	r.tellUnmet()
	return nil
}

// tellUnmet logs what can't be in force, when that is news.
func (r *reloader) tellUnmet() {
	switch text := words(r.unmet); {
	case text == r.told:
	case text == "":
		r.log.Info("all of the configuration is in force on this node")
	default:
		r.log.Error("some of the configuration can't be in force on this node; the rest is", "err", r.unmet)
	}
	r.told = words(r.unmet)
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
