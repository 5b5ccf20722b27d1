package interop

// Options are the rows of the table, in their order.
func Options() []Option {
	const (
		session  = "speaker TestSessionOptions"
		terms    = "speaker TestTermsAttributes"
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
		{"range of routers", "the router dials, is told, loses its session with its range, and comes back", "speaker TestRange"},
		{"collision of connections", "both dial; one session comes of it, and lasts", "speaker TestCollision"},
		{"password changed", "the session is back with the new one, the other session untouched", "speaker TestPasswordChange"},
		{"shutdown with words", "the router has the words (GoBGP keeps none: it has dropped the route); the other session untouched", "speaker TestShut"},
		{"shutdown by the router", "its words are in the speaker's state; the other session untouched", "speaker TestShutByRouter"},
		{"end of a session by BFD", "the router drops the routes at once, and comes back", "speaker TestFail"},
		{"communities", toldTerm, terms},
		{"large communities", toldTerm, terms},
		{"graceful shutdown community", toldTerm, terms},
		{"MED", toldTerm, terms},
		{"AS path prepending", toldTerm, terms},
		{"next hop that is given", toldTerm, terms},
		{"local preference", "in the router's table: 0, another and none; iBGP", "speaker TestTermsInternal"},
		{"graceful restart", "the speaker is killed; the routes are there whenever the router is asked, and fresh at the end", "speaker TestRoutesOutliveProcess"},
		{"graceful restart of a range", "the speaker is killed; the routes are there until its next start, and fresh at the end", "speaker TestRangeAfterCrash"},
		{"learned routes", "they are in the node's kernel and in no other router; changes, limits and withdrawals follow", "integration/learned TestRoutesOfTwoRouters"},
		{"long-lived graceful restart", "the speaker is away for longer; the routes are there as stale ones, and fresh at the end", "speaker TestLongLivedRestart"},
	}
}
