package router

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/internal/namespace"
)

// A namespace is a new one also when the first thread of the test's process is left in
// another one: which thread goes there nobody chooses.
func TestANamespaceBesideAFirstThreadThatIsAway(t *testing.T) {
	other := NewNamespace(t)
	home, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	tries := 0
	for first := home; first == home; tries++ {
		if tries == 1000 {
			t.Skip("the first thread never went")
		}
		if err := namespace.Inside(fmt.Sprintf("/proc/%d/ns/net", other.PID()), func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
		if first, err = os.Readlink("/proc/self/ns/net"); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		out, err := NewNamespace(t).Command(context.Background(), "ip", "-br", "link", "show", "lo").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "LOWER_UP") {
			t.Errorf("its loopback interface: %v: %s", err, out)
		}
	}
}
