// Command gotest runs go test for people to read: a line for each package, what
// failed in full, the skipped tests with their reasons, and a closing line
// "N passed, N failed, N skipped". With CI set in the environment, a skip that
// the list of allowed skips does not name is a failure.
//
//	gotest [-race PATTERN,...] [-allowed-skips FILE] [PATTERN...]
//
// The packages that match -race run a second time, with the race detector. They
// are then called "package[race]", also in the list of allowed skips.
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
	modules, err := golist("-m")
	if err != nil {
		return false, err
	}
	r.module = modules[0]
	packages, err := golist(flags.Args()...)
	if err != nil {
		return false, err
	}
	raced, err := racing(packages, *race)
	if err != nil {
		return false, err
	}
	err = r.goTest("", packages, os.Environ())
	if len(raced) > 0 {
		err = errors.Join(err, r.goTest("[race]", raced, append(os.Environ(), "CGO_ENABLED=1"), "-race"))
	}
	return r.close(), err
}

// racing are those of packages that match patterns.
func racing(packages []string, patterns string) ([]string, error) {
	if patterns == "" {
		return nil, nil
	}
	chosen, err := golist(strings.Split(patterns, ",")...)
	return slices.DeleteFunc(chosen, func(p string) bool { return !slices.Contains(packages, p) }), err
}

// golist returns what go list prints, of all packages if none is named.
func golist(args ...string) ([]string, error) {
	if len(args) == 0 {
		args = []string{"./..."}
	}
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", strings.Join(args, " "), err)
	}
	return strings.Fields(string(text)), nil
}

// goTest tests packages, which the report calls by their name and suffix. That
// tests failed is in the report and no error.
func (r *report) goTest(suffix string, packages, env []string, flags ...string) error {
	r.suffix = suffix
	// -count=1: a cached result knows nothing of the kernel, nor of the
	// programs that a test starts.
	cmd := exec.Command("go", slices.Concat([]string{"test", "-json", "-count=1"}, flags, packages)...)
	cmd.Env = env
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
		r.failed++
		return errors.Join(readErr, fmt.Errorf("go test ended with no test failed: %w", err))
	}
	return readErr
}
