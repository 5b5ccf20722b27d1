package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/fairway-network/fairway/agent/wire"
)

func TestNumbersAreTheKernels(t *testing.T) {
	for name, c := range map[string][2]int{
		"read": {sysRead, syscall.SYS_READ}, "write": {sysWrite, syscall.SYS_WRITE}, "close": {sysClose, syscall.SYS_CLOSE},
		"nanosleep": {sysNanosleep, syscall.SYS_NANOSLEEP}, "socket": {sysSocket, syscall.SYS_SOCKET},
		"connect": {sysConnect, syscall.SYS_CONNECT}, "shutdown": {sysShutdown, syscall.SYS_SHUTDOWN},
		"setsockopt": {sysSetsockopt, syscall.SYS_SETSOCKOPT}, "clock_gettime": {sysClockGettime, syscall.SYS_CLOCK_GETTIME},
		"exit_group": {sysExitGroup, syscall.SYS_EXIT_GROUP}, "openat": {sysOpenat, syscall.SYS_OPENAT},
		"O_CLOEXEC": {oCloexec, syscall.O_CLOEXEC}, "SOCK_CLOEXEC": {sockCloexec, syscall.SOCK_CLOEXEC},
		"AF_UNIX": {afUnix, syscall.AF_UNIX}, "SOCK_STREAM": {sockStream, syscall.SOCK_STREAM}, "SOL_SOCKET": {solSocket, syscall.SOL_SOCKET},
		"SO_RCVTIMEO": {soRcvtimeo, syscall.SO_RCVTIMEO}, "SO_SNDTIMEO": {soSndtimeo, syscall.SO_SNDTIMEO}, "SHUT_WR": {shutWr, syscall.SHUT_WR},
		"sockaddr_un": {int(unsafe.Sizeof(sockaddr{})), int(unsafe.Sizeof(syscall.RawSockaddrUnix{}))},
		"timeval":     {int(unsafe.Sizeof(timespec{})), int(unsafe.Sizeof(syscall.Timeval{}))},
		"timespec":    {int(unsafe.Sizeof(timespec{})), int(unsafe.Sizeof(syscall.Timespec{}))},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is %d here and %d in package syscall", name, c[0], c[1])
		}
	}
}

func TestErrorsAreInTheKernelsWords(t *testing.T) {
	for name, c := range map[string][2]int{
		"ENOENT": {int(enoent), int(syscall.ENOENT)}, "EINTR": {int(eintr), int(syscall.EINTR)}, "EAGAIN": {int(eagain), int(syscall.EAGAIN)},
		"EPIPE": {int(epipe), int(syscall.EPIPE)}, "EMSGSIZE": {int(emsgsize), int(syscall.EMSGSIZE)},
		"ECONNRESET": {int(econnreset), int(syscall.ECONNRESET)}, "ECONNREFUSED": {int(econnrefused), int(syscall.ECONNREFUSED)},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is %d here and %d in package syscall", name, c[0], c[1])
		}
	}
	known := 0
	for e := errno(1); e <= 133; e++ {
		said := e.String()
		if strings.HasPrefix(said, "errno ") {
			continue
		}
		known++
		if want := syscall.Errno(e).Error(); said != want {
			t.Errorf("%d is %q, want %q", e, said, want)
		}
	}
	if known < 12 || errno(133).String() != "errno 133" {
		t.Errorf("%d errors have words, and 133 is %q", known, errno(133).String())
	}
}

// TestPageFaults: what the plugin costs above an empty program is, for the most
// part, pages that it touches first. If the runtime has to have the stack grown
// there are twenty more, and importing package syscall is enough for that.
func TestPageFaults(t *testing.T) {
	const allowed = 18
	empty := filepath.Join(t.TempDir(), "empty")
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", empty, "../../integration/bench/empty").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	plugin := build(t)
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path, answering(wire.AppendAnswer(nil, []byte(`{"ips":[]}`), false)))
	var faults [2][]int64
	for range 31 {
		for i, program := range []string{empty, plugin} {
			cmd := exec.Command(program)
			cmd.Env = []string{"PATH=/bin", "CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS=/run/netns/a", "CNI_IFNAME=eth0", "CNI_ARGS=K8S_POD_NAME=a"}
			cmd.Stdin = strings.NewReader(confFor(path))
			// An empty program does not read what is written for it.
			if err := cmd.Run(); cmd.ProcessState == nil || !cmd.ProcessState.Success() {
				t.Fatal(program, err)
			}
			faults[i] = append(faults[i], cmd.ProcessState.SysUsage().(*syscall.Rusage).Minflt)
		}
	}
	slices.Sort(faults[0])
	slices.Sort(faults[1])
	if above := faults[1][15] - faults[0][15]; above > allowed {
		t.Errorf("%d page faults, %d more than an empty program: at most %d are allowed", faults[1][15], above, allowed)
	}
}
