package interop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fairway-network/fairway/integration/router"
)

// row is the cells of an option; one that is absent was not tried.
type row map[router.Implementation]string

const untried = "–"

func works(families []router.Family) string {
	words := make([]string, len(families))
	for n, f := range families {
		words[n] = strings.Replace(string(f), "ip", "IP", 1)
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

// against says where the page's row says something else than r. What r has no cell of
// is not looked at in a partial one.
func (r row) against(page row, partial bool) []string {
	var out []string
	for _, i := range router.All() {
		found, says := r.cell(i), page.cell(i)
		if found != says && (!partial || r[i] != "") {
			out = append(out, fmt.Sprintf("%s: it says %q, and the test found %q", i, says, found))
		}
	}
	return out
}

func (r row) cell(i router.Implementation) string {
	if r[i] == "" {
		return untried
	}
	return r[i]
}

// page is docs/interop.md.
type page struct {
	file *os.File
	rows map[string]row
}

// onPage works on the page while no other test does, of whatever package.
func onPage(work func(*page) error) (err error) {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(root, "docs", "interop.md"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }() // which unlocks it
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	text, err := os.ReadFile(f.Name())
	if err != nil {
		return err
	}
	return work(&page{f, parse(string(text))})
}

// moduleRoot is the directory above a test's own that has the go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; at != filepath.Dir(at); at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
	}
	return "", fmt.Errorf("no go.mod above %s", dir)
}

func (p *page) write() error {
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	_, err := p.file.WriteAt([]byte(render(p.rows)), 0)
	return err
}

// parse reads the rows of a page, and nothing else.
func parse(text string) map[string]row {
	rows := make(map[string]row)
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		name, is := strings.CutPrefix(cells[0], "| ")
		if !is || len(cells) < 1+len(router.All()) {
			continue
		}
		r := make(row)
		for n, i := range router.All() {
			if c := strings.TrimSuffix(cells[n+1], " |"); c != untried {
				r[i] = c
			}
		}
		rows[name] = r
	}
	return rows
}

const head = `# Interoperability

What Fairway's speaker was seen to do with which router. The tests write this page: each
runs the router in a network namespace, on a link with the speaker, and asks the router's
own command for its table and its neighbour. Nothing is taken from the speaker's word. A
run of the tests fails where this page says something else than they find.

- **IPv4**, **IPv6**: it works over sessions of that family.
- **no**: the router can't, and why.
- **–**: no test tries it.

`

// render writes the page: a row for each option, in their order.
func render(rows map[string]row) string {
	var b strings.Builder
	b.WriteString(head + "| option |")
	for _, i := range router.All() {
		fmt.Fprintf(&b, " %s |", i)
	}
	b.WriteString(" seen |\n" + strings.Repeat("| --- ", len(router.All())+2) + "|\n")
	for _, o := range Options() {
		fmt.Fprintf(&b, "| %s |", o.Name)
		for _, i := range router.All() {
			fmt.Fprintf(&b, " %s |", rows[o.Name].cell(i))
		}
		fmt.Fprintf(&b, " %s |\n", o.Seen)
	}
	return b.String()
}
