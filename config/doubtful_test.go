package config_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/config"
)

// TestDoubtful loads each file in testdata/doubtful and compares the warnings
// with what stands beside it. "go test -update" writes that anew.
func TestDoubtful(t *testing.T) {
	clearEnvironment(t)
	files, err := filepath.Glob("testdata/doubtful/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			c, err := config.Load(file)
			must(t, err)
			var got strings.Builder
			for _, w := range c.Warnings {
				got.WriteString(strings.ReplaceAll(w.Error(), file, filepath.Base(file)) + "\n")
			}
			compare(t, strings.TrimSuffix(file, ".yaml")+".warn", got.String())
		})
	}
}
