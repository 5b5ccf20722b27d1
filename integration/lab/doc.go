// Package lab brings up network labs on one machine. A lab is described by a
// containerlab topology file, or by the same thing as a Go value, and realised
// with namespaces: a node has its own net, mount, pid, uts and ipc namespace
// and runs the programs that are installed on the host, so no image is needed
// and a lab of five nodes is up in a fraction of a second. It needs root.
//
// A node sees the host's files through an overlay, so that whatever it writes
// stays its own; /run and /tmp start empty, /var/lib and /var/log are directories of
// the lab that last through a Restart. Links are veth pairs made inside of the
// nodes' namespaces: nothing of a lab shows in the host's network. Killing a
// node's outer process removes the node wholly, and a lab that was not asked to
// Persist ends with the process that brought it up.
//
// Of containerlab's files the package knows the part that labs of Linux nodes
// use (see Load) and refuses the rest with its line, so that a file means the
// same to both programs. Image and capabilities mean nothing here: every node
// is the host's own software, run as root. There is no management network.
package lab
