package speaker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

const (
	// linkFD is the file descriptor on which the child finds its parent.
	linkFD = 3
	// levelVariable holds the lowest level that the child logs.
	levelVariable = "FAIRWAY_SPEAKER_LOG_LEVEL"
)

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
func Serve(ctx context.Context, stderr io.Writer, open func(*slog.Logger) Speaker) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	file := os.NewFile(linkFD, "parent")
	conn, err := net.FileConn(file)
	if err != nil {
		return fmt.Errorf("file descriptor %d is no socket: this command is started by the agent, not by hand: %w", linkFD, err)
	}
	if err := file.Close(); err != nil {
		return err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(os.Getenv(levelVariable))); err != nil {
		level = slog.LevelInfo
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level}))
	return serveLink(ctx, conn, open(log))
}

// announcer is a Speaker that is quicker if it need not look for what is new.
type announcer interface {
	// Announce is Set of a Desired that differs from the last that Set or Announce was
	// given, and took without an error, in announcements alone.
	Announce(context.Context, Desired) error
}

// child answers the requests of a parent.
type child struct {
	speaker Speaker

	mu      sync.Mutex
	encoder *json.Encoder
	cancels map[uint64]context.CancelFunc
	// set is what the last Set that succeeded handed over; that had the number, 0 for
	// none.
	set    Desired
	number uint64
}

// serveLink answers requests until the parent is gone or has closed the
// speaker.
func serveLink(ctx context.Context, conn io.ReadWriteCloser, s Speaker) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	c := &child{speaker: s, encoder: json.NewEncoder(conn), cancels: make(map[uint64]context.CancelFunc)}
	closed := make(chan error, 1)
	d := newDecoder(conn)
	for {
		if d.InputOffset() > muchRead && emptied(d) {
			d = newDecoder(conn)
		}
		var r request
		if err := d.Decode(&r); err != nil {
			select {
			case answerErr := <-closed:
				return answerErr
			default:
				return linkError(err)
			}
		}
		switch r.Op {
		case opCancel:
			c.cancel(r.ID)
		case opClose:
			go func() { // other requests have answers meanwhile
				closed <- c.answer(r.ID, c.do(ctx, r))
				_ = conn.Close() // ends the loop
			}()
		default:
			callCtx := c.begin(ctx, r)
			go func() {
				defer c.cancel(r.ID)
				// An answer that can't be written is for a parent that is gone.
				_ = c.answer(r.ID, c.do(callCtx, r))
			}()
		}
	}
}

// muchRead is after how many bytes a decoder is replaced: it keeps the room of the longest
// message.
const muchRead = 1 << 16

func newDecoder(from io.Reader) *json.Decoder {
	d := json.NewDecoder(from)
	d.DisallowUnknownFields() // a setting that is passed over would be one that does not hold
	return d
}

// emptied says whether all that d has read was decoded.
func emptied(d *json.Decoder) bool {
	n, _ := d.Buffered().Read(make([]byte, 1)) // of memory, which has no errors
	return n == 0
}

// linkError says why nothing more can be read of the parent.
func linkError(err error) error {
	var network net.Error
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &network) {
		return fmt.Errorf("%w: %w", ErrParentGone, err)
	}
	return fmt.Errorf("%w: %w", errVersions, err)
}

func (c *child) begin(ctx context.Context, r request) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancels[r.ID] = cancel
	return ctx
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
	c.mu.Lock()
	defer c.mu.Unlock()
	a.ID = id
	return c.encoder.Encode(a)
}

// take hands a Desired to the speaker with set.
func (c *child) take(d Desired, number uint64, set func(Desired) error) error {
	err := set(d)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set, c.number = d, number
	if err != nil {
		c.set, c.number = Desired{}, 0
	}
	return err
}

// change is take of what a change makes of the Desired before.
func (c *child) change(ctx context.Context, r request) error {
	c.mu.Lock()
	d, number := c.set, c.number
	c.mu.Unlock()
	if r.Change == nil || number == 0 || number != r.Change.From {
		return errUnfounded
	}
	return c.take(r.Change.apply(d), r.Number, func(d Desired) error {
		if s, ok := c.speaker.(announcer); ok {
			return s.Announce(ctx, d)
		}
		return c.speaker.Set(ctx, d)
	})
}

func (c *child) do(ctx context.Context, r request) (a answer) {
	if !r.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, r.Deadline)
		defer cancel()
	}
	switch r.Op {
	case opSet:
		a.setError(c.take(r.Desired.desired(), r.Number, func(d Desired) error { return c.speaker.Set(ctx, d) }))
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
