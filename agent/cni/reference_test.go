package cni

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// reference runs CNI's own plugins on top of fairway-ipam, in a namespace that
// is the node and one that is the pod.
type reference struct {
	desk      *desk
	bin, sock string
	node, pod string // names of namespaces
}

func newReference(t *testing.T, bin string) *reference {
	t.Helper()
	r := &reference{desk: newDesk(), bin: bin, sock: filepath.Join(t.TempDir(), "ipam.sock")}
	r.node, r.pod = addNamespace(t, "node"), addNamespace(t, "pod")
	// Else the node looks for duplicates of fe80::1 for two seconds after ADD
	// before it speaks to the pod.
	run(t, "ip", "netns", "exec", r.node, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
	l, err := net.Listen("unix", r.sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	h := &Handler{Leases: r.desk}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			request, _ := io.ReadAll(c)
			_, _ = c.Write(h.Serve(t.Context(), request))
			_ = c.Close()
		}
	}()
	return r
}

// addNamespace makes a network namespace for as long as the test runs.
func addNamespace(t *testing.T, what string) string {
	t.Helper()
	name := fmt.Sprintf("fwcni-%d-%s-%s", os.Getpid(), strings.ToLower(filepath.Base(t.Name())), what)
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { run(t, "ip", "netns", "del", name) })
	run(t, "ip", "-n", name, "link", "set", "lo", "up")
	return name
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// call runs plugin in the node, as a runtime does, and returns what it prints.
func (r *reference) call(t *testing.T, plugin, command, conf string) string {
	t.Helper()
	cmd := exec.Command("ip", "netns", "exec", r.node, filepath.Join(r.bin, plugin))
	cmd.Env = append(os.Environ(), attachmentEnv(command, "CNI_NETNS=/run/netns/"+r.pod, "CNI_PATH="+r.bin)...)
	cmd.Stdin, cmd.Stderr = strings.NewReader(conf), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", plugin, command, err, out)
	}
	return string(out)
}

// buildPlugins builds fairway-ipam and CNI's plugins into one folder.
func buildPlugins(t *testing.T, reference ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, program := range []string{"ip", "ping"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%v: install iproute2 and iputils-ping", err)
		}
	}
	bin := t.TempDir()
	const shipped = "-ldflags=github.com/fairway-network/fairway/cmd/fairway-ipam=-E fairway_start"
	args := []string{"go", "build", shipped, "-o", bin, "../../cmd/fairway-ipam"}
	for _, name := range reference {
		args = append(args, "github.com/containernetworking/plugins/plugins/main/"+name)
	}
	run(t, args...)
	return bin
}

func TestUnderTheReferencePlugins(t *testing.T) {
	bin := buildPlugins(t, "ptp", "bridge", "macvlan")
	for _, c := range []struct {
		plugin, keys, version, pool string
		setUp                       func(t *testing.T, r *reference)
	}{
		{"ptp", "", "1.1.0", "dual", nil},
		{"ptp", "", "0.4.0", "v4", nil},
		{"ptp", "", "1.0.0", "v6", nil},
		{"bridge", `"bridge":"br0","isGateway":true,"forceAddress":true,`, "1.0.0", "bridged", nil},
		{"macvlan", `"master":"up0",`, "1.0.0", "v4", linkToRouter},
	} {
		t.Run(c.plugin+c.version, func(t *testing.T) {
			t.Parallel()
			r := newReference(t, bin)
			if c.setUp != nil {
				c.setUp(t, r)
			}
			base := fmt.Sprintf(`{"cniVersion":%q,"name":"net1","type":%q,%s"ipam":{"type":"fairway-ipam","pool":%q,"socket":%q}`,
				c.version, c.plugin, c.keys, c.pool, r.sock)
			result := r.call(t, c.plugin, "ADD", base+"}")
			if want := len(r.desk.pools[c.pool]); len(r.desk.leases) != want {
				t.Fatalf("leases %v", r.desk.leases)
			}
			r.checkPod(t, c.plugin)
			withResult := base + `,"prevResult":` + result + "}"
			r.call(t, c.plugin, "CHECK", withResult)
			if c.version == "1.1.0" {
				r.call(t, c.plugin, "STATUS", base+"}")
			}
			for range 2 {
				r.call(t, c.plugin, "DEL", withResult)
			}
			if len(r.desk.leases) != 0 {
				t.Errorf("left are %v", r.desk.leases)
			}
		})
	}
}

// linkToRouter gives the node an interface up0 to another namespace that has
// the gateway.
func linkToRouter(t *testing.T, r *reference) {
	router := addNamespace(t, "router")
	run(t, "ip", "-n", r.node, "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", router)
	run(t, "ip", "-n", r.node, "link", "set", "up0", "up")
	run(t, "ip", "-n", router, "link", "set", "down0", "up")
	run(t, "ip", "-n", router, "addr", "add", "10.244.120.1/24", "dev", "down0")
}

// ping waits for the first answer.
func ping(t *testing.T, namespace, addr string) {
	t.Helper()
	run(t, "ip", "netns", "exec", namespace, "ping", "-c1", "-i0.2", "-w20", addr)
}

// checkPod holds the pod's interface against its leases, and reaches the
// gateway through it, and the pod from the node where the plugin routes there.
func (r *reference) checkPod(t *testing.T, plugin string) {
	t.Helper()
	var links []struct {
		AddrInfo []struct{ Local, Scope string } `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(run(t, "ip", "-n", r.pod, "-j", "addr", "show", "eth0")), &links); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range links[0].AddrInfo {
		if a.Scope == "global" {
			got = append(got, a.Local)
		}
	}
	for _, l := range r.desk.leases {
		if !slices.Contains(got, l.Addr.String()) {
			t.Errorf("the pod has %v, not %s", got, l.Addr)
		}
		if plugin != "macvlan" {
			ping(t, r.node, l.Addr.String())
		}
		gateway := r.desk.gateway(l.Addr)
		if gateway.IsLinkLocalUnicast() {
			gateway = gateway.WithZone("eth0")
		}
		ping(t, r.pod, gateway.String())
	}
	if len(got) != len(r.desk.leases) {
		t.Errorf("the pod has %v, leased are %v", got, r.desk.leases)
	}
}
