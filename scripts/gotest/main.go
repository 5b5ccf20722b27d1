// Command gotest runs go test for people to read: a line for each package, what
// failed in full, the skipped tests with their reasons, and a closing line
// "N passed, N failed, N skipped". With CI set in the environment, a skip that
// the list of allowed skips does not name is a failure.
//
//	gotest [-race PATTERN,...] [-allowed-skips FILE] [PATTERN...]
//
// The packages that match -race run with the race detector.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	ok, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run says whether the tests count as passed.
func run(args []string, out io.Writer) (ok bool, err error) {
	flags := flag.NewFlagSet("gotest", flag.ContinueOnError)
	race := flags.String("race", "", "patterns of packages, separated by commas, to run with the race detector")
	allowed := flags.String("allowed-skips", "", "file of tests that may be skipped when CI is set")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	r := newReport(out)
	if os.Getenv("CI") != "" {
		if r.mayskip, err = readAllowed(*allowed); err != nil {
			return false, err
		}
		r.strict = true
	}
	if r.module, err = golist("-m"); err != nil {
		return false, err
	}
	plain, raced, err := split(flags.Args(), *race)
	if err != nil {
		return false, err
	}
	err = errors.Join(r.goTest(plain, nil, nil), r.goTest(raced, []string{"-race"}, []string{"CGO_ENABLED=1"}))
	return r.close(), err
}

// split returns the packages that match patterns, without and with the race
// detector.
func split(patterns []string, race string) (plain, raced []string, err error) {
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	all, err := golist(patterns...)
	if err != nil {
		return nil, nil, err
	}
	plain = strings.Fields(all)
	if race == "" {
		return plain, nil, nil
	}
	some, err := golist(strings.Split(race, ",")...)
	if err != nil {
		return nil, nil, err
	}
	chosen := strings.Fields(some)
	raced = slices.DeleteFunc(slices.Clone(plain), func(p string) bool { return !slices.Contains(chosen, p) })
	plain = slices.DeleteFunc(plain, func(p string) bool { return slices.Contains(chosen, p) })
	return plain, raced, nil
}

func golist(args ...string) (string, error) {
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go list %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(text)), nil
}

// goTest tests packages and reports what is printed. That tests failed is in
// the report and no error.
func (r *report) goTest(packages, flags, env []string) error {
	if len(packages) == 0 {
		return nil
	}
	// -count=1: a cached result knows nothing of the kernel, nor of the
	// programs that a test starts.
	cmd := exec.Command("go", slices.Concat([]string{"test", "-json", "-count=1"}, flags, packages)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("go test: %w", err)
	}
	failedBefore := r.failed
	readErr := r.read(stdout)
	if err := cmd.Wait(); err != nil && r.failed == failedBefore {
		return errors.Join(readErr, fmt.Errorf("go test ended with no test failed: %w", err))
	}
	return readErr
}
