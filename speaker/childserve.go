package speaker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
)

// levelVariable holds the lowest level that the child logs.
const levelVariable = "FAIRWAY_SPEAKER_LOG_LEVEL"

// ErrParentGone: the process that this speaker works for ended.
var ErrParentGone = errors.New("the agent that started this BGP speaker is gone")

// errVersions: the two processes do not understand each other.
var errVersions = errors.New("the agent and this BGP speaker are of different versions: install both from one release, and restart the agent")

// Serve is the whole of the process that a Child starts: it steers the speaker that
// open makes as the parent says, and logs to stderr for the parent to pass on. It
// returns nil when the parent closed the speaker, and ErrParentGone when the parent
// died; main must exit at once then, without a word to the peers, so that they keep
// forwarding. Signals that a terminal or a service manager sends to the whole
// group are ignored: the parent decides.
func Serve(ctx context.Context, stderr io.Writer, open func(*slog.Logger) Announcer) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	conn, err := parentsDuplex()
	if err != nil {
		return err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(os.Getenv(levelVariable))); err != nil {
		level = slog.LevelInfo
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level}))
	return serveLink(ctx, conn, open(log))
}

// Announcer is a Speaker that need not look for what is new.
type Announcer interface {
	Speaker
	// Announce is Set of what c makes of the Desired that Set or Announce was given last,
	// and took without an error. c is the speaker's from then on.
	Announce(ctx context.Context, c Change) error
}

// child answers the requests of a parent.
type child struct {
	speaker Announcer
	in      *bufio.Reader // read by one goroutine at a time
	closed  chan error    // of size one: says that the speaker is closed, and whether the parent was told

	mu      sync.Mutex
	conn    io.ReadWriteCloser
	cancels map[uint64]context.CancelFunc
	number  uint64 // of the last Set or change, if that succeeded; 0 for none
	setting int    // of these that are under way
	mixed   bool   // some of them have met: which came last is not known
}

// serveLink answers requests until the parent is gone or has closed the
// speaker.
func serveLink(ctx context.Context, conn io.ReadWriteCloser, s Announcer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	c := &child{speaker: s, conn: conn, in: bufio.NewReader(conn), closed: make(chan error, 1), cancels: make(map[uint64]context.CancelFunc)}
	over := make(chan error, 1)
	go c.serve(ctx, over)
	err := <-over
	select {
	case answerErr := <-c.closed:
		return answerErr
	default:
		return linkError(err)
	}
}

// stackRoom makes a stack of 32 kB, of which what is called has one half. The collector does not
// shrink it, as the other half is in use.
const stackRoom = 16 << 10

// serve reads requests until one can't be read, and says why to over. Each is answered by the
// goroutine that has read it, while another reads on: no request waits for the answer to the one
// before, nor for a goroutine to wake.
func (c *child) serve(ctx context.Context, over chan<- error) {
	var room [stackRoom]byte // so that the stack need not grow, which is to copy it, while somebody waits
	defer runtime.KeepAlive(&room)
	callCtx, cancel := context.WithCancel(ctx) // while nobody waits for it
	defer cancel()
	r, err := readRequest(c.in)
	for err == nil && r.Op == opCancel {
		c.cancel(r.ID)
		r, err = readRequest(c.in)
	}
	if err != nil {
		over <- err
		return
	}
	if r.Op != opClose { // which nobody gives up
		c.keep(r.ID, cancel) // before what cancels it can be read
		defer c.cancel(r.ID)
	}
	go c.serve(ctx, over)
	err = c.answer(r.ID, c.do(callCtx, r))
	if r.Op == opClose {
		c.closed <- err
		_ = c.conn.Close() // ends the reading
	}
	// Any other answer that can't be written is for a parent that is gone.
}

// linkError says why nothing more can be read of the parent.
func linkError(err error) error {
	if !errors.Is(err, errFrame) {
		return fmt.Errorf("%w: %w", ErrParentGone, err)
	}
	return fmt.Errorf("%w: %w", errVersions, err)
}

func (c *child) keep(id uint64, cancel context.CancelFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancels[id] = cancel
}

func (c *child) cancel(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel := c.cancels[id]; cancel != nil {
		cancel()
		delete(c.cancels, id)
	}
}

func (c *child) answer(id uint64, a answer) error {
	a.ID = id
	b, err := a.frame()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err = c.conn.Write(b)
	return err
}

// set carries out a Set with a number, and takes note of how it came out.
func (c *child) set(number uint64, carryOut func() error) error {
	c.mu.Lock()
	c.enter()
	c.mu.Unlock()
	err := carryOut()
	c.leave(number, err)
	return err
}

// change hands a change to the speaker, if that has what it builds on.
func (c *child) change(ctx context.Context, r request) error {
	c.mu.Lock()
	founded := r.Change != nil && c.number != 0 && c.number == r.Change.From
	if founded {
		c.enter() // before another Set can be carried out in between
	}
	c.mu.Unlock()
	if !founded {
		return errUnfounded
	}
	err := c.speaker.Announce(ctx, r.Change.Change)
	c.leave(r.Number, err)
	return err
}

// enter notes that a Set or a change is under way. The lock is held.
func (c *child) enter() {
	c.number = 0
	c.setting++
	c.mixed = c.mixed || c.setting > 1
}

// leave notes how one with a number came out.
func (c *child) leave(number uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.setting--; err == nil && !c.mixed {
		c.number = number
	}
	c.mixed = c.mixed && c.setting > 0
}

func (c *child) do(ctx context.Context, r request) (a answer) {
	if !r.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, r.Deadline)
		defer cancel()
	}
	switch r.Op {
	case opSet:
		a.setError(c.set(r.Number, func() error { return c.speaker.Set(ctx, r.Desired.desired()) }))
	case opChange:
		a.setError(c.change(ctx, r))
	case opFlush:
		a.setError(c.speaker.Flush(ctx, r.Prefixes))
	case opState:
		st, err := c.speaker.State(ctx)
		a.State = &st
		a.setError(err)
	case opFail:
		a.setError(c.speaker.Fail(ctx, r.Peer))
	case opClose:
		a.setError(c.speaker.Close(ctx, r.Stop))
	default:
		a.setError(fmt.Errorf("%w: unknown request %q", errVersions, r.Op))
	}
	return a
}
