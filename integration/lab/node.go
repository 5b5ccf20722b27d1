package lab

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

//go:embed init.sh
var initScript string

// goneWithin bounds how long a killed node takes to be gone.
const goneWithin = 10 * time.Second

// Node is a node of a lab.
type Node struct {
	lab  *Lab
	spec *NodeSpec

	mu   sync.Mutex
	body body
}

// Name of the node.
func (n *Node) Name() string { return n.spec.Name }

// Disk is the directory on the host that holds the node's /var/lib (lib) and
// /var/log (log).
func (n *Node) Disk() string { return filepath.Join(n.lab.dir, "nodes", n.Name()) }

// Env is what everything run in the node finds in its environment.
func (n *Node) Env() []string {
	env := map[string]string{
		"PATH":     "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME":     "/root",
		"HOSTNAME": n.Name(),
		"LANG":     "C.UTF-8",
	}
	maps.Copy(env, n.lab.env)
	maps.Copy(env, n.spec.Env)
	var out []string
	for _, key := range slices.Sorted(maps.Keys(env)) {
		out = append(out, key+"="+env[key])
	}
	return out
}

func (n *Node) current() body {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.body
}

func (n *Node) become(b body) error {
	n.mu.Lock()
	n.body = b
	n.mu.Unlock()
	return n.lab.save()
}

// running returns PID 1 of a node that stands.
func (n *Node) running() (Process, error) {
	init := n.current().Init
	if init.PID == 0 || !init.Alive() {
		return Process{}, fmt.Errorf("node %s: %w", n.Name(), ErrNotRunning)
	}
	return init, nil
}

// PID of the node's first process as the host numbers it; 0 when the node does not run.
func (n *Node) PID() int {
	init, err := n.running()
	if err != nil {
		return 0
	}
	return init.PID
}

// rise takes the node through its stages.
func (n *Node) rise(ctx context.Context, reached map[milestone]chan struct{}) error {
	for _, s := range stages() {
		m := milestone{n.Name(), s}
		for _, b := range n.lab.topology.before(m) {
			if b == m {
				continue
			}
			select {
			case <-reached[b]:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := n.enter(ctx, s); err != nil {
			return err
		}
		close(reached[m])
	}
	return nil
}

func (n *Node) enter(ctx context.Context, s Stage) error {
	switch s {
	case Create:
		return n.create(ctx)
	case CreateLinks:
		for _, link := range n.lab.topology.Links {
			if maker, _ := n.lab.topology.maker(link); maker == n.Name() {
				if err := n.lab.plug(link); err != nil {
					return err
				}
			}
		}
		return nil
	default:
		return n.configure(ctx)
	}
}

func (n *Node) create(ctx context.Context) error {
	select {
	case <-time.After(n.spec.StartupDelay):
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, dir := range []string{"layer", "lib", "log"} {
		if err := os.MkdirAll(filepath.Join(n.Disk(), dir), 0o755); err != nil {
			return fmt.Errorf("node %s: %w", n.Name(), err)
		}
	}
	if err := n.launch(ctx); err != nil {
		return fmt.Errorf("node %s: %w", n.Name(), err)
	}
	words, err := splitWords(n.spec.Cmd)
	if err != nil || len(words) == 0 {
		return err
	}
	_, err = n.Start(ctx, "cmd", words...)
	return err
}

func (n *Node) configure(ctx context.Context) error {
	for _, line := range n.spec.Exec {
		words, err := splitWords(line)
		if err != nil {
			return err
		}
		if _, err := n.Exec(ctx, words...); err != nil {
			return err
		}
	}
	return nil
}

// launch starts the node's outer process and PID 1 and waits until the node
// stands.
func (n *Node) launch(ctx context.Context) error {
	plan, err := n.plan()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(n.Disk(), "log", "init.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	ready, said, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command("unshare", append([]string{
		"--net", "--mount", "--pid", "--uts", "--ipc", "--propagation", "private",
		"--fork", "--kill-child", "--", "sh", "-c", initScript, "lab-init"}, plan...)...)
	cmd.Env = n.Env()
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{said}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if !n.lab.persist {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	err = startAndReap(cmd)
	said.Close()
	if err != nil {
		return err
	}
	outer, err := identify(cmd.Process.Pid)
	if err != nil {
		return fmt.Errorf("it ended at once: %s", n.tail("init.log"))
	}
	if err := n.become(body{Outer: outer}); err != nil {
		return err
	}
	init, err := n.awaitInit(ctx, ready)
	if err != nil {
		return err
	}
	return n.become(body{Outer: outer, Init: init})
}

// startAndReap starts cmd and waits for it in the background, both on one
// thread: the kernel takes the end of the thread that started a process for
// the end of its parent.
func startAndReap(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how a killed process ended is no news
		}
	}()
	return <-started
}

// awaitInit reads from PID 1 that it stands, and its number on the host.
func (n *Node) awaitInit(ctx context.Context, ready *os.File) (Process, error) {
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// One line and not to the end: the outer process keeps its end open.
	text, err := bufio.NewReader(ready).ReadString('\n')
	if ctx.Err() != nil {
		return Process{}, ctx.Err()
	}
	if err != nil {
		return Process{}, fmt.Errorf("it did not come up: %s", n.tail("init.log"))
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return Process{}, fmt.Errorf("its own number: %w", err)
	}
	return identify(pid)
}

// baseSysctls are what containerlab gives its nodes as well, and addresses
// that stay when a link is cut.
func baseSysctls() map[string]string {
	return map[string]string{
		"net.ipv6.conf.all.disable_ipv6":          "0",
		"net.ipv6.conf.default.disable_ipv6":      "0",
		"net.ipv6.conf.all.accept_dad":            "0",
		"net.ipv6.conf.default.accept_dad":        "0",
		"net.ipv6.conf.all.keep_addr_on_down":     "1",
		"net.ipv6.conf.default.keep_addr_on_down": "1",
	}
}

// plan writes down the node for init.sh.
func (n *Node) plan() ([]string, error) {
	disk, err := filepath.EvalSymlinks(n.Disk())
	if err != nil {
		return nil, err
	}
	plan := []string{n.Name(), disk}
	for _, b := range n.spec.Binds {
		source := b.Source
		if !filepath.IsAbs(source) {
			source = filepath.Join(n.lab.topology.Dir, source)
		}
		if source, err = filepath.EvalSymlinks(source); err != nil {
			return nil, fmt.Errorf("bind for %s: %w", b.Target, err)
		}
		mode := "rw"
		if b.ReadOnly {
			mode = "ro"
		}
		plan = append(plan, "bind", source, filepath.Clean(b.Target), mode)
	}
	sysctls := baseSysctls()
	maps.Copy(sysctls, n.spec.Sysctls)
	for _, key := range slices.Sorted(maps.Keys(sysctls)) {
		plan = append(plan, "sysctl", sysctlPath(key), sysctls[key])
	}
	return plan, nil
}

// sysctlPath follows sysctl(8): where dots separate, a slash stands for a dot
// within a name, such as that of an interface.
func sysctlPath(key string) string {
	if i := strings.IndexAny(key, "./"); i < 0 || key[i] == '/' {
		return key
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(key)
}

// Kill ends all of the node at once, as a power cut does: every process and
// namespace, and with them its links. It returns when it is gone; killing a
// dead node is no error.
func (n *Node) Kill() error {
	b := n.current()
	ctx, cancel := context.WithTimeout(context.Background(), goneWithin)
	defer cancel()
	for _, p := range []Process{b.Outer, b.Init} {
		if p.PID == 0 {
			continue
		}
		if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("node %s: %w", n.Name(), err)
		}
		// The kernel ends PID 1 of a namespace after all others in it.
		if err := p.Gone(ctx); err != nil {
			return fmt.Errorf("node %s: %w", n.Name(), err)
		}
	}
	return nil
}

// Restart kills the node and brings it up again, with its links and Exec
// commands: /var/lib and /var/log are as they were, all else is new. The other
// ends of its links are new interfaces too, without addresses.
func (n *Node) Restart(ctx context.Context) error {
	if err := n.Kill(); err != nil {
		return err
	}
	if err := n.create(ctx); err != nil {
		return err
	}
	for _, link := range n.lab.topology.Links {
		if link.A.Node() == n.Name() || link.B.Node() == n.Name() {
			if err := n.lab.plug(link); err != nil {
				return err
			}
		}
	}
	return n.configure(ctx)
}
