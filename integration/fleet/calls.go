package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// Call is one request to the API server, from its first byte until the answer's
// header is there.
type Call struct {
	Node     string
	Verb     string // GET, POST, PUT, PATCH, DELETE
	Resource string // "addressblocks"; "addressrequests/status" of a subresource
	Path     string
	Began    time.Time
	Ended    time.Time
	Status   int // of HTTP; 0 without an answer
}

// Writes says whether the call may change something.
func (c Call) Writes() bool { return c.Verb != http.MethodGet }

// Calls are those of many nodes. Watches are none: they are there from the start.
type Calls struct {
	mu   sync.Mutex
	made []Call
}

// Take returns the calls that ended since it was called last, in the order of
// their beginnings.
func (c *Calls) Take() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	made := c.made
	c.made = nil
	slices.SortFunc(made, func(a, b Call) int { return a.Began.Compare(b.Began) })
	return made
}

// Writes counts those that write.
func Writes(calls []Call) (n int) {
	for _, c := range calls {
		if c.Writes() {
			n++
		}
	}
	return n
}

// Table says how many calls there were of each kind, the most frequent first.
func Table(calls []Call) string {
	count := map[string]int{}
	for _, c := range calls {
		count[fmt.Sprintf("%s %s %d", c.Verb, c.Resource, c.Status)]++
	}
	var b strings.Builder
	for _, kind := range slices.SortedFunc(maps.Keys(count), func(a, b string) int { return cmp.Or(count[b]-count[a], cmp.Compare(a, b)) }) {
		fmt.Fprintf(&b, "%6d %s\n", count[kind], kind)
	}
	return b.String()
}

// InTurn is how many of the calls were made one after the other, each when the
// one before had ended: the round trips that somebody waited for.
func InTurn(calls []Call) (n int) {
	byEnd := slices.SortedFunc(slices.Values(calls), func(a, b Call) int {
		return cmp.Or(a.Ended.Compare(b.Ended), a.Began.Compare(b.Began))
	})
	var last time.Time
	for _, c := range byEnd {
		if !c.Began.Before(last) {
			n++
			last = c.Ended
		}
	}
	return n
}

// noted is config whose requests are noted as those of node.
func (c *Calls) noted(config *rest.Config, node string) *rest.Config {
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &counter{c, node, next} })
	return config
}

type counter struct {
	calls *Calls
	node  string
	next  http.RoundTripper
}

func (n *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	if isWatch(r) {
		return n.next.RoundTrip(r)
	}
	call := Call{Node: n.node, Verb: r.Method, Resource: resourceOf(r.URL.Path), Path: r.URL.Path, Began: time.Now()}
	answer, err := n.next.RoundTrip(r)
	call.Ended = time.Now()
	if err == nil {
		call.Status = answer.StatusCode
	}
	n.calls.mu.Lock()
	defer n.calls.mu.Unlock()
	n.calls.made = append(n.calls.made, call)
	return answer, err
}

func isWatch(r *http.Request) bool {
	asks := r.URL.Query().Get("watch")
	return asks != "" && asks != "false" && asks != "0"
}

// resourceOf is what a path of the API is about.
func resourceOf(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts) > 0 && parts[0] == "apis" {
		parts = parts[1:] // the group
	}
	parts = parts[min(2, len(parts)):] // "api" or the group, and the version
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	switch len(parts) {
	case 0:
		return path
	case 3:
		return parts[0] + "/" + parts[2]
	}
	return parts[0]
}
