package bfd

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/internal/namespace"
)

// TestMain runs the tests in namespaces of their own where it may, with routers next
// to it.
func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the rows of docs/interop.md that the tests fill")
	os.Exit(namespace.Main(m, furnish))
}

// The tests' network. The node, which is this process, is 10.0.1.1 on eth1 and
// 10.0.2.1 on eth2; the same in IPv6, and fe80::1 on both. Two routers:
//
//	node eth1 ── eth1 tor eth3 ── eth3 far
//	     eth2 ─────────────────── eth2
//
// The other end of network N is 10.0.N.2 and so on, and tor's end of network 3
// is 10.0.3.1. The node and tor have 10.0.9.1 and 10.0.9.2 as well.
const network = `
netns add tor
netns add far
link set lo up
-n tor link set lo up
-n far link set lo up
link add eth1 type veth peer name eth1 netns tor
link add eth2 type veth peer name eth2 netns far
-n tor link add eth3 type veth peer name eth3 netns far
addr add 10.0.9.1/32 dev lo
-n tor addr add 10.0.9.2/32 dev lo
route add 10.0.9.2 via 10.0.1.2
route add 10.0.3.0/24 via 10.0.1.2
-6 route add fd00:3::/64 via fd00:1::2
-n tor route add 10.0.9.1 via 10.0.1.1
-n far route add 10.0.1.0/24 via 10.0.3.1
-n far -6 route add fd00:1::/64 via fd00:3::1
`

// ends are the ends of the network's links: namespace, interface, number of
// the network, number of the host.
func ends() [][4]string {
	return [][4]string{{"", "eth1", "1", "1"}, {"tor", "eth1", "1", "2"}, {"", "eth2", "2", "1"}, {"far", "eth2", "2", "2"}, {"tor", "eth3", "3", "1"}, {"far", "eth3", "3", "2"}}
}

// furnish makes the routers' namespaces and the network.
func furnish() error {
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	var links, routes []string
	for line := range strings.Lines(strings.TrimSpace(network)) {
		if line = strings.TrimSpace(line); strings.Contains(line, "route") {
			routes = append(routes, line)
		} else {
			links = append(links, line)
		}
	}
	for _, e := range ends() {
		at := ""
		if e[0] != "" {
			at = "-n " + e[0] + " "
		}
		links = append(links, at+"link set "+e[1]+" addrgenmode none",
			at+"addr add 10.0."+e[2]+"."+e[3]+"/24 dev "+e[1],
			at+"addr add fd00:"+e[2]+"::"+e[3]+"/64 dev "+e[1]+" nodad",
			at+"addr add fe80::"+e[3]+"/64 dev "+e[1]+" nodad",
			at+"link set "+e[1]+" up")
	}
	for _, line := range append(links, routes...) {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		err := inside("tor", func() error { return os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0) })
		if err != nil {
			return err
		}
	}
	return nil
}

// inside runs f in the network namespace of a router.
func inside(name string, f func() error) error { return namespace.Inside("/run/netns/"+name, f) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// soon is more than anything takes on a busy machine.
const soon = 30 * time.Second

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(soon)
	for pause := 5 * time.Millisecond; !holds(); pause = min(2*pause, 100*time.Millisecond) {
		select {
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		case <-time.After(pause):
		}
	}
}
