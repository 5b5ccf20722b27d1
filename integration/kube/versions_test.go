package kube

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The workspace gives the product the control plane's versions where those are
// higher. What is tested must be what is released, and share the build cache
// with it, so the product must ask for the same versions by itself.
func TestTheWorkspaceChangesNoVersion(t *testing.T) {
	alone, inWorkspace := linked(t, "GOWORK=off"), linked(t, "GOWORK=")
	for module, version := range inWorkspace {
		if alone[module] != version {
			t.Errorf("%s is %q in the workspace and %q without it; run: go work sync, and go mod tidy in both modules", module, version, alone[module])
		}
	}
	if len(alone) != len(inWorkspace) {
		t.Errorf("%d modules alone, %d in the workspace", len(alone), len(inWorkspace))
	}
}

// linked returns the versions of all modules that the product and its tests
// are built from.
func linked(t *testing.T, workspace string) map[string]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-test", "-f",
		"{{with .Module}}{{.Path}} {{with .Replace}}{{.Version}}{{else}}{{.Version}}{{end}}{{end}}", "../../...")
	cmd.Env = append(os.Environ(), workspace)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("needs the go command")
	}
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	versions := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if module, version, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			versions[module] = version
		}
	}
	return versions
}
