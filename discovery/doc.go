// Package discovery finds the router at the other end of a link, for sessions over
// link-local addresses ("unnumbered"): by the router's own advertisements (RFC 4861),
// and where it sends none by an echo of the all-routers group (RFC 4291). It
// advertises this node in turn, since routers look for their neighbours in the same
// way, with a router lifetime of 0: no host takes the node for a way out.
//
// A link that one router is on is what this is for. On a segment with several the
// one that was found first stays, and State names the others.
package discovery
