package namespace

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m, makeOther)) }

// makeOther makes a second network, held by a process, with another name for lo.
func makeOther() error {
	holder := exec.Command("unshare", "--net", "sh", "-c", "ip link set lo name other && echo && exec sleep infinity")
	out, err := holder.StdoutPipe()
	if err == nil {
		err = holder.Start()
	}
	if err == nil {
		_, err = out.Read(make([]byte, 1))
	}
	if err != nil {
		return fmt.Errorf("make another network: %w", err)
	}
	return os.Setenv("OTHER", fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid))
}

func interfaces() (string, error) {
	all, err := net.Interfaces()
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return strings.Join(names, " "), err
}

// The test is alone in its network and the first of its processes, and goes elsewhere for
// the time of a call.
func TestAlone(t *testing.T) {
	Need(t)
	if names, err := interfaces(); err != nil || names != "lo" || os.Getpid() != 1 {
		t.Errorf("process %d has interfaces %q, %v", os.Getpid(), names, err)
	}
	var there string
	if err := Inside(os.Getenv("OTHER"), func() (err error) { there, err = interfaces(); return err }); err != nil || there != "other" {
		t.Errorf("inside there is %q, %v", there, err)
	}
	if names, err := interfaces(); err != nil || names != "lo" {
		t.Errorf("afterwards there is %q, %v", names, err)
	}
	if err := Inside("/proc/none", func() error { return nil }); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/proc/none") {
		t.Errorf("no network: %v", err)
	}
}
