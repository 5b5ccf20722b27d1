package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-network/fairway/agent/wire"
)

// build makes the program in folder as it is shipped, with more flags for the
// linker.
func build(t *testing.T, folder, flags string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w "+flags, "-o", bin, folder).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// shipped has the linker start the plugin before the runtime.
const shipped = "-E fairway_start"

// outcome is what a runtime sees of a plugin.
type outcome struct {
	stdout, stderr string
	status         int
	took           time.Duration
}

// start runs the plugin with command and the configuration conf; the function
// it returns waits for the end.
func start(t *testing.T, bin, command, conf string) func() outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), bin)
	cmd.Env = []string{"PATH=/bin", "CNI_CONTAINERID=c1"}
	if command != "" {
		cmd.Env = append(cmd.Env, "CNI_COMMAND="+command)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(conf), &stdout, &stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() outcome {
		if exit := (*exec.ExitError)(nil); !errors.As(cmd.Wait(), &exit) && cmd.ProcessState == nil {
			t.Error("the plugin was lost")
			return outcome{}
		}
		return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), time.Since(began)}
	}
}

// confFor is a network configuration with the agent's socket at path.
func confFor(path string) string {
	return `{"cniVersion":"1.0.0","name":"net1","ipam":{"type":"fairway-ipam","socket":` + strconv.Quote(path) + `}}`
}

// serve listens at path and lets handle have each connection, until the test
// ends.
func serve(t *testing.T, path string, handle func(*net.UnixConn)) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				handle(c)
			}()
		}
	}()
}

// answering reads the request and gives answer.
func answering(answer []byte) func(*net.UnixConn) {
	return func(c *net.UnixConn) {
		_, _ = io.ReadAll(c)
		_, _ = c.Write(answer)
	}
}

// recording puts each request into requests and gives answer.
func recording(requests chan<- []byte, answer []byte) func(*net.UnixConn) {
	return func(c *net.UnixConn) {
		request, _ := io.ReadAll(c)
		requests <- request
		_, _ = c.Write(answer)
	}
}

// wantFault checks that o is a CNI error with code that says all of says.
func wantFault(t *testing.T, o outcome, code wire.Code, says ...string) {
	t.Helper()
	var f struct {
		CNIVersion   string
		Code         wire.Code
		Msg, Details string
	}
	if err := json.Unmarshal([]byte(o.stdout), &f); err != nil || o.status != 1 || f.Code != code || !wire.Supported(f.CNIVersion) {
		t.Fatalf("%+v (%v), want code %d", o, err, code)
	}
	for _, s := range says {
		if !strings.Contains(f.Msg+"; "+f.Details, s) {
			t.Errorf("%q does not say %q", f.Msg+"; "+f.Details, s)
		}
	}
}

func TestImportsNothingButTheWire(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{`"syscall"`, `"unsafe"`, `"github.com/fairway-network/fairway/agent/wire"`}
	files = append(files, "../../agent/wire/wire.go", "../../agent/wire/json.go", "../../agent/wire/fault.go")
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if !slices.Contains(allowed, i.Path.Value) {
				t.Errorf("%s imports %s, whose initialisation every pod would wait for", file, i.Path.Value)
			}
		}
	}
}

func TestPlugin(t *testing.T) {
	for name, flags := range map[string]string{"as shipped": shipped, "plain": ""} {
		t.Run(name, func(t *testing.T) { t.Parallel(); testPlugin(t, build(t, ".", flags)) })
	}
}

func testPlugin(t *testing.T, bin string) {
	for name, test := range map[string]func(*testing.T, string){
		"hands over and prints":          handsOverAndPrints,
		"input in pieces":                inputInPieces,
		"odd configurations":             oddConfigurations,
		"large request and answer":       largeRequestAndAnswer,
		"large environment":              largeEnvironment,
		"large configuration":            largeConfiguration,
		"no agent":                       noAgent,
		"agent comes back":               agentComesBack,
		"agent restarts under a request": agentRestartsUnderARequest,
		"agent hangs up":                 agentHangsUp,
		"bad answers":                    badAnswers,
		"bad input":                      badInput,
		"answers alone":                  answersAlone,
		"variables given twice":          variablesGivenTwice,
		"pipes that do not block":        pipesThatDoNotBlock,
		"output closed":                  outputClosed,
		"small stack":                    smallStack,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, bin) })
	}
}

func handsOverAndPrints(t *testing.T, bin string) {
	for _, failed := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "s")
		requests := make(chan []byte, 1)
		text := "{\"ips\":[]}\n"
		serve(t, path, recording(requests, wire.AppendAnswer(nil, []byte(text), failed)))
		conf := confFor(path)
		o := start(t, bin, "ADD", conf)()
		if o.stdout != text || o.stderr != "" || (o.status != 0) != failed {
			t.Errorf("failed %v: %+v", failed, o)
		}
		want := wire.AppendRequest(nil, []string{"CNI_CONTAINERID=c1", "CNI_COMMAND=ADD"}, []byte(conf))
		if got := <-requests; !bytes.Equal(got, want) {
			t.Errorf("request %q, want %q", got, want)
		}
	}
}

// inputInPieces: a pipe's writer may take its time.
func inputInPieces(t *testing.T, bin string) {
	path := filepath.Join(t.TempDir(), "s")
	requests := make(chan []byte, 1)
	serve(t, path, recording(requests, wire.AppendAnswer(nil, []byte("{}"), false)))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "an", "argument")
	cmd.Env, cmd.Stdin = []string{"CNI_COMMAND=DEL"}, r
	wait := make(chan error, 1)
	var out []byte
	go func() { var err error; out, err = cmd.Output(); wait <- err }()
	conf := confFor(path)
	for i := range conf {
		if _, err := w.Write([]byte(conf[i : i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), <-wait, r.Close()); err != nil || string(out) != "{}" {
		t.Errorf("%v, %q", err, out)
	}
	if got := <-requests; !bytes.Equal(got, wire.AppendRequest(nil, cmd.Env, []byte(conf))) {
		t.Errorf("request %q", got)
	}
}

func oddConfigurations(t *testing.T, bin string) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path, answering(wire.AppendAnswer(nil, []byte("{}"), false)))
	for name, conf := range map[string]string{
		"path":  strings.ReplaceAll(confFor(path), "/", `\/`),
		"key":   strings.Replace(confFor(path), "socket", `sock\u0065t`, 1),
		"other": strings.Replace(confFor(path), "net1", `\"`, 1),
		"deep":  strings.Replace(confFor(path), `"net1"`, strings.Repeat("[", 998)+strings.Repeat("]", 998), 1),
	} {
		if o := start(t, bin, "ADD", conf)(); o.stdout != "{}" || o.status != 0 {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// largeConfiguration leaves no room, or just some, in what is usual.
func largeConfiguration(t *testing.T, bin string) {
	path := filepath.Join(t.TempDir(), "s")
	requests := make(chan []byte, 1)
	serve(t, path, recording(requests, wire.AppendAnswer(nil, []byte("{}"), false)))
	conf := confFor(path)
	bare := len(wire.AppendRequest(nil, []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1"}, []byte(conf)))
	for size := usual - 2; size <= usual+2; size++ {
		if o := start(t, bin, "ADD", conf+strings.Repeat(" ", size-bare))(); o.stdout != "{}" || o.status != 0 {
			t.Errorf("%d bytes: %+v", size, o)
		}
		if got := len(<-requests); got != size {
			t.Errorf("the agent got %d bytes of %d", got, size)
		}
	}
}

func largeRequestAndAnswer(t *testing.T, bin string) {
	path := filepath.Join(t.TempDir(), "s")
	text := strings.Repeat("x", wire.MaxAnswer-1)
	requests := make(chan []byte, 2) // what finds no room for the answer asks again
	serve(t, path, recording(requests, wire.AppendAnswer(nil, []byte(text), false)))
	conf := confFor(path)
	conf += strings.Repeat(" ", wire.MaxRequest-len(conf)-100)
	if o := start(t, bin, "ADD", conf)(); o.stdout != text || o.status != 0 {
		t.Errorf("status %d, %d bytes, %.200s", o.status, len(o.stdout), o.stdout)
	}
	if got := len(<-requests); got < len(conf) {
		t.Errorf("the agent got %d bytes of %d", got, len(conf))
	}
}

// largeEnvironment leaves no room for the rest in what is usual.
func largeEnvironment(t *testing.T, bin string) {
	path := filepath.Join(t.TempDir(), "s")
	requests := make(chan []byte, 1)
	serve(t, path, recording(requests, wire.AppendAnswer(nil, []byte("{}"), false)))
	// To the byte at which there is none left, and some around it.
	for missing := -2; missing <= 2; missing++ {
		const command, name = "CNI_COMMAND=ADD", "CNI_ARGS="
		environ := []string{command, name + strings.Repeat("x", usual-len(command)-len(name)-3-missing), "HOME=/"}
		cmd := exec.CommandContext(t.Context(), bin)
		cmd.Env, cmd.Stdin = environ, strings.NewReader(confFor(path))
		if out, err := cmd.Output(); err != nil || string(out) != "{}" {
			t.Fatalf("%d missing: %v, %.200s", missing, err, out)
		}
		if got := <-requests; !bytes.Equal(got, wire.AppendRequest(nil, environ, []byte(confFor(path)))) {
			t.Errorf("%d missing: the request has %d bytes", missing, len(got))
		}
	}
}

func noAgent(t *testing.T, bin string) {
	path := filepath.Join(t.TempDir(), "s")
	var waits []func() outcome
	for _, command := range []string{"ADD", "DEL", "CHECK", "GC"} {
		waits = append(waits, start(t, bin, command, confFor(path)))
	}
	for _, wait := range waits {
		o := wait()
		wantFault(t, o, wire.TryAgainLater, path, "no such file or directory", "Start it")
		if o.took < 2*time.Second {
			t.Errorf("gave up after %v", o.took)
		}
	}
	o := start(t, bin, "STATUS", confFor(path))()
	wantFault(t, o, wire.NotAvailable, path)
	if o.took > time.Second {
		t.Errorf("STATUS waited %v", o.took)
	}
}

// agentComesBack: the socket is refused (a stale file) and then served.
func agentComesBack(t *testing.T, bin string) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	wait := start(t, bin, "ADD", confFor(path))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	serve(t, path, answering(wire.AppendAnswer(nil, []byte("{}"), false)))
	if o := wait(); o.stdout != "{}" || o.status != 0 {
		t.Errorf("%+v", o)
	}
}

// agentRestartsUnderARequest: the one that took the request dies, the next one
// answers it.
func agentRestartsUnderARequest(t *testing.T, bin string) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	wait := start(t, bin, "ADD", confFor(path))
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close() // takes the file away as well
	_, _ = io.ReadAll(c)
	_ = c.Close()
	serve(t, path, answering(wire.AppendAnswer(nil, []byte("{}"), false)))
	if o := wait(); o.stdout != "{}" || o.status != 0 {
		t.Errorf("%+v", o)
	}
}

func agentHangsUp(t *testing.T, bin string) {
	for name, handle := range map[string]func(*net.UnixConn){
		"at once":           func(*net.UnixConn) {},
		"after the request": func(c *net.UnixConn) { _, _ = io.ReadAll(c) },
	} {
		path := filepath.Join(t.TempDir(), "s")
		tries := make(chan struct{}, 10)
		serve(t, path, func(c *net.UnixConn) { tries <- struct{}{}; handle(c) })
		wantFault(t, start(t, bin, "ADD", confFor(path))(), wire.TryAgainLater, path, "hung up")
		if len(tries) != maxHangUps {
			t.Errorf("%s: %d tries, want %d", name, len(tries), maxHangUps)
		}
	}
}

func badAnswers(t *testing.T, bin string) {
	for name, c := range map[string]struct {
		answer []byte
		says   string
	}{
		"cut short": {[]byte(`{"ips":[{"addr`), "cut short"},
		"too large": {bytes.Repeat([]byte("x"), wire.MaxAnswer+100_000), "larger than 1 MiB"},
	} {
		path := filepath.Join(t.TempDir(), "s")
		serve(t, path, answering(c.answer))
		o := start(t, bin, "ADD", confFor(path))()
		wantFault(t, o, wire.IOFailure, c.says, path)
		if len(o.stdout) > 1000 {
			t.Errorf("%s: printed %d bytes", name, len(o.stdout))
		}
	}
}

func badInput(t *testing.T, bin string) {
	wantFault(t, start(t, bin, "ADD", strings.Repeat(" ", wire.MaxRequest+1))(), wire.InvalidNetworkConfig, "1 MiB")
	wantFault(t, start(t, bin, "ADD", strings.Repeat(" ", wire.MaxRequest-10))(), wire.InvalidNetworkConfig, "1 MiB")
	wantFault(t, start(t, bin, "ADD", confFor("relative.sock"))(), wire.InvalidNetworkConfig, "relative.sock", "ipam.socket")
	wantFault(t, start(t, bin, "ADD", confFor("/"+strings.Repeat("s", 107)))(), wire.InvalidNetworkConfig, "107 bytes")
	wantFault(t, start(t, bin, "ADD", `{"ipam":{"socket":"/a\u0000b"}}`)(), wire.InvalidNetworkConfig, "NUL")
	file := filepath.Join(t.TempDir(), "dir")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantFault(t, start(t, bin, "ADD", confFor(file+"/s"))(), wire.IOFailure, "not a directory")
}

func answersAlone(t *testing.T, bin string) {
	o := start(t, bin, "VERSION", `{"cniVersion":"0.4.0"}`)()
	if o.status != 0 || o.stdout != `{"cniVersion":"0.4.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}`+"\n" {
		t.Errorf("VERSION: %+v", o)
	}
	o = start(t, bin, "", "")()
	if o.status != 1 || o.stdout != "" || !strings.Contains(o.stderr, "CNI plugin fairway-ipam") || !strings.Contains(o.stderr, "0.4.0, 1.0.0, 1.1.0") {
		t.Errorf("no command: %+v", o)
	}
}

// startFiles starts bin with descriptors as they are, where os/exec would mend what
// is odd about them; the function it returns waits for the exit status, -1 for a
// signal.
func startFiles(t *testing.T, bin string, environ []string, files ...uintptr) (pid int, wait func() int) {
	t.Helper()
	pid, err := syscall.ForkExec(bin, []string{bin}, &syscall.ProcAttr{Env: environ, Files: files})
	if err != nil {
		t.Fatal(err)
	}
	return pid, func() int {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
			t.Fatal(err)
		}
		return status.ExitStatus()
	}
}

const closed = ^uintptr(0) // a descriptor

// fileWith is open for reading content, until the test ends.
func fileWith(t *testing.T, content string) uintptr {
	t.Helper()
	path := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f.Fd()
}

// variablesGivenTwice: the first one counts, as in getenv(3).
func variablesGivenTwice(t *testing.T, bin string) {
	path := filepath.Join(t.TempDir(), "s")
	requests := make(chan []byte, 1)
	serve(t, path, func(c *net.UnixConn) {
		request, _ := io.ReadAll(c)
		requests <- request
		_, _ = c.Write(wire.AppendAnswer(nil, nil, false))
	})
	conf := confFor(path)
	environ := []string{"CNI_COMMAND=ADD", "CNI_IFNAME=eth0", "CNI_ARGS=", "CNI_IFNAME=eth1", "CNI_ARGS=a", "CNI_COMMAND=VERSION"}
	_, wait := startFiles(t, bin, environ, fileWith(t, conf), os.Stdout.Fd(), os.Stderr.Fd())
	if status := wait(); status != 0 {
		t.Fatalf("status %d", status)
	}
	if got := <-requests; !bytes.Equal(got, wire.AppendRequest(nil, environ[:3], []byte(conf))) {
		t.Errorf("request %q", got)
	}
}

// outputClosed: the socket must not be taken for the output.
func outputClosed(t *testing.T, bin string) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path, answering(wire.AppendAnswer(nil, []byte("{}"), false)))
	_, wait := startFiles(t, bin, []string{"CNI_COMMAND=ADD"}, fileWith(t, confFor(path)), closed, closed)
	if status := wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// pipesThatDoNotBlock are waited for. The answer is larger than a pipe.
func pipesThatDoNotBlock(t *testing.T, bin string) {
	path := filepath.Join(t.TempDir(), "s")
	text := strings.Repeat("x", 200_000)
	serve(t, path, answering(wire.AppendAnswer(nil, []byte(text), false)))
	inputEnd, input := openPipe(t)
	output, outputEnd := openPipe(t)
	pid, wait := startFiles(t, bin, []string{"CNI_COMMAND=ADD"}, inputEnd.Fd(), outputEnd.Fd(), os.Stderr.Fd())
	_, _ = inputEnd.Close(), outputEnd.Close()
	conf := confFor(path)
	waits(t, pid) // there is nothing to read
	_, err := input.WriteString(conf)
	err = errors.Join(err, input.Close())
	waits(t, pid)
	got, readErr := io.ReadAll(output)
	if status := wait(); err != nil || readErr != nil || string(got) != text || status != 0 {
		t.Errorf("status %d, %v, %v; %d bytes of %d: %.200q", status, err, readErr, len(got), len(text), got)
	}
}

// openPipe opens a pipe whose ends do not block.
func openPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_NONBLOCK|syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w = os.NewFile(uintptr(ends[0]), "pipe"), os.NewFile(uintptr(ends[1]), "pipe")
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// waits returns when the child pid sleeps or has ended.
func waits(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		if _, state, _ := bytes.Cut(stat, []byte(") ")); state[0] == 'S' || state[0] == 'Z' {
			return
		}
	}
	t.Fatal("it neither waits nor ends")
}

// smallStack is what the runtime makes do with. Configurations nest to their bound.
func smallStack(t *testing.T, bin string) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path, answering(wire.AppendAnswer(nil, []byte("{}"), false)))
	for _, nested := range []string{"[]", "{}"} {
		opening := strings.Replace(nested[:1], "{", `{"a":`, 1)
		deep := strings.Repeat(opening, 997) + "1" + strings.Repeat(nested[1:], 997)
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `ulimit -s 64 && exec "$0"`, bin)
		cmd.Env, cmd.Stdin = []string{"CNI_COMMAND=ADD"}, strings.NewReader(strings.Replace(confFor(path), `"net1"`, deep, 1))
		if out, err := cmd.Output(); err != nil || string(out) != "{}" {
			t.Errorf("%s: %v, %q", nested, err, out)
		}
	}
}

// TestSlowAgentIsNotWaitedForForEver runs in this process, where the bounds
// can be short.
func TestSlowAgentIsNotWaitedForForEver(t *testing.T) {
	l := defaultLimits()
	l.patience, l.thought, l.retry = 100, 50, 1
	silent := filepath.Join(t.TempDir(), "silent")
	serve(t, silent, func(*net.UnixConn) { <-t.Context().Done() })
	trickling := filepath.Join(t.TempDir(), "trickling")
	serve(t, trickling, func(c *net.UnixConn) {
		for range time.Tick(5 * time.Millisecond) {
			if _, err := c.Write([]byte(" ")); err != nil {
				return
			}
		}
	})
	for _, path := range []string{silent, trickling} {
		q := newQuestion(l)
		q.path, q.request = path, wire.AppendRequest(nil, []string{"CNI_COMMAND=ADD"}, []byte(confFor(path)))
		f := q.ask()
		if f == nil || f.Code != wire.TryAgainLater || !strings.Contains(f.Msg, path+" took too long") {
			t.Errorf("%s: %+v", path, f)
		}
	}
}
