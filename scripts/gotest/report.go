package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is what go test -json prints, see "go doc test2json".
type event struct {
	Action      string
	Package     string
	ImportPath  string // of a build
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// test names one test; the empty name is the package as a whole.
type test struct{ pkg, name string }

// report gathers the events of one or more runs.
type report struct {
	out     io.Writer
	module  string          // left out of the packages' names
	suffix  string          // of the packages' names in this run
	strict  bool            // skips must be in mayskip
	mayskip map[string]bool // "package Test", or "package *" for all

	output                  map[test][]string // of tests that have not ended
	builds                  map[string][]string
	failures                map[string]int // by package
	counts                  map[string]int // tests that ended, by package
	passed, failed, skipped int
	skips                   map[skip][]string // names of tests
}

// skip is why tests of a package were skipped.
type skip struct {
	pkg, reason string
	unexpected  bool
}

func newReport(out io.Writer) *report {
	return &report{
		out: out, output: map[test][]string{}, builds: map[string][]string{},
		failures: map[string]int{}, counts: map[string]int{}, skips: map[skip][]string{},
	}
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		switch {
		case len(line) == 0:
		case json.Unmarshal(line, &e) == nil:
			r.add(e)
		default:
			fmt.Fprintf(r.out, "%s", line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from go test: %w", err)
		}
	}
}

func (r *report) add(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "output":
		r.output[t] = append(r.output[t], e.Output)
	case "build-output":
		r.builds[e.ImportPath] = append(r.builds[e.ImportPath], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(t, e.Action)
		}
		delete(r.output, t)
	}
}

func (r *report) endTest(t test, how string) {
	r.counts[t.pkg]++
	switch how {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.failures[t.pkg]++
		fmt.Fprintf(r.out, "FAIL %s %s\n", r.short(t.pkg), t.name)
		r.show(t)
	case "skip":
		r.skipped++
		r.skip(t)
	}
}

// skip notes a skipped test. One that is not allowed fails the run as well.
func (r *report) skip(t test) {
	var reason []string
	for _, line := range r.output[t] {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			_, said, _ := strings.Cut(line, ": ") // after the file and the line
			reason = append(reason, said)
		}
	}
	s := skip{pkg: r.short(t.pkg), reason: strings.Join(reason, " ")}
	if r.strict && !r.mayskip[s.pkg+" "+t.name] && !r.mayskip[s.pkg+" *"] {
		s.unexpected = true
		r.failed++
		r.skipped--
	}
	r.skips[s] = append(r.skips[s], t.name)
}

func (r *report) endPackage(e event) {
	name := r.short(e.Package)
	switch {
	case e.Action == "fail":
		fmt.Fprintf(r.out, "FAIL %s (%.2fs)\n", name, e.Elapsed)
		for _, line := range r.builds[e.FailedBuild] {
			fmt.Fprintf(r.out, "    %s", line)
		}
		if r.failures[e.Package] == 0 {
			r.failed++ // it did not build, or ended outside of a test
		}
		r.showRest(e.Package)
	case r.counts[e.Package] > 0:
		fmt.Fprintf(r.out, "ok   %s (%.2fs, %d tests)\n", name, e.Elapsed, r.counts[e.Package])
	}
	delete(r.counts, e.Package) // it may run again
	delete(r.failures, e.Package)
}

// showRest shows what a package that failed printed outside of tests, and in
// those that never ended.
func (r *report) showRest(pkg string) {
	var rest []test
	for t := range r.output {
		if t.pkg == pkg {
			rest = append(rest, t)
		}
	}
	slices.SortFunc(rest, func(a, b test) int { return strings.Compare(a.name, b.name) })
	for _, t := range rest {
		r.show(t)
		delete(r.output, t)
	}
}

func (r *report) show(t test) {
	for _, line := range r.output[t] {
		if !strings.HasPrefix(line, "=== ") {
			fmt.Fprintf(r.out, "    %s", line)
		}
	}
}

// close prints the end and says whether all is well.
func (r *report) close() bool {
	var lines []string
	for s, tests := range r.skips {
		names := strings.Join(tests, ", ")
		if len(tests) > 1 && !s.unexpected {
			names = fmt.Sprintf("%s and %d more", tests[0], len(tests)-1)
		}
		line := fmt.Sprintf("skip %s %s: %s", s.pkg, names, s.reason)
		if s.unexpected {
			line = "FAIL unexpected " + line
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Fprintln(r.out, line)
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return r.failed == 0
}

func (r *report) short(pkg string) string {
	return strings.TrimPrefix(strings.TrimPrefix(pkg, r.module), "/") + r.suffix
}

// readAllowed reads lines of package, test and reason. The reason must be
// there.
func readAllowed(path string) (map[string]bool, error) {
	allowed := map[string]bool{}
	if path == "" {
		return allowed, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("list of allowed skips: %w", err)
	}
	for i, line := range strings.Split(string(text), "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) < 3 {
			return nil, fmt.Errorf("%s:%d: %q: write a package, a test and the reason", path, i+1, line)
		}
		allowed[words[0]+" "+words[1]] = true
	}
	return allowed, nil
}
