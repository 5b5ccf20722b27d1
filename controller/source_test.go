package controller

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// pageServer answers lists of blocks in pages of one, 10.0.0.0/26 to 10.0.n.0/26.
type pageServer struct {
	pages  int
	fails  atomic.Int32     // so many calls for the second page
	asked  chan string      // the token of each call
	source *blockSource     // that calls it
	server *httptest.Server // down at the end of the test
}

func newPageServer(t *testing.T, pages int) *pageServer {
	t.Helper()
	s := &pageServer{pages: pages, asked: make(chan string, 100)}
	s.server = httptest.NewServer(s)
	t.Cleanup(s.server.Close)
	c, err := newClients(&rest.Config{Host: s.server.URL}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.source = &blockSource{client: c.own, log: slog.New(slog.DiscardHandler)}
	return s
}

func (s *pageServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, n := r.URL.Query().Get("continue"), 0
	if token != "" {
		if _, err := fmt.Sscan(token, &n); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	s.asked <- token
	if n == 1 && s.fails.Add(-1) >= 0 {
		http.Error(w, "no", http.StatusInternalServerError)
		return
	}
	next := ""
	if n+1 < s.pages {
		next = fmt.Sprint(n + 1)
	}
	fmt.Fprintf(w, `{"kind":"Table","metadata":{"resourceVersion":"7","continue":%q},"columnDefinitions":[{"name":"Pool"},{"name":"Prefix"},{"name":"Node"},{"name":"Lender"},{"name":"Tenure"},{"name":"Node-UID"}],
		"rows":[{"cells":["web","10.0.%d.0/26","n1","",0,"u1"]}]}`, next, n)
}

// list reads all pages, and calls with for the block of each.
func (s *pageServer) list(t *testing.T, with func(prefix string)) error {
	t.Helper()
	for token := ""; ; {
		_, next, err := s.source.page(t.Context(), token, func(p placed) { with(p.Prefix.String()) })
		if err != nil || next == "" {
			return err
		}
		token = next
	}
}

// While a page of blocks is read the API server makes the next one.
func TestPagesAreAskedForAhead(t *testing.T) {
	s := newPageServer(t, 4)
	var read []string
	err := s.list(t, func(prefix string) {
		read = append(read, prefix)
		for want := len(read); want < s.pages; { // it is asked for while this one is still being read
			select {
			case token := <-s.asked:
				if token == fmt.Sprint(want) {
					return
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("page %d is not asked for while the one before is read", want)
			}
		}
	})
	if want := "10.0.0.0/26 10.0.1.0/26 10.0.2.0/26 10.0.3.0/26"; err != nil || strings.Join(read, " ") != want {
		t.Errorf("read %v, %v; want %s", read, err, want)
	}
}

// A list that failed in the middle is read anew from its first page.
func TestAListBeginsAnewAfterAFailure(t *testing.T) {
	s := newPageServer(t, 3)
	s.fails.Store(1)
	var read []string
	note := func(prefix string) { read = append(read, prefix) }
	if err := s.list(t, note); err == nil {
		t.Error("no error where a page is refused")
	}
	read = nil
	if err := s.list(t, note); err != nil || !slices.Equal(read, []string{"10.0.0.0/26", "10.0.1.0/26", "10.0.2.0/26"}) {
		t.Errorf("read %v, %v", read, err)
	}
}

func TestNextOf(t *testing.T) {
	for text, want := range map[string]string{
		`{"kind":"Table","metadata":{"resourceVersion":"7","continue":"a\"b"},"rows":[`: `a"b`,
		`{"kind":"Table","rows":[{"x":"}"}],"metadata":{"continue":"c"}}`:               "c",
		`{"metadata":{"resourceVersion":"7"},"rows":[]}`:                                "",
		`{"metadata":`: "", ``: "", `[]`: "", `null`: "",
	} {
		if got := nextOf([]byte(text)); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
