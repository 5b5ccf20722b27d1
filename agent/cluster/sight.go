package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/kube"
)

const (
	// sightFile, in the run directory, is where a sight is kept.
	sightFile = "cluster.json"
	// keepPause bounds how often it is written.
	keepPause = time.Second
)

// sight is what decides which pool serves the pods of this node: for an agent
// that starts while the API server is away.
type sight struct {
	Boot       string                 `json:"boot"`
	Node       kube.Node              `json:"node"`
	Pods       []kube.Pod             `json:"pods"`
	Namespaces []kube.Namespace       `json:"namespaces"` // of the pods
	Pools      []v1alpha1.AddressPool `json:"pools"`
}

// recall reads what was kept in this boot; nil if nothing was.
func recall(runDir, boot string) (*sight, error) {
	path := filepath.Join(runDir, sightFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s sight
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if s.Boot != boot {
		return nil, nil
	}
	return &s, nil
}

// keepSight keeps what is seen, soon after each change, until ctx ends.
func (c *Cluster) keepSight(ctx context.Context) {
	last := ""
	pause := time.NewTimer(0)
	defer pause.Stop()
	select {
	case <-c.watcher.Ready():
	case <-ctx.Done():
		return
	}
	for {
		select {
		case <-c.news:
		case <-ctx.Done():
			return
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		pause.Reset(keepPause)
		text, err := json.Marshal(c.sight(ctx))
		if err == nil && string(text) != last {
			err = write(filepath.Join(c.RunDir, sightFile), text)
		}
		if err != nil {
			c.Log.Warn("after a restart pods are served once the API server answers", "err", err)
			continue
		}
		last = string(text)
	}
}

// sight is what is known now.
func (c *Cluster) sight(ctx context.Context) sight {
	c.mu.Lock()
	s := sight{Boot: c.Boot, Node: c.node, Pools: c.objects}
	c.mu.Unlock()
	s.Pods = c.watcher.Pods()
	seen := map[string]bool{}
	for _, p := range s.Pods {
		if seen[p.Namespace] {
			continue
		}
		seen[p.Namespace] = true
		if ns, now, err := c.watcher.Around(ctx, p.Namespace); err == nil {
			s.Namespaces, s.Node = append(s.Namespaces, ns), now
		}
	}
	return s
}

// write writes the file in one step.
func write(path string, text []byte) error {
	fresh := path + ".new"
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return fmt.Errorf("remember the cluster: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("remember the cluster: %w", err)
	}
	return nil
}
