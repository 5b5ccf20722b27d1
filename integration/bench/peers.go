package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/fairway-network/fairway/agent/wire/wiretest"
)

// addresses is the range of both, 16,384 of them.
const addresses = "10.128.0.0/18"

const networkName = "bench"

// preloadedID is the container ID of the nth lease that stands beforehand.
func preloadedID(n int) string { return fmt.Sprintf("preloaded%05d", n) }

// hostLocal is the reference plugin with its folder.
type hostLocal struct {
	contestant
	leases string // the folder with a file for each lease
	kept   map[string]bool
}

// hostLocals are both builds, each with so many leases.
type hostLocals struct{ plain, static *hostLocal }

func newHostLocals(b *bench, leases int) (h hostLocals, err error) {
	if h.plain, err = newHostLocal(b, "host-local", b.hostLocal, leases); err != nil {
		return h, err
	}
	h.static, err = newHostLocal(b, "host-local static", b.hostLocalStatic, leases)
	return h, err
}

func newHostLocal(b *bench, name, path string, leases int) (*hostLocal, error) {
	data := filepath.Join(b.data, name)
	h := &hostLocal{
		contestant: contestant{name: name, path: path, conf: filepath.Join(b.dir, name+".json"), wants: `"address"`},
		leases:     filepath.Join(data, networkName), kept: map[string]bool{},
	}
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":%q,"type":"ptp","ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":%q}]],"routes":[{"dst":"0.0.0.0/0"}]}}`,
		networkName, data, addresses)
	if err := errors.Join(os.RemoveAll(data), os.MkdirAll(h.leases, 0o755), os.WriteFile(h.conf, []byte(conf), 0o644)); err != nil {
		return nil, err
	}
	// The first address is the gateway's. What host-local itself would take
	// minutes to write is written here, in its own format.
	addr := netip.MustParsePrefix(addresses).Addr().Next()
	for n := range leases {
		addr = addr.Next()
		if err := os.WriteFile(filepath.Join(h.leases, addr.String()), []byte(preloadedID(n)+"\r\neth0"), 0o600); err != nil {
			return nil, err
		}
	}
	if leases > 0 {
		if err := os.WriteFile(filepath.Join(h.leases, "last_reserved_ip.0"), []byte(addr.String()), 0o600); err != nil {
			return nil, err
		}
	}
	files, err := os.ReadDir(h.leases)
	for _, f := range files {
		h.kept[f.Name()] = true
	}
	return h, err
}

// reset drops what is not preloaded.
func (h *hostLocal) reset([]string) error {
	files, err := os.ReadDir(h.leases)
	for _, f := range files {
		if _, isLease := netip.ParseAddr(f.Name()); isLease == nil && !h.kept[f.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(h.leases, f.Name())))
		}
	}
	return err
}

// fairwayAgent is a running agent and the plugin that asks it.
type fairwayAgent struct {
	contestant
	b      *bench
	file   string // its configuration
	socket string
	log    *os.File
	cmd    *exec.Cmd
}

// newAgent starts an agent without peers, with all addresses in one pool.
func newAgent(ctx context.Context, b *bench, blockSize int) (*fairwayAgent, error) {
	dir, err := os.MkdirTemp(b.dir, "agent-")
	if err != nil {
		return nil, err
	}
	a := &fairwayAgent{b: b, file: filepath.Join(dir, "fairway.yaml"), socket: filepath.Join(dir, "ipam.sock")}
	a.contestant = contestant{name: "fairway-ipam", path: b.plugin, conf: filepath.Join(dir, "net.json"), wants: `"address"`}
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":%q,"type":"ptp","ipam":{"type":"fairway-ipam","pool":"bench","socket":%q}}`, networkName, a.socket)
	file := fmt.Sprintf(`node: bench
bgp:
  asn: 64512
  routerID: 10.0.0.1
  listen: {addresses: []}
  api: {socket: %[1]s/gobgp.sock}
pools:
- name: bench
  addresses: [%[2]s]
  blockSize: %[3]d
  reuseAfter: 0s
  idleAfter: 1h
store: embedded
stateDir: %[1]s/state
runDir: %[1]s/run
ipam: {socket: %[1]s/ipam.sock}
`, dir, addresses, blockSize)
	err = errors.Join(os.WriteFile(a.file, []byte(file), 0o644), os.WriteFile(a.conf, []byte(conf), 0o644))
	if err == nil {
		a.log, err = os.Create(filepath.Join(dir, "log"))
	}
	if err != nil {
		return nil, err
	}
	return a, errors.Join(a.start(), a.awaitReady(ctx))
}

func (a *fairwayAgent) start() error {
	a.cmd = exec.Command(a.b.fairway, "agent", "--config", a.file)
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return a.cmd.Start()
}

// awaitReady waits for the agent's STATUS.
func (a *fairwayAgent) awaitReady(ctx context.Context) error {
	const within = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := a.ask("STATUS", "")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the agent is not ready after %v: %w\n%s", within, err, a.said())
		case <-tick.C:
		}
	}
}

// said is the end of the agent's log.
func (a *fairwayAgent) said() []byte {
	log, _ := os.ReadFile(a.log.Name())
	return log[max(0, len(log)-2_000):]
}

// ask does what the plugin does, without a process.
func (a *fairwayAgent) ask(command, containerID string) error {
	return a.askFor(command, containerID, "")
}

// askFor is ask with CNI_ARGS.
func (a *fairwayAgent) askFor(command, containerID, args string) error {
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"ipam":{"type":"fairway-ipam","pool":"bench"}}`, networkName)
	env := []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + containerID, "CNI_NETNS=/run/netns/bench", "CNI_IFNAME=eth0", "CNI_ARGS=" + args}
	if _, err := wiretest.Ask(context.Background(), a.socket, env, conf); err != nil {
		return fmt.Errorf("%s %s: %w", command, containerID, err)
	}
	return nil
}

// askAll asks for each ID, a few at a time.
func (a *fairwayAgent) askAll(command string, ids []string) error {
	const atOnce = 4
	work := make(chan string)
	var mu sync.Mutex
	var failed error
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for id := range work {
				if err := a.ask(command, id); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			}
		})
	}
	for _, id := range ids {
		work <- id
	}
	close(work)
	workers.Wait()
	return failed
}

func (a *fairwayAgent) preload(from, to int) error {
	return a.askAll("ADD", preloadedIDs(from, to))
}

func preloadedIDs(from, to int) []string {
	var ids []string
	for n := from; n < to; n++ {
		ids = append(ids, preloadedID(n))
	}
	return ids
}

// reset releases ids.
func (a *fairwayAgent) reset(ids []string) error { return a.askAll("DEL", ids) }

// stop ends the agent and waits for it.
func (a *fairwayAgent) stop() error {
	err := a.cmd.Process.Signal(syscall.SIGTERM)
	_ = a.cmd.Wait() // how it ended does not matter here
	return errors.Join(err, a.log.Close())
}
