package config_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairway-network/fairway/config"
)

// watched runs Watch over path and returns a channel that gets a value for
// each call of changed. The first, which says that the watch stands, is taken.
func watched(t *testing.T, path string) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	calls, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- config.Watch(ctx, path, func() { calls <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	await(t, calls)
	return calls
}

func await(t *testing.T, calls <-chan struct{}) {
	t.Helper()
	select {
	case <-calls:
	case <-time.After(20 * time.Second):
		t.Fatal("no signal of a change")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWatchSeesAWriteInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fairway.yaml")
	write(t, path, "node: a\n")
	calls := watched(t, path)
	write(t, path, "node: b\n")
	await(t, calls)
}

func TestWatchSeesARename(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "fairway.yaml")
	write(t, path, "node: a\n")
	calls := watched(t, path)
	for _, node := range []string{"b", "c"} { // the second time, the first file is gone
		write(t, filepath.Join(dir, ".fairway.yaml.swp"), "node: "+node+"\n")
		must(t, os.Rename(filepath.Join(dir, ".fairway.yaml.swp"), path))
		await(t, calls)
	}
}

// mount swaps the contents of dir as the kubelet does it with a ConfigMap.
func mount(t *testing.T, dir, version, name, text string) {
	t.Helper()
	must(t, os.Mkdir(filepath.Join(dir, version), 0o700))
	write(t, filepath.Join(dir, version, name), text)
	must(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
	must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
}

func TestWatchSeesAConfigMapChange(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "fairway.yaml")
	mount(t, dir, "..1", "fairway.yaml", "node: a\n")
	must(t, os.Symlink("..data/fairway.yaml", path))
	calls := watched(t, path)
	mount(t, dir, "..2", "fairway.yaml", "node: b\n")
	must(t, os.RemoveAll(filepath.Join(dir, "..1")))
	await(t, calls)
	mount(t, dir, "..3", "fairway.yaml", "node: c\n")
	await(t, calls)
}

func TestWatchFollowsALinkElsewhere(t *testing.T) {
	real := filepath.Join(t.TempDir(), "real.yaml")
	write(t, real, "node: a\n")
	path := filepath.Join(t.TempDir(), "fairway.yaml")
	must(t, os.Symlink(real, path))
	calls := watched(t, path)
	write(t, real, "node: b\n")
	await(t, calls)
}

func TestWatchSeesAPassword(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fairway.yaml")
	secrets := t.TempDir()
	one, two := filepath.Join(secrets, "one"), filepath.Join(t.TempDir(), "two")
	write(t, one, "old")
	write(t, path, "node: 7\npeers:\n- passwordFile: "+one+"\n") // wrong, and watched all the same
	calls := watched(t, path)
	write(t, one, "new")
	await(t, calls)
	write(t, path, "peers:\n- passwordFile: "+two+"\n")
	await(t, calls)
	write(t, two, "there now")
	await(t, calls)
}

// A Secret is mounted as links, of which the kubelet swaps one.
func TestWatchSeesAPasswordOfATemplate(t *testing.T) {
	path, secret := filepath.Join(t.TempDir(), "fairway.yaml"), t.TempDir()
	mount(t, secret, "..1", "password", "old")
	must(t, os.Symlink("..data/password", filepath.Join(secret, "password")))
	write(t, path, "templates:\n- name: tor\n  passwordFile: "+secret+"/password\n")
	calls := watched(t, path)
	mount(t, secret, "..2", "password", "new")
	await(t, calls)
}

func TestWatchSeesTheFileGoAndComeBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fairway.yaml")
	write(t, path, "node: a\n")
	calls := watched(t, path)
	must(t, os.Remove(path))
	await(t, calls)
	write(t, path, "node: a\n")
	await(t, calls)
}

func TestWatchNeedsADirectory(t *testing.T) {
	err := config.Watch(t.Context(), filepath.Join(t.TempDir(), "none", "fairway.yaml"), func() { t.Error("called") })
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Watch = %v, want fs.ErrNotExist", err)
	}
}
