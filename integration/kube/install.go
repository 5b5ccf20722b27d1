package kube

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// AgentAccount is the service account of Fairway's agents, which Install makes.
func AgentAccount() Account {
	return Account{Namespace: "fairway-system", Name: "fairway-agent"}
}

// Install gives the cluster what the manual has people apply: Fairway's
// definitions, and all of deploy/kubernetes. What is in the checkout counts. The
// Deployment of the controller is an object that nobody carries out: a test
// that needs a controller runs one.
func (c *Cluster) Install(ctx context.Context) error {
	if err := c.InstallDefinitions(ctx); err != nil {
		return err
	}
	return c.applyFolder(ctx, "deploy/kubernetes")
}

// InstallDefinitions gives the cluster the kinds of objects alone, for tests
// that look at what the API server does with them when no policy holds.
func (c *Cluster) InstallDefinitions(ctx context.Context) error {
	return c.applyFolder(ctx, "deploy/crds")
}

// applyFolder applies the YAML files of a folder of the checkout, by their names.
func (c *Cluster) applyFolder(ctx context.Context, folder string) error {
	root, err := checkout()
	if err != nil {
		return err
	}
	pattern := filepath.Join(root, folder, "*.yaml")
	files, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no manifests: %s: %w", pattern, os.ErrNotExist)
	}
	return c.ApplyFiles(ctx, files...)
}

// checkout is the folder of the workspace that this process was started in.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no go.work in this folder or above it; start in the checkout: %w", os.ErrNotExist)
}
