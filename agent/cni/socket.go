package cni

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/fairway-network/fairway/agent/wire"
)

const (
	// standing is how many threads wait for plugins at rest.
	standing = 4
	// maxPlugins are served at once; more wait to be accepted.
	maxPlugins = 1024
)

// Times bound one request.
type Times struct {
	Read   time.Duration // for a plugin to say what it wants
	Answer time.Duration // for the agent to have the answer
}

// DefaultTimes are shorter than what the plugin waits.
func DefaultTimes() Times { return Times{Read: 5 * time.Second, Answer: 50 * time.Second} }

// ServeSocket answers plugins on l until ctx ends, then those whose requests
// are whole by then, closes l and removes its path. It hangs up on the others, and
// on requests that ctx cuts off, see Serve: those plugins ask the next agent.
//
// It waits in the kernel with a thread for each plugin that it expects. The
// runtime's poller would have two threads awake for each request, on the
// processors that the plugin runs on: more than the plugin takes itself.
func (h *Handler) ServeSocket(ctx context.Context, l *net.UnixListener, t Times, log *slog.Logger) error {
	path := l.Addr().String()
	fd, err := detach(l)
	if err != nil {
		return fmt.Errorf("CNI socket %s: %w", path, err)
	}
	s := &socket{h: h, fd: fd, times: t, log: log, reading: make(map[int]bool)}
	hungUp := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { s.hangUp(); close(hungUp) })
	for range standing {
		s.start(ctx)
	}
	s.threads.Wait()
	if !stop() {
		<-hungUp // it uses fd
	}
	return errors.Join(syscall.Close(fd), os.Remove(path))
}

// detach closes l and returns its socket, which blocks. The runtime's poller, which
// each plugin would wake as long as l is open, does not know it.
func detach(l *net.UnixListener) (fd int, err error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return -1, errors.Join(err, l.Close())
	}
	var dup uintptr
	var failed syscall.Errno
	err = raw.Control(func(old uintptr) {
		dup, _, failed = syscall.RawSyscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil && failed != 0 {
		err = failed
	}
	if err == nil {
		err = syscall.SetNonblock(int(dup), false)
	}
	l.SetUnlinkOnClose(err != nil)
	return int(dup), errors.Join(err, l.Close())
}

type socket struct {
	h       *Handler
	fd      int // listening
	times   Times
	log     *slog.Logger
	threads sync.WaitGroup

	mu      sync.Mutex
	waiting int // threads that accept
	serving int
	reading map[int]bool // connections whose request is not whole yet
	stopped bool         // none of those is read any further
}

func (s *socket) start(ctx context.Context) {
	s.mu.Lock()
	s.waiting++
	s.mu.Unlock()
	s.threads.Go(func() { s.loop(ctx) })
}

func (s *socket) loop(ctx context.Context) {
	buf := make([]byte, 0, 8<<10)
	for {
		conn, err := s.accept(ctx)
		if err != nil {
			return
		}
		if s.leave(conn) {
			s.start(ctx)
		}
		s.answer(ctx, conn, buf)
		if !s.rejoin() {
			return
		}
	}
}

// leave counts this thread among those that serve, at first by reading conn,
// and says whether another one must take its place.
func (s *socket) leave(conn int) (lacking bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
	s.serving++
	s.reading[conn] = true
	if s.stopped {
		_ = syscall.Shutdown(conn, syscall.SHUT_RD)
	}
	return s.waiting == 0 && s.serving < maxPlugins
}

// doneReading must be called before conn is closed. whole is false when
// hangUp may have cut the request off.
func (s *socket) doneReading(conn int) (whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.reading, conn)
	return !s.stopped
}

// hangUp ends all waiting for plugins. A shutdown wakes whoever waits in
// accept or read; a close would not.
func (s *socket) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	_ = syscall.Shutdown(s.fd, syscall.SHUT_RDWR)
	for conn := range s.reading {
		_ = syscall.Shutdown(conn, syscall.SHUT_RD)
	}
}

// rejoin counts this thread among those that wait unless there are enough.
func (s *socket) rejoin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving--
	if s.waiting >= standing {
		return false
	}
	s.waiting++
	return true
}

// accept returns an error only when ctx has ended.
func (s *socket) accept(ctx context.Context) (conn int, err error) {
	for {
		conn, _, err = syscall.Accept4(s.fd, syscall.SOCK_CLOEXEC)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = syscall.Close(conn) // the plugin asks the next agent
			}
			return -1, ctx.Err()
		case err == nil:
			return conn, nil
		case errors.Is(err, syscall.EINTR), errors.Is(err, syscall.ECONNABORTED):
			continue
		}
		s.log.Error("a plugin was not accepted", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond): // out of file descriptors, most likely
		}
	}
}

func (s *socket) answer(ctx context.Context, conn int, buf []byte) {
	defer func() { _ = syscall.Close(conn) }()
	request, err := s.read(conn, buf)
	if whole := s.doneReading(conn); err == nil && !whole {
		return
	}
	if err != nil {
		s.log.Warn("a plugin did not finish its request", "err", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.times.Answer)
	defer cancel()
	if err := write(conn, s.h.Serve(ctx, request)); err != nil {
		s.log.Warn("a plugin did not wait for its answer", "err", err)
	}
}

// read reads to the end, one byte more than is allowed at most, so that Serve
// sees the excess. It uses buf as long as that suffices.
func (s *socket) read(conn int, buf []byte) ([]byte, error) {
	// On each call, and below on all of them.
	patience := syscall.NsecToTimeval(s.times.Read.Nanoseconds())
	for _, option := range []int{syscall.SO_RCVTIMEO, syscall.SO_SNDTIMEO} {
		if err := syscall.SetsockoptTimeval(conn, syscall.SOL_SOCKET, option, &patience); err != nil {
			return nil, err
		}
	}
	deadline := time.Now().Add(s.times.Read)
	for len(buf) <= wire.MaxRequest {
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, 4*cap(buf)), buf...)
		}
		n, err := syscall.Read(conn, buf[len(buf):cap(buf)])
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return nil, err
		case n == 0:
			return buf, nil
		default:
			buf = buf[:len(buf)+n]
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("more than %v for a request: %w", s.times.Read, syscall.ETIMEDOUT)
		}
	}
	return buf, nil
}

func write(conn int, b []byte) error {
	for len(b) > 0 {
		n, err := syscall.Write(conn, b)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
		b = b[max(n, 0):]
	}
	return nil
}
