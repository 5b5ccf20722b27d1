package main

import "testing"

// The text that a mutation replaces is where it says, once.
func TestMutationsApply(t *testing.T) {
	t.Chdir("../..")
	seen := map[string]bool{}
	for _, m := range mutations() {
		if _, _, err := m.apply(); err != nil {
			t.Error(err)
		}
		if m.old == m.new || seen[m.name] {
			t.Errorf("%s: there twice, or changes nothing", m.name)
		}
		seen[m.name] = true
	}
}
