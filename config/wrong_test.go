package config_test

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fairway-network/fairway/config"
)

// passwordDir makes the password files that test files name in $DIR.
func passwordDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"empty": "", "newline": "\n", "81bytes": strings.Repeat("x", 81) + "\n", "two-lines": "one\ntwo\n",
		"huge": strings.Repeat("x", 5000), "good": "hunter2\n", "dos": "hunter2\r\n", "80bytes": strings.Repeat("x", 80),
	} {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

// TestWrong loads each file in testdata/wrong and compares all that is wrong
// with what stands beside it. "go test -update" writes that anew.
func TestWrong(t *testing.T) {
	clearEnvironment(t)
	files, err := filepath.Glob("testdata/wrong/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	dir := passwordDir(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			must(t, err)
			path := filepath.Join(dir, filepath.Base(file))
			write(t, path, strings.ReplaceAll(string(text), "$DIR", dir))
			c, err := config.Load(path)
			if err == nil {
				t.Fatalf("loaded: %+v", c)
			}
			if c != nil {
				t.Error("a configuration came with the error")
			}
			var problems config.Problems
			if !errors.As(err, &problems) {
				t.Errorf("error is a %T, want Problems", err)
			}
			got := strings.ReplaceAll(strings.ReplaceAll(err.Error(), path, filepath.Base(file)), dir, "$DIR") + "\n"
			compare(t, strings.TrimSuffix(file, ".yaml")+".err", got)
			if strings.Contains(got, "hunter2") || strings.Contains(got, "12345678") {
				t.Errorf("the error holds a password")
			}
		})
	}
}

func compare(t *testing.T, golden, got string) {
	t.Helper()
	if flag.Lookup("update").Value.String() == "true" {
		must(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if got != string(want) {
		t.Errorf("got:\n%s\nwant (%s):\n%s", got, golden, want)
	}
}

// clearEnvironment keeps the variables of whoever runs the tests out.
func clearEnvironment(t *testing.T) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "FAIRWAY_") {
			t.Setenv(name, "")
		}
	}
}

func TestNotAFile(t *testing.T) {
	dir := t.TempDir()
	large, pipe := filepath.Join(dir, "large.yaml"), filepath.Join(dir, "pipe.yaml")
	write(t, large, "node: a\n"+strings.Repeat("#\n", 1<<19))
	must(t, syscall.Mkfifo(pipe, 0o600))
	for path, want := range map[string]string{
		dir:                             "is a directory",
		filepath.Join(dir, "none.yaml"): "no such file or directory: is the path right?",
		large:                           "has more than 1048576 bytes",
		pipe:                            "is not a regular file", // and it does not wait for a writer
	} {
		_, err := config.Load(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("Load(%s) = %v, want an error that names the file and says %q", path, err, want)
		}
	}
	if _, err := config.Load(filepath.Join(dir, "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v, want fs.ErrNotExist", err)
	}
}
