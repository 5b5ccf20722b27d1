package cni

import (
	"bytes"
	"slices"
	"strings"
	"unicode"

	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/pools"
)

// maxName bounds names that are kept for the life of a lease, in bytes. The
// specification sets no bound; runtimes use 64 for container IDs.
const maxName = 253

// call is the environment of one invocation, checked.
type call struct {
	command     string
	containerID string
	ifName      string
	args        string
	netns       string
	path        bool // given and not empty
}

func parseCall(env [][]byte) (call, error) {
	var c call
	for _, e := range env {
		name, value, _ := bytes.Cut(e, []byte{'='})
		switch string(name) {
		case "CNI_COMMAND":
			c.command = string(value)
		case "CNI_CONTAINERID":
			c.containerID = string(value)
		case "CNI_IFNAME":
			c.ifName = string(value)
		case "CNI_ARGS":
			c.args = string(value)
		case "CNI_NETNS":
			c.netns = string(value)
		case "CNI_PATH":
			c.path = len(value) > 0
		}
	}
	if err := c.checkPresent(); err != nil {
		return c, err
	}
	return c, c.checkNames()
}

// ofAttachment says whether the command acts on one attachment.
func (c call) ofAttachment() bool {
	return c.command == "ADD" || c.command == "DEL" || c.command == "CHECK"
}

// checkPresent holds the variables against section 2 of the specification.
func (c call) checkPresent() error {
	switch c.command {
	case "", "ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION":
	default:
		return unknownCommand(c.command)
	}
	var missing []string
	need := func(given bool, name string) {
		if !given {
			missing = append(missing, name)
		}
	}
	need(c.command != "", "CNI_COMMAND")
	if c.ofAttachment() {
		need(c.containerID != "", "CNI_CONTAINERID")
		need(c.netns != "" || c.command == "DEL", "CNI_NETNS")
		need(c.ifName != "", "CNI_IFNAME")
	}
	need(c.path || c.command != "GC", "CNI_PATH")
	if missing == nil {
		return nil
	}
	return envFault("required environment variables missing: "+strings.Join(missing, ", "), "the container runtime sets them for "+c.command)
}

func unknownCommand(command string) *wire.Fault {
	return envFault("CNI_COMMAND="+quote(command)+" is unknown", "use ADD, DEL, CHECK, GC, STATUS or VERSION")
}

func (c call) checkNames() error {
	if !c.ofAttachment() {
		return nil
	}
	if !validName(c.containerID) {
		return envFault("CNI_CONTAINERID="+quote(c.containerID)+" is not a container ID", nameRule)
	}
	if !validIfName(c.ifName) {
		return envFault("CNI_IFNAME="+quote(c.ifName)+" is not an interface name",
			"use 1 to 15 bytes without /, : and spaces, and not . or ..")
	}
	return nil
}

const nameRule = "use a letter or digit, then letters, digits, '_', '.' and '-', 253 in all"

// validName is the specification's rule for container IDs and network names,
// with a bound on the length.
func validName(s string) bool {
	if s == "" || len(s) > maxName || strings.IndexByte("_.-", s[0]) >= 0 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return true
}

// validIfName is the kernel's rule (dev_valid_name).
func validIfName(s string) bool {
	const most = 15
	return s != "" && len(s) <= most && s != "." && s != ".." &&
		!strings.ContainsFunc(s, func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) })
}

// maxListed bounds the lists in messages.
const maxListed = 8

// podArgs is what we know of CNI_ARGS.
type podArgs struct {
	ip                      string
	podUID, namespace, name string
}

// parseArgs reads "KEY=value;KEY=value". A key that we do not know is an error
// unless IgnoreUnknown is set, as the CNI conventions have it.
func parseArgs(s string) (podArgs, error) {
	var a podArgs
	var unknown []string
	ignoreUnknown := false
	for pair := range strings.SplitSeq(s, ";") {
		if s == "" {
			break
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || strings.Contains(value, "=") {
			return a, envFault("CNI_ARGS: "+quote(pair)+" is not KEY=value", "separate the pairs by semicolons")
		}
		switch key {
		case "IgnoreUnknown":
			if ignoreUnknown, ok = parseBool(value); !ok {
				return a, envFault("CNI_ARGS: IgnoreUnknown="+quote(value)+" is not a truth value", "use 1, true, 0 or false")
			}
		case "IP":
			a.ip = value
		case "K8S_POD_UID":
			a.podUID = value
		case "K8S_POD_NAMESPACE":
			a.namespace = value
		case "K8S_POD_NAME":
			a.name = value
		case "K8S_POD_INFRA_CONTAINER_ID": // is CNI_CONTAINERID once more
		default:
			if len(unknown) < maxListed {
				unknown = append(unknown, quote(key))
			}
		}
	}
	if unknown != nil && !ignoreUnknown {
		return a, envFault("CNI_ARGS: unknown "+strings.Join(unknown, ", "), "leave them out or set IgnoreUnknown=1")
	}
	return a, a.checkNames()
}

func (a podArgs) checkNames() error {
	for _, v := range [...][2]string{{"K8S_POD_UID", a.podUID}, {"K8S_POD_NAMESPACE", a.namespace}, {"K8S_POD_NAME", a.name}} {
		if v[1] != "" && !validName(v[1]) {
			return envFault("CNI_ARGS: "+v[0]+"="+quote(v[1])+" is not a name", nameRule)
		}
	}
	return nil
}

func parseBool(s string) (value, ok bool) {
	lower := strings.ToLower(s)
	return lower == "1" || lower == "true", slices.Contains([]string{"1", "true", "0", "false"}, lower)
}

func (a podArgs) owner(c call, n *network) pools.Owner {
	return pools.Owner{
		Attachment: pools.Attachment{Network: n.name, ContainerID: c.containerID, IfName: c.ifName},
		PodUID:     a.podUID,
		Namespace:  a.namespace,
		Pod:        a.name,
	}
}
