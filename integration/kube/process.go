package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program that can be started, killed and started again. It dies
// with this process. A nil one was never started.
type process struct {
	name string
	log  string // file that all runs append to
	argv []string
	run  *run // nil before the first start
}

// run is one run of a program.
type run struct {
	process *os.Process
	ended   chan struct{} // closed after err was set
	err     error         // why it ended
}

func newProcess(log string, argv []string) *process {
	return &process{name: filepath.Base(argv[0]), log: log, argv: argv}
}

// start starts the program, which must not run.
func (p *process) start() error {
	if p.runs() {
		return fmt.Errorf("%s runs already", p.name)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: an interrupt typed at a terminal is for this process,
	// which ends the components in their order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	r := &run{ended: make(chan struct{})}
	go func() {
		// The kernel sends the death signal when the thread ends that forked, so
		// that thread is kept from all other work, and from its end, as long
		// as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		r.process = cmd.Process
		started <- err
		if err == nil {
			r.err = cmd.Wait()
			close(r.ended)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.run = r
	return nil
}

func (p *process) runs() bool {
	if p == nil || p.run == nil {
		return false
	}
	select {
	case <-p.run.ended:
		return false
	default:
		return true
	}
}

// kill ends the program and waits until it has ended; one that does not run is
// left alone.
func (p *process) kill() error {
	if !p.runs() {
		return nil
	}
	if err := p.signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.run.ended
	return nil
}

func (p *process) signal(s syscall.Signal) error {
	if !p.runs() {
		return fmt.Errorf("%s does not run: %w", p.name, os.ErrProcessDone)
	}
	if err := p.run.process.Signal(s); err != nil {
		return fmt.Errorf("signal %s to %s: %w", s, p.name, err)
	}
	return nil
}

// pause stops all threads of the program and returns when they have stopped.
func (p *process) pause() error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	// The stop is told once the last thread has stopped. WNOWAIT leaves the
	// news of the program's end to the goroutine that started it.
	for {
		var news unix.Siginfo
		err := unix.Waitid(unix.P_PID, p.run.process.Pid, &news, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("pause %s: %w", p.name, err)
		case news.Code != stopped:
			return fmt.Errorf("pause %s: it has ended: %w", p.name, os.ErrProcessDone)
		default:
			return nil
		}
	}
}

// stopped is CLD_STOPPED of waitid(2).
const stopped = 5

func (p *process) resume() error { return p.signal(syscall.SIGCONT) }

// await calls check until it returns nil. It gives up when ctx ends, when the
// program ends, and after startTime.
func (p *process) await(ctx context.Context, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		last := check(ctx)
		if last == nil {
			return nil
		}
		select {
		case <-p.run.ended:
			return fmt.Errorf("%s ended before it was ready: %w\n%s", p.name, p.run.err, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %w\n%s", p.name, ctx.Err(), last, p.tail())
		case <-tick.C:
		}
	}
}

// cpuTime is what the program's threads have used, those that ended included.
func (p *process) cpuTime() (time.Duration, error) {
	if !p.runs() {
		return 0, fmt.Errorf("%s does not run: %w", p.name, os.ErrProcessDone)
	}
	// The clock of another process, see clock_getcpuclockid(3).
	const scheduled = 2
	clock := int32(^p.run.process.Pid)<<3 | scheduled
	var used unix.Timespec
	if err := unix.ClockGettime(clock, &used); err != nil {
		return 0, fmt.Errorf("processor time of %s: %w", p.name, err)
	}
	return time.Duration(used.Nano()), nil
}

// tail returns the end of the log.
func (p *process) tail() string {
	const most = 8 << 10
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}
