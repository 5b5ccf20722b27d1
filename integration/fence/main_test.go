// Package fence tests what becomes of a node that is declared gone and is not: the
// agent's own programs on nodes in namespaces, a real API server with a controller, and
// a router that the nodes announce to.
package fence

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/fairway-network/fairway/internal/namespace"
)

func TestMain(m *testing.M) {
	os.Exit(namespace.Main(m, func() error {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil { // the API server's
			return fmt.Errorf("bring the loopback interface up: %w: %s", err, out)
		}
		return nil
	}))
}
