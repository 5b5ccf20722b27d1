package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/agent/wire/wiretest"
	"github.com/fairway-network/fairway/pools/embedded"
	"github.com/fairway-network/fairway/routes"
	"github.com/fairway-network/fairway/speaker"
)

// childEnv makes the test binary an agent in the directory that it names.
const childEnv = "FAIRWAY_TEST_AGENT_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := runChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type noKernel struct{}

func (noKernel) Sync(context.Context, []routes.Route) error { return nil }
func (noKernel) Watch(ctx context.Context, _ func()) error  { <-ctx.Done(); return ctx.Err() }

type noSpeaker struct{}

func (noSpeaker) Set(context.Context, speaker.Desired) error   { return nil }
func (noSpeaker) Flush(context.Context, []netip.Prefix) error  { return nil }
func (noSpeaker) State(context.Context) (speaker.State, error) { return speaker.State{}, nil }
func (noSpeaker) Fail(context.Context, string) error           { return nil }
func (noSpeaker) Close(context.Context, speaker.Stop) error    { return nil }

func runChild(dir string) error {
	store, err := embedded.Open(filepath.Join(dir, "blocks.db"), "n1")
	if err != nil {
		return err
	}
	defer store.Close()
	s := crashSettings()
	a, err := New(context.Background(), Parts{
		Node: "n1", RunDir: dir, Socket: filepath.Join(dir, "ipam.sock"), Boot: "b", Store: store,
		Kernel: noKernel{}, Speaker: noSpeaker{}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}, s)
	if err != nil {
		return err
	}
	return a.Run(context.Background())
}

func crashSettings() Settings {
	var t testing.T
	p := pool(&t, "web", 8, "10.1.0.0/23", "fd00::/119")
	p.IdleAfter = 20 * time.Millisecond // blocks come and go during the burst
	return Settings{Pools: []Pool{p}}
}

// ask sends one CNI request to the agent in dir.
func ask(dir, command string, n int) ([]byte, error) {
	env := []string{"CNI_COMMAND=" + command, fmt.Sprintf("CNI_CONTAINERID=c%d", n), "CNI_IFNAME=eth0", "CNI_NETNS=/proc/1/ns/net", "CNI_PATH=/opt/cni/bin"}
	conf := `{"cniVersion":"1.1.0","name":"net","type":"ptp","ipam":{"type":"fairway-ipam","pool":"web"}}`
	return wiretest.Ask(context.Background(), filepath.Join(dir, "ipam.sock"), env, conf)
}

// addresses of an ADD's answer.
func addresses(t *testing.T, answer []byte) string {
	t.Helper()
	var result struct {
		IPs []struct{ Address string } `json:"ips"`
	}
	if err := json.Unmarshal(answer, &result); err != nil || len(result.IPs) != 2 {
		t.Fatalf("answer %q: %v", answer, err)
	}
	return result.IPs[0].Address + " " + result.IPs[1].Address
}

// client adds and deletes its own containers, one at a time, and knows what
// it was told.
type client struct {
	rng     *rand.Rand
	first   int
	holds   map[int]string // told by an ADD
	unclear map[int]bool   // asked, and never answered
}

func (c *client) burst(t *testing.T, dir string) {
	for {
		n := c.first + c.rng.IntN(20)
		if _, held := c.holds[n]; held || c.unclear[n] {
			_, err := ask(dir, "DEL", n)
			if c.lost(t, n, err) {
				return
			}
			delete(c.holds, n)
			delete(c.unclear, n)
			continue
		}
		answer, err := ask(dir, "ADD", n)
		if c.lost(t, n, err) {
			return
		}
		c.holds[n] = addresses(t, answer)
	}
}

// lost says that the agent went away before its answer.
func (c *client) lost(t *testing.T, n int, err error) bool {
	var refused *wire.Fault // not the end of the connection
	if errors.As(err, &refused) {
		t.Errorf("container %d: %v", n, err)
		return true
	}
	if err != nil {
		c.unclear[n] = true
		delete(c.holds, n)
	}
	return err != nil
}

// An agent that is killed in the middle of a burst knows, when it is back,
// exactly the leases that it granted and was not asked to end. What it was
// asked and never answered may stand or not, but no address is held twice.
func TestKilledInABurst(t *testing.T) {
	dir := t.TempDir()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	clients := make([]*client, 4)
	for i := range clients {
		clients[i] = &client{rng: rand.New(rand.NewPCG(seed, uint64(i))), first: 100 * i, holds: map[int]string{}, unclear: map[int]bool{}}
	}
	rng := rand.New(rand.NewPCG(seed, 99))
	for range 12 {
		child := startChild(t, dir)
		checkLeases(t, dir, clients)
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() { c.burst(t, dir) })
		}
		// The moment of death is what is random here, not a wait for anything.
		<-time.After(time.Duration(20+rng.IntN(60)) * time.Millisecond)
		_ = child.Process.Kill()
		_ = child.Wait()
		wg.Wait()
		if t.Failed() {
			return
		}
	}
	startChild(t, dir)
	checkLeases(t, dir, clients)
}

func startChild(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+dir)
	var stderr bytes.Buffer
	child.Stderr = &stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	eventually(t, "the agent answers", func() bool {
		_, err := ask(dir, "STATUS", 0)
		return err == nil
	})
	return child
}

func checkLeases(t *testing.T, dir string, clients []*client) {
	t.Helper()
	holder := map[string]int{}
	for _, c := range clients {
		for _, n := range slices.Sorted(maps.Keys(c.holds)) {
			answer, err := ask(dir, "ADD", n) // the same again gives the same
			if err != nil {
				t.Fatalf("container %d after the restart: %v", n, err)
			}
			if got := addresses(t, answer); got != c.holds[n] {
				t.Errorf("container %d held %s, after the restart %s", n, c.holds[n], got)
			}
		}
		for n, a := range c.holds {
			if other, twice := holder[a]; twice {
				t.Errorf("%s is held by containers %d and %d", a, other, n)
			}
			holder[a] = n
		}
	}
}
