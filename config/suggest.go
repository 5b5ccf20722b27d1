package config

import (
	"fmt"
	"reflect"
	"strings"
)

// advice is the way out for an unknown key, and the key of the same mapping
// that was meant, if it is known. lines are those of the keys beside it.
func advice(path, key string, want *shape, lines map[string]int) (text, meant string) {
	if text, meant := neighbours(section(path), fold(key)); text != "" {
		return text, strings.TrimPrefix(meant, path+".")
	}
	best := closest(key, want.keys())
	switch {
	case best != "" && lines[best] > 0:
		return fmt.Sprintf("%s is there already, in line %d: remove one of them", best, lines[best]), best
	case strings.EqualFold(best, key):
		return fmt.Sprintf("write %s, capitals count", best), best
	case best != "":
		return fmt.Sprintf("did you mean %s?", best), best
	}
	if elsewhere := homeOf(key); elsewhere != "" {
		return "did you mean " + elsewhere + "?", ""
	}
	return "known here: " + strings.Join(want.keys(), ", "), ""
}

// section is the path of a list without its indexes. All that is a mapping inside
// of an element is one section, without a name of its own.
func section(path string) string {
	name, rest, listed := strings.Cut(path, "[")
	if listed && strings.Contains(rest, ".") {
		return "inside"
	}
	return name
}

// neighbours knows what other systems call our keys, and gives our key.
func neighbours(section, key string) (text, own string) {
	names := map[string]string{
		"myasn": "bgp.asn", "localasn": "bgp.asn", "localas": "bgp.asn", "asnumber": "bgp.asn", "clusterasn": "bgp.asn",
		"bgppeers": "peers", "neighbors": "peers", "neighbours": "peers", "peertemplates": "templates", "peergroups": "templates",
		"advertisements": "announcements", "bgpadvertisements": "announcements", "policies": "announcements",
		"ippools": "pools", "addresspools": "pools", "nodename": "node", "hostname": "node",
		"loglevel": "log.level", "logformat": "log.format", "socket": "ipam.socket",
		"bindaddress": "bgp.listen.addresses", "listenport": "bgp.listen.port",
		"cidr": "pools[].addresses", "cidrs": "pools[].addresses",
		"nodetonodemeshenabled": "bgp.mesh.enabled", "nodetonodemesh": "bgp.mesh", "fullmesh": "bgp.mesh", "nodemeshpassword": "bgp.mesh.passwordFile",
	}
	switch section {
	case "inside":
		return "", ""
	case "peers", "templates":
		names = map[string]string{
			"peerasn": "asn", "peeras": "asn", "remoteas": "asn", "remoteasn": "asn", "neighboras": "asn", "as": "asn",
			"myasn": "bgp.asn", "localas": "localASN", "keepalive": "keepaliveTime", "keepaliveinterval": "keepaliveTime",
			"connecttime": "connectRetryTime", "connectretry": "connectRetryTime", "holdtimer": "holdTime",
			"sourceaddress": "localAddress", "sourceip": "localAddress", "updatesource": "localAddress", "localip": "localAddress",
			"gtsm": "ttlSecurity", "ttlsecurityhops": "ttlSecurity", "nodeselectors": "nodeSelector", "selector": "nodeSelector",
			"bfdprofile": "bfd", "maxprefixes": "accept.max", "maxprefix": "accept.max", "import": "accept", "filter": "accept", "filters": "accept",
			"unnumbered": "interface", "iface": "interface", "dev": "interface", "peerinterface": "interface", "link": "interface",
			"listenrange": "range", "cidr": "range", "network": "range", "subnet": "range", "limit": "most", "listenlimit": "most",
			"passivemode": "passive", "disabled": "shutdown", "adminshutdown": "shutdown", "addpath": "addPaths",
			"peergroup": "template", "group": "template", "inherit": "template", "extends": "template", "message": "shutdownMessage",
			"peeraddress": "address", "neighboraddress": "address", "neighbor": "address", "ip": "address", "peerip": "address", "host": "address",
			"peerport": "port", "multihop": "ebgpMultihop", "ttl": "ebgpMultihop", "multihopttl": "ebgpMultihop",
			"password": "passwordFile", "passwordsecret": "passwordFile", "authpassword": "passwordFile", "md5": "passwordFile",
			"addressfamilies": "families", "afisafis": "families", "family": "families",
		}
	case "bgp.mesh":
		switch key {
		case "password", "nodemeshpassword", "md5":
			return "write the password to a file and name it with passwordFile", ""
		case "holdtime", "keepalivetime", "connectretrytime", "ttlsecurity", "bfd", "accept":
			return "say it in a template, and name that with template", ""
		}
	case "announcements":
		names = map[string]string{
			"ippools": "pools", "addresspools": "pools", "localpref": "localPreference", "community": "communities", "largecommunity": "largeCommunities",
			"metric": "med", "prependas": "prepend", "aspathprepend": "prepend", "aggregationlength": "aggregate.ipv4", "aggregationlengthv6": "aggregate.ipv6",
			"withhold": "announce", "deny": "announce", "neighbors": "peers", "nexthopself": "nextHop",
		}
	case "pools":
		names = map[string]string{
			"cidr": "addresses", "cidrs": "addresses", "subnet": "addresses", "subnets": "addresses", "range": "addresses",
			"ranges": "addresses", "ips": "addresses", "prefixes": "addresses", "blocks": "addresses",
			"excludeips": "exclude", "excludes": "exclude", "reserved": "exclude", "blocksizebits": "blockSize", "prefixlength": "blockSize",
		}
	}
	if section == "templates" {
		switch key {
		case "template":
			return "a template can't have another: write here what it says", ""
		case "address", "addressfrom", "interface", "range", "peeraddress":
			return "where a router is stands with each peer: move it to peers", ""
		}
	}
	switch own = names[key]; own {
	case "":
		return "", ""
	case "passwordFile":
		return "write the password to a file and name it with passwordFile", own
	}
	return "it is called " + own + " here", own
}

// homeOf is the path of the key of that name, if there is exactly one.
func homeOf(key string) string {
	var found []string
	for _, k := range keysOf(schemaOf(reflect.TypeFor[Config]()), "", false) {
		if fold(k.Path[strings.LastIndex(k.Path, ".")+1:]) == fold(key) && !strings.HasPrefix(k.Path, "templates") {
			found = append(found, k.Path)
		}
	}
	if len(found) > 3 {
		return ""
	}
	return orList(found)
}

// closest is the word of known that was probably meant, "" for none.
func closest(word string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := edits(fold(word), fold(k)); d < distance && d < len(k)-1 {
			best, distance = k, d
		}
	}
	return best
}

// fold makes one of all ways to write a key: my-asn, my_asn, myASN.
func fold(key string) string {
	return strings.ToLower(strings.ReplaceAll(strings.ReplaceAll(key, "-", ""), "_", ""))
}

// edits is the Levenshtein distance of two short words.
func edits(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
