package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.yaml.in/yaml/v3"
)

const (
	settle   = 100 * time.Millisecond // quiet after an event, for the writer to finish
	patience = time.Second            // with a directory that is never quiet
	recheck  = 30 * time.Second       // without any event: what the kernel can't tell of, such as network file systems
	maxHops  = 16                     // symbolic links from a file's name to the file
)

// Watch calls changed once as soon as it watches, and then whenever the file
// at path or a password file named in it may be another than at the last call,
// until ctx ends. A file counts by its content: written in place, replaced by
// an editor's rename or by a swapped symbolic link, as Kubernetes does it. A
// burst of events makes one call. changed usually is Load; what it returns
// may be half of what a writer is writing, and then another call follows.
//
// The error says why it could not watch; the end of ctx is none.
func Watch(ctx context.Context, path string, changed func()) error {
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	w := &watch{path: path, fs: fs}
	err = w.run(ctx, changed)
	if err = errors.Join(err, fs.Close()); err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	return nil
}

// watch belongs to the goroutine that runs it.
type watch struct {
	path string
	fs   *fsnotify.Watcher
	last map[string]fingerprint
}

// fingerprint tells contents of a file apart, and the lack of one.
type fingerprint struct {
	sum  [sha256.Size]byte
	fail string
}

func (w *watch) run(ctx context.Context, changed func()) error {
	if _, err := w.look(); err != nil {
		return err
	}
	changed()
	again := time.NewTimer(recheck)
	defer again.Stop()
	var burst time.Time // when the first event since the last look came
	soon := func() {
		if burst.IsZero() {
			burst = time.Now()
		}
		again.Reset(min(settle, max(0, patience-time.Since(burst))))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-w.fs.Events:
			if !open {
				return errors.New("the kernel's notification ended")
			}
			soon()
		case <-w.fs.Errors: // events were lost: look for ourselves
			soon()
		case <-again.C:
			burst = time.Time{}
			if differs, err := w.look(); err == nil && differs {
				changed()
			}
			again.Reset(recheck)
		}
	}
}

// look reads all files and says whether any content differs from the last
// look's. It watches the directories that they are in, and reads again after
// it began to watch one, so that no change falls in between. Only a directory
// of the configuration itself that can't be watched is an error.
func (w *watch) look() (differs bool, err error) {
	var now map[string]fingerprint
	for range maxHops {
		now = map[string]fingerprint{}
		dirs := map[string]bool{}
		data := w.read(w.path, maxFile, now, dirs)
		for _, file := range passwordFiles(data) {
			w.read(file, 1<<12, now, dirs)
		}
		began, err := w.watchDirs(dirs)
		if err != nil {
			return false, err
		}
		if !began {
			break
		}
	}
	differs = !maps.Equal(now, w.last)
	w.last = now
	return differs, nil
}

// watchDirs makes dirs the ones that are watched and says whether one of them
// was not.
func (w *watch) watchDirs(dirs map[string]bool) (began bool, err error) {
	old := w.fs.WatchList()
	for _, dir := range old {
		if !dirs[dir] {
			_ = w.fs.Remove(dir) // if it is gone, so is the watch
		}
	}
	for dir := range dirs {
		if slices.Contains(old, dir) {
			continue
		}
		addErr := w.fs.Add(dir)
		if addErr != nil && dir == filepath.Dir(w.path) {
			err = addErr
		}
		began = began || addErr == nil
	}
	return began, err
}

// read notes the fingerprint of a file and the directories on the way to it.
func (w *watch) read(path string, limit int64, prints map[string]fingerprint, dirs map[string]bool) []byte {
	name := path
	for range maxHops {
		dirs[filepath.Dir(path)] = true
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	data, _, err := readFile(name, limit)
	seen := fingerprint{sum: sha256.Sum256(data)}
	if err != nil {
		seen.fail = err.Error()
	}
	prints[name] = seen
	return data
}

// passwordFiles are the ones that a configuration names, right or wrong as it
// may be otherwise.
func passwordFiles(data []byte) []string {
	type named struct {
		PasswordFile yaml.Node `yaml:"passwordFile"`
	}
	var c struct {
		Peers, Templates []named
		BGP              struct{ Mesh named }
	}
	_ = yaml.Unmarshal(data, &c) // in part, if it must be: Load says what is wrong
	var out []string
	for _, n := range slices.Concat(c.Peers, c.Templates, []named{c.BGP.Mesh}) {
		if filepath.IsAbs(n.PasswordFile.Value) {
			out = append(out, n.PasswordFile.Value)
		}
	}
	return out
}
