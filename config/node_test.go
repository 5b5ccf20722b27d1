package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairway-network/fairway/config"
)

// racks is one file for all racks of a cluster.
const racks = `
store: kubernetes
node: n1
bgp: {asnFrom: {label: example.com/asn}}
templates:
- name: tor
  asnFrom: {annotation: example.com/tor-asn}
  holdTime: 9s
- name: spine
  nodeSelector: {role: border}
  asn: 64600
  ebgpMultihop: 3
peers:
- {name: tor-a, template: tor, addressFrom: {annotation: example.com/tor-a}}
- {name: tor-b, template: tor, addressFrom: {annotation: example.com/tor-b}, holdTime: 30s}
- {name: r1, address: 10.0.0.1, asn: 65001, nodeSelector: {rack: r1}}
- {name: r2, address: 10.0.0.1, asn: 65002, nodeSelector: {rack: r2}}
- {name: spine, template: spine, address: 10.9.0.1}
- {name: inside, template: spine, address: 10.9.0.2, asnFrom: {label: example.com/asn}}
- {name: link, interface: eth1, nodeSelector: {links: "1"}}
`

func TestForANode(t *testing.T) {
	clearEnvironment(t)
	c := mustLoad(t, racks)
	rack := func(labels, annotations map[string]string) config.Node {
		n := config.Node{Name: "n1", Labels: map[string]string{"example.com/asn": "64512", "rack": "r1"}, Annotations: map[string]string{
			"example.com/tor-asn": "65000", "example.com/tor-a": "10.1.0.1", "example.com/tor-b": "fd00::1",
		}}
		for k, v := range labels {
			n.Labels[k] = v
		}
		for k, v := range annotations {
			n.Annotations[k] = v
		}
		return n
	}
	without := func(n config.Node, key string) config.Node {
		delete(n.Labels, key)
		delete(n.Annotations, key)
		return n
	}
	for name, want := range map[string]struct {
		node  config.Node
		peers string
		err   string
	}{
		"rack 1":      {rack(nil, nil), "tor-a tor-b r1", ""},
		"rack 2":      {rack(map[string]string{"rack": "r2"}, nil), "tor-a tor-b r2", ""},
		"link":        {rack(map[string]string{"rack": "", "links": "1"}, nil), "tor-a tor-b link", ""},
		"no ASN":      {without(rack(nil, nil), "example.com/asn"), "", "bgp.asnFrom: label example.com/asn: node n1 has no such label"},
		"a wrong ASN": {rack(map[string]string{"example.com/asn": "AS1"}, nil), "", `bgp.asnFrom: label example.com/asn of node n1: "AS1" is not a whole number: write it in decimal digits`},
		"a large ASN": {rack(map[string]string{"example.com/asn": "4294967296"}, nil), "", "bgp.asnFrom: label example.com/asn of node n1: 4294967296 is out of bounds: write 1 to 4294967295"},
		"no ToR ASN": {without(rack(nil, nil), "example.com/tor-asn"), "r1", "" +
			"peer tor-a: asnFrom annotation example.com/tor-asn: node n1 has no such annotation\n" +
			"peer tor-b: asnFrom annotation example.com/tor-asn: node n1 has no such annotation"},
		"no ToR":             {without(rack(nil, nil), "example.com/tor-b"), "tor-a r1", "peer tor-b: addressFrom annotation example.com/tor-b: node n1 has no such annotation"},
		"a ToR's name":       {rack(nil, map[string]string{"example.com/tor-b": "tor-b"}), "tor-a r1", `peer tor-b: addressFrom annotation example.com/tor-b of node n1: "tor-b" is not an IP address`},
		"nowhere":            {rack(nil, map[string]string{"example.com/tor-b": "0.0.0.0"}), "tor-a r1", "peer tor-b: addressFrom annotation example.com/tor-b of node n1: 0.0.0.0 is no router's address: write the one that the router has towards this node"},
		"itself":             {rack(nil, map[string]string{"example.com/tor-b": "127.0.0.1"}), "tor-a r1", "peer tor-b: addressFrom annotation example.com/tor-b: 127.0.0.1 is this node itself (bgp.listen): write the router's address"},
		"one ToR twice":      {rack(nil, map[string]string{"example.com/tor-b": "10.1.0.1"}), "tor-a r1", "peer tor-b: 10.1.0.1 is that of peer tor-a already: change one of them"},
		"iBGP over hops":     {rack(map[string]string{"role": "border"}, nil), "tor-a tor-b r1 spine", "peer inside: ebgpMultihop: 3: the session is iBGP (asn is 64512 on both sides), which has no such limit: remove the line"},
		"nothing but a name": {config.Node{Name: "n9"}, "", "bgp.asnFrom: label example.com/asn: node n9 has no such label"},
	} {
		t.Run(name, func(t *testing.T) {
			here, err := c.For(want.node)
			text := ""
			if err != nil {
				text = err.Error()
			}
			var names []string
			for _, p := range here.Peers {
				names = append(names, p.Name)
				if p.NodeSelector != nil || p.ASNFrom != (config.NodeValue{}) || p.AddressFrom != (config.NodeValue{}) || len(p.Families) == 0 {
					t.Errorf("peer %+v still depends on the node", p)
				}
			}
			if got := strings.Join(names, " "); got != want.peers || text != want.err {
				t.Errorf("peers %q, %v\nwant  %q, %v", got, text, want.peers, want.err)
			}
		})
	}
	was := rack(nil, nil)
	less := without(without(rack(map[string]string{"example.com/asn": "AS1"}, nil), "example.com/tor-asn"), "example.com/tor-b")
	less.Before = &was
	kept, err := c.For(less)
	check(t, "what is kept", kept, func() *config.Config { out, _ := c.For(was); return out }())
	check(t, "and said", strings.Count(fmt.Sprint(err), "; it stays as it was"), 4)

	// A label that is gone selects as it did; one that is another now does not.
	bare := without(rack(nil, nil), "rack")
	bare.Before = &was
	kept, err = c.For(bare)
	check(t, "a selector's label that is lost", fmt.Sprint(len(kept.Peers), err), "3 peer r1: nodeSelector label rack: node n1 has no such label; it stays as it was")
	moved := rack(map[string]string{"rack": "r9"}, nil)
	moved.Before = &was
	left, err := c.For(moved)
	check(t, "a selector's label that changed", fmt.Sprint(len(left.Peers), err), "2 <nil>")

	here, _ := c.For(rack(nil, nil))
	check(t, "this node's ASN", here.BGP.ASN, config.ASN(64512))
	check(t, "tor-b", []any{here.Peers[1].Address, here.Peers[1].ASN, here.Peers[1].HoldTime.String(), here.Peers[1].Families},
		[]any{addrs("fd00::1")[0], config.ASN(65000), "30s", []config.Family{config.IPv6}})
	if c.BGP.ASN != 0 || len(c.Peers) != 7 || c.Peers[0].Address.IsValid() {
		t.Errorf("the file's own configuration changed: %+v", c)
	}
}

// Without a cluster the labels stand in the file.
func TestForItself(t *testing.T) {
	clearEnvironment(t)
	c := mustLoad(t, `
node: n1
labels: {rack: r1, tor: 10.0.0.7}
bgp: {asn: 64512}
peers:
- {name: a, addressFrom: {label: tor}, asn: 65000, nodeSelector: {rack: r1, kubernetes.io/hostname: n1}}
- {name: b, address: 10.0.0.2, asn: 65000, nodeSelector: {kubernetes.io/hostname: n2}}
`)
	here, err := c.For(c.Self())
	must(t, err)
	if len(here.Peers) != 1 || here.Peers[0].Address != addrs("10.0.0.7")[0] || !c.Depends() || here.Depends() {
		t.Errorf("peers %+v", here.Peers)
	}
}
