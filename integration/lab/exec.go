package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotRunning: the node was killed or is not up yet.
var ErrNotRunning = errors.New("not running")

// Command returns a command that runs in the node, with the node's
// environment. Killing it (ctx ended, say) kills the program in the node, but
// a signal sent to it does not reach the program: see Processes for that.
func (n *Node) Command(ctx context.Context, argv ...string) *exec.Cmd {
	// setpriv ties the program to nsenter, which stays outside as its parent.
	return n.enterCommand(ctx, append([]string{"setpriv", "--pdeathsig", "KILL", "--"}, argv...)...)
}

func (n *Node) enterCommand(ctx context.Context, argv ...string) *exec.Cmd {
	init, err := n.running()
	target := strconv.Itoa(init.PID)
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", target, "--net", "--mount", "--pid", "--uts", "--ipc", "--"}, argv...)...)
	cmd.Env = n.Env()
	cmd.WaitDelay = time.Second
	cmd.Cancel = func() error { return cancelInside(cmd.Process) }
	if err != nil {
		cmd.Err = err
	}
	return cmd
}

// cancelInside kills what nsenter waits for, so that nsenter reaps it: the
// zombie of an orphan would go to the host's first process, and until that one
// cares for it the node could not end.
func cancelInside(nsenter *os.Process) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nsenter.Pid, nsenter.Pid))
	if err != nil || len(text) == 0 {
		return nsenter.Kill()
	}
	var errs []error
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return errors.Join(err, nsenter.Kill())
		}
		errs = append(errs, syscall.Kill(pid, syscall.SIGKILL))
	}
	return errors.Join(errs...)
}

// Exec runs a program in the node to its end and returns what it wrote to its
// standard output. The error holds what it wrote to its standard error.
func (n *Node) Exec(ctx context.Context, argv ...string) (string, error) {
	if len(argv) == 0 {
		return "", fmt.Errorf("node %s: no command", n.Name())
	}
	// Files, not pipes: a program that leaves a child behind does not keep us.
	stdout, err := n.scratch()
	if err != nil {
		return "", err
	}
	defer stdout.Close()
	stderr, err := n.scratch()
	if err != nil {
		return "", err
	}
	defer stderr.Close()
	cmd := n.Command(ctx, argv...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	runErr := cmd.Run()
	out, err := readBack(stdout)
	if err != nil {
		return "", err
	}
	if runErr == nil {
		return out, nil
	}
	said, err := readBack(stderr)
	if err != nil {
		return out, err
	}
	if ctx.Err() != nil {
		runErr = ctx.Err()
	}
	return out, fmt.Errorf("node %s: %s: %w: %s", n.Name(), strings.Join(argv, " "), runErr, lastOf(said))
}

// scratch opens a file without a name.
func (n *Node) scratch() (*os.File, error) {
	f, err := os.CreateTemp(n.lab.dir, "out-")
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name(), err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("node %s: %w", n.Name(), err)
	}
	return f, nil
}

func readBack(f *os.File) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	text, err := io.ReadAll(f)
	return string(text), err
}

// Start runs a program in the node that outlives this process, and returns
// when it was started. What it writes is in LogFile(name), which the node sees
// as /var/log/NAME.log. The program ends with the node or by a signal.
func (n *Node) Start(ctx context.Context, name string, argv ...string) (Process, error) {
	log, err := os.OpenFile(n.LogFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return Process{}, fmt.Errorf("node %s: %w", n.Name(), err)
	}
	defer log.Close()
	number, said, err := os.Pipe()
	if err != nil {
		return Process{}, err
	}
	defer number.Close()
	const detach = `command -v "$1" >/dev/null || { echo "$1: not found" >&2; exit 127; }
exec setsid --fork sh -c 'echo $$ >&3; exec "$@" 3>&-' sh "$@"`
	cmd := n.enterCommand(ctx, append([]string{"sh", "-c", detach, "sh"}, argv...)...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{said}
	err = cmd.Run()
	said.Close()
	if err != nil {
		return Process{}, fmt.Errorf("node %s: start %s: %w: %s", n.Name(), strings.Join(argv, " "), err, n.tail(name+".log"))
	}
	text, err := io.ReadAll(number)
	if err != nil {
		return Process{}, fmt.Errorf("node %s: start %s: %w", n.Name(), name, err)
	}
	inside, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return Process{}, fmt.Errorf("node %s: start %s: %w", n.Name(), name, err)
	}
	return n.byNumber(inside, name)
}

func (n *Node) byNumber(inside int, name string) (Process, error) {
	all, err := n.Processes()
	if err != nil {
		return Process{}, err
	}
	for _, p := range all {
		if number, err := numberInside(p.PID); err == nil && number == inside {
			return p, nil
		}
	}
	return Process{}, fmt.Errorf("node %s: %s ended at once: %s", n.Name(), name, n.tail(name+".log"))
}

// Processes returns what runs in the node, oldest first, without the node's
// own first process and what that one sleeps with.
func (n *Node) Processes() ([]Process, error) {
	init, err := n.running()
	if err != nil {
		return nil, err
	}
	all, err := members(init)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name(), err)
	}
	var out []Process
	for _, p := range all {
		s, err := readStat(p.PID)
		if err != nil || s.start != p.Start || p.PID == init.PID || (s.parent == init.PID && isKeeper(p)) {
			continue
		}
		p.Comm = s.comm
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID)); err == nil {
			p.Args = strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
		}
		out = append(out, p)
	}
	return out, nil
}

// isKeeper tells what PID 1 sleeps with from its other children: it alone is
// in PID 1's own session, which began outside of the node.
func isKeeper(p Process) bool {
	session, err := unix.Getsid(p.PID)
	if err != nil {
		return false
	}
	outer, err := readStat(session)
	return err == nil && outer.comm == "unshare"
}

// Pause stops all processes of the node, as a machine that hangs: its kernel
// still answers and forwards.
func (n *Node) Pause() error {
	init, err := n.running()
	if err != nil {
		return err
	}
	for {
		moving, err := n.inState(init, func(state byte) bool { return !slices.Contains([]byte("TtZX"), state) })
		if err != nil || len(moving) == 0 {
			return err
		}
		if err := signalAll(moving, syscall.SIGSTOP); err != nil {
			return fmt.Errorf("node %s: pause: %w", n.Name(), err)
		}
	}
}

// Resume lets a paused node go on.
func (n *Node) Resume() error {
	init, err := n.running()
	if err != nil {
		return err
	}
	stopped, err := n.inState(init, func(state byte) bool { return state == 'T' })
	if err != nil {
		return err
	}
	// nsenter stops itself, outside of the node, when its child is stopped.
	for _, p := range slices.Clone(stopped) {
		s, err := readStat(p.PID)
		if err != nil {
			continue
		}
		if outside, err := readStat(s.parent); err == nil && outside.comm == "nsenter" {
			stopped = append(stopped, Process{PID: s.parent, Start: outside.start})
		}
	}
	if err := signalAll(stopped, syscall.SIGCONT); err != nil {
		return fmt.Errorf("node %s: resume: %w", n.Name(), err)
	}
	return nil
}

func (n *Node) inState(init Process, match func(state byte) bool) ([]Process, error) {
	all, err := members(init)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name(), err)
	}
	return slices.DeleteFunc(all, func(p Process) bool {
		s, err := readStat(p.PID)
		return err != nil || s.start != p.Start || !match(s.state)
	}), nil
}

func signalAll(ps []Process, sig syscall.Signal) error {
	var errs []error
	for _, p := range ps {
		if err := p.Signal(sig); !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// LogFile is where a program begun with Start writes, as a path on the host.
func (n *Node) LogFile(name string) string { return filepath.Join(n.Disk(), "log", name+".log") }

// Logs returns the end of each log file of the node, by file name.
func (n *Node) Logs() map[string]string {
	out := map[string]string{}
	files, err := filepath.Glob(filepath.Join(n.Disk(), "log", "*.log"))
	if err != nil {
		return out
	}
	for _, f := range files {
		out[filepath.Base(f)] = n.tail(filepath.Base(f))
	}
	return out
}

func (n *Node) tail(file string) string {
	text, err := os.ReadFile(filepath.Join(n.Disk(), "log", file))
	if err != nil {
		return err.Error()
	}
	return lastOf(string(text))
}

// lastOf keeps what is read of a long output.
func lastOf(text string) string {
	const most = 4096
	trimmed := bytes.TrimSpace([]byte(text))
	if len(trimmed) > most {
		trimmed = append([]byte("... "), trimmed[len(trimmed)-most:]...)
	}
	return string(trimmed)
}
