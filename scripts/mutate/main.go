// Command mutate breaks the rules of pools/exchange one by one, and has the
// simulation find out. It fails if one goes unnoticed, or if the text that a
// mutation replaces is not there any more.
//
//	mutate [-ops N] [NAME...]
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	ops := flag.Int("ops", 3_000_000, "how many operations may pass until a mutation is noticed")
	flag.Parse()
	if err := run(*ops, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(ops int, names []string) error {
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	survived := 0
	for _, m := range mutations() {
		if len(names) > 0 && !slices.Contains(names, m.name) {
			continue
		}
		how, err := m.try(dir, ops)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if how == "" {
			survived++
			how = fmt.Sprintf("NOT NOTICED in %d operations", ops)
		}
		fmt.Printf("%-44s %s\n", m.name, how)
	}
	if survived > 0 {
		return fmt.Errorf("%d mutations were not noticed", survived)
	}
	return nil
}

// try says how the mutation was noticed; "" if it was not.
func (m mutation) try(dir string, ops int) (how string, err error) {
	path, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		return "", fmt.Errorf("%s has %d times what it replaces, not once: bring the mutation up to date\n%s", m.file, n, m.old)
	}
	mutant := filepath.Join(dir, "mutant.go")
	if err := os.WriteFile(mutant, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600); err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{path: mutant}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		return "", err
	}
	return simulate(overlay, ops)
}

// simulate runs the simulation of the mutant.
func simulate(overlay string, ops int) (how string, err error) {
	cmd := exec.Command("go", "test", "-vet=off", "-count=1", "-overlay", overlay, "-run", "^TestSimulation$", "./pools/exchange")
	cmd.Env = append(os.Environ(), fmt.Sprintf("SIM_OPS=%d", ops), "SIM_SHRINK=0s", "SIM_LINES=0")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", nil
	}
	if found := regexp.MustCompile(`seed \d+: .*`).FindString(string(out)); found != "" {
		return found, nil
	}
	if found := regexp.MustCompile(`panic: .*`).FindString(string(out)); found != "" {
		return found, nil
	}
	return "", fmt.Errorf("the mutant does not run: %w\n%s", err, out)
}
