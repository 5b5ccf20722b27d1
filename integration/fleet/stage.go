package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fairway-network/fairway/integration/kube"
)

// Account is that of the agents.
func Account() kube.Account {
	return kube.Account{Namespace: "fairway-system", Name: "fairway-agent"}
}

// Install gives a cluster Fairway's definitions, roles, admission policies and priorities.
func Install(ctx context.Context, c *kube.Cluster) error {
	root, err := checkout()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(root, "deploy/crds/*.yaml"))
	if err != nil {
		return err
	}
	for _, name := range []string{"00-namespace.yaml", "rbac.yaml", "admission.yaml", "flowcontrol.yaml"} {
		files = append(files, filepath.Join(root, "deploy/kubernetes", name))
	}
	return c.ApplyFiles(ctx, files...)
}

// checkout is the folder of the project that this process was started in.
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
