package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/agent/wire/wiretest"
	"github.com/fairway-network/fairway/pools/embedded"
	"github.com/fairway-network/fairway/pools/exchange"
	"github.com/fairway-network/fairway/pools/kube"
	"github.com/fairway-network/fairway/speaker"
	"k8s.io/client-go/rest"
)

const (
	idleAfter = time.Hour
	// startTime bounds how long an agent may take until it serves.
	startTime = 30 * time.Second
	network   = "fleet"
)

// Node is one node's agent.
type Node struct {
	Name    string
	agent   *agent.Agent
	watcher *kube.Watcher // nil for a node that is alone
	socket  string
	stop    func() error
}

// Pod is who gets an address. Sandbox is another one each time that it is made.
type Pod struct{ Namespace, Name, UID, Sandbox, Pool string }

// startNode runs an agent that talks to the API server of config.
func startNode(ctx context.Context, name, dir string, config *rest.Config, o Options) (*Node, error) {
	log := o.Log
	if log == nil {
		log = discard()
	}
	log = log.With("on", name)
	client, err := kube.NewClient(config, kube.Options{Log: log})
	if err != nil {
		return nil, err
	}
	sees := newCluster(client.Watcher(name), o)
	n, err := runNode(ctx, name, dir, log, o.Pools, func(p *agent.Parts) { p.Store, p.Cluster = client.Store(name), sees }, sees.run)
	if err == nil {
		n.watcher = sees.watcher
	}
	return n, err
}

// Alone runs an agent with the embedded store in dir, which should be on a
// tmpfs: what an agent of a fleet is held against.
func Alone(ctx context.Context, dir string, ps ...agent.Pool) (*Node, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	store, err := embedded.Open(filepath.Join(dir, "blocks.db"), "alone")
	if err != nil {
		return nil, err
	}
	n, err := runNode(ctx, "alone", filepath.Join(dir, "run"), discard(), ps,
		func(p *agent.Parts) { p.Store = exchange.Store(store) }, func(context.Context) {})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	stop := n.stop
	n.stop = func() error { return errors.Join(stop(), store.Close()) }
	return n, nil
}

// runNode runs an agent, and beside it what it looks at.
func runNode(ctx context.Context, name, dir string, log *slog.Logger, ps []agent.Pool, complete func(*agent.Parts), look func(context.Context)) (*Node, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	n := &Node{Name: name, socket: filepath.Join(dir, "ipam.sock")}
	parts := agent.Parts{
		Node: name, RunDir: dir, Socket: n.socket, Boot: "boot-1", Machine: name,
		Kernel: stillKernel{}, Speaker: stillSpeaker{}, Log: log,
	}
	complete(&parts)
	living, end := context.WithCancel(context.WithoutCancel(ctx))
	var looks sync.WaitGroup
	looks.Go(func() { look(living) })
	settings := agent.Settings{
		Local: speaker.Local{ASN: 64512, RouterID: netip.AddrFrom4([4]byte{192, 0, 2, 1})},
		Pools: ps,
	}
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var err error
	if n.agent, err = agent.New(starting, parts, settings); err != nil {
		end()
		looks.Wait()
		return nil, fmt.Errorf("agent of %s: %w", name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.agent.Run(living) }()
	n.stop = sync.OnceValue(func() error {
		end()
		looks.Wait()
		return <-ended
	})
	select {
	case <-n.agent.Started():
		return n, nil
	case <-starting.Done():
		return nil, errors.Join(fmt.Errorf("agent of %s: %w", name, starting.Err()), n.stop())
	}
}

// Close stops the agent.
func (n *Node) Close() error { return n.stop() }

// Add is a runtime's ADD for the pod, once. The error is a *wire.Fault if the
// agent answered one.
func (n *Node) Add(ctx context.Context, p Pod) (netip.Addr, error) {
	text, err := n.ask(ctx, "ADD", p)
	if err != nil {
		return netip.Addr{}, err
	}
	var answer struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return netip.Addr{}, fmt.Errorf("the answer to ADD: %w", err)
	}
	if len(answer.IPs) != 1 {
		return netip.Addr{}, fmt.Errorf("the answer to ADD has not one address: %s", text)
	}
	return answer.IPs[0].Address.Addr(), nil
}

// Del is a runtime's DEL.
func (n *Node) Del(ctx context.Context, p Pod) error {
	_, err := n.ask(ctx, "DEL", p)
	return err
}

// ask does what the plugin does, without a process.
func (n *Node) ask(ctx context.Context, command string, p Pod) ([]byte, error) {
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"ipam":{"type":"fairway-ipam","pool":%q}}`, network, p.Pool)
	env := []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + p.Sandbox, "CNI_NETNS=/run/netns/" + p.Sandbox, "CNI_IFNAME=eth0",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=" + p.Namespace + ";K8S_POD_NAME=" + p.Name + ";K8S_POD_UID=" + p.UID,
	}
	text, err := wiretest.Ask(ctx, n.socket, env, conf)
	if err != nil {
		return nil, fmt.Errorf("%s of %s/%s on %s: %w", command, p.Namespace, p.Name, n.Name, err)
	}
	return text, nil
}

// discard is a log that nobody reads.
func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
