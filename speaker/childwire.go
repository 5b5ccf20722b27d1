package speaker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
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
	opFlush  op = "flush"
	opState  op = "state"
	opClose  op = "close"
	opCancel op = "cancel" // of the call with the same number; has no answer
)

type request struct {
	ID       uint64
	Op       op
	Deadline time.Time // zero for none
	Desired  *wireDesired
	Prefixes []netip.Prefix // of a flush
	Stop     Stop
}

type answer struct {
	ID    uint64
	Error string // empty for success
	// Is lists the sentinel errors that Error stands for.
	Is    []string
	State *State
}

// wireDesired is Desired with the passwords in it.
type wireDesired struct {
	Local    Local
	Peers    []wirePeer
	Prefixes []netip.Prefix
}

type wirePeer struct {
	Peer
	Password string // hides Peer's, which encodes as stars
}

func toWire(d Desired) *wireDesired {
	w := &wireDesired{Local: d.Local, Prefixes: d.Prefixes}
	for _, p := range d.Peers {
		w.Peers = append(w.Peers, wirePeer{Peer: p, Password: string(p.Password)})
	}
	return w
}

func (w *wireDesired) desired() Desired {
	if w == nil {
		return Desired{}
	}
	d := Desired{Local: w.Local, Prefixes: w.Prefixes}
	for _, p := range w.Peers {
		p.Peer.Password = Secret(p.Password)
		d.Peers = append(d.Peers, p.Peer)
	}
	return d
}

// sentinels are the errors that keep their identity across the processes.
func sentinels() map[string]error {
	return map[string]error{
		"no peer":           ErrNoPeer,
		"peers":             ErrPeers,
		"closed":            ErrClosed,
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

// errLinkDown: the other process is gone.
var errLinkDown = errors.New("the BGP speaker process is gone")

// link is the parent's end.
type link struct {
	conn io.ReadWriteCloser
	down chan struct{} // closed when nothing more is read

	mu      sync.Mutex
	encoder *json.Encoder
	last    uint64
	waiting map[uint64]chan answer
}

func newLink(conn io.ReadWriteCloser) *link {
	l := &link{conn: conn, down: make(chan struct{}), encoder: json.NewEncoder(conn), waiting: make(map[uint64]chan answer)}
	go l.read()
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

// send numbers a request and gives where its answer will come.
func (l *link) send(r request) (uint64, <-chan answer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	r.ID = l.last
	ch := make(chan answer, 1)
	l.waiting[r.ID] = ch
	if err := l.encoder.Encode(r); err != nil {
		delete(l.waiting, r.ID)
		return 0, nil, errors.Join(errLinkDown, err)
	}
	return r.ID, ch, nil
}

// call is one request and its answer. errLinkDown says that there is none.
func (l *link) call(ctx context.Context, r request) (answer, error) {
	r.Deadline, _ = ctx.Deadline()
	id, ch, err := l.send(r)
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
		return l.abandon(ctx, id, ch)
	}
}

// graceTime is how long a call that was cancelled may take to say how far it
// came: its own error says more than "deadline exceeded".
const graceTime = 200 * time.Millisecond

func (l *link) abandon(ctx context.Context, id uint64, ch <-chan answer) (answer, error) {
	timedOut := errors.Is(ctx.Err(), context.DeadlineExceeded) // the child has the same deadline
	if !timedOut {
		l.cancel(id)
	}
	timer := time.NewTimer(graceTime)
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
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, id)
	return answer{}, ctx.Err()
}

// cancel tells the child that nobody waits for a call any more. A link that is
// down has none.
func (l *link) cancel(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.encoder.Encode(request{ID: id, Op: opCancel})
}
