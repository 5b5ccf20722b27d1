package main

import "slices"

// mutation breaks one rule.
type mutation struct {
	name, file, old, new string
}

func mutations() []mutation {
	return slices.Concat(
		claims(),
		loans(),
		restarts(),
		wakes(),
		fences(),
		orders(),
		[]mutation{
			{
				"reaper: without making vacant first", "pools/exchange/reaper.go",
				"\tcase r.fenced(b):\n\t\tr.callFor(b, Op{Kind: Vacate",
				"\tcase true:\n\t\tr.discard(b)\n\tcase r.fenced(b):\n\t\tr.callFor(b, Op{Kind: Vacate",
			},
			{
				"reaper: removes what something stands in", "pools/exchange/reaper.go",
				"if res.Err != nil || len(res.Blocks) > 0 {", "if res.Err != nil {",
			},
			{
				"reaper: believes an old list of nodes", "pools/exchange/reaper.go",
				"\tcase !b.sure:", "\tcase false:",
			},
			{
				"reaper: one absence stands for all of a name", "pools/exchange/reaper.go",
				"return identity{b.Node, b.Machine}", "return identity{node: b.Node}",
			},
			{
				"reaper: an absent node is gone at once", "pools/exchange/reaper.go",
				"\t\treturn !begun.Before(r.proof(id)), r.proof(id)", "\t\treturn true, time.Time{}",
			},
			{
				"release: without owner", "pools/grant.go",
				"\tif !owner.Owns(g.Owner) {\n\t\treturn Record{}, false", "\tif false {\n\t\treturn Record{}, false",
			},
		},
	)
}

func claims() []mutation {
	const want, holding = "pools/exchange/want.go", "pools/exchange/holding.go"
	return []mutation{
		{
			"claim: what exists already counts as made", want,
			"\t\tcase errors.Is(r.Err, ErrExists):\n\t\t\tw.miss(n)",
			"\t\tcase errors.Is(r.Err, ErrExists):\n\t\t\tw.hold(n, w.block, nil)",
		},
		{
			"claim: what may have been made is forgotten", want,
			"\t\tcase errors.Is(r.Err, ErrExists) && w.unsure:\n\t\t\tw.claimed(n)", "\t\tcase false:",
		},
		{
			"claim: what may be made once more is forgotten with its pool", want,
			"\t\t\tn.auditAt(w.doubt)\n\t\t\tw.finish(n)", "\t\t\tw.finish(n)",
		},
		{
			"take-over: nobody looks inside", want,
			"\t\tcase r.Err == nil:\n\t\t\tw.block = r.Block\n\t\t\tw.to(reading)\n\t\tcase errors.Is(r.Err, ErrUnknown):",
			"\t\tcase r.Err == nil:\n\t\t\tw.hold(n, r.Block, nil)\n\t\tcase errors.Is(r.Err, ErrUnknown):",
		},
		{
			"take-over: of what was lent", "pools/exchange/view.go",
			`st.Vacant() && st.Lender == "" {`, `st.Vacant() {`,
		},
		{
			"take-over: what is being removed in it is not in the journal", holding,
			"if err := n.putAside(st.Prefix); err != nil {", "if err := error(nil); err != nil {",
		},
		{
			"lend: one answer that counts stands for all of an earlier life", "pools/exchange/answer.go",
			"\t\t\tn.leave(l)\n\t\t\tn.join(other, l)\n", "\t\t\tn.regain(l)\n",
		},
		{
			"set aside: in the own name it is own", "pools/aside.go",
			"if node == l.node {", "if false {",
		},
		{
			"loss: what lies in it was parted with", holding,
			"n.partAnew(h.Prefix)", "",
		},
		{
			"return: before the network knows", holding,
			"func (h *holding) leaves() bool { return h.closed && h.parted }", "func (h *holding) leaves() bool { return h.closed }",
		},
		{
			"return: an unknown outcome is taken for done", holding,
			"if r.Err == nil || errors.Is(r.Err, ErrGone) {\n\t\t\tover(Stored{})", "if r.Err == nil || errors.Is(r.Err, ErrGone) || errors.Is(r.Err, ErrUnknown) {\n\t\t\tover(Stored{})",
		},
		{
			"return: taken back after the removal has begun", holding,
			`h.yielded == "" && !h.final && n.ledger`, `h.yielded == "" && n.ledger`,
		},
		{
			"return: around an own block", holding,
			"\tif n.within(p) {", "\tif false {",
		},
	}
}

func loans() []mutation {
	const draw, answer, loan = "pools/exchange/draw.go", "pools/exchange/answer.go", "pools/exchange/loan.go"
	return []mutation{
		{
			"loan: not set aside", answer,
			"if err := n.ledger.SetAside(r.Pool, p, r.Node); err != nil {", "if err := error(nil); err != nil {",
		},
		{
			"loan: not in the journal", answer,
			`if err := n.Keep(pools.Record{Op: pools.Lent, Pool: r.Pool, At: n.now, Block: &pools.Block{Prefix: p, Pool: r.Pool, Node: r.Node}, Ref: ref}); err != nil {`,
			"_, _ = ref, pools.Lent\n\t\tif err := error(nil); err != nil {",
		},
		{
			"loan: granted while the network leads here", answer,
			"a := &answer{request: r}", "a := &answer{request: r, phase: granting}",
		},
		{
			"loan: an unknown grant is taken for none", answer,
			"case errors.Is(res.Err, ErrUnknown) || a.tried:", "case a.tried:",
		},
		{
			"loan: the rest of an unknown grant is taken for none", answer,
			"if !n.grantedIn(r, l) {\n", "if !n.grantedIn(r, l) || l != a.loans[0] {\n",
		},
		{
			"loan: regained as soon as the request is gone", answer,
			"\t\tn.leave(l)\n\t\tl.since,", "\t\tn.regain(l)\n\t\tl.since,",
		},
		{
			"loan: regained with what was lent on", loan,
			"\t\tcase errors.Is(r.Err, ErrGone) && l.Prefix.IsSingleIP():", "\t\tcase errors.Is(r.Err, ErrGone):",
		},
		{
			"loan: used unchecked", draw,
			"case w.ended == byUs && w.stands[d.around()] &&", "case",
		},
		{
			"loan: used though somebody else ended the request", draw,
			"case w.ended == byUs && w.stands", "case w.stands",
		},
		{
			"loan: the block around is not checked", draw,
			"w.stands[d.around()] && ", "",
		},
		{
			"loan: the tenure is not checked", draw,
			" && r.Block.Tenure == g.OuterTenure", "",
		},
		{
			"loan: the block around was read before the last one was made", draw,
			"\t\t\tclear(w.stands)\n\t\t\tw.phase", "\t\t\tw.phase",
		},
		{
			"loan: the request is removed while it may yet be drawn", draw,
			"\tif w.drawsOn() {\n\t\tw.due", "\tif false {\n\t\tw.due",
		},
	}
}

func wakes() []mutation {
	const node, loan, holding = "pools/exchange/node.go", "pools/exchange/loan.go", "pools/exchange/holding.go"
	return []mutation{
		{
			"wake: not for what has rested", node,
			"earlier(n.nextAnswer(), n.nextFree())", "n.nextAnswer()",
		},
		{
			"wake: not for what was too fresh to go", holding,
			"\t\tif n.ripe.IsZero() || ripe.Before(n.ripe) {", "\t\tif false {",
		},
		{
			"wake: a release tells nobody", loan,
			"return slices.ContainsFunc(n.asked, func(r asked) bool { return r.Pool == pool }) || n.waits(pool)", "return false",
		},
	}
}

func restarts() []mutation {
	const holding = "pools/exchange/holding.go"
	return []mutation{
		{
			"restart: a lent block of an earlier life is used", holding,
			"\tcase s.Lender != \"\" || s.leaves:", "\tcase s.leaves:",
		},
		{
			"restart: blocks are not taken anew", holding,
			"\tcase !s.taken:", "\tcase false:",
		},
		{
			"journal: a removal is not in it", holding,
			"\tif !h.final {\n\t\tif err := n.Keep(n.ended(h)); err != nil {",
			"\tif !h.final {\n\t\tif err := error(nil); err != nil {",
		},
		{
			"journal: a claim is not in it", holding,
			"if err := n.Keep(pools.Record{Op: pools.Claimed, Pool: st.Pool, At: n.now, Block: &block}); err != nil {", "if err := error(nil); err != nil && block.Prefix.IsValid() {",
		},
		{
			"journal: what others have is not in it", holding,
			"\tif err := n.Keep(rec); err != nil {\n\t\treturn err\n\t}\n\tn.asleep", "\tn.asleep",
		},
	}
}

func fences() []mutation {
	const fence, reaper = "pools/exchange/fence.go", "pools/exchange/reaper.go"
	return []mutation{
		{
			"fence: none is set", reaper,
			"\tcase r.fenced(b):", "\tdefault:",
		},
		{
			"fence: one covers all that is seen later", fence,
			"\tif b.look <= f.covers {", "\tif f.covers > 0 {",
		},
		{
			"fence: comes off before its lifting is heeded", fence,
			"\tcase fence.Heeded < fence.Generation:", "\tcase false:",
		},
		{
			"fence: a report of an older generation counts", fence,
			"\tcase fence.Heeded < fence.Generation:", "\tcase fence.Heeded < fence.Generation-1:",
		},
		{
			"fence: comes off in one step", fence,
			"\tcase !fence.Lifting:", "\tcase false:",
		},
		{
			"fence: comes off at any version", fence,
			"Op{Kind: RemoveFence, Fence: fence}", "Op{Kind: RemoveFence, Fence: Fence{Node: node}}",
		},
		{
			"vacate: at any version, so that a late one is obeyed", reaper,
			"Op{Kind: Vacate, Block: b.stored}", "Op{Kind: Vacate, Block: Stored{Block: b.stored.Block}}",
		},
	}
}

func orders() []mutation {
	const orders, holding, want = "pools/exchange/orders.go", "pools/exchange/holding.go", "pools/exchange/want.go"
	return []mutation{
		{
			"orders: a lease behind a fence", orders,
			"return n.duty.told.Fence }", "return \"\" }",
		},
		{
			"orders: a lease before they are known", orders,
			"return d.recalled && (reached || now.Before(d.until))", "return false",
		},
		{
			"orders: heeded before the blocks were read", orders,
			"!n.Audited(d.audit) || ", "",
		},
		{
			"orders: heeded before the blocks were taken anew", orders,
			" || !n.Renewed(d.renewal)", "",
		},
		{
			"orders: nothing is taken anew", orders,
			"\t\td.renewal = n.Renew()", "",
		},
		{
			"renewal: forgets one block", holding,
			"\tfor _, h := range n.held {\n\t\tif h.renewal < number && !h.final {\n\t\t\treturn false",
			"\tforgotten := false\n\tfor _, h := range n.holdings() {\n\t\tif !forgotten && h.renewal < number {\n\t\t\tforgotten, h.renewal = true, n.renewals\n\t\t}\n\t\tif h.renewal < number && !h.final {\n\t\t\treturn false",
		},
		{
			"renewal: not of what is being claimed", want,
			"if w.outdated < n.outdated {", "if false {",
		},
		{
			"renewal: not of what is found in this node's name", holding,
			"\t\ts.taken = false\n", "\t\t_ = s\n",
		},
	}
}
