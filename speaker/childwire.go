package speaker

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/fairway-network/fairway/internal/nonblocking"
)

// A Child and its process talk over two pipes: one request and one answer
// for each call, told apart by their numbers, in frames. Passwords go this way and
// no other.

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
	Deadline time.Time      `json:",omitzero"` // zero for none; a change has none, and is cancelled when it is over
	Desired  *wireDesired   `json:",omitempty"`
	Number   uint64         `json:",omitempty"` // of a Set, see change; 0 is one that none builds on
	Change   *change        `json:"-"`          // in a frame of its own form
	Prefixes []netip.Prefix `json:",omitempty"` // of a flush
	Peer     string         `json:",omitempty"` // of a fail
	Stop     Stop           `json:",omitzero"`
}

// change makes another Desired of the one that a Set with a number handed over.
type change struct {
	From uint64
	Change
}

// changeFrom gives what makes d of the Desired before, if that is announcements alone and
// few of them.
func changeFrom(before, d *Desired) (c Change, ok bool) {
	if !before.equalBesides(d) {
		return c, false
	}
	old, new, same := middles(before.Announcements, d.Announcements)
	if len(new) > len(old)+mostChanged || len(old) > len(new)+mostChanged {
		return c, false
	}
	had := make(map[netip.Prefix]string, len(old))
	for _, one := range old {
		had[one.Prefix] = one.Terms
	}
	has := make(map[netip.Prefix]bool, len(new))
	for _, one := range new {
		if has[one.Prefix] {
			return c, false // the speaker says what is wrong with that
		}
		has[one.Prefix] = true
		if terms, is := had[one.Prefix]; !is || terms != one.Terms {
			c.Announced = append(c.Announced, one)
		}
	}
	for _, one := range old {
		if !has[one.Prefix] {
			c.Withdrawn = append(c.Withdrawn, one.Prefix)
		}
	}
	return c, len(c.Announced)+len(c.Withdrawn) <= mostChanged && !c.touches(same[0]) && !c.touches(same[1])
}

// middles are what is left of two lists without what both begin with and end with, which is in
// same: lists in an order differ in little else.
func middles(old, new []Announcement) (oldRest, newRest []Announcement, same [2][]Announcement) {
	n := 0
	for n < len(old) && n < len(new) && old[n] == new[n] {
		n++
	}
	same[0], old, new = new[:n], old[n:], new[n:]
	n = 0
	for n < len(old) && n < len(new) && old[len(old)-1-n] == new[len(new)-1-n] {
		n++
	}
	same[1] = new[len(new)-n:]
	return old[:len(old)-n], new[:len(new)-n], same
}

// touches says whether c is about a prefix of a list.
func (c Change) touches(list []Announcement) bool {
	return slices.ContainsFunc(list, func(one Announcement) bool {
		return slices.Contains(c.Withdrawn, one.Prefix) ||
			slices.ContainsFunc(c.Announced, func(other Announcement) bool { return other.Prefix == one.Prefix })
	})
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
)

// link is the parent's end. No call depends on the other process reading or
// answering: what it does not read is given up with the link.
type link struct {
	conn     conn
	patience time.Duration
	down     chan struct{} // closed when nothing more is read
	pen      chan struct{} // of size one: held by who writes

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan answer
	fault   error // what is wrong with the other process, if its own end does not say it
}

// conn is where the other process is.
type conn interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
}

// newLink takes over conn. A message that is not taken within patience ends
// the link.
func newLink(conn conn, patience time.Duration) *link {
	l := &link{conn: conn, patience: patience, down: make(chan struct{}), pen: make(chan struct{}, 1), waiting: make(map[uint64]chan answer)}
	go l.read()
	return l
}

func (l *link) read() {
	defer close(l.down)
	for in := bufio.NewReader(l.conn); ; {
		a, err := readAnswer(in)
		if errors.Is(err, errFrame) {
			l.blame(fmt.Errorf("%w: %w", errVersions, err))
		}
		if err != nil {
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

// write hands a message to the kernel, by the holder of the pen. What that does not take at once
// is written by a goroutine of its own, and the pen is free again once all is.
func (l *link) write(b []byte) {
	if b = b[nonblocking.Write(l.conn, b):]; len(b) > 0 {
		go l.finish(b)
		return
	}
	<-l.pen
}

// finish writes the rest of a message. One that is cut short makes all after it unreadable,
// so that the link ends with it.
func (l *link) finish(rest []byte) {
	defer func() { <-l.pen }()
	err := l.conn.SetWriteDeadline(time.Now().Add(l.patience))
	if err == nil {
		_, err = l.conn.Write(rest)
	}
	if err == nil {
		err = l.conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			l.blame(fmt.Errorf("it did not read for %v and was killed", l.patience))
		}
		_ = l.conn.Close() // the error is that there is no link
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
	b, err := r.frame()
	if err == nil {
		err = l.takePen(ctx)
	}
	if err != nil {
		l.forget(r.ID)
		return 0, nil, err
	}
	l.write(b)
	return r.ID, ch, nil
}

// takePen waits for its turn to write.
func (l *link) takePen(ctx context.Context) error {
	select { // also for a ctx that has ended: the answer says how things stand
	case l.pen <- struct{}{}:
		return nil
	default:
	}
	select {
	case l.pen <- struct{}{}:
		return nil
	case <-l.down:
		return errLinkDown
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errSilent, ctx.Err())
	}
}

// blame takes note of what is wrong with the other process; the first counts.
func (l *link) blame(fault error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = cmp.Or(l.fault, fault)
}

// verdict says why a link is down, nil where the end of the other process does.
func (l *link) verdict() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault
}

func (l *link) forget(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, id)
}

// call is one request and its answer. errLinkDown says that there is none, and
// errSilent that there is none yet although ctx has ended.
func (l *link) call(ctx context.Context, r request) (answer, error) {
	if r.Op != opChange { // a timer costs what a router would wait for
		r.Deadline, _ = ctx.Deadline()
	}
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
		r.ID = id
		return l.abandon(ctx, r, ch)
	}
}

// abandon gives a call up whose ctx has ended, unless its answer comes after all.
func (l *link) abandon(ctx context.Context, r request, ch <-chan answer) (answer, error) {
	grace := graceTime
	if r.Op == opState {
		grace = 0 // its error would say no more
	}
	knows := !r.Deadline.IsZero() && errors.Is(ctx.Err(), context.DeadlineExceeded) // by itself
	if !knows {
		l.cancel(r.ID)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case a := <-ch:
		return a, a.err()
	case <-timer.C:
	case <-l.down:
	}
	if knows {
		l.cancel(r.ID)
	}
	l.forget(r.ID)
	return answer{}, fmt.Errorf("%w: %w", errSilent, ctx.Err())
}

// cancel tells the child that nobody waits for a call any more, once the pen is free.
func (l *link) cancel(id uint64) {
	b, err := request{ID: id, Op: opCancel}.frame()
	if err != nil {
		return
	}
	select {
	case l.pen <- struct{}{}: // before any request that follows
		l.write(b)
	default:
		go func() {
			if l.takePen(context.Background()) == nil {
				l.write(b)
			}
		}()
	}
}
