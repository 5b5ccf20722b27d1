package kube

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Of the Events of one pod with one reason there is one, which is counted up. The
// correlator of client-go does the same and more, but what it links (OpenAPI,
// strategic merge patches) would run at each start of an agent.
const (
	// eventPause is the least time between two writes of an Event, but for one that has
	// something else to say. What happens meanwhile is in the next one's count.
	eventPause = 10 * time.Second
	// mostInARow is how many writes of an Event there are without a pause.
	mostInARow = 2
	// eventLife is how long the API server keeps an Event that is not written,
	// unless it is told otherwise (--event-ttl).
	eventLife = time.Hour
)

// recounts are the Events that were made and may come again. The zero value has
// none. It is safe for concurrent use.
type recounts struct {
	mu  sync.Mutex
	all map[occasion]*recount
}

// occasion is what makes an Event the same as an earlier one.
type occasion struct{ namespace, pod, uid, node, reason string }

// recount is an Event that was made, and how often it has happened since the
// first time.
type recount struct {
	name    string // "" while it is being made
	count   int32
	at      time.Time // of the last write
	row     int       // of writes without a pause before it, and that one
	message string    // of the last write
}

// again counts what happens at now. due says whether it has to be written, with the message: into
// the Event name, or a new one if that is "".
func (r *recounts) again(o occasion, message string, now time.Time) (name string, count int32, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, e := range r.all {
		if now.Sub(e.at) >= eventLife {
			delete(r.all, k)
		}
	}
	e := r.all[o]
	if e == nil {
		if r.all == nil {
			r.all = map[occasion]*recount{}
		}
		e = &recount{}
		r.all[o] = e
	}
	e.count++
	switch {
	case now.Sub(e.at) >= eventPause:
		e.row = 0
	case e.row == mostInARow || e.message == message:
		return "", 0, false
	}
	e.at, e.message = now, message
	e.row++
	return e.name, e.count, true
}

// keep remembers the Event that was made of o.
func (r *recounts) keep(o occasion, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.all[o]; e != nil {
		e.name = name
	}
}

// countUp is the patch of an Event that happened once more.
func countUp(e *core.Event) ([]byte, error) {
	return json.Marshal(map[string]any{
		"count": e.Count, "lastTimestamp": e.LastTimestamp, "message": e.Message,
	})
}

// event is a Warning about a pod.
func (o occasion) event(message string, count int32, now metav1.Time) *core.Event {
	return &core.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: o.pod + ".", Namespace: o.namespace},
		InvolvedObject: core.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: o.namespace, Name: o.pod, UID: types.UID(o.uid),
		},
		Type: core.EventTypeWarning, Reason: o.reason, Message: message, Count: count,
		FirstTimestamp: now, LastTimestamp: now,
		Source:              core.EventSource{Component: userAgent, Host: o.node},
		ReportingController: v1alpha1.Group + "/agent", ReportingInstance: o.node,
	}
}
