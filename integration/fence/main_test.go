// Package fence tests what becomes of a node that is declared gone and is not: the
// agent's own programs on nodes in namespaces, a real API server with a controller, and
// a router that the nodes announce to.
package fence

import (
	"os"
	"testing"

	"github.com/fairway-network/fairway/integration/nodes"
)

func TestMain(m *testing.M) { os.Exit(nodes.Main(m)) }
