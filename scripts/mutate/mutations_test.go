package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The text that a mutation replaces is where it says, once.
func TestMutationsApply(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range mutations() {
		text, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), m.old); n != 1 {
			t.Errorf("%s: the text that it replaces is %d times in %s", m.name, n, m.file)
		}
		if m.old == m.new || seen[m.name] {
			t.Errorf("%s: there twice, or changes nothing", m.name)
		}
		seen[m.name] = true
	}
}
