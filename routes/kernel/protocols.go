package kernel

import "fmt"

// protocolName names the program behind a route protocol number, from
// rtnetlink.h, iproute2's rt_protos and what network plugins use; it is empty
// for one that nobody is known to use.
func protocolName(number int) string {
	return map[int]string{
		1: "redirect", 2: "kernel", 3: "boot (ip route, CNI plugins)", 4: "static",
		8: "gated", 9: "ra", 10: "mrt", 11: "zebra", 12: "bird", 13: "dnrouted", 14: "xorp", 15: "ntk",
		16: "dhcp", 17: "mrouted or kube-router", 18: "keepalived", 30: "coil", 42: "babel",
		80: "calico", 84: "ovn", 99: "openr",
		186: "bgp (FRR)", 187: "isis (FRR)", 188: "ospf (FRR)", 189: "rip (FRR)", 190: "ripng (FRR)",
		191: "nhrp (FRR)", 192: "eigrp (FRR)", 193: "ldp (FRR)", 194: "sharp (FRR)", 195: "pbr (FRR)",
		196: "static (FRR)", 197: "openfabric (FRR)", 198: "srte (FRR)",
	}[number]
}

func holderName(number int) string {
	if name := protocolName(number); name != "" {
		return fmt.Sprintf("protocol %s, number %d", name, number)
	}
	return fmt.Sprintf("protocol number %d", number)
}
