package interop

// Options are the rows of the table, in their order.
func Options() []Option {
	const (
		session  = "speaker/server TestSessionOptions"
		terms    = "speaker/server TestTermsAttributes"
		fabric   = "integration/fabric TestNothingIsLost"
		arrives  = "routes go both ways, with the right AS path and next hop"
		toldTerm = "in the router's table; changed and taken back without a new session"
	)
	return []Option{
		{"eBGP", arrives, session},
		{"iBGP", arrives, session},
		{"four-octet ASNs", arrives, session},
		{"local ASN", arrives + ": the local ASN alone", session},
		{"password", arrives, session},
		{"TTL security", arrives, session},
		{"multihop", arrives, session},
		{"timers", "the hold time that the router has agreed to", session},
		{"passive", "the router dials; " + arrives, session},
		{"port", "the router listens on another; " + arrives, session},
		{"route reflector client", arrives, session},
		{"ADD-PATH", "the router has heard that it may send several paths; " + arrives, session},
		{"several paths of a prefix", "ADD-PATH: two paths with the next hops of two other routers are in the node's kernel; one goes and comes back", "integration/learned TestSeveralPaths"},
		{"extended messages", "the router's UPDATEs have more than 4,096 octets, and what they tell is in the node's kernel", "integration/learned TestExtendedMessages"},
		{"local address", "the node has two on the link, and the router a session with the second alone", "speaker/server TestLocalAddress"},
		{"range of routers", "the router dials, is told, loses its session with its range, and comes back", "speaker/server TestRange"},
		{"collision of connections", "both dial; one session comes of it, and lasts", "speaker/server TestCollision"},
		{"half-open connection", "the router is gone without a word and dials anew; the session is back long before its hold time is over", "speaker/server TestHalfOpen"},
		{"password changed", "the session is back with the new one, the other session untouched", "speaker/server TestPasswordChange"},
		{"shutdown with words", "the router has the words (GoBGP keeps none: it has dropped the route); the other session untouched", "speaker/server TestShut"},
		{"shutdown by the router", "its words are in the speaker's state; the other session untouched", "speaker/server TestShutByRouter"},
		{"end of a session by BFD", "the router drops the routes at once, and comes back", "speaker/server TestFail"},
		{"maximum of prefixes", "the router tells one more, and its session alone is ended with the reason (GoBGP keeps none: it has dropped the route)", "speaker/server TestMaximum"},
		{"communities", toldTerm, terms},
		{"large communities", toldTerm, terms},
		{"graceful shutdown community", toldTerm, terms},
		{"MED", toldTerm, terms},
		{"AS path prepending", toldTerm, terms},
		{"next hop that is given", toldTerm, terms},
		{"told to other peers alone", "gone from the router's table and back again without a new session", terms},
		{"local preference", "in the router's table: 0, another and none; iBGP", "speaker/server TestTermsInternal"},
		{"next hop unchanged", "the node's own address, over which the router forwards packets; changed and taken back without a new session", fabric},
		{"aggregation", "adjacent blocks are one route of the router's kernel, or two where they are joined to their own length alone", fabric},
		{"aggregation with the more-specifics", "the joined route and its blocks are in the router's kernel", fabric},
		{"maintenance by command", "of the node and of one session: the graceful shutdown community comes, outlives the agent, and goes", fabric},
		{"templates and labels", "a template, ASNs and an IPv4 address out of labels, and node selectors: the session that was said otherwise stays, and each comes and goes with a label", fabric},
		{"drain", "the routes stay until the last pod is gone, and then go", fabric},
		{"two routers", "both are told of one block: a client behind them reaches the pod by either, and by the other one when that is lost", "integration TestRouterLost"},
		{"no packet lost", "500 a second to a pod while agent and speaker are killed and upgraded, connections cut, peers added and removed, timers and policies reloaded; of policies alone the router's kernel hears, in one step (FRR: in two for IPv6, and may drop a packet of its own accord; OpenBGPD and GoBGP are route servers beside a BIRD that forwards)", fabric},
		{"graceful restart", "the speaker is killed; the routes are there whenever the router is asked, and fresh at the end", "speaker/server TestRoutesOutliveProcess"},
		{"graceful restart after a notification", "the node's hold timer ends the session; the routes are there as stale ones, and fresh when it is back", "speaker/server TestNotification"},
		{"graceful restart of a range", "the speaker is killed; the routes are there until its next start, and fresh at the end", "speaker/server TestRangeAfterCrash"},
		{"graceful restart of the router", "it is killed and started again; what was learned stays in the node's kernel, and goes if the router tells it no more", "integration/learned TestRouterRestarts"},
		{"learned routes", "they are in the node's kernel and in no other router; changes, limits and withdrawals follow", "integration/learned TestRoutesOfTwoRouters"},
		{"IPv4 prefixes with IPv6 next hops", "learned from two routers, they are in the node's kernel with both next hops", "integration/learned TestIPv4OverIPv6"},
		{"unnumbered", "the node finds two routers by their links, both fe80::1, and tells each other things; a link that comes and goes", "speaker/server TestUnnumberedTwins"},
		{"unnumbered, with packets", "the node learns the way to a client and is reached by it, also while it restarts; BFD", "integration/unnumbered TestUnnumbered"},
		{"BFD", "single-hop and multihop sessions; timers that change, a session that is taken away", "bfd TestTimersAndPeersChange"},
		{"long-lived graceful restart", "the speaker is away for longer; the routes are there as stale ones, and fresh at the end", "speaker/server TestLongLivedRestart"},
	}
}
