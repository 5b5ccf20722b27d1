package speaker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	maxBackoff   = 5 * time.Second
	firstBackoff = 100 * time.Millisecond
	// healthyTime is how long a process lives before its death counts as the
	// first again.
	healthyTime = 30 * time.Second
	// startTime bounds the wait for a new process to answer.
	startTime = 10 * time.Second
)

// Spawn says how to start the process of a Child: Path with Args must end up
// in ServeChild.
type Spawn struct {
	Path string
	Args []string
	Env  []string // added to this process's own
	Log  *slog.Logger
}

// Child is a Speaker in a process of its own. When that process dies, it is
// started again at once (more slowly when it dies repeatedly), with the last
// Desired and as one that restarts gracefully: peers that help keep
// forwarding meanwhile. When this process dies, the child ends with it,
// without a Cease.
type Child struct {
	spawn Spawn
	quit  chan struct{} // closed by Close
	done  chan struct{} // closed when no process runs any more

	setting sync.Mutex // one Set at a time

	mu      sync.Mutex
	closed  bool
	want    *Desired
	begun   bool   // there was a Set
	deaths  int    // so far, of processes that had answered
	reason  string // of the last death
	process *os.Process
	link    *link         // nil while no process answers
	changed chan struct{} // closed and replaced when link changes
}

var _ Speaker = (*Child)(nil)

// NewChild is a speaker whose process starts with the first Set, and not
// before: an agent without BGP needs none, and an agent that starts has
// leases to serve first.
func NewChild(spawn Spawn) *Child {
	return &Child{spawn: spawn, quit: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{})}
}

// begin starts the supervision, once.
func (c *Child) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun && !c.closed {
		c.begun = true
		go c.supervise()
	}
}

// supervise keeps a process running until Close. It stays on its thread: the
// kernel ends the child when the thread that started it ends.
func (c *Child) supervise() {
	runtime.LockOSThread()
	defer close(c.done)
	backoff := time.Duration(0)
	for {
		begun := time.Now()
		answered, err := c.life()
		if c.ended(answered, err) {
			return
		}
		if time.Since(begun) > healthyTime {
			backoff = 0
		}
		c.spawn.Log.Error("the BGP speaker process died; starting another",
			"reason", err, "output", outputOf(err), "after", time.Since(begun).Round(time.Millisecond), "delay", backoff)
		timer := time.NewTimer(backoff)
		select {
		case <-timer.C:
		case <-c.quit:
			timer.Stop()
			return
		}
		backoff = min(max(2*backoff, firstBackoff), maxBackoff)
	}
}

// life is one process from start to end. It says whether the process ever
// answered, and why it ended.
func (c *Child) life() (answered bool, err error) {
	p, err := c.spawn.start()
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	c.process = p.cmd.Process
	if c.closed { // Close came before there was something to kill
		_ = p.cmd.Process.Kill()
	}
	want, deaths := c.want, c.deaths
	c.mu.Unlock()
	ready := make(chan bool, 1)
	go func() { ready <- c.prepare(p.link, want, deaths > 0) }()
	err = p.wait()
	return <-ready, err
}

// prepare brings a new process to the last Desired and lets calls go to it.
func (c *Child) prepare(l *link, want *Desired, restarted bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	if _, err := l.call(ctx, request{Op: opState}); err != nil {
		c.kill() // alive or not, it is no speaker
		return false
	}
	if want != nil {
		if _, err := l.call(ctx, request{Op: opSet, Desired: toWire(asRestarted(*want, restarted))}); errors.Is(err, errLinkDown) {
			return true
		} else if err != nil {
			c.spawn.Log.Error("the new BGP speaker process did not take all settings", "error", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = l
	c.wake()
	return true
}

// asRestarted is d for a process that follows one which died: the kernel has
// gone on forwarding.
func asRestarted(d Desired, restarted bool) Desired {
	d.Local.Restarting = d.Local.Restarting || restarted
	return d
}

// ended records the end of a process, and says whether it was the last.
func (c *Child) ended(answered bool, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link, c.process = nil, nil
	if answered {
		c.deaths++
	}
	c.reason = err.Error()
	c.wake()
	return c.closed
}

// wake makes every waiter look again. The lock is held.
func (c *Child) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// errNoProcess: no process runs that could be asked.
var errNoProcess = errors.New("no BGP speaker process answers")

// answering waits for a process that answers.
func (c *Child) answering(ctx context.Context) (*link, error) {
	for {
		c.mu.Lock()
		l, closed, reason, changed := c.link, c.closed, c.reason, c.changed
		c.mu.Unlock()
		switch {
		case closed:
			return nil, ErrClosed
		case l != nil:
			return l, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (%s): %w", errNoProcess, cmp.Or(reason, "none was started"), ctx.Err())
		}
	}
}

// call asks the process, and the one after it if it dies meanwhile.
func (c *Child) call(ctx context.Context, r request) (answer, error) {
	for {
		l, err := c.answering(ctx)
		if err != nil {
			return answer{}, err
		}
		a, err := l.call(ctx, r)
		if !errors.Is(err, errLinkDown) {
			return a, err
		}
		c.lost(l)
	}
}

// lost takes a link out of use that a call found to be down.
func (c *Child) lost(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == l {
		c.link = nil
	}
}

// Set implements Speaker. While the process is being started again it waits.
func (c *Child) Set(ctx context.Context, d Desired) error {
	c.setting.Lock()
	defer c.setting.Unlock()
	d = d.clone()
	c.mu.Lock()
	c.want = &d
	restarted := c.deaths > 0
	c.mu.Unlock()
	c.begin()
	_, err := c.call(ctx, request{Op: opSet, Desired: toWire(asRestarted(d, restarted))})
	return err
}

// clone keeps what a restart needs apart from what the caller may change.
func (d Desired) clone() Desired {
	d.Local.Listen = slices.Clone(d.Local.Listen)
	d.Peers = slices.Clone(d.Peers)
	for i := range d.Peers {
		d.Peers[i].Families = slices.Clone(d.Peers[i].Families)
	}
	d.Prefixes = slices.Clone(d.Prefixes)
	return d
}

// Flush implements Speaker.
func (c *Child) Flush(ctx context.Context, prefixes []netip.Prefix) error {
	if len(prefixes) == 0 {
		return nil
	}
	_, err := c.call(ctx, request{Op: opFlush, Prefixes: prefixes})
	if errors.Is(err, errNoProcess) {
		return fmt.Errorf("%w: %w", ErrNoPeer, err)
	}
	return err
}

// State implements Speaker. While the process is being started again every
// peer is Idle, and says so.
func (c *Child) State(ctx context.Context) (State, error) {
	c.mu.Lock()
	l, closed, want, reason := c.link, c.closed, c.want, c.reason
	c.mu.Unlock()
	if closed {
		return State{}, ErrClosed
	}
	if l == nil {
		return idle(want, reason), nil
	}
	a, err := l.call(ctx, request{Op: opState})
	switch {
	case errors.Is(err, errLinkDown):
		return idle(want, "the process is gone"), nil
	case err != nil || a.State == nil:
		return State{}, err
	}
	for i, p := range a.State.Peers {
		if reason != "" && p.Since.IsZero() && p.LastError == "" {
			a.State.Peers[i].LastError = "speaker restarted: " + reason
		}
	}
	return *a.State, nil
}

// idle is the state of a speaker that has no process.
func idle(want *Desired, reason string) State {
	var st State
	if want == nil {
		return st
	}
	for _, p := range want.Peers {
		st.Peers = append(st.Peers, PeerState{Name: p.Name, Address: p.Address, ASN: p.ASN, Session: "Idle", LastError: "speaker restarting: " + reason})
	}
	slices.SortFunc(st.Peers, func(a, b PeerState) int { return strings.Compare(a.Name, b.Name) })
	return st
}

// Close implements Speaker. It returns when the process is gone.
func (c *Child) Close(ctx context.Context, how Stop) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.done
		return nil
	}
	l := c.link
	c.closed = true
	if !c.begun {
		close(c.done)
	}
	close(c.quit)
	c.wake()
	c.mu.Unlock()
	var err error
	if how == Withdraw && l != nil {
		_, err = l.call(ctx, request{Op: opClose, Stop: how})
	}
	c.kill()
	<-c.done
	return err
}

// kill ends the process if there is one.
func (c *Child) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		_ = c.process.Kill() // gone already is as good
	}
}

// running is a process and what to talk to it with.
type running struct {
	cmd    *exec.Cmd
	link   *link
	output *relay
}

// start starts the process. The caller stays on its thread.
func (s Spawn) start() (*running, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "child"), os.NewFile(uintptr(fds[1]), "parent")
	conn, err := net.FileConn(ours)
	_ = ours.Close() // FileConn has a duplicate
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket pair: %w", err), theirs.Close())
	}
	output := &relay{log: s.Log}
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Env = append(append(os.Environ(), s.Env...), levelVariable+"="+lowestLevel(s.Log).String())
	cmd.Env = append(cmd.Env, runtimeSettings()...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &running{cmd: cmd, link: newLink(conn), output: output}, nil
}

// runtimeSettings make the child's Go runtime small, and its listeners plain
// TCP: with multipath TCP a session that a peer opens with MD5 never comes up.
func runtimeSettings() []string {
	debug := "multipathtcp=0"
	if old := os.Getenv("GODEBUG"); old != "" {
		debug = old + "," + debug
	}
	return []string{"GODEBUG=" + debug, "GOGC=50"}
}

// wait returns why the process ended.
func (r *running) wait() error {
	err := r.cmd.Wait()
	_ = r.link.conn.Close()
	<-r.link.down
	said := r.output.rest()
	if err == nil {
		err = errors.New("it exited")
	}
	return &deathError{cause: err, output: said}
}

// deathError is why a process ended, and what it said in the end.
type deathError struct {
	cause  error
	output string
}

// Error gives the first line of the output: of a panic, what it was about.
func (e *deathError) Error() string {
	if e.output == "" {
		return e.cause.Error()
	}
	first, _, _ := strings.Cut(e.output, "\n")
	return e.cause.Error() + ": " + first
}

func (e *deathError) Unwrap() error { return e.cause }

func outputOf(err error) string {
	var e *deathError
	if errors.As(err, &e) {
		return e.output
	}
	return ""
}
