package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"k8s.io/client-go/rest"
)

// answering is an API server that has one answer to everything, and counts.
func answering(t *testing.T, answer http.HandlerFunc) (*rest.Config, *atomic.Int32) {
	t.Helper()
	var asked atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		answer(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return &rest.Config{Host: s.URL}, &asked
}

// status is the answer of an API server that fails.
func status(code int, reason, message, more string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", "1") // which nobody may follow
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":%d,"reason":%q,"message":%q%s}`, code, reason, message, more)
	}
}

func text(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// broken ends the connection after the request was read.
func broken(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	conn.Close()
}

// cutOff ends it in the middle of the answer.
func cutOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	w.WriteHeader(http.StatusCreated)
	fmt.Fprint(w, `{"kind":"AddressBlock",`)
}

// stored and granted are what the calls of these tests are about.
func stored() exchange.Stored {
	return exchange.Stored{Block: pools.Block{Prefix: netip.MustParsePrefix("10.1.0.0/26"), Pool: "web", Node: "n1", UID: "u"}, Version: "7"}
}

func granted() exchange.Request {
	r := webRequest("n2")
	r.UID, r.Version = "q", "8"
	r.Grants = []exchange.Grant{{Lender: "n1", Prefix: netip.MustParsePrefix("10.1.0.1/32"), Outer: stored().Prefix, OuterUID: "u"}}
	return r
}

// writes are all calls that change something.
func writes(s *Store) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Create":  func(ctx context.Context) error { _, err := s.Create(ctx, stored().Block); return err },
		"Take":    func(ctx context.Context) error { _, err := s.Take(ctx, stored()); return err },
		"Delete":  func(ctx context.Context) error { return s.Delete(ctx, stored()) },
		"Ask":     func(ctx context.Context) error { _, err := s.Ask(ctx, webRequest("n1")); return err },
		"Grant":   func(ctx context.Context) error { _, err := s.Grant(ctx, granted()); return err },
		"Retract": func(ctx context.Context) error { return s.Retract(ctx, granted()) },
	}
}

func meanings() []error {
	return []error{exchange.ErrExists, exchange.ErrGone, exchange.ErrConflict, exchange.ErrUnknown}
}

// wantMeaning complains unless want is the only one of the exchange's errors that
// err wraps; nil stands for none of them.
func wantMeaning(t *testing.T, what string, err, want error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %v", what, want)
		return
	}
	for _, e := range meanings() {
		if errors.Is(err, e) != (e == want) {
			t.Errorf("%s: %v\nwant %v", what, err, want)
			return
		}
	}
}

func TestWhatTheFailureOfAWriteMeans(t *testing.T) {
	const sentence = "the API server's own words"
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   error
		says   string
	}{
		{"exists", status(409, "AlreadyExists", sentence, ""), exchange.ErrExists, sentence},
		{"not found", status(404, "NotFound", sentence, `,"details":{"name":"x","kind":"addressblocks"}`), exchange.ErrGone, sentence},
		{"another UID", status(409, "Conflict", "Precondition failed: UID in precondition: u, UID in object meta: v", ""), exchange.ErrGone, "object meta: v"},
		{"another UID, removed", status(409, "Conflict", "the UID in the precondition (u) does not match the UID in record (v)", ""), exchange.ErrGone, "in record (v)"},
		{"another version", status(409, "Conflict", "the object has been modified; "+sentence, ""), exchange.ErrConflict, sentence},
		{"no such kind", text(404, "404 page not found\n"), nil, "kubectl apply -f deploy/crds"},
		{"bad request", status(400, "BadRequest", sentence, ""), nil, sentence},
		{"not authenticated", status(401, "Unauthorized", sentence, ""), nil, sentence},
		{"forbidden", status(403, "Forbidden", sentence, ""), nil, sentence},
		{"invalid", status(422, "Invalid", sentence, ""), nil, sentence},
		{"too many", status(429, "TooManyRequests", sentence, ""), nil, sentence},
		{"a gateway's time-out", text(408, "slow"), exchange.ErrUnknown, ""},
		{"internal error", status(500, "InternalError", sentence, ""), exchange.ErrUnknown, sentence},
		{"bad gateway", text(502, "<html>"), exchange.ErrUnknown, ""},
		{"unavailable", status(503, "ServiceUnavailable", sentence, ""), exchange.ErrUnknown, sentence},
		{"time-out", status(504, "Timeout", sentence, `,"details":{"retryAfterSeconds":1}`), exchange.ErrUnknown, sentence},
		{"connection broken", broken, exchange.ErrUnknown, ""},
		{"answer cut off", cutOff, exchange.ErrUnknown, ""},
		{"no object", text(200, "hello"), exchange.ErrUnknown, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, asked := answering(t, c.answer)
			for name, call := range writes(client(t, config).Store("n1")) {
				asked.Store(0)
				err := call(t.Context())
				wantMeaning(t, name, err, c.want)
				if err != nil && !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: the error does not say %q: %v", name, c.says, err)
				}
				if n := asked.Load(); n != 1 {
					t.Errorf("%s made %d requests, want 1", name, n)
				}
			}
		})
	}
}

// A success that does not say what was made is no success of a create.
func TestAStatusIsNoObject(t *testing.T) {
	config, _ := answering(t, text(201, `{"kind":"Status","apiVersion":"v1","status":"Success","code":201}`))
	for name, call := range writes(client(t, config).Store("n1")) {
		if name == "Delete" || name == "Retract" {
			continue // of which it is the usual answer
		}
		wantMeaning(t, name, call(t.Context()), exchange.ErrUnknown)
	}
}

func TestAWriteThatIsNotAnswered(t *testing.T) {
	config, asked := answering(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the end of the client is not seen
		<-r.Context().Done()
	})
	s := client(t, config).Store("n1")
	for name, call := range writes(s) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		wantMeaning(t, name, call(ctx), exchange.ErrUnknown)
		cancel()
	}
	asked.Store(0)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range writes(s) {
		wantMeaning(t, name+" after the end", call(ended), nil)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests were made after the context's end", n)
	}
}

func TestAWriteTellsTheAPIServerItsBound(t *testing.T) {
	var query atomic.Value
	config, _ := answering(t, func(w http.ResponseWriter, r *http.Request) {
		query.Store(r.URL.RawQuery)
		text(500, "")(w, r)
	})
	for name, call := range writes(client(t, config).Store("n1")) {
		_ = call(t.Context())
		want := "fieldValidation=Ignore&timeout=5s"
		if name == "Delete" || name == "Retract" { // no object is sent
			want = "timeout=5s"
		}
		if query.Load() != want {
			t.Errorf("%s asks with %q", name, query.Load())
		}
	}
}

func TestAWriteThatNobodyGets(t *testing.T) {
	stranger := httptest.NewUnstartedServer(http.HandlerFunc(text(500, "")))
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.StartTLS()
	t.Cleanup(stranger.Close)
	for _, c := range []struct{ name, host, says string }{
		{"connection refused", "https://127.0.0.1:1", "connection refused"},
		{"a server that can't be trusted", stranger.URL, "certificate"},
	} {
		for name, call := range writes(client(t, &rest.Config{Host: c.host}).Store("n1")) {
			err := call(t.Context())
			wantMeaning(t, c.name+": "+name, err, nil)
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %s: the error does not say %q: %v", c.name, name, c.says, err)
			}
		}
	}
}

func TestWhatTheFailureOfAReadMeans(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   error
	}{
		{"not found", status(404, "NotFound", "not there", `,"details":{"name":"x","kind":"addressblocks"}`), exchange.ErrGone},
		{"no such kind", text(404, "404 page not found\n"), nil},
		{"internal error", status(500, "InternalError", "", ""), nil},
		{"time-out", status(504, "Timeout", "", ""), nil},
		{"connection broken", broken, nil},
		{"no object", text(200, "hello"), nil},
		{"an empty object", text(200, "{}"), nil},
		{"a success, of nothing", text(200, `{"kind":"Status","apiVersion":"v1","status":"Success"}`), nil},
	} {
		config, asked := answering(t, c.answer)
		s := client(t, config).Store("n1")
		for name, call := range map[string]func() error{
			"List":     func() error { _, err := s.List(t.Context(), "web"); return err },
			"Own":      func() error { _, err := s.Own(t.Context()); return err },
			"Inside":   func() error { _, err := s.Inside(t.Context(), stored().Prefix); return err },
			"Block":    func() error { _, err := s.Block(t.Context(), stored().Prefix); return err },
			"Requests": func() error { _, err := s.Requests(t.Context()); return err },
			"Request":  func() error { _, err := s.Request(t.Context(), "x"); return err },
		} {
			asked.Store(0)
			wantMeaning(t, c.name+": "+name, call(), c.want)
			if n := asked.Load(); n != 1 {
				t.Errorf("%s: %s made %d requests, want 1", c.name, name, n)
			}
		}
	}
}

// What can't be meant is refused before it is sent.
func TestWritesInTheNameOfOthers(t *testing.T) {
	config, asked := answering(t, text(500, ""))
	c := client(t, config)
	for _, node := range []string{"", "n9"} {
		for name, call := range writes(c.Store(node)) {
			if name == "Delete" || name == "Retract" {
				continue // which admission judges
			}
			wantMeaning(t, name+" by "+node, call(t.Context()), nil)
		}
	}
	s := c.Store("n1")
	b, r := stored(), granted()
	b.UID, r.UID = "", ""
	_, errTake := s.Take(t.Context(), b)
	_, errGrant := s.Grant(t.Context(), r)
	for what, err := range map[string]error{"Take": errTake, "Grant": errGrant, "Delete": s.Delete(t.Context(), b), "Retract": s.Retract(t.Context(), r)} {
		wantMeaning(t, what+" without a UID", err, nil)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}
