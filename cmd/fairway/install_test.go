package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodNetwork = `{"cniVersion": "1.0.0", "name": "fairway", "plugins": [{"type": "ptp", "ipam": {"type": "fairway-ipam"}}, {"type": "portmap"}]}`

func TestCheckNetwork(t *testing.T) {
	for text, says := range map[string]string{
		goodNetwork: "",
		`{"cniVersion": "1.0.0", "name": "fairway", "type": "ptp", "ipam": {"type": "fairway-ipam"}}`: "",
		`{"name": "n", "plugins": [{"type": "ptp", "ipam": {"type": "host-local"}}]}`:                 `no plugin in it has "ipam": {"type": "fairway-ipam"}`,
		`{"plugins": [{"type": "ptp", "ipam": {"type": "fairway-ipam"}}]}`:                            `it has no "name"`,
		`cniVersion: 1.0.0`: "it is no JSON object",
		``:                  "it is no JSON object",
	} {
		err := checkNetwork([]byte(text))
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
}

// A file is replaced as a whole, with its mode, and what is right is left alone.
func TestInstallFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "plugin")
	install := func(content string, mode os.FileMode, says string) os.FileInfo {
		t.Helper()
		var out strings.Builder
		if err := installFile(&out, path, []byte(content), mode); err != nil || !strings.Contains(out.String(), says) {
			t.Fatalf("%v: %q, want %q", err, out.String(), says)
		}
		is, err := os.ReadFile(path)
		if err != nil || string(is) != content {
			t.Fatalf("it is %q, %v", is, err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != mode {
			t.Fatalf("its mode is %v, %v", info.Mode(), err)
		}
		return info
	}
	first := install("one", 0o755, "installed "+path)
	open, err := os.Open(path) // as by a plugin that runs
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if same := install("one", 0o755, "is there already"); !os.SameFile(first, same) {
		t.Error("a file that is right was replaced")
	}
	if other := install("one", 0o600, "installed"); os.SameFile(first, other) {
		t.Error("the mode of a file was changed, which may be another's")
	}
	if other := install("two", 0o755, "installed"); os.SameFile(first, other) {
		t.Error("a file was written over that somebody may be reading")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("it left %v, %v", left, err)
	}
	if err := installFile(&strings.Builder{}, filepath.Join(dir, "none", "plugin"), nil, 0o755); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "none", "plugin")) {
		t.Errorf("into a folder that is not there: %v", err)
	}
}

// A network configuration that is wrong installs nothing at all.
func TestInstallNothingIfTheNetworkIsWrong(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	plugin := filepath.Join(filepath.Dir(self), pluginProgram)
	if err := os.WriteFile(plugin, []byte("program"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(plugin) })
	from, to := t.TempDir(), t.TempDir()
	network := filepath.Join(from, "10-fairway.conflist")
	for _, test := range []struct {
		text      string
		installed int
	}{{`{"name": "n"}`, 0}, {goodNetwork, 2}} {
		if err := os.WriteFile(network, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := installCNI(&strings.Builder{}, to, network, to)
		if (err == nil) != (test.installed > 0) || err != nil && !strings.Contains(err.Error(), network) {
			t.Errorf("%s: %v", test.text, err)
		}
		if files, err := os.ReadDir(to); err != nil || len(files) != test.installed {
			t.Errorf("%s: %v are there, %v", test.text, files, err)
		}
	}
}
