package main

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"time"
)

// contestant is a CNI plugin with the configuration that it is given. An empty
// program is one as well: nothing is expected of its output.
type contestant struct {
	name, path string
	conf       string // file of the network configuration
	wants      string // what a good answer to ADD contains
}

// invoke runs the plugin once, as a runtime does, and returns how long it took
// from before the fork to after the wait.
func (c contestant) invoke(command, containerID string) (time.Duration, error) {
	stdin, err := os.Open(c.conf)
	if err != nil {
		return 0, err
	}
	defer stdin.Close()
	out, stdout, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer out.Close()
	defer stdout.Close()
	attr := &syscall.ProcAttr{
		Env: []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + containerID, "CNI_NETNS=/run/netns/bench", "CNI_IFNAME=eth0",
			"CNI_PATH=/opt/cni/bin", "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=" + containerID},
		Files: []uintptr{stdin.Fd(), stdout.Fd(), os.Stderr.Fd()},
	}
	var status syscall.WaitStatus
	began := time.Now()
	pid, err := syscall.ForkExec(c.path, []string{c.path}, attr)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", c.path, err)
	}
	for {
		_, err = syscall.Wait4(pid, &status, 0, nil)
		if err != syscall.EINTR {
			break
		}
	}
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("wait for %s: %w", c.path, err)
	}
	_ = stdout.Close()
	var printed bytes.Buffer
	if _, err := printed.ReadFrom(out); err != nil {
		return 0, err
	}
	if status.ExitStatus() != 0 || command == "ADD" && !bytes.Contains(printed.Bytes(), []byte(c.wants)) {
		return 0, fmt.Errorf("%s %s ended with status %d: %s", c.name, command, status.ExitStatus(), printed.Bytes())
	}
	return took, nil
}
