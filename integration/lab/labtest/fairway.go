package labtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent"
	"github.com/fairway-network/fairway/integration/lab"
)

// Soon bounds what takes seconds at most on a machine with nothing else to do.
const Soon = 60 * time.Second

// Await waits Soon for a condition, and ends the test with the last error of check.
func Await(t testing.TB, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Soon)
	defer cancel()
	if err := lab.Await(ctx, what, check); err != nil {
		t.Fatal(err)
	}
}

// Where a node has the programs and the configuration.
const (
	programs      = "/opt/fairway"
	configuration = "/etc/fairway/fairway.yaml"
)

// Fairway is the programs of this tree in a node of a lab: an agent that runs or does
// not, and what a person would type.
type Fairway struct {
	Node *lab.Node // set once the lab is up
	// Config and Programs are directories of the host that the node sees.
	Config, Programs string
}

// NewFairway builds the programs and writes the agent's configuration.
func NewFairway(t testing.TB, config string) *Fairway {
	t.Helper()
	dir := t.TempDir()
	f := &Fairway{Config: filepath.Join(dir, "etc"), Programs: filepath.Join(dir, "bin")}
	for _, d := range []string{f.Config, f.Programs} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	Build(t, f.Programs)
	f.Configure(t, config)
	return f
}

// Build builds the programs of a node into a directory.
func Build(t testing.TB, dir string) {
	t.Helper()
	const shipped = "-ldflags=github.com/fairway-network/fairway/cmd/fairway-ipam=-E fairway_start"
	argv := []string{"build", shipped, "-o", dir + "/"}
	for _, name := range []string{"fairway", "fairway-speaker", "fairway-ipam"} {
		argv = append(argv, "github.com/fairway-network/fairway/cmd/"+name)
	}
	if out, err := exec.Command("go", argv...).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
}

// Spec is a node that has it.
func (f *Fairway) Spec(spec lab.NodeSpec) lab.NodeSpec {
	spec.Binds = append(spec.Binds,
		lab.Bind{Source: f.Programs, Target: programs, ReadOnly: true},
		lab.Bind{Source: f.Config, Target: filepath.Dir(configuration), ReadOnly: true})
	spec.Env = map[string]string{"PATH": programs + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return spec
}

// Configure replaces the agent's file in one step.
func (f *Fairway) Configure(t testing.TB, text string) {
	t.Helper()
	replace(t, filepath.Join(f.Config, filepath.Base(configuration)), []byte(text), 0o644)
}

// Upgrade puts another file in the place of the program, under the agent that runs.
func (f *Fairway) Upgrade(t testing.TB) {
	t.Helper()
	program := filepath.Join(f.Programs, "fairway")
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, program, data, 0o755)
}

func replace(t testing.TB, file string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(file+".new", data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// Start starts an agent.
func (f *Fairway) Start(t testing.TB) lab.Process {
	t.Helper()
	p, err := f.Node.Start(t.Context(), "fairway", "fairway", "agent", "--config", configuration)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Log is what all agents so far have logged.
func (f *Fairway) Log(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(f.Node.LogFile("fairway"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// running are the processes of the programs, by what they are: "agent", "speaker".
func (f *Fairway) running(t testing.TB) map[string]lab.Process {
	t.Helper()
	all, err := f.Node.Processes()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]lab.Process{}
	for _, p := range all {
		switch name := filepath.Base(p.Args[0]); {
		case name == "fairway" && len(p.Args) > 1:
			found[p.Args[1]] = p
		case strings.HasPrefix(name, "fairway-"):
			found[strings.TrimPrefix(name, "fairway-")] = p
		}
	}
	return found
}

// Process is the "agent" or its "speaker".
func (f *Fairway) Process(t testing.TB, what string) lab.Process {
	t.Helper()
	p, runs := f.running(t)[what]
	if !runs {
		t.Fatalf("no %s runs", what)
	}
	return p
}

// End sends a signal to the "agent", or to its "speaker", and waits until the process is
// gone, and the agent's speaker with it.
func (f *Fairway) End(t testing.TB, what string, sig syscall.Signal) {
	t.Helper()
	speaker := f.Process(t, "speaker")
	p := f.Process(t, what)
	if err := p.Signal(sig); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), Soon)
	defer cancel()
	for _, gone := range []lab.Process{p, speaker} {
		if err := gone.Gone(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// Run runs fairway in the node.
func (f *Fairway) Run(t testing.TB, args ...string) string {
	t.Helper()
	return Exec(t, f.Node, append([]string{"fairway"}, args...)...)
}

// Status is what the agent says of itself.
func (f *Fairway) Status(t testing.TB) (s agent.Status, err error) {
	out, err := f.Node.Exec(t.Context(), "fairway", "status", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	return s, err
}

// Peers are the agent's sessions by name.
func (f *Fairway) Peers(t testing.TB) (map[string]agent.PeerStatus, error) {
	s, err := f.Status(t)
	peers := make(map[string]agent.PeerStatus)
	for _, p := range s.Peers {
		peers[p.Name] = p
	}
	return peers, err
}

// Undisturbed ends the test if a session is not the one of before.
func Undisturbed(t testing.TB, before, now agent.PeerStatus) {
	t.Helper()
	if !now.Established() || now.Since != before.Since || now.Flaps != before.Flaps || now.LastError != before.LastError {
		t.Fatalf("%s was disturbed: %+v, before %+v", before.Name, now, before)
	}
}

// LostByBFD waits until BFD has ended a session, and says when that was.
func (f *Fairway) LostByBFD(t testing.TB, before agent.PeerStatus) time.Time {
	t.Helper()
	var lost agent.PeerStatus
	Await(t, "BFD ends the session with "+before.Name, func() error {
		peers, err := f.Peers(t)
		lost = peers[before.Name]
		if err == nil && (lost.Established() || !strings.Contains(lost.LastError, "BFD") || lost.BFD.Failures != before.BFD.Failures+1) {
			err = fmt.Errorf("%+v, BFD %+v", lost, lost.BFD)
		}
		return err
	})

	return lost.Since
}

// CNI runs the plugin in the node for a container, and gives what it writes.
func (f *Fairway) CNI(t testing.TB, command, container, pool string) (string, error) {
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"n","type":"ptp","ipam":{"type":"fairway-ipam","pool":%q}}`, pool)
	script := fmt.Sprintf(`printf '%%s' '%s' | CNI_COMMAND=%s CNI_CONTAINERID=%s CNI_IFNAME=eth0 CNI_NETNS=/run/netns/x CNI_PATH=/x fairway-ipam`, conf, command, container)
	return f.Node.Exec(t.Context(), "sh", "-c", script)
}

// Pod leases addresses, one of each family of the pool, and gives them to the node
// itself, which stands in for a pod.
func (f *Fairway) Pod(t testing.TB, container, pool string) []netip.Addr {
	t.Helper()
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	Await(t, "the pod has addresses", func() error {
		out, err := f.CNI(t, "ADD", container, pool)
		if err == nil {
			err = json.Unmarshal([]byte(out), &result)
		}
		return err
	})
	var pod []netip.Addr
	for _, ip := range result.IPs {
		a := ip.Address.Addr()
		pod = append(pod, a)
		Exec(t, f.Node, "ip", "addr", "add", netip.PrefixFrom(a, a.BitLen()).String(), "dev", "lo")
	}
	return pod
}
