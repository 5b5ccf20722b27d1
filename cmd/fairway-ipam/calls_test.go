package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// ofRuntime is all that early may come to of the runtime, in any branch.
func ofRuntime() []string {
	return []string{
		"memequal", "memmove", // need nothing but processor features, which are off
		"gcWriteBarrier1", "gcWriteBarrier2", "wbMove", "wbZero", // behind a flag that is off
		"morestack", "morestack_noctxt", // never: the stack has no end
		"panicBounds", "panicunsafestringlen", "panicunsafestringnilptr", // bugs
		"growslice", "makeslice", "intstring", // where main has the room, or an escape
	}
}

// TestEarlyNeedsNoRuntime: another compiler may call other functions for the same
// code, and one on another processor. What is new here has to be looked at.
func TestEarlyNeedsNoRuntime(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			t.Parallel()
			calls := callsIn(t, buildFor(t, arch))
			reached := map[string]bool{}
			for next := append(closures(calls), "fairway_start"); len(next) > 0; next = next[1:] {
				if f := next[0]; !reached[f] && !strings.HasPrefix(f, "_rt0_") {
					reached[f] = true
					next = append(next, calls[f]...)
				}
			}
			if !reached["main.early"] || !reached["main.(*question).exchange"] {
				t.Fatalf("only %v were found", slices.Collect(maps.Keys(reached)))
			}
			for f := range reached {
				if name, is := strings.CutPrefix(f, "runtime."); is && !slices.Contains(ofRuntime(), name) {
					t.Errorf("early may call %s", f)
				}
			}
		})
	}
}

// buildFor makes the plugin for arch as it is shipped, but with symbols.
func buildFor(t *testing.T, arch string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-w "+shipped, "-o", bin, ".")
	cmd.Env = append(os.Environ(), "GOARCH="+arch, "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// callsIn says which functions each function in bin calls, or jumps to, by name; of
// those in the runtime it says nothing.
func callsIn(t *testing.T, bin string) map[string][]string {
	t.Helper()
	text, err := exec.Command("go", "tool", "objdump", "-s", `^(main\.|fairway_start|github\.com|syscall\.|internal/)`, bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	function := regexp.MustCompile(`^TEXT (.+)\(SB\)`)
	call := regexp.MustCompile(`\t(?:CALL|JMP|BL|B) (\S+)\(SB\)`)
	calls := make(map[string][]string)
	in := ""
	for line := range strings.Lines(string(text)) {
		if m := function.FindStringSubmatch(line); m != nil {
			in = withoutABI(m[1])
		} else if m := call.FindStringSubmatch(line); m != nil {
			calls[in] = append(calls[in], withoutABI(m[1]))
		}
	}
	return calls
}

// closures are what no call names.
func closures(calls map[string][]string) (names []string) {
	ours := regexp.MustCompile(`^(main|github\.com/fairway-network/fairway/.*)\..*\.func\d`)
	for f := range calls {
		if ours.MatchString(f) {
			names = append(names, f)
		}
	}
	return names
}

func withoutABI(function string) string { return strings.TrimSuffix(function, ".abi0") }

// TestDetectorsHaveNoEntryPoint: instrumented code needs the runtime at once. That
// the entry point is missing ends such a build.
func TestDetectorsHaveNoEntryPoint(t *testing.T) {
	for _, tag := range []string{"race", "msan", "asan"} {
		if out, err := exec.Command("go", "list", "-tags", tag, "-f", "{{.SFiles}}", ".").Output(); err != nil || string(out) != "[]\n" {
			t.Errorf("%s: %v, %s", tag, err, out)
		}
	}
}
