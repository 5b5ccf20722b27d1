package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent/cni"
	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/agent/wire/wiretest"
	"github.com/fairway-network/fairway/pools"
)

// ask has the agent on h's socket answer what a plugin asks for pod web-n.
func (h *host) ask(command string, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	env := []string{"CNI_COMMAND=" + command, fmt.Sprintf("CNI_CONTAINERID=c%d", n), "CNI_NETNS=/run/netns/none", "CNI_IFNAME=eth0", "CNI_PATH=/",
		fmt.Sprintf("CNI_ARGS=K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-%d;K8S_POD_UID=uid%d", n, n)}
	prev := `"prevResult":{"ips":[{"address":"10.1.0.1/32"}]},"cni.dev/valid-attachments":[]`
	_, err := wiretest.Ask(ctx, filepath.Join(h.run, "ipam.sock"), env, `{"cniVersion":"1.1.0","name":"net","ipam":{"type":"fairway-ipam"},`+prev+`}`)
	return err
}

// starting is an agent that waits for its cluster.
func (h *host) starting(c *fakeCluster) (agent func() running) {
	h.t.Helper()
	parts, store := h.parts()
	parts.Cluster = c
	ctx, cancel := context.WithCancel(context.Background())
	made, done := make(chan *Agent, 1), make(chan error, 1)
	go func() {
		a, err := New(ctx, parts, settings(h.t))
		made <- a
		if err == nil {
			err = a.Run(ctx)
		}
		done <- errors.Join(err, store.Close())
	}()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	h.t.Cleanup(func() { _ = stop() })
	return func() running { return running{<-made, stop} }
}

// asleep is a cluster that shows nothing yet, of which web-1 and web-2 are pods.
func asleep(t *testing.T) *fakeCluster {
	c := newCluster(pool(t, "web", 4, "10.1.0.0/24"))
	c.state.Seen = false
	c.placed["web-1"], c.placed["web-2"] = Placement{Pool: "web"}, Placement{Pool: "web"}
	return c
}

// wanted is one question and what its answer should be.
type wanted struct {
	command string
	pod     int
	code    wire.Code // 0 for success
	says    string
}

// asks makes all questions side by side.
func (h *host) asks(questions ...wanted) {
	h.t.Helper()
	var all sync.WaitGroup
	for _, q := range questions {
		all.Go(func() {
			err := h.ask(q.command, q.pod)
			fault, refused := errors.AsType[*wire.Fault](err)
			as := err == nil && q.code == 0 || refused && fault.Code == q.code && strings.Contains(fault.Msg, q.says)
			if !as {
				h.t.Errorf("%s of web-%d: %+v, %v; want code %d and %q", q.command, q.pod, fault, err, q.code, q.says)
			}
		})
	}
	all.Wait()
}

func (h *host) awaitSocket() {
	h.t.Helper()
	eventually(h.t, "the socket is there", func() bool {
		_, err := os.Stat(filepath.Join(h.run, "ipam.sock"))
		return err == nil
	})
}

// The first start after a boot waits for the API server, and its socket tells so.
func TestPluginsAreAnsweredBeforeTheClusterIsSeen(t *testing.T) {
	t.Parallel()
	c, h := asleep(t), newHost(t)
	agent := h.starting(c)
	h.awaitSocket()
	h.asks(
		wanted{"ADD", 1, wire.TryAgainLater, "the API server has not shown the pools and this node yet"},
		wanted{"STATUS", 1, wire.NotAvailable, "the API server has not shown"},
		wanted{"CHECK", 1, wire.CheckFailed, "no address is leased"},
		wanted{"DEL", 2, 0, ""}, wanted{"GC", 1, 0, ""}, wanted{"VERSION", 1, 0, ""},
	)
	c.update(func() { c.state.Seen = true })
	agent()
	h.asks(wanted{"ADD", 1, 0, ""}, wanted{"STATUS", 1, 0, ""})
}

// What stands in the journal is not ended by an agent that can't say so yet.
func TestStandingLeasesWaitForTheCluster(t *testing.T) {
	t.Parallel()
	c, h := asleep(t), newHost(t)
	c.state.Seen = true
	a := h.startIn(c, never())
	h.asks(wanted{"ADD", 1, 0, ""})
	addr := a.leases().Held(podRequest(1).Owner.Attachment)[0].Addr // 10.1.0.1, the first one
	if err := errors.Join(a.stop(), os.Remove(filepath.Join(h.run, memoryFile))); err != nil {
		t.Fatal(err)
	}
	c.update(func() { c.state.Seen, c.state.Machine = true, "" })
	agent := h.starting(c)
	h.awaitSocket()
	const noNode = `the cluster has no Node object "n1"`
	h.asks(wanted{"DEL", 1, wire.TryAgainLater, noNode}, wanted{"GC", 1, wire.TryAgainLater, noNode},
		wanted{"DEL", 2, 0, ""}, wanted{"ADD", 3, wire.TryAgainLater, noNode}, wanted{"CHECK", 1, 0, ""}, wanted{"CHECK", 2, wire.CheckFailed, "no address"})
	c.update(func() { c.state.Machine = "machine-1" })
	again := agent()
	if held := again.leases().Held(podRequest(1).Owner.Attachment); len(held) != 1 || held[0].Addr != addr {
		t.Fatalf("web-1 holds %v, want %s", held, addr)
	}
	h.asks(wanted{"DEL", 1, 0, ""})
	if held := again.leases().Held(podRequest(1).Owner.Attachment); len(held) > 0 {
		t.Errorf("after the DEL web-1 holds %v", held)
	}
}

// behind is what a door opens to: each lease that comes through is told.
type behind struct {
	cni.Leases
	came chan pools.Request
}

func (b behind) Lease(_ context.Context, r pools.Request) (cni.Grant, error) {
	b.came <- r
	return cni.Grant{}, nil
}

// aDoor is one that nothing stands behind, and how many wait at it.
func aDoor(t *testing.T) (d *door, waiting func() int) {
	t.Helper()
	l, err := listen(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	d = newDoor(t.Context(), l, nil, true, newMetrics(""), slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := d.shut(); err != nil {
			t.Error(err)
		}
	})
	return d, func() int {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.queue)
	}
}

// A lease that is asked for while an agent starts is made by that agent; one that
// is released before never is.
func TestLeasesWaitAtTheDoor(t *testing.T) {
	d, waiting := aDoor(t)
	ended := make(chan error, 3)
	for n := 1; n <= 3; n++ {
		go func() {
			_, err := d.Lease(t.Context(), podRequest(n%2)) // two of them for one attachment
			ended <- err
		}()
	}
	eventually(t, "all wait", func() bool { return waiting() == 3 })
	if err := d.Release(t.Context(), podRequest(1).Owner); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, ErrOvertaken) {
			t.Errorf("a lease that was released ended with %v", err)
		}
	}
	b := behind{came: make(chan pools.Request, 3)}
	d.open(b)
	if err := <-ended; err != nil || len(b.came) != 1 || (<-b.came).Owner != podRequest(0).Owner {
		t.Errorf("the other one: %v", err)
	}
	if waiting() > 0 {
		t.Errorf("%d still wait", waiting())
	}
}
