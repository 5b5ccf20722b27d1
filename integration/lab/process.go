package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is one process, named so that its number being used again can't
// make it another.
type Process struct {
	PID   int    // in the host's PID namespace
	Start uint64 // when it started, in ticks since the machine's boot
	// Comm and Args are what the process calls itself and how it was started;
	// only Processes fills them in.
	Comm string   `json:",omitempty"`
	Args []string `json:",omitempty"`
}

// stat is what of /proc/PID/stat is used here.
type stat struct {
	comm    string
	state   byte
	parent  int
	threads int
	start   uint64
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	open, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("/proc/%d/stat: no name in %q", pid, text)
	}
	rest := strings.Fields(string(text[end+1:]))
	if len(rest) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat: too short: %q", pid, text)
	}
	s := stat{comm: string(text[open+1 : end]), state: rest[0][0]}
	if s.parent, err = strconv.Atoi(rest[1]); err != nil {
		return stat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	if s.threads, err = strconv.Atoi(rest[17]); err != nil {
		return stat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	if s.start, err = strconv.ParseUint(rest[19], 10, 64); err != nil {
		return stat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return s, nil
}

// identify names the process that pid is now.
func identify(pid int) (Process, error) {
	s, err := readStat(pid)
	return Process{PID: pid, Start: s.start}, err
}

// Alive says whether the process still runs; a zombie does not, but for threads that
// end after the first one: until the last of them has, its files are open and locked.
func (p Process) Alive() bool {
	s, err := readStat(p.PID)
	return err == nil && s.start == p.Start && (s.threads > 1 || s.state != 'Z' && s.state != 'X')
}

// exists says whether the process still has its number, as a zombie too.
func (p Process) exists() bool {
	s, err := readStat(p.PID)
	return err == nil && s.start == p.Start
}

// Signal sends a signal to the process and to no other that has its number by
// now. It returns os.ErrProcessDone when the process has ended.
func (p Process) Signal(sig syscall.Signal) error {
	handle, err := os.FindProcess(p.PID)
	if err != nil {
		return fmt.Errorf("process %d: %w", p.PID, err)
	}
	defer handle.Release()
	// The handle holds one process: if it is the right one now, it stays so.
	if !p.exists() {
		return fmt.Errorf("process %d: %w", p.PID, os.ErrProcessDone)
	}
	if err := handle.Signal(sig); err != nil {
		return fmt.Errorf("signal %s to process %d: %w", sig, p.PID, err)
	}
	return nil
}

// Gone waits until the process has ended.
func (p Process) Gone(ctx context.Context) error {
	return Await(ctx, fmt.Sprintf("process %d to end", p.PID), func() error {
		if p.Alive() {
			return errors.New("it runs still")
		}
		return nil
	})
}

// members returns the processes of the PID namespace that init is the first
// process of, and of the namespaces inside it, init included.
func members(init Process) ([]Process, error) {
	if !init.exists() {
		return nil, fmt.Errorf("process %d: %w", init.PID, os.ErrProcessDone)
	}
	space, err := namespaceOf(init.PID, "pid")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// A process that ends while we look is not a member any more.
		if in, err := within(pid, space); err != nil || !in {
			continue
		}
		if p, err := identify(pid); err == nil {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Process) int { return int(int64(a.Start) - int64(b.Start)) })
	return out, nil
}

// namespaceOf returns the number of a process's namespace.
func namespaceOf(pid int, kind string) (uint64, error) {
	var st unix.Stat_t
	path := fmt.Sprintf("/proc/%d/ns/%s", pid, kind)
	if err := unix.Stat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// within says whether a process is in the PID namespace or in one inside it.
func within(pid int, space uint64) (bool, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/pid", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for err == nil {
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && st.Ino == space {
			return true, unix.Close(fd)
		}
		var parent int
		parent, err = unix.IoctlRetInt(fd, unix.NS_GET_PARENT)
		_ = unix.Close(fd)
		// EPERM: there is no parent, or it lies outside of what we may see.
		if errors.Is(err, unix.EPERM) {
			return false, nil
		}
		fd = parent
	}
	return false, err
}

// numberInside returns the number of a process in its own PID namespace.
func numberInside(pid int) (int, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			numbers := strings.Fields(rest)
			return strconv.Atoi(numbers[len(numbers)-1])
		}
	}
	return 0, fmt.Errorf("/proc/%d/status: no NSpid", pid)
}
