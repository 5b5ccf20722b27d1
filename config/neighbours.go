package config

// neighbours knows what other systems call our keys: key, folded, is one that a section
// does not have. own is our key, if one says the same.
func neighbours(section, key string) (text, own string) {
	if text := detour(section, key); text != "" {
		return text, ""
	}
	switch own = foreign(section)[key]; own {
	case "":
		return "", ""
	case "passwordFile":
		return writePassword, own
	}
	return "it is called " + own + " here", own
}

// writePassword is said of all keys of a password itself.
const writePassword = "write the password to a file and name it with passwordFile"

// detour is the way out for a key that is elsewhere, or said otherwise, here.
func detour(section, key string) string {
	switch section {
	case "bgp.mesh":
		switch key {
		case "password", "nodemeshpassword", "md5":
			return writePassword
		case "holdtime", "keepalivetime", "connectretrytime", "ttlsecurity", "bfd", "accept":
			return "say it in a template, and name that with template"
		}
	case "templates":
		switch key {
		case "template":
			return "a template can't have another: write here what it says"
		case "address", "addressfrom", "interface", "range", "peeraddress":
			return "where a router is stands with each peer: move it to peers"
		}
	}
	return ""
}

// foreign are the words of others, folded, that may stand in a section, and our keys.
func foreign(section string) map[string]string {
	switch section {
	case "inside":
		return nil
	case "peers", "templates":
		return foreignOfPeers()
	case "announcements":
		return map[string]string{
			"ippools": "pools", "addresspools": "pools", "localpref": "localPreference", "community": "communities", "largecommunity": "largeCommunities",
			"metric": "med", "prependas": "prepend", "aspathprepend": "prepend", "aggregationlength": "aggregate.ipv4", "aggregationlengthv6": "aggregate.ipv6",
			"withhold": "announce", "deny": "announce", "neighbors": "peers", "nexthopself": "nextHop",
		}
	case "pools":
		return map[string]string{
			"cidr": "addresses", "cidrs": "addresses", "subnet": "addresses", "subnets": "addresses", "range": "addresses",
			"ranges": "addresses", "ips": "addresses", "prefixes": "addresses", "blocks": "addresses",
			"excludeips": "exclude", "excludes": "exclude", "reserved": "exclude", "blocksizebits": "blockSize", "prefixlength": "blockSize",
		}
	}
	return map[string]string{
		"myasn": "bgp.asn", "localasn": "bgp.asn", "localas": "bgp.asn", "asnumber": "bgp.asn", "clusterasn": "bgp.asn",
		"bgppeers": "peers", "neighbors": "peers", "neighbours": "peers", "peertemplates": "templates", "peergroups": "templates",
		"advertisements": "announcements", "bgpadvertisements": "announcements", "policies": "announcements",
		"ippools": "pools", "addresspools": "pools", "nodename": "node", "hostname": "node",
		"loglevel": "log.level", "logformat": "log.format", "socket": "ipam.socket",
		"bindaddress": "bgp.listen.addresses", "listenport": "bgp.listen.port",
		"cidr": "pools[].addresses", "cidrs": "pools[].addresses",
		"nodetonodemeshenabled": "bgp.mesh.enabled", "nodetonodemesh": "bgp.mesh", "fullmesh": "bgp.mesh", "nodemeshpassword": "bgp.mesh.passwordFile",
	}
}

func foreignOfPeers() map[string]string {
	return map[string]string{
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
}
