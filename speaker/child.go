package speaker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fairway-network/fairway/internal/deadline"
)

const (
	maxBackoff   = 5 * time.Second
	firstBackoff = 100 * time.Millisecond
	// healthyTime is how long a process lives before its death counts as the
	// first again.
	healthyTime = 30 * time.Second
	// startTime bounds the wait for a new process to answer.
	startTime = 10 * time.Second
	// killTime bounds the wait for the kernel to end a process that was killed.
	killTime        = 2 * time.Second
	defaultPatience = 10 * time.Second
)

// Spawn says how to start the process of a Child: Path with Args must end up
// in Serve.
type Spawn struct {
	Path string
	Args []string
	Env  []string // added to this process's own
	Log  *slog.Logger
	// Patience is how long the process may leave a question unanswered before
	// it is killed and another started in its place; 0 is 10 s.
	Patience time.Duration
}

func (s Spawn) patience() time.Duration { return cmp.Or(s.Patience, defaultPatience) }

// Child is a Speaker in a process of its own. When that process dies, or does
// not answer for a while and is killed, it is started again at once (more
// slowly when it dies repeatedly), with the last Desired and as one that
// restarts gracefully: peers that help keep forwarding meanwhile. When this
// process dies, the child ends with it, without a Cease.
type Child struct {
	spawn Spawn
	quit  chan struct{} // closed when no other process shall be started
	done  chan struct{} // closed when no process runs any more
	turn  chan struct{} // of size one: one Set at a time

	mu      sync.Mutex
	closed  bool // Close was called
	over    bool // and the process is to end
	want    *Desired
	good    *Desired // the last whose Local was not refused
	sets    uint64   // numbers them
	base    base
	begun   bool   // there was a Set
	spoke   bool   // some process was handed a Desired: peers may hold routes
	restart bool   // the process that runs follows one that spoke
	reason  string // of the last death
	process *os.Process
	link    *link         // nil while no process answers
	changed chan struct{} // closed and replaced when link changes
}

// base is what a process has that took all of the last Set: its next one may build on it.
type base struct {
	link    *link // nil for none
	number  uint64
	desired *Desired
}

var _ Speaker = (*Child)(nil)

// NewChild is a speaker whose process starts with the first Set, and not
// before: an agent without BGP needs none, and an agent that starts has
// leases to serve first.
func NewChild(spawn Spawn) *Child {
	return &Child{
		spawn: spawn, quit: make(chan struct{}), done: make(chan struct{}),
		turn: make(chan struct{}, 1), changed: make(chan struct{}),
	}
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
		err := c.life()
		if c.ended(err) {
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

// life is one process from start to end. It says why the process ended.
func (c *Child) life() error {
	p, err := c.spawn.start()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.process = p.cmd.Process
	if c.over { // Close came before there was something to kill
		_ = p.cmd.Process.Kill()
	}
	c.restart = c.spoke
	c.mu.Unlock()
	watched := make(chan error, 1)
	go func() { watched <- c.attend(p) }()
	err = p.wait()
	if verdict := <-watched; verdict != nil {
		return verdict
	}
	return err
}

// attend brings a new process to the last Desired, lets calls go to it, and
// kills it when it is no good. It says why it did.
func (c *Child) attend(p *running) error {
	l := p.link
	defer c.kill() // a process without a link is of no use
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	if _, err := l.call(ctx, request{Op: opState}); errors.Is(err, errSilent) {
		return fmt.Errorf("it did not answer within %v of its start", startTime)
	} else if err != nil {
		return l.verdict()
	}
	if err := c.hand(ctx, l); errors.Is(err, errLinkDown) {
		return l.verdict()
	} else if err != nil {
		c.spawn.Log.Error("the new BGP speaker process did not take all settings", "err", err)
	}
	c.mu.Lock()
	c.link = l
	c.wake()
	c.mu.Unlock()
	if err := c.watch(l); err != nil {
		return err
	}
	select { // it ends by itself when the link is closed
	case <-p.exited:
	case <-time.After(killTime):
	}
	return nil
}

// hand gives a new process the last Desired, with the Local and the peers of
// the one before if those of the last are refused.
func (c *Child) hand(ctx context.Context, l *link) error {
	c.mu.Lock()
	want, good := c.want, c.good
	c.mu.Unlock()
	if want == nil {
		return nil
	}
	_, err := l.call(ctx, c.setOf(*want))
	if good == nil || !errors.Is(err, ErrLocal) {
		return err
	}
	d := *good
	d.Announcements, d.Terms = want.Announcements, want.Terms
	_, goodErr := l.call(ctx, c.setOf(d))
	return errors.Join(err, goodErr)
}

// setOf is the request that hands d to the process that runs. For one that
// follows a process which died, the kernel has gone on forwarding.
func (c *Child) setOf(d Desired) request {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spoke = true
	d.Local.Restarting = d.Local.Restarting || c.restart
	return request{Op: opSet, Desired: toWire(d)}
}

// quarters is how many times in a row a process is found silent before it is
// given up. A pause of the whole machine counts as one of them.
const quarters = 4

// watch asks a process for signs of life until its link is down, and gives it up
// if it has none.
func (c *Child) watch(l *link) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(c.spawn.patience() / quarters)
	defer tick.Stop()
	var answered chan struct{} // nil when nothing is asked
	for silent := 0; silent < quarters; {
		select {
		case <-l.down:
			return l.verdict()
		case <-answered:
			answered, silent = nil, 0
		case <-tick.C:
			if answered != nil {
				silent++
				continue
			}
			answered = make(chan struct{})
			go func(answered chan struct{}) {
				if _, err := l.call(ctx, request{Op: opState}); !errors.Is(err, errLinkDown) {
					close(answered)
				}
			}(answered)
		}
	}
	return fmt.Errorf("it did not answer for %v and was killed", c.spawn.patience())
}

// ended records the end of a process, and says whether it was the last.
func (c *Child) ended(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link, c.process = nil, nil
	c.reason = err.Error()
	c.wake()
	return c.over || c.closed && errors.Is(err, errExited)
}

// wake makes every waiter look again. The lock is held.
func (c *Child) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// errNoProcess: no process runs that could be asked.
var errNoProcess = errors.New("no BGP speaker process answers")

// answering waits for a process that answers. For Close the speaker is closed
// only when no process runs any more.
func (c *Child) answering(ctx context.Context, closing bool) (*link, error) {
	for {
		c.mu.Lock()
		l, closed, reason, changed := c.link, c.closed, c.reason, c.changed
		c.mu.Unlock()
		switch {
		case closed && !closing:
			return nil, ErrClosed
		case l != nil:
			return l, nil
		}
		select {
		case <-changed:
		case <-c.done:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (%s): %w", errNoProcess, cmp.Or(reason, "none was started"), ctx.Err())
		}
	}
}

// call asks the process, and the one after it if it dies meanwhile.
func (c *Child) call(ctx context.Context, ask func(*link) request, closing bool) (answer, error) {
	for {
		l, err := c.answering(ctx, closing)
		if err != nil {
			return answer{}, err
		}
		a, err := l.call(ctx, ask(l))
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
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return fmt.Errorf("another Set of the BGP speaker takes its time: %w", ctx.Err())
	}
	c.mu.Lock()
	before := c.base
	c.base = base{} // until this has succeeded
	c.mu.Unlock()
	d, new := before.next(d)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	c.want = &d
	c.mu.Unlock()
	c.begin()
	err := c.set(ctx, &d, before.link, new)
	if errors.Is(err, errUnfounded) {
		err = c.set(ctx, &d, nil, nil)
	}
	return err
}

// next gives a copy of d that the caller has no part in, and what is new in it, if that is
// little.
func (b base) next(d Desired) (Desired, *change) {
	if b.link == nil {
		return d.clone(), nil
	}
	new, ok := changeFrom(b.desired, &d)
	if !ok {
		return d.clone(), nil
	}
	copied := *b.desired
	copied.Announcements = slices.Clone(d.Announcements)
	return copied, &change{b.number, new}
}

// set hands d over, or to the process of a link what is new in it.
func (c *Child) set(ctx context.Context, d *Desired, knows *link, new *change) error {
	c.mu.Lock()
	c.sets++
	after := base{number: c.sets, desired: d}
	c.mu.Unlock()
	_, err := c.call(ctx, func(l *link) request {
		after.link = l
		if l == knows && new != nil {
			return request{Op: opChange, Change: new, Number: after.number}
		}
		r := c.setOf(*d)
		r.Number = after.number
		return r
	}, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil || errors.Is(err, ErrPeers) {
		c.good = d
	}
	if err == nil {
		c.base = after
	}
	return err
}

// clone keeps what a restart needs apart from what the caller may change.
func (d Desired) clone() Desired {
	d.Local.Listen = slices.Clone(d.Local.Listen)
	d.Peers, d.Ranges = slices.Clone(d.Peers), slices.Clone(d.Ranges)
	for i := range d.Peers {
		d.Peers[i].Session, d.Peers[i].Accept = d.Peers[i].Session.clone(), d.Peers[i].Accept.clone()
	}
	for i := range d.Ranges {
		d.Ranges[i].Session, d.Ranges[i].Accept = d.Ranges[i].Session.clone(), d.Ranges[i].Accept.clone()
	}
	d.Announcements, d.Terms = slices.Clone(d.Announcements), maps.Clone(d.Terms)
	for name, terms := range d.Terms {
		d.Terms[name] = terms.clone()
	}
	return d
}

func (s Session) clone() Session {
	s.Families = slices.Clone(s.Families)
	return s
}

func (a Accept) clone() Accept {
	a.Prefixes = slices.Clone(a.Prefixes)
	return a
}

func (t Terms) clone() Terms {
	out := make(Terms, len(t))
	for peer, a := range t {
		a.Communities, a.LargeCommunities = slices.Clone(a.Communities), slices.Clone(a.LargeCommunities)
		a.LocalPreference, a.MED = clonePointer(a.LocalPreference), clonePointer(a.MED)
		out[peer] = a
	}
	return out
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// Flush implements Speaker.
func (c *Child) Flush(ctx context.Context, prefixes []netip.Prefix) error {
	if len(prefixes) == 0 {
		return nil
	}
	_, err := c.call(ctx, func(*link) request { return request{Op: opFlush, Prefixes: prefixes} }, false)
	if errors.Is(err, errNoProcess) {
		return fmt.Errorf("%w: %w", ErrNoPeer, err)
	}
	return err
}

// Fail implements Speaker. Without a process there is no session to end.
func (c *Child) Fail(ctx context.Context, peer string) error {
	c.mu.Lock()
	l, closed := c.link, c.closed
	c.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case l == nil:
		return nil
	}
	_, err := l.call(ctx, request{Op: opFail, Peer: peer})
	if errors.Is(err, errLinkDown) {
		return nil
	}
	return err
}

// State implements Speaker. While the process is being started again, or does
// not answer, every peer is Idle, and says so.
func (c *Child) State(ctx context.Context) (State, error) {
	c.mu.Lock()
	l, closed, want, reason := c.link, c.closed, c.want, c.reason
	c.mu.Unlock()
	if closed {
		return State{}, ErrClosed
	}
	if l == nil {
		return idle(want, "speaker restarting: "+reason), nil
	}
	asking, cancel := deadline.Before(ctx, graceTime)
	defer cancel()
	a, err := l.call(asking, request{Op: opState})
	switch {
	case errors.Is(err, errLinkDown):
		return idle(want, "speaker restarting: the process is gone"), nil
	case errors.Is(err, errSilent):
		return idle(want, errSilent.Error()), nil
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

// idle is the state of a speaker whose process can't be asked.
func idle(want *Desired, why string) State {
	if want == nil {
		return State{} // nobody was to speak yet
	}
	st := State{Silent: why}
	for _, p := range want.Peers {
		st.Peers = append(st.Peers, PeerState{Name: p.Name, Address: p.Address, Interface: p.Interface, ASN: p.ASN, Session: "Idle", LastError: why})
	}
	slices.SortFunc(st.Peers, func(a, b PeerState) int { return strings.Compare(a.Name, b.Name) })
	return st
}

// Close implements Speaker. It returns when the process is gone.
func (c *Child) Close(ctx context.Context, how Stop) error {
	if !c.closing() {
		return c.gone(ctx)
	}
	var err error
	if how == Withdraw {
		err = c.withdraw(ctx)
	}
	c.mu.Lock()
	c.over = true
	close(c.quit)
	c.mu.Unlock()
	c.kill()
	// The process was killed: its end takes no time that ctx would be for.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTime)
	defer cancel()
	return errors.Join(err, c.gone(ctx))
}

// closing refuses all other calls from now on. It says whether this is the
// first Close.
func (c *Child) closing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.closed = true
	if !c.begun {
		close(c.done)
	}
	c.wake()
	return true
}

// Untold is the error of a Close with Withdraw about peers of d, and routers of its
// ranges, that could not be told, and may go on sending traffic here.
func Untold(d Desired, cause error) error {
	var list []string
	for _, p := range d.Peers {
		place := p.Interface
		if p.Address.IsValid() {
			place = p.Address.String()
		}
		list = append(list, fmt.Sprintf("%s (%s)", p.Name, place))
	}
	for _, r := range d.Ranges {
		list = append(list, fmt.Sprintf("%s (%s)", r.Name, r.Network))
	}
	slices.Sort(list)
	return fmt.Errorf("peer %s: not told that the prefixes are withdrawn, may hold routes to this node until graceful restart or hold time ends: %w",
		strings.Join(list, ", "), cause)
}

// gone waits until no process runs.
func (c *Child) gone(ctx context.Context) error {
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the BGP speaker process does not end: %w", ctx.Err())
	}
}

// withdraw has the process, or the one that is being started, withdraw all
// prefixes and end.
func (c *Child) withdraw(ctx context.Context) error {
	c.mu.Lock()
	if !c.begun || c.want == nil {
		c.mu.Unlock()
		return nil
	}
	last := *c.want
	c.want = &Desired{Local: last.Local, Peers: last.Peers, Ranges: last.Ranges} // for a process yet to be started
	mayHold := c.spoke || last.Local.Restarting
	c.mu.Unlock()
	_, err := c.call(ctx, func(*link) request { return request{Op: opClose, Stop: Withdraw} }, true)
	if !errors.Is(err, errNoProcess) && !errors.Is(err, errSilent) {
		return err
	}
	if !mayHold || len(last.Peers)+len(last.Ranges) == 0 {
		return nil
	}
	return Untold(last, err)
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
	exited chan struct{} // closed once it has ended
}

// start starts the process. The caller stays on its thread.
func (s Spawn) start() (*running, error) {
	output := &relay{log: s.Log}
	cmd := exec.Command(s.Path, s.Args...)
	conn, started, err := newDuplex(cmd)
	if err != nil {
		return nil, err
	}
	defer started()
	cmd.Env = append(append(os.Environ(), s.Env...), levelVariable+"="+lowestLevel(s.Log).String())
	cmd.Env = append(cmd.Env, runtimeSettings()...)
	cmd.Stderr = output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &running{cmd: cmd, link: newLink(conn, s.patience()), output: output, exited: make(chan struct{})}, nil
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

// errExited: the process ended of its own will.
var errExited = errors.New("it exited")

// wait returns why the process ended.
func (r *running) wait() error {
	err := r.cmd.Wait()
	close(r.exited)
	_ = r.link.conn.Close()
	<-r.link.down
	said := r.output.rest()
	if err == nil {
		err = errExited
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
