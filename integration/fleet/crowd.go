package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/pools/exchange"
	store "github.com/fairway-network/fairway/pools/kube"
	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Crowd is many nodes' agents as an API server sees them that hold a block and
// have nothing to do: each has a token of its own, a connection of its own, and
// the watches of an agent, made by the agent's own code. Nothing else of an agent
// runs.
type Crowd struct {
	nodes   int
	watches atomic.Int64 // that are open
	opened  atomic.Int64 // that ever were
	want    atomic.Int64 // how many there are to be
	away    atomic.Bool  // nobody is let in
	mu      sync.Mutex
	conns   map[net.Conn]bool
	end     context.CancelFunc
	endAsks context.CancelFunc // the watches of requests
	all     sync.WaitGroup
}

// atATime is how many agents of a crowd come up at once.
const atATime = 500

// crowdPool is the pool that a crowd's nodes hold blocks of. Nobody asks for its
// addresses.
const crowdPool = "crowd"

// WatchesEach is how many watches an agent has that holds a block; the one of
// requests is among them, which it has not without a block.
const WatchesEach = 4

// Gather connects the agents of so many nodes and returns when all their watches
// are open. Close must follow, unless with an error.
func Gather(ctx context.Context, c *kube.Cluster, nodes int) (crowd *Crowd, err error) {
	living, end := context.WithCancel(context.WithoutCancel(ctx))
	asking, endAsks := context.WithCancel(living)
	crowd = &Crowd{nodes: nodes, conns: map[net.Conn]bool{}, end: end, endAsks: endAsks}
	defer func() {
		if err != nil {
			crowd.Close()
		}
	}()
	tokens, err := makeTokens(ctx, c, nodes)
	if err != nil {
		return crowd, err
	}
	server := c.Config()
	for i, token := range tokens {
		// No other agent's connection is used if the dialer is another one.
		config := &rest.Config{
			Host: server.Host, BearerToken: token, QPS: -1, Dial: crowd.dial,
			TLSClientConfig: rest.TLSClientConfig{CAData: server.CAData},
		}
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &watchCounter{crowd, next} })
		client, err := store.NewClient(config, store.Options{Log: discard()})
		if err != nil {
			return crowd, err
		}
		node := crowdNode(i)
		crowd.all.Go(func() { _ = client.Watcher(node).Run(living, store.Sight{}) })
		crowd.all.Go(func() { _ = client.Store(node).Watch(asking, []string{crowdPool}, func([]exchange.Request) {}) })
		crowd.want.Add(WatchesEach)
		if i%atATime == atATime-1 || i == nodes-1 {
			if err := crowd.await(ctx, 0); err != nil {
				return crowd, err
			}
		}
	}
	return crowd, nil
}

func crowdNode(i int) string { return fmt.Sprintf("idle-%d", i+1) }

// await waits until so many watches were ever opened, and as many as the crowd is
// to have are open now.
func (c *Crowd) await(ctx context.Context, opened int64) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for c.opened.Load() < opened || c.watches.Load() < c.want.Load() {
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("%d watches are open, want %d; %d were opened, want %d: %w", c.watches.Load(), c.want.Load(), c.opened.Load(), opened, ctx.Err())
		}
	}
	return nil
}

// Watches is how many watches the crowd has when all are open.
func (c *Crowd) Watches() int { return int(c.want.Load()) }

// Reconnect calls broken, with which all connections break at once, and returns
// when all watches are open again. Without broken it breaks them itself.
func (c *Crowd) Reconnect(ctx context.Context, broken func() error) error {
	opened := c.opened.Load() + c.want.Load()
	if broken == nil {
		c.cut()
	} else if err := broken(); err != nil {
		return err
	}
	return c.await(ctx, opened)
}

// Leave has all agents be cut off until Return.
func (c *Crowd) Leave() {
	c.away.Store(true)
	c.cut()
}

// Return lets the agents in again, and returns when all their watches are open.
func (c *Crowd) Return(ctx context.Context) error {
	c.away.Store(false)
	return c.await(ctx, 0)
}

// GiveUpBlocks makes all agents such that hold no block.
func (c *Crowd) GiveUpBlocks() {
	c.want.Store(int64(c.nodes * (WatchesEach - 1)))
	c.endAsks()
}

// cut breaks all connections at once.
func (c *Crowd) cut() {
	c.mu.Lock()
	conns := c.conns
	c.conns = map[net.Conn]bool{}
	c.mu.Unlock()
	for conn := range conns {
		_ = conn.Close()
	}
}

// Close ends all watches.
func (c *Crowd) Close() {
	c.end()
	c.cut()
	c.all.Wait()
}

func (c *Crowd) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if c.away.Load() {
		return nil, syscall.ECONNREFUSED
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		c.mu.Lock()
		c.conns[conn] = true
		c.mu.Unlock()
	}
	return conn, err
}

// watchCounter counts the watches that are open.
type watchCounter struct {
	crowd *Crowd
	next  http.RoundTripper
}

func (n *watchCounter) RoundTrip(r *http.Request) (*http.Response, error) {
	watches := isWatch(r)
	answer, err := n.next.RoundTrip(r)
	if err == nil && watches && answer.StatusCode == http.StatusOK {
		n.crowd.watches.Add(1)
		n.crowd.opened.Add(1)
		answer.Body = &counted{ReadCloser: answer.Body, over: sync.OnceFunc(func() { n.crowd.watches.Add(-1) })}
	}
	return answer, err
}

// WrappedRoundTripper is for the agent's code, which looks for the transport below.
func (n *watchCounter) WrappedRoundTripper() http.RoundTripper { return n.next }

// counted is a watch's stream, which is over when it ends or is closed.
type counted struct {
	io.ReadCloser
	over func()
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	if err != nil {
		c.over()
	}
	return n, err
}

func (c *counted) Close() error {
	c.over()
	return c.ReadCloser.Close()
}

// makeTokens makes the nodes of a crowd, a pod of the agent on each, and its token.
func makeTokens(ctx context.Context, c *kube.Cluster, nodes int) ([]string, error) {
	admin, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		return nil, err
	}
	const writers = 32
	tokens, errs := make([]string, nodes), make([]error, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := w; i < nodes && errs[w] == nil; i += writers {
				tokens[i], errs[w] = makeToken(ctx, admin, crowdNode(i))
			}
		})
	}
	all.Wait()
	return tokens, errors.Join(errs...)
}

func makeToken(ctx context.Context, admin kubernetes.Interface, node string) (string, error) {
	v1, account := admin.CoreV1(), kube.AgentAccount()
	if _, err := v1.Nodes().Create(ctx, &core.Node{ObjectMeta: meta.ObjectMeta{Name: node}}, meta.CreateOptions{}); err != nil {
		return "", err
	}
	pod := &core.Pod{ObjectMeta: meta.ObjectMeta{Name: account.Name + "-" + node}, Spec: core.PodSpec{
		ServiceAccountName: account.Name, NodeName: node, HostNetwork: true,
		Containers: []core.Container{{Name: "agent", Image: "agent"}},
	}}
	pod, err := v1.Pods(account.Namespace).Create(ctx, pod, meta.CreateOptions{})
	if err != nil {
		return "", err
	}
	day := int64(24 * 60 * 60)
	token, err := v1.ServiceAccounts(account.Namespace).CreateToken(ctx, account.Name, &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
		ExpirationSeconds: &day,
		BoundObjectRef:    &authentication.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}, meta.CreateOptions{})
	if err != nil {
		return "", err
	}
	return token.Status.Token, nil
}
