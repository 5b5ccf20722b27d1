package interop

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/integration/router"
)

// The page is what its rows make of it: nothing in it is written by hand, no row is
// missing, and each is of a test that there is.
func TestPage(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "interop.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := parse(string(text))
	if render(rows) != string(text) {
		t.Error("docs/interop.md is not as it was written: go test -update of the tests in options.go writes it")
	}
	for _, o := range Options() {
		if len(rows[o.Name]) == 0 {
			t.Errorf("no cell of %q is filled", o.Name)
		}
		if dir, name, _ := strings.Cut(o.Test, " "); !hasTest(t, filepath.Join(root, dir), name) {
			t.Errorf("%q: there is no test %s in %s", o.Name, name, dir)
		}
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if function, is := d.(*ast.FuncDecl); is && function.Name.Name == name {
				return true
			}
		}
	}
	return false
}

// What was rendered is read back, and rows are compared as far as they were tried.
func TestRows(t *testing.T) {
	r := row{router.FRR: works([]router.Family{router.IPv6, router.IPv4}), router.OpenBGPD: "no: it is so"}
	back := parse(render(map[string]row{"MED": r, "not an option": r}))
	if got := back["MED"]; len(got) != 2 || got[router.FRR] != "IPv4, IPv6" || got[router.OpenBGPD] != "no: it is so" {
		t.Errorf("read back %v", got)
	}
	if back["not an option"] != nil || len(r.against(back["MED"], false)) != 0 {
		t.Errorf("read back %v", back)
	}
	for _, c := range []struct {
		page    row
		partial bool
		want    int
	}{
		{row{router.FRR: "IPv4", router.BIRD: "IPv4"}, false, 3},
		{row{router.FRR: "IPv4", router.BIRD: "IPv4"}, true, 2},
		{nil, false, 2},
	} {
		if got := r.against(c.page, c.partial); len(got) != c.want {
			t.Errorf("against %v: %q", c.page, got)
		}
	}
}
