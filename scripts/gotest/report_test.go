package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const events = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestGood"}
{"Action":"output","Package":"m/a","Test":"TestGood","Output":"    a_test.go:1: chatter\n"}
{"Action":"pass","Package":"m/a","Test":"TestGood","Elapsed":0}
{"Action":"output","Package":"m/a","Test":"TestSkipped","Output":"=== RUN   TestSkipped\n"}
{"Action":"output","Package":"m/a","Test":"TestSkipped","Output":"    a_test.go:2: needs root\n"}
{"Action":"output","Package":"m/a","Test":"TestSkipped","Output":"--- SKIP: TestSkipped (0.00s)\n"}
{"Action":"skip","Package":"m/a","Test":"TestSkipped","Elapsed":0}
{"Action":"pass","Package":"m/a","Elapsed":0.5}
{"Action":"skip","Package":"m/none","Elapsed":0}
not JSON
{"Action":"output","Package":"m/b","Test":"TestBad","Output":"    b_test.go:3: wrong\n"}
{"Action":"fail","Package":"m/b","Test":"TestBad","Elapsed":0}
{"Action":"fail","Package":"m/b","Elapsed":1}
{"Action":"output","Package":"m/c","Test":"TestStuck","Output":"panic: too late\n"}
{"Action":"fail","Package":"m/c","Elapsed":2}
{"ImportPath":"m/d","Action":"build-output","Output":"d.go:1: does not compile\n"}
{"ImportPath":"m/d","Action":"build-fail"}
{"Action":"fail","Package":"m/d","Elapsed":0,"FailedBuild":"m/d"}
`

func TestReport(t *testing.T) {
	var out strings.Builder
	r := newReport(&out)
	r.module = "m"
	if err := r.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if r.close() {
		t.Error("the run counts as passed")
	}
	const want = `ok   a (0.50s, 2 tests)
not JSON
FAIL b TestBad
        b_test.go:3: wrong
FAIL b (1.00s)
FAIL c (2.00s)
    panic: too late
FAIL d (0.00s)
    d.go:1: does not compile
skip a TestSkipped: needs root
1 passed, 3 failed, 1 skipped
`
	if out.String() != want {
		t.Errorf("printed\n%s\nnot\n%s", out.String(), want)
	}
}

func TestSkipsWithCI(t *testing.T) {
	skipped, _, _ := strings.Cut(events, `{"Action":"skip","Package":"m/none"`)
	for _, c := range []struct {
		allowed, last string
		ok            bool
	}{
		{"a TestSkipped it is known", "1 passed, 0 failed, 1 skipped", true},
		{"a * it is known", "1 passed, 0 failed, 1 skipped", true},
		{"a[race] * it is known", "1 passed, 1 failed, 0 skipped", false},
		{"# a TestSkipped it is known", "1 passed, 1 failed, 0 skipped", false},
		{"b TestSkipped it is known", "1 passed, 1 failed, 0 skipped", false},
	} {
		list := filepath.Join(t.TempDir(), "allowed")
		if err := os.WriteFile(list, []byte("\n"+c.allowed+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		r := newReport(&out)
		r.module, r.strict = "m", true
		var err error
		if r.mayskip, err = readAllowed(list); err != nil {
			t.Fatal(err)
		}
		if err := r.read(strings.NewReader(skipped)); err != nil {
			t.Fatal(err)
		}
		if ok := r.close(); ok != c.ok || !strings.HasSuffix(out.String(), c.last+"\n") {
			t.Errorf("with %q: %v\n%s", c.allowed, ok, out.String())
		}
	}
}

func TestAllowedSkipsNeedAReason(t *testing.T) {
	list := filepath.Join(t.TempDir(), "allowed")
	if err := os.WriteFile(list, []byte("a TestSkipped\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readAllowed(list); err == nil || !strings.Contains(err.Error(), ":1:") {
		t.Errorf("the error is %v", err)
	}
}
