// Package nodes runs the programs of this tree on nodes in namespaces of their own, on
// one switch. The API server is a real one. It listens in the test's namespace, which
// the nodes reach through gates.
package nodes

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/integration/router"
	"github.com/fairway-network/fairway/internal/namespace"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
)

// Soon bounds what takes seconds at most on a machine with nothing else to do.
const Soon = 60 * time.Second

// Switch is the bridge in the test's namespace that the nodes are on.
const Switch = "switch"

// Main is for the TestMain of a package: its tests have a namespace of their own.
func Main(m *testing.M) int {
	return namespace.Main(m, func() error {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil { // the API server's
			return fmt.Errorf("bring the loopback interface up: %w: %s", err, out)
		}
		return nil
	})
}

// Cluster is a control plane that knows Fairway, and a switch, in the test's namespace.
type Cluster struct {
	*kube.Cluster
	Admin   kubernetes.Interface // may do all
	Objects dynamic.Interface    // the same
	Built   string               // the folder of this tree's programs
}

// NewCluster builds the programs and starts a cluster, until the test ends. Without root,
// or without a control plane that is built, it skips the test.
func NewCluster(t *testing.T) *Cluster {
	t.Helper()
	namespace.Need(t)
	c := &Cluster{Cluster: kube.Start(t, kube.Options{}), Built: t.TempDir()}
	const shipped = "-ldflags=github.com/fairway-network/fairway/cmd/fairway-ipam=-E fairway_start"
	build := exec.Command("go", "build", shipped, "-o", c.Built, "../../cmd/fairway", "../../cmd/fairway-ipam", "../../cmd/fairway-speaker", "../../cmd/fairway-controller")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as in a release
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if err := c.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.Admin, err = kubernetes.NewForConfig(c.Config()); err != nil {
		t.Fatal(err)
	}
	if c.Objects, err = dynamic.NewForConfig(c.Config()); err != nil {
		t.Fatal(err)
	}
	router.Namespace{}.Run(t, "ip", "link", "add", Switch, "up", "type", "bridge")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", Switch).Run() })
	return c
}

// Resource are the objects of one of our kinds, such as "addresspools".
func (c *Cluster) Resource(name string) dynamic.ResourceInterface {
	return c.Objects.Resource(v1alpha1.GroupVersion().WithResource(name))
}

// Await waits until check returns nil, and fails the test when that is not Soon.
func Await(t testing.TB, what string, check func() error) {
	t.Helper()
	router.Await(t, what, Soon, check)
}
