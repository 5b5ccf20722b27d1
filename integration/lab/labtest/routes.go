package labtest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/integration/lab"
)

// Watch is a node's kernel telling of its routes.
type Watch struct {
	t     testing.TB
	node  *lab.Node
	marks int
	from  int // where in the log the present section begins
}

// WatchRoutes listens until the node ends; once for each node.
func WatchRoutes(t testing.TB, n *lab.Node) *Watch {
	t.Helper()
	w := &Watch{t: t, node: n}
	if _, err := n.Start(t.Context(), "routes", "ip", "monitor", "route"); err != nil {
		t.Fatal(err)
	}
	w.Section()
	return w
}

// Section gives what the kernel has told since the one before of prefixes that begin
// with one of these.
func (w *Watch) Section(prefixes ...string) (events []string) {
	w.t.Helper()
	w.marks++
	mark := fmt.Sprintf("198.18.0.%d", w.marks)
	var text string
	Await(w.t, "what the kernel tells of its routes", func() error {
		// The kernel tells nobody of a route that is there already.
		Exec(w.t, w.node, "ip", "route", "add", mark+"/32", "dev", "lo")
		Exec(w.t, w.node, "ip", "route", "del", mark+"/32", "dev", "lo")
		data, err := os.ReadFile(w.node.LogFile("routes"))
		if text = string(data); err == nil && !strings.Contains(text[w.from:], mark) {
			err = fmt.Errorf("nothing of %s in %d bytes", mark, len(data))
		}
		return err
	})
	for line := range strings.Lines(text[w.from:]) {
		for _, p := range prefixes {
			if strings.Contains(line, p) {
				events = append(events, strings.TrimSpace(line))
			}
		}
	}
	w.from = len(text)
	return events
}
