package nodes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"

	core "k8s.io/api/core/v1"
)

// Invocation is a call of a CNI plugin for the eth0 of a container.
type Invocation struct {
	Command   string // ADD, DEL ...
	Plugin    string // its file
	Path      string // where it finds others
	Config    string // in JSON
	Container string
	Netns     string
	Args      string // CNI_ARGS
}

// ArgsOf are the CNI_ARGS by which a runtime names a pod.
func ArgsOf(p *core.Pod) string {
	return fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s", p.Namespace, p.Name, p.UID)
}

// CNI runs a plugin on the node as a runtime does, and gives the addresses of its result:
// an ADD alone has one.
func (n *Node) CNI(i Invocation) (addresses []netip.Addr, err error) {
	plugin := n.Command(context.Background(), i.Plugin)
	plugin.Stdin = strings.NewReader(i.Config)
	plugin.Env = append(os.Environ(), "CNI_COMMAND="+i.Command, "CNI_CONTAINERID="+i.Container, "CNI_IFNAME=eth0",
		"CNI_NETNS="+i.Netns, "CNI_PATH="+i.Path, "CNI_ARGS="+i.Args)
	out, err := plugin.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", i.Command, err, out)
	}
	if i.Command != "ADD" {
		return nil, nil
	}
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return nil, err
	}
	for _, ip := range result.IPs {
		addresses = append(addresses, ip.Address.Addr())
	}
	return addresses, nil
}
