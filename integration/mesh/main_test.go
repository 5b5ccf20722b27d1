// Package mesh tests a cluster without a router: nodes in namespaces on one switch,
// each with the agent's own programs, a real API server that tells them of each
// other, and pods by the ptp plugin.
package mesh

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
