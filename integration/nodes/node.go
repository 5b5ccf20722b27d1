package nodes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/integration/router"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Node is a namespace on the switch, with or without an agent.
type Node struct {
	*Cluster
	router.Namespace
	Name  string
	Gate  *Gate // open
	dir   string
	agent *exec.Cmd
}

// Node makes node-NUMBER with these addresses. It has no Node object, no configuration
// and no agent yet.
func (c *Cluster) Node(t *testing.T, number int, addresses ...netip.Prefix) *Node {
	t.Helper()
	dir, err := os.MkdirTemp("", "node") // short enough for unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n := &Node{Cluster: c, Namespace: router.NewNamespace(t), Name: fmt.Sprintf("node-%d", number), dir: dir}
	port := fmt.Sprintf("port%d", number)
	router.Connect(t, router.End{Interface: port}, router.End{Namespace: n.Namespace, Interface: "eth0", Addresses: addresses})
	router.Namespace{}.Run(t, "ip", "link", "set", port, "master", Switch)
	n.Gate = newGate(t, n.Namespace, c.Config().Host)
	return n
}

// File is a path in the node's own folder, which goes with the test.
func (n *Node) File(name string) string { return filepath.Join(n.dir, name) }

// Configure writes what the agent reads: who it is to the API server, and the part of
// its configuration that says something of BGP. Its runDir is File("run").
func (n *Node) Configure(t *testing.T, self *api.AuthInfo, bgp string) {
	t.Helper()
	server := n.Config()
	file := api.NewConfig()
	file.Clusters["c"] = &api.Cluster{Server: server.Host, CertificateAuthorityData: server.CAData}
	file.AuthInfos["a"] = self
	file.Contexts["x"] = &api.Context{Cluster: "c", AuthInfo: "a"}
	file.CurrentContext = "x"
	if err := clientcmd.WriteToFile(*file, n.File("kubeconfig")); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("node: %s\nstore: kubernetes\nkubernetes: {kubeconfig: %s}\nrunDir: %s\n%s", n.Name, n.File("kubeconfig"), n.File("run"), bgp)
	if err := os.WriteFile(n.File("fairway.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Start starts the agent, which the test kills when it ends. A test that failed shows
// what it has logged.
func (n *Node) Start(t *testing.T) {
	t.Helper()
	n.agent = n.Command(context.Background(), filepath.Join(n.Built, "fairway"), "agent", "--config", n.File("fairway.yaml"))
	log, err := os.OpenFile(n.File("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	n.agent.Stdout, n.agent.Stderr = log, log
	if err := errors.Join(n.agent.Start(), log.Close()); err != nil {
		t.Fatal(err)
	}
	running := n.agent
	t.Cleanup(func() {
		_ = running.Process.Kill()
		_ = running.Wait()
		if text, err := os.ReadFile(n.File("log")); err == nil && t.Failed() {
			t.Logf("%s:\n%s", n.Name, text)
		}
	})
}

// Signal sends the agent a signal.
func (n *Node) Signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := n.agent.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Kill kills the agent; the speaker's process goes with it.
func (n *Node) Kill(t *testing.T) {
	t.Helper()
	if err := n.agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = n.agent.Wait()
}

// Status is what the agent says of itself.
func (n *Node) Status() (agent.Status, error) { return n.StatusIn(n.File("run")) }

// StatusIn is Status of an agent with that runDir.
func (n *Node) StatusIn(runDir string) (s agent.Status, err error) {
	cmd := exec.Command(filepath.Join(n.Built, "fairway"), "status", "-o", "json", "--run-dir", runDir)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return s, fmt.Errorf("%w: %s", err, said.String())
	}
	return s, json.Unmarshal(out, &s)
}
