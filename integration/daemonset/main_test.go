// Package daemonset tests the manifests that people apply: it carries out the DaemonSet
// of the agent and the Deployment of the controller as a kubelet and a container runtime
// do, with a real API server, a node in a namespace of its own, and a router.
package daemonset

import (
	"os"
	"testing"

	"github.com/fairway-network/fairway/integration/nodes"
)

func TestMain(m *testing.M) { os.Exit(nodes.Main(m)) }
