package config

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A look finds a difference where a content differs, and nowhere else.
func TestLookGoesByContent(t *testing.T) {
	dir := t.TempDir()
	w := &watch{path: filepath.Join(dir, "fairway.yaml")}
	var err error
	if w.fs, err = fsnotify.NewWatcher(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.fs.Close() }()
	write := func(name, text string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
	for _, step := range []struct {
		what string
		do   func() error
		want bool
	}{
		{"first look", func() error { return write("fairway.yaml", "node: a\n") }, true},
		{"nothing", func() error { return nil }, false},
		{"file beside it", func() error { return write("other.yaml", "node: b\n") }, false},
		{"new times", func() error { return os.Chtimes(w.path, time.Unix(0, 0), time.Unix(0, 0)) }, false},
		{"same content again", func() error { return write("fairway.yaml", "node: a\n") }, false},
		{"same content, new file", func() error {
			return os.Rename(filepath.Join(dir, "copy"), w.path)
		}, false},
		{"other content", func() error { return write("fairway.yaml", "node: b\n") }, true},
		{"gone", func() error { return os.Remove(w.path) }, true},
	} {
		if err := write("copy", "node: a\n"); err != nil {
			t.Fatal(err)
		}
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got, err := w.look(); err != nil || got != step.want {
			t.Errorf("after %s: differs = %v, %v, want %v", step.what, got, err, step.want)
		}
	}
}
