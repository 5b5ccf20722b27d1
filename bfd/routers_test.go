package bfd

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairway-network/fairway/internal/namespace"
)

// program is one that runs in a router's namespace.
type program struct {
	cmd *exec.Cmd
	log string
}

// run starts a program in a router's namespace; it ends with the test.
func run(t *testing.T, where, dir string, argv ...string) *program {
	t.Helper()
	namespace.Need(t)
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skip("a router is not installed: ", err)
	}
	p := &program{log: filepath.Join(dir, filepath.Base(argv[0])+".out")}
	out, err := os.Create(p.log)
	must(t, err)
	defer out.Close()
	p.cmd = exec.Command("ip", append([]string{"netns", "exec", where}, argv...)...) // ip becomes the program
	p.cmd.Stdout, p.cmd.Stderr = out, out
	must(t, p.cmd.Start())
	t.Cleanup(func() {
		p.kill()
		if text, _ := os.ReadFile(p.log); t.Failed() {
			t.Logf("%s said:\n%s", argv[0], text)
		}
	})
	return p
}

func (p *program) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// shortDir is a temporary directory with a path that unix sockets can have and
// that a router's own user may write to.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bfd")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	return dir
}

// frr is zebra and bfdd in a router's namespace.
type frr struct {
	dir  string
	bfdd *program
}

func startFRR(t *testing.T, where, config string) *frr {
	t.Helper()
	f := &frr{dir: shortDir(t)}
	start := func(name string, extra ...string) *program {
		conf := filepath.Join(f.dir, name+".conf")
		text := "hostname " + where + "\n"
		if name == "bfdd" {
			text += config
		}
		must(t, os.WriteFile(conf, []byte(text), 0o644))
		p := run(t, where, f.dir, append([]string{"/usr/lib/frr/" + name, "-f", conf, "-z", f.dir + "/zserv", "--vty_socket", f.dir,
			"-i", filepath.Join(f.dir, name+".pid"), "-P", "0", "--log", "stdout"}, extra...)...)
		eventually(t, name+" answers", func() bool {
			return exec.Command("vtysh", "--vty_socket", f.dir, "-d", name, "-c", "show version").Run() == nil
		})
		return p
	}
	start("zebra")
	f.bfdd = start("bfdd", "--bfdctl", f.dir+"/bfdd.sock")
	return f
}

// frrPeer is what FRR says of a session; intervals are in milliseconds.
type frrPeer struct {
	Peer                   string
	Multihop               bool
	Status                 string
	Diagnostic             string
	RemoteDiagnostic       string `json:"remote-diagnostic"`
	TransmitInterval       int    `json:"transmit-interval"`
	RemoteReceiveInterval  int    `json:"remote-receive-interval"`
	RemoteTransmitInterval int    `json:"remote-transmit-interval"`
	RemoteMultiplier       int    `json:"remote-detect-multiplier"`
}

func (f *frr) peer(t *testing.T, address string) frrPeer {
	t.Helper()
	out, err := exec.Command("vtysh", "--vty_socket", f.dir, "-d", "bfdd", "-c", "show bfd peers json").Output()
	must(t, err)
	var peers []frrPeer
	if err := json.Unmarshal(out, &peers); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, p := range peers {
		if p.Peer == address {
			return p
		}
	}
	t.Fatalf("FRR has no peer %s: %+v", address, peers)
	return frrPeer{}
}

func (f *frr) up(t *testing.T, address string) bool { return f.peer(t, address).Status == "up" }

func (f *frr) knowsAdminDown(t *testing.T, address string) {
	t.Helper()
	eventually(t, "FRR knows that "+address+" was taken down", func() bool {
		p := f.peer(t, address)
		return p.Status == "down" && p.RemoteDiagnostic == "administratively down"
	})
}

func (f *frr) kill() { f.bfdd.kill() }

// configure gives bfdd a configuration change.
func (f *frr) configure(t *testing.T, lines ...string) {
	t.Helper()
	argv := []string{"--vty_socket", f.dir, "-d", "bfdd", "-c", "configure terminal"}
	for _, l := range lines {
		argv = append(argv, "-c", l)
	}
	if out, err := exec.Command("vtysh", argv...).CombinedOutput(); err != nil {
		t.Fatalf("vtysh %v: %v: %s", lines, err, out)
	}
}

// bird is BIRD in a router's namespace.
type bird struct {
	dir     string
	program *program
}

func startBIRD(t *testing.T, where, config string) *bird {
	t.Helper()
	b := &bird{dir: shortDir(t)}
	b.write(t, config)
	b.program = run(t, where, b.dir, "bird", "-f", "-c", b.dir+"/conf", "-s", b.dir+"/socket", "-P", b.dir+"/pid")
	eventually(t, "BIRD answers", func() bool { return exec.Command("birdc", "-s", b.dir+"/socket", "show status").Run() == nil })
	return b
}

func (b *bird) write(t *testing.T, config string) {
	t.Helper()
	must(t, os.WriteFile(b.dir+"/conf", []byte("router id 192.0.2.1;\nlog stderr all;\nprotocol device {}\n"+config), 0o644))
}

func (b *bird) ask(t *testing.T, words ...string) string {
	t.Helper()
	out, err := exec.Command("birdc", append([]string{"-s", b.dir + "/socket"}, words...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("birdc %v: %v: %s", words, err, out)
	}
	return string(out)
}

// state is BIRD's word for the state of a session.
func (b *bird) state(t *testing.T, address string) string {
	t.Helper()
	for line := range strings.Lines(b.ask(t, "show", "bfd", "sessions")) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == address {
			return fields[2]
		}
	}
	return ""
}

func (b *bird) up(t *testing.T, address string) bool { return b.state(t, address) == "Up" }

func (b *bird) knowsAdminDown(t *testing.T, address string) {
	t.Helper()
	eventually(t, "BIRD knows that "+address+" was taken down", func() bool { return b.state(t, address) == "Down" })
}

func (b *bird) kill() { b.program.kill() }

// newTestServer gives a server with peers that ends with the test.
func newTestServer(t *testing.T, peers ...Peer) *Server {
	t.Helper()
	namespace.Need(t)
	s := NewServer()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("state %+v, discards %+v", s.State(), s.Discards())
		}
		_ = s.Close(t.Context()) // the test's context is over: at once
	})
	must(t, s.Set(peers))
	return s
}

// state gives the one peer of that name.
func (s *Server) state(t *testing.T, name string) PeerState {
	t.Helper()
	for _, p := range s.State() {
		if p.Peer.Name == name {
			return p
		}
	}
	t.Fatalf("no peer %s in %+v", name, s.State())
	return PeerState{}
}

// are waits until all peers are in a state, woken by Changes alone.
func (s *Server) are(t *testing.T, want State) {
	t.Helper()
	s.await(t, "all are "+want.String(), func() bool {
		for _, p := range s.State() {
			if p.State != want {
				return false
			}
		}
		return true
	})
}

// await waits for a condition that a change of state brings about.
func (s *Server) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(soon)
	for !holds() {
		select {
		case <-s.Changes():
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func single(name, address, device string) Peer {
	return Peer{Name: name, Endpoint: Endpoint{Address: netip.MustParseAddr(address), Interface: device}, Timers: patient()}
}

func multihop(name, address, local string) Peer {
	return Peer{Name: name, Endpoint: Endpoint{Address: netip.MustParseAddr(address), Local: netip.MustParseAddr(local), Multihop: true}, Timers: patient()}
}

// patient are timers that a busy machine does not miss.
func patient() Timers {
	return Timers{MinTx: 50 * time.Millisecond, MinRx: 50 * time.Millisecond, Multiplier: 20}
}
