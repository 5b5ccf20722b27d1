package kube

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
)

func TestAnEventIsCountedUp(t *testing.T) {
	var r recounts
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	web := occasion{"default", "web", "u1", "node-a", "PoolExhausted"}
	other := web
	other.uid = "u2"
	for i, c := range []struct {
		o     occasion
		says  string
		after time.Duration
		name  string
		count int32
		due   bool
	}{
		{web, "full", 0, "", 1, true},
		{web, "full", time.Second, "", 0, false}, // counted, not written
		{web, "full", eventPause, "web.1", 3, true},
		{other, "full", 0, "", 1, true},
		{web, "full", eventPause, "web.1", 4, true},
		{web, "lost, too", time.Second, "web.1", 5, true}, // it has something else to say
		{web, "full", time.Second, "", 0, false},          // not again and again
		{web, "lost, too", eventPause, "web.1", 7, true},
		{web, "full", time.Second, "web.1", 8, true},
		{web, "full", eventLife, "", 1, true}, // the API server has forgotten it
	} {
		now = now.Add(c.after)
		name, count, due := r.again(c.o, c.says, now)
		if name != c.name || count != c.count || due != c.due {
			t.Errorf("step %d: %q, %d, %v, want %q, %d, %v", i, name, count, due, c.name, c.count, c.due)
		}
		if due && name == "" && c.o == web {
			r.keep(web, "web.1")
		}
	}
	if len(r.all) != 1 {
		t.Errorf("%d Events are remembered after an hour, want 1", len(r.all))
	}
}

// eventServer answers as an API server does that has Events only.
type eventServer struct {
	mu     sync.Mutex
	events map[string]*core.Event
	made   []string
}

func (s *eventServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = append(s.made, r.Method+" "+r.URL.Path)
	w.Header().Set("Content-Type", "application/json")
	name := r.URL.Path[len("/api/v1/namespaces/default/events"):]
	e := s.events[name]
	if r.Method == http.MethodPost {
		name = fmt.Sprintf("/web.%d", len(s.events))
		e = &core.Event{}
		s.events[name] = e
	}
	if e == nil {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
		return
	}
	if err := json.NewDecoder(r.Body).Decode(e); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	e.Name, e.Kind, e.APIVersion = name[1:], "Event", "v1"
	_ = json.NewEncoder(w).Encode(e)
}

func TestAPodIsToldTheSameInOneEvent(t *testing.T) {
	s := &eventServer{events: map[string]*core.Event{}}
	server := httptest.NewServer(s)
	defer server.Close()
	c, err := NewClient(&rest.Config{Host: server.URL}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	pod := Pod{Namespace: "default", Name: "web", UID: "u1"}
	warn := func(message string) {
		t.Helper()
		if err := c.Warn(t.Context(), pod, "node-a", "PoolExhausted", message); err != nil {
			t.Fatal(err)
		}
	}
	// As if the last write was so long ago.
	later := func() {
		c.told.mu.Lock()
		defer c.told.mu.Unlock()
		for _, e := range c.told.all {
			e.at = e.at.Add(-eventPause)
		}
	}
	for range 5 {
		warn("7 of 7 used")
	}
	if len(s.made) != 1 {
		t.Errorf("5 refusals in a moment make the requests %v, want one", s.made)
	}
	later()
	warn("8 of 8 used")
	if e := s.events["/web.0"]; len(s.events) != 1 || e.Count != 6 || e.Message != "8 of 8 used" || e.Reason != "PoolExhausted" {
		t.Errorf("the Event is %+v; there are %d", e, len(s.events))
	}
	// Somebody has removed it.
	delete(s.events, "/web.0")
	s.events["/other"] = nil
	later()
	warn("9 of 9 used")
	later()
	warn("9 of 9 used")
	if e := s.events["/web.1"]; e == nil || e.Count != 8 {
		t.Errorf("the new Event is %+v, want its count to be 8", e)
	}
}
