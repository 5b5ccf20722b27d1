package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/pools"
)

// network is the network configuration of one request: what every command
// needs, and the rest as it came, since few commands need any of it.
type network struct {
	version, name string
	ipam          []byte
	runtimeConfig []byte
	args          []byte
	prevResult    []byte
	attachments   []byte
}

// parse reads stdin, which the network goes on to use. Keys that we do not
// know belong to other plugins.
func (n *network) parse(stdin []byte) error {
	var version, name []byte
	valid := wire.Members(stdin, func(key, value []byte) {
		switch string(key) {
		case "cniVersion":
			version = value
		case "name":
			name = value
		case "ipam":
			n.ipam = value
		case "runtimeConfig":
			n.runtimeConfig = value
		case "args":
			n.args = value
		case "prevResult":
			n.prevResult = value
		case "cni.dev/valid-attachments":
			n.attachments = value
		}
	})
	if !valid {
		return decodeFault("the network configuration on standard input is not a JSON object: "+quote(string(head(stdin))), syntaxError(stdin))
	}
	var err error
	if n.version, err = stringMember("cniVersion", version); err != nil {
		return err
	}
	n.name, err = stringMember("name", name)
	return err
}

func head(b []byte) []byte { return b[:min(len(b), 64)] }

// syntaxError says where doc stops being JSON.
func syntaxError(doc []byte) string {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(doc, &members); err != nil {
		return err.Error()
	}
	return "it nests too deep"
}

// stringMember is the empty string for null or no value.
func stringMember(key string, literal []byte) (string, error) {
	if literal == nil || string(literal) == "null" {
		return "", nil
	}
	s, ok := wire.Unquote(literal)
	if !ok {
		return "", decodeFault("network configuration: "+key+": "+quote(string(head(literal)))+" is not a string", "write it in quotes")
	}
	return string(s), nil
}

// check says whether command may be given with this version and name.
func (n *network) check(command string) error {
	if !wire.Supported(n.version) {
		return &wire.Fault{Code: wire.IncompatibleVersion, Msg: "incompatible CNI version: the network configuration's cniVersion is " + quote(n.version),
			Details: "use " + strings.Join(wire.Versions(), ", ")}
	}
	if n.version != "1.1.0" && (command == "GC" || command == "STATUS") {
		return &wire.Fault{Code: wire.IncompatibleVersion, Msg: "cniVersion " + n.version + " has no " + command, Details: "use 1.1.0"}
	}
	if n.name == "" {
		return configFault("the network configuration has no name", "give the network a name")
	}
	if !validName(n.name) {
		return configFault("network name "+quote(n.name)+" is not valid", nameRule)
	}
	return nil
}

// want collects the addresses that are asked for: IP of CNI_ARGS,
// runtimeConfig.ips (the capability) and args.cni.ips. A prefix length with
// them is ignored: the pool has its own.
func (n *network) want(argIP string) ([]netip.Addr, error) {
	var want []netip.Addr
	var err error
	if argIP != "" {
		if want, err = appendWanted(want, "CNI_ARGS: IP", argIP); err != nil {
			return nil, err
		}
	}
	lists := []struct {
		doc  []byte
		path []string
	}{{n.runtimeConfig, []string{"ips"}}, {n.args, []string{"cni", "ips"}}}
	for _, l := range lists {
		if l.doc == nil {
			continue
		}
		literal, ok := wire.Lookup(l.doc, l.path...)
		if !ok {
			continue
		}
		name := strings.Join(l.path, ".")
		var ips []string
		if err := json.Unmarshal(literal, &ips); err != nil {
			return nil, decodeFault(name+": "+err.Error(), "write a list of addresses in quotes")
		}
		for _, ip := range ips {
			if want, err = appendWanted(want, name, ip); err != nil {
				return nil, err
			}
		}
	}
	return want, nil
}

// appendWanted holds to one address for each family.
func appendWanted(want []netip.Addr, where, s string) ([]netip.Addr, error) {
	host, _, _ := strings.Cut(s, "/")
	addr, err := pools.ParseAddr(host)
	if err != nil {
		return nil, configFault(where+": "+err.Error(), "write an address of the pool, or none")
	}
	for _, w := range want {
		switch {
		case w == addr:
			return want, nil
		case w.Is4() == addr.Is4():
			return nil, configFault(fmt.Sprintf("%s: %s is asked for and so is %s", where, addr, w), "an interface gets one address of each family: name one")
		}
	}
	return append(want, addr), nil
}

// validAttachments reads the list of GC. The key must be there: to take its
// absence for an empty list would release every lease of the network.
func (n *network) validAttachments() ([]pools.Attachment, error) {
	const key = "cni.dev/valid-attachments"
	if n.attachments == nil {
		return nil, configFault("GC without "+key, "the container runtime lists the attachments that are in use")
	}
	var listed []struct {
		ContainerID string `json:"containerID"`
		IfName      string `json:"ifname"`
	}
	if err := json.Unmarshal(n.attachments, &listed); err != nil {
		return nil, decodeFault(key+": "+err.Error(), "write a list of objects with containerID and ifname")
	}
	valid := make([]pools.Attachment, 0, len(listed))
	for i, l := range listed {
		if l.ContainerID == "" || l.IfName == "" {
			return nil, configFault(fmt.Sprintf("%s[%d] lacks containerID or ifname", key, i), "nothing was released; give both")
		}
		valid = append(valid, pools.Attachment{Network: n.name, ContainerID: l.ContainerID, IfName: l.IfName})
	}
	return valid, nil
}

// jsonFault puts an error of encoding/json in our words.
func jsonFault(where string, err error) *wire.Fault {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return decodeFault(where+": "+err.Error(), "")
	}
	path := slices.DeleteFunc([]string{where, wrong.Field}, func(s string) bool { return s == "" })
	return decodeFault(fmt.Sprintf("%s: it is %s, not %s", strings.Join(path, "."), quote(wrong.Value), kindName(wrong.Type.Kind().String())), "")
}

// kindName is what JSON calls a Go kind.
func kindName(kind string) string {
	switch kind {
	case "struct", "map":
		return "an object"
	case "slice":
		return "a list"
	case "uint32":
		return "a whole number from 0 to 4294967295"
	}
	return "a " + kind
}
