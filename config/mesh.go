package config

// meshPeers is the name under which announcements speak of all nodes of the mesh, and
// with which the name of each of them begins.
const meshPeers = "mesh"

// Mesh is a session with every other node of the cluster that has the mesh enabled.
type Mesh struct {
	// Have a session with every other node of the cluster that has a mesh, too. It
	// needs `store: kubernetes`, which knows the nodes.
	Enabled bool `key:"enabled" default:"false"`
	// The template that says how to speak with the nodes: `families`, `passwordFile`,
	// `ttlSecurity`, `holdTime`, `keepaliveTime`, `connectRetryTime`, `bfd` and
	// `accept.max`, and nothing else.
	Template string `key:"template" otherwise:"none"`
	// Address families that are exchanged, each over sessions of its own between the
	// nodes' internal addresses of that family.
	Families []Family `key:"families" oneof:"ipv4,ipv6" otherwise:"as the template, else those of which the Node object has an internal address"`
	// File that holds the TCP MD5 password (RFC 2385), the same one on all nodes, as
	// passwordFile of a peer.
	PasswordFile string `key:"passwordFile" quiet:"true" otherwise:"as the template, else no password"`
	// Write what the other nodes announce into the kernel, as far as it is inside of the
	// cluster's pools. Without it the nodes do not reach each other's pods by the mesh.
	Learn bool `key:"learn" default:"true"`
	// How many nodes the mesh may have. Those beyond that, which came last, are not in
	// it. Above 100 the agents warn.
	MaxNodes int `key:"maxNodes" default:"200" limits:"2..1000"`

	// Session is what Template says, with Families. What is zero in it is as it is for
	// peers.
	Session Options `key:"-"`
	// Password is what the password file held when it was loaded.
	Password Secret `key:"-"`
}
