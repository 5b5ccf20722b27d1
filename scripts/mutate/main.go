// Command mutate breaks the rules of pools/exchange one by one, and has the
// simulation find out, or where chance takes too long for that the package's other
// tests, such as those that tell the protocol call by call. It fails if one goes unnoticed, or if the text
// that a mutation replaces is not there any more.
//
//	mutate [-ops N] [NAME...]
package main

import (
	"encoding/json"
	"errors"
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
	ops := flag.Int("ops", 300_000, "how many operations may pass until a mutation is noticed")
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
	chosen := slices.DeleteFunc(mutations(), func(m mutation) bool { return len(names) > 0 && !slices.Contains(names, m.name) })
	var stale []error
	for _, m := range chosen {
		_, _, err := m.apply()
		stale = append(stale, err)
	}
	if err := errors.Join(stale...); err != nil {
		return err
	}
	none := filepath.Join(dir, "none.json")
	if err := os.WriteFile(none, []byte(`{"Replace":{}}`), 0o600); err != nil {
		return err
	}
	if how, err := simulate(none, ops); how != "" || err != nil {
		return fmt.Errorf("the simulation fails without a mutation: %s", errors.Join(errors.New(how), err))
	}
	survived := 0
	for _, m := range chosen {
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

// apply returns the file that the mutation is in, and what it makes of it.
func (m mutation) apply() (path, text string, err error) {
	if path, err = filepath.Abs(m.file); err != nil {
		return "", "", err
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return "", "", err
	}
	if n := strings.Count(string(old), m.old); n != 1 {
		return "", "", fmt.Errorf("%s: %s has %d times what it replaces, not once: bring the mutation up to date\n%s", m.name, m.file, n, m.old)
	}
	return path, strings.Replace(string(old), m.old, m.new, 1), nil
}

// try says how the mutation was noticed; "" if it was not.
func (m mutation) try(dir string, ops int) (how string, err error) {
	path, text, err := m.apply()
	if err != nil {
		return "", err
	}
	mutant := filepath.Join(dir, "mutant.go")
	if err := os.WriteFile(mutant, []byte(text), 0o600); err != nil {
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
	if how, err = simulate(overlay, ops); how != "" || err != nil {
		return how, err
	}
	return others(overlay)
}

// others runs the package's other tests with what is in overlay.
func others(overlay string) (how string, err error) {
	out, err := exec.Command("go", "test", "-vet=off", "-count=1", "-overlay", overlay, "-skip", "^TestSimulation", "./pools/exchange").CombinedOutput()
	if err == nil {
		return "", nil
	}
	if found := regexp.MustCompile(`--- FAIL: Test\w+`).FindString(string(out)); found != "" {
		return found, nil
	}
	if found := regexp.MustCompile(`panic: .*`).FindString(string(out)); found != "" {
		return found, nil
	}
	return "", fmt.Errorf("the mutant does not run: %w\n%s", err, out)
}

// simulate runs the simulation with what is in overlay.
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
