// Package mesh tests a cluster without a router: nodes in namespaces on one switch,
// each with the agent's own programs, a real API server that tells them of each
// other, and pods by the ptp plugin.
package mesh

import (
	"os"
	"testing"

	"github.com/fairway-network/fairway/integration/nodes"
)

func TestMain(m *testing.M) { os.Exit(nodes.Main(m)) }
