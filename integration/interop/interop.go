// Package interop keeps docs/interop.md, the table of what the speaker was seen to
// do with which router. The tests of the options fill it: each says which cell it is
// about to show, and its row has to say the same as the page. With -update the page is
// written instead.
package interop

import (
	"flag"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fairway-network/fairway/integration/router"
)

// Option is a row of the table.
type Option struct {
	Name string
	// Seen is what a router is asked, and has to answer, for a cell of it.
	Seen string
	// Test is the package, less the module's path, and the name of the one test that
	// fills the row.
	Test string
}

// Sheet is what one test finds out about its rows.
type Sheet struct {
	mu      sync.Mutex
	rows    map[string]row
	partial bool // something was left out or failed: other cells may be right
}

// Open gives the sheet of a test, whose rows are those of the Options that name it. When
// the test has ended, with all that it ran, they are compared with the page; after a
// run of some of its subtests only the cells that were tried.
func Open(t *testing.T) *Sheet {
	t.Helper()
	s := &Sheet{rows: make(map[string]row)}
	for _, o := range Options() {
		if _, name, _ := strings.Cut(o.Test, " "); name == t.Name() {
			s.rows[o.Name] = row{}
		}
	}
	if len(s.rows) == 0 {
		t.Fatalf("no row of the table names %s: see integration/interop/options.go", t.Name())
	}
	s.partial = set("test.skip") != "" || strings.Contains(set("test.run"), "/")
	t.Cleanup(func() { s.close(t) })
	return s
}

// set is the value of a flag of the test, "" if there is none of the name.
func set(name string) string {
	if f := flag.Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// Try says that t shows an option at work with an implementation, over sessions of
// these families: it does if it does not fail.
func (s *Sheet) Try(t testing.TB, option string, i router.Implementation, families ...router.Family) {
	t.Helper()
	s.try(t, option, i, works(families))
}

// Partly is Try of what an implementation can't have whole, and why.
func (s *Sheet) Partly(t testing.TB, option string, i router.Implementation, why string, families ...router.Family) {
	t.Helper()
	s.try(t, option, i, works(families)+"; "+why)
}

func (s *Sheet) try(t testing.TB, option string, i router.Implementation, cell string) {
	t.Helper()
	s.known(t, option)
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if t.Failed() || t.Skipped() {
			s.partial = true
			return
		}
		s.rows[option][i] = cell
	})
}

// Lacks says that an implementation can't have an option, and why.
func (s *Sheet) Lacks(t testing.TB, option string, i router.Implementation, why string) {
	t.Helper()
	s.known(t, option)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[option][i] = "no: " + why
}

func (s *Sheet) known(t testing.TB, option string) {
	t.Helper()
	if s.rows[option] == nil {
		t.Fatalf("the table has no row %q of this test: see integration/interop/options.go", option)
	}
}

func (s *Sheet) close(t *testing.T) {
	if t.Failed() || t.Skipped() {
		return // which says enough
	}
	update := set("update") == "true"
	if update && s.partial {
		t.Error("docs/interop.md: rows are written by a run of the whole test alone, with root and all routers")
		return
	}
	if err := onPage(func(p *page) error {
		if update {
			maps.Copy(p.rows, s.rows)
			return p.write()
		}
		for _, name := range slices.Sorted(maps.Keys(s.rows)) {
			for _, difference := range s.rows[name].against(p.rows[name], s.partial) {
				t.Errorf("docs/interop.md: %s, %s: go test -update writes it", name, difference)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
