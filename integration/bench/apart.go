package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The processors that the two machines have of a pair of a node and its router.
const (
	nodeProcessor = iota
	torProcessor
	anyProcessor = -1
)

// apart gives what runs in the namespace of the node a processor of its own, and what runs
// in that of the router another. They are two machines: a process that is woken often waits
// for the processor of the one that woke it, and a router does not wait until the node
// that has told it something has done what it does then.
func (m pair) apart() error {
	return errors.Join(pinAll(m.node, nodeProcessor), pinAll(m.tor, torProcessor))
}

// pinAll gives all that runs in the namespace of a process a processor.
func pinAll(like, processor int) error {
	var here, there syscall.Stat_t
	if err := syscall.Stat(fmt.Sprintf("/proc/%d/ns/net", like), &here); err != nil {
		return err
	}
	all, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return err
	}
	for _, file := range all {
		if syscall.Stat(file, &there) != nil || there.Ino != here.Ino {
			continue // it has ended, or runs elsewhere
		}
		if err := pin(filepath.Join(filepath.Dir(file), "../task"), processor); err != nil {
			return err
		}
	}
	return nil
}

// pinSelf gives this process, which is neither machine, the router's processor, until free
// is called.
func pinSelf() (free func() error, err error) {
	const own = "/proc/self/task"
	return func() error { return pin(own, anyProcessor) }, pin(own, torProcessor)
}

// pin gives each thread of a process, whose folder tasks is, a processor. Threads that they
// begin have it, too.
func pin(tasks string, processor int) error {
	if runtime.NumCPU() <= max(nodeProcessor, torProcessor) {
		return fmt.Errorf("processor %d is wanted, and there are %d", max(nodeProcessor, torProcessor), runtime.NumCPU())
	}
	threads, err := os.ReadDir(tasks)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var set unix.CPUSet
	if processor == anyProcessor {
		set.Fill()
	} else {
		set.Set(processor)
	}
	errs := []error{err}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err == nil {
			err = unix.SchedSetaffinity(id, &set)
		}
		if !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
