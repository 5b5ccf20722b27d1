package router

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
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
		if tries == 100 {
			t.Fatal("the first thread never went")
		}
		manyInside(t, other)
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

// manyInside has many goroutines in a namespace at once, each with a thread of its own:
// one that is idle is taken before another is made.
func manyInside(t *testing.T, n Namespace) {
	t.Helper()
	var entered, left sync.WaitGroup
	entered.Add(32)
	for range 32 {
		left.Go(func() {
			in := sync.OnceFunc(entered.Done)
			defer in() // also if it could not enter
			err := namespace.Inside(fmt.Sprintf("/proc/%d/ns/net", n.PID()), func() error {
				in()
				entered.Wait()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	left.Wait()
}
