package speaker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"
)

// A Child and its process talk over a socket pair: JSON values, one request
// and one answer for each call, told apart by their numbers. Passwords go this
// way and no other.

// op is what a request asks for, named after the method of Speaker.
type op string

const (
	opSet    op = "set"
	opChange op = "change" // is a Set of what changes alone
	opFlush  op = "flush"
	opState  op = "state"
	opFail   op = "fail"
	opClose  op = "close"
	opCancel op = "cancel" // of the call with the same number; has no answer
)

type request struct {
	ID       uint64
	Op       op
	Deadline time.Time      `json:",omitzero"` // zero for none
	Desired  *wireDesired   `json:",omitempty"`
	Number   uint64         `json:",omitempty"` // of a Set, see change; 0 is one that none builds on
	Change   *change        `json:",omitempty"`
	Prefixes []netip.Prefix `json:",omitempty"` // of a flush
	Peer     string         `json:",omitempty"` // of a fail
	Stop     Stop           `json:",omitzero"`
}

// change makes another Desired of the one that a Set with a number handed over.
type change struct {
	From      uint64
	Announced []Announcement `json:",omitempty"` // new ones, and those with other terms
	Withdrawn []netip.Prefix `json:",omitempty"`
}

// changeFrom gives what makes d of the Desired before, if that is announcements alone and
// few of them.
func changeFrom(before, d *Desired) (c change, ok bool) {
	if len(d.Announcements) > len(before.Announcements)+mostChanged || len(before.Announcements) > len(d.Announcements)+mostChanged {
		return c, false
	}
	a, b := *before, *d
	a.Announcements, b.Announcements = nil, nil
	if !reflect.DeepEqual(a, b) {
		return c, false
	}
	left := make(map[netip.Prefix]string, len(before.Announcements))
	for _, one := range before.Announcements {
		left[one.Prefix] = one.Terms
	}
	for _, one := range d.Announcements {
		if terms, had := left[one.Prefix]; !had || terms != one.Terms {
			c.Announced = append(c.Announced, one)
		}
		delete(left, one.Prefix)
	}
	c.Withdrawn = slices.Collect(maps.Keys(left))
	return c, len(c.Announced)+len(c.Withdrawn) <= mostChanged
}

// apply makes the Desired after c of the one before, which stays as it is.
func (c change) apply(before Desired) Desired {
	changed := make(map[netip.Prefix]bool, len(c.Announced)+len(c.Withdrawn))
	for _, one := range c.Announced {
		changed[one.Prefix] = true
	}
	for _, p := range c.Withdrawn {
		changed[p] = true
	}
	list := make([]Announcement, 0, len(before.Announcements)+len(c.Announced))
	for _, one := range before.Announcements {
		if !changed[one.Prefix] {
			list = append(list, one)
		}
	}
	before.Announcements = append(list, c.Announced...)
	return before
}

type answer struct {
	ID    uint64
	Error string // empty for success
	// Is lists the sentinel errors that Error stands for.
	Is    []string
	State *State
}

// wireDesired is Desired with the passwords beside it, by the names of peers and
// ranges: inside, they are stars.
type wireDesired struct {
	Desired
	Passwords map[string]string
}

func toWire(d Desired) *wireDesired {
	w := &wireDesired{Desired: d, Passwords: make(map[string]string)}
	for _, p := range d.Peers {
		w.Passwords[p.Name] = string(p.Password)
	}
	for _, r := range d.Ranges {
		w.Passwords[r.Name] = string(r.Password)
	}
	return w
}

func (w *wireDesired) desired() Desired {
	if w == nil {
		return Desired{}
	}
	d := w.Desired.clone()
	for i := range d.Peers {
		d.Peers[i].Password = Secret(w.Passwords[d.Peers[i].Name])
	}
	for i := range d.Ranges {
		d.Ranges[i].Password = Secret(w.Passwords[d.Ranges[i].Name])
	}
	return d
}

// sentinels are the errors that keep their identity across the processes.
func sentinels() map[string]error {
	return map[string]error{
		"no peer":           ErrNoPeer,
		"peers":             ErrPeers,
		"local":             ErrLocal,
		"unknown peer":      ErrUnknownPeer,
		"closed":            ErrClosed,
		"unfounded":         errUnfounded,
		"deadline exceeded": context.DeadlineExceeded,
		"canceled":          context.Canceled,
	}
}

// remoteError is an error of the other process.
type remoteError struct {
	text string
	is   []error
}

func (e *remoteError) Error() string   { return e.text }
func (e *remoteError) Unwrap() []error { return e.is }

func (a *answer) setError(err error) {
	if err == nil {
		return
	}
	a.Error = err.Error()
	for name, sentinel := range sentinels() {
		if errors.Is(err, sentinel) {
			a.Is = append(a.Is, name)
		}
	}
}

func (a answer) err() error {
	if a.Error == "" {
		return nil
	}
	e := &remoteError{text: a.Error}
	known := sentinels()
	for _, name := range a.Is {
		if sentinel := known[name]; sentinel != nil {
			e.is = append(e.is, sentinel)
		}
	}
	return e
}

var (
	// errLinkDown: the other process is gone.
	errLinkDown = errors.New("the BGP speaker process is gone")
	// errSilent: it is there and says nothing.
	errSilent = errors.New("the BGP speaker process does not answer")
	// errUnfounded: it does not have the Desired that a change builds on.
	errUnfounded = errors.New("the BGP speaker process has something else to change")
)

const (
	// graceTime is how long a call that was cancelled may take to say how far
	// it came: its own error says more than "deadline exceeded".
	graceTime = 200 * time.Millisecond
	// mostChanged is how many announcements may change for a change to be worth it.
	mostChanged = 100
	// maxQueued is how many messages wait for a process that does not read.
	maxQueued = 64
)

// link is the parent's end. No call depends on the other process reading or
// answering: what it does not read is given up with the link.
type link struct {
	conn  net.Conn
	down  chan struct{} // closed when nothing more is read
	queue chan []byte   // to be written

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan answer
	unread  bool // the other process did not take a message in time
}

// newLink takes over conn. A message that is not taken within patience ends
// the link.
func newLink(conn net.Conn, patience time.Duration) *link {
	l := &link{conn: conn, down: make(chan struct{}), queue: make(chan []byte, maxQueued), waiting: make(map[uint64]chan answer)}
	go l.read()
	go l.write(patience)
	return l
}

func (l *link) read() {
	defer close(l.down)
	for d := json.NewDecoder(l.conn); ; {
		var a answer
		if d.Decode(&a) != nil {
			return
		}
		l.mu.Lock()
		if ch := l.waiting[a.ID]; ch != nil {
			ch <- a // has room for the one answer
			delete(l.waiting, a.ID)
		}
		l.mu.Unlock()
	}
}

// write sends what is queued. A message cut short makes all after it unreadable,
// so that the link ends with it, and read with the link.
func (l *link) write(patience time.Duration) {
	for {
		select {
		case b := <-l.queue:
			err := l.conn.SetWriteDeadline(time.Now().Add(patience))
			if err == nil {
				_, err = l.conn.Write(b)
			}
			if err != nil {
				l.mu.Lock()
				l.unread = errors.Is(err, os.ErrDeadlineExceeded)
				l.mu.Unlock()
				_ = l.conn.Close() // the error is that there is no link
				return
			}
		case <-l.down:
			return
		}
	}
}

// send numbers a request and gives where its answer will come.
func (l *link) send(ctx context.Context, r request) (uint64, <-chan answer, error) {
	ch := make(chan answer, 1)
	l.mu.Lock()
	l.last++
	r.ID = l.last
	l.waiting[r.ID] = ch
	l.mu.Unlock()
	b, err := json.Marshal(r)
	if err == nil {
		select { // also for a ctx that has ended: the answer says how things stand
		case l.queue <- b:
			return r.ID, ch, nil
		default:
		}
		select {
		case l.queue <- b:
			return r.ID, ch, nil
		case <-l.down:
			err = errLinkDown
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", errSilent, ctx.Err())
		}
	}
	l.forget(r.ID)
	return 0, nil, err
}

func (l *link) stuck() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unread
}

func (l *link) forget(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, id)
}

// call is one request and its answer. errLinkDown says that there is none, and
// errSilent that there is none yet although ctx has ended.
func (l *link) call(ctx context.Context, r request) (answer, error) {
	r.Deadline, _ = ctx.Deadline()
	id, ch, err := l.send(ctx, r)
	if err != nil {
		return answer{}, err
	}
	select {
	case a := <-ch:
		return a, a.err()
	case <-l.down:
		select {
		case a := <-ch: // came with the last words
			return a, a.err()
		default:
			return answer{}, errLinkDown
		}
	case <-ctx.Done():
		grace := graceTime
		if r.Op == opState {
			grace = 0 // its error would say no more
		}
		return l.abandon(ctx, id, ch, grace)
	}
}

func (l *link) abandon(ctx context.Context, id uint64, ch <-chan answer, grace time.Duration) (answer, error) {
	timedOut := errors.Is(ctx.Err(), context.DeadlineExceeded) // the child has the same deadline
	if !timedOut {
		l.cancel(id)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case a := <-ch:
		return a, a.err()
	case <-timer.C:
	case <-l.down:
	}
	if timedOut {
		l.cancel(id)
	}
	l.forget(id)
	return answer{}, fmt.Errorf("%w: %w", errSilent, ctx.Err())
}

// cancel tells the child that nobody waits for a call any more. One that has
// stopped reading has no use for it.
func (l *link) cancel(id uint64) {
	b, err := json.Marshal(request{ID: id, Op: opCancel})
	if err != nil {
		return
	}
	select {
	case l.queue <- b:
	default:
	}
}
