package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairway-network/fairway/speaker"
	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
	gobgp "github.com/osrg/gobgp/v3/pkg/server"
	"google.golang.org/protobuf/proto"
)

// exportPolicy is GoBGP's. It is replaced as a whole, which sends nothing: what
// peers are told changes with the paths alone. Nothing passes but what this node
// originates, whatever else it says.
type exportPolicy struct {
	version int
	now     *api.Policy // nil before the first
	sets    map[string]*api.DefinedSet
}

const anyNumber = "[0-9]+" // as a regular expression

// use puts another policy in the place of the one before.
func (e *exportPolicy) use(ctx context.Context, server *gobgp.BgpServer, with export) error {
	next, sets := with.policy, with.sets
	if e.now != nil && sameStatements(e.now, next) {
		return nil
	}
	e.version++
	next.Name = fmt.Sprintf("export %d", e.version)
	for i, s := range next.Statements {
		s.Name = fmt.Sprintf("%s.%d %s", next.Name, i, s.Name)
	}
	if err := e.assign(ctx, server, next, sets); err != nil {
		return fmt.Errorf("policy %s: %w", next.Name, err)
	}
	old := e.now
	e.now = next
	if old == nil {
		return nil
	}
	if err := server.DeletePolicy(ctx, &api.DeletePolicyRequest{Policy: &api.Policy{Name: old.Name}, All: true}); err != nil {
		return fmt.Errorf("policy %s, which is not used any more: %w", old.Name, err)
	}
	return e.dropSets(ctx, server, sets)
}

func (e *exportPolicy) assign(ctx context.Context, server *gobgp.BgpServer, next *api.Policy, sets map[string]*api.DefinedSet) error {
	for name, set := range sets {
		if e.sets[name] != nil {
			continue
		}
		if err := server.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: set}); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
		if e.sets == nil {
			e.sets = make(map[string]*api.DefinedSet)
		}
		e.sets[name] = set
	}
	if err := server.AddPolicy(ctx, &api.AddPolicyRequest{Policy: next}); err != nil {
		return err
	}
	return server.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Name:          "global",
		Direction:     api.PolicyDirection_EXPORT,
		Policies:      []*api.Policy{{Name: next.Name}},
		DefaultAction: api.RouteAction_REJECT,
	}})
}

// dropSets removes those that are not needed.
func (e *exportPolicy) dropSets(ctx context.Context, server *gobgp.BgpServer, needed map[string]*api.DefinedSet) error {
	var errs []error
	for name, set := range e.sets {
		if needed[name] != nil {
			continue
		}
		if err := server.DeleteDefinedSet(ctx, &api.DeleteDefinedSetRequest{DefinedSet: set, All: true}); err != nil {
			errs = append(errs, fmt.Errorf("set %s: %w", name, err))
			continue
		}
		delete(e.sets, name)
	}
	return errors.Join(errs...)
}

// sameStatements compares all but the names.
func sameStatements(a, b *api.Policy) bool {
	return slices.EqualFunc(a.Statements, b.Statements, func(s, t *api.Statement) bool {
		return proto.Equal(s.Conditions, t.Conditions) && proto.Equal(s.Actions, t.Actions)
	})
}

// export is a policy in the making, and the sets that it asks for.
type export struct {
	policy *api.Policy
	sets   map[string]*api.DefinedSet
}

// exportOf is the policy for classes. Each target has its statements, and where it
// lies in a range the range's are not for it.
func exportOf(list []target, classes []*class) export {
	e := export{policy: new(api.Policy), sets: make(map[string]*api.DefinedSet)}
	untagged := e.tagged("all classes", anyNumber)
	untagged.Type = api.MatchSet_INVERT
	e.say("plain", originated(untagged), &api.Actions{RouteAction: api.RouteAction_ACCEPT})
	for i, n := range list {
		for _, c := range classes {
			if v, told := c.told[n.at]; told && !c.plain() {
				number := fmt.Sprint(c.number)
				conditions := originated(e.tagged("class "+number, number))
				conditions.NeighborSet = e.at(n)
				e.say(n.at.String()+", class "+number, conditions, actionsOf(v, n))
			}
		}
		if len(classes) > 0 && slices.ContainsFunc(list[i+1:], func(m target) bool { return m.at.Overlaps(n.at) }) {
			e.say(n.at.String()+", no more", &api.Conditions{NeighborSet: e.at(n)}, rejected())
		}
	}
	return e
}

func (e *export) say(name string, c *api.Conditions, a *api.Actions) {
	e.policy.Statements = append(e.policy.Statements, &api.Statement{Name: name, Conditions: c, Actions: a})
}

// tagged is the condition that a path has the tag of a class, a regular expression.
func (e *export) tagged(name, class string) *api.MatchSet {
	pattern := fmt.Sprintf("^%d:%s:0$", uint32(tagASN), class)
	e.sets[name] = &api.DefinedSet{DefinedType: api.DefinedType_LARGE_COMMUNITY, Name: name, List: []string{pattern}}
	return &api.MatchSet{Type: api.MatchSet_ANY, Name: name}
}

// at is the condition that a path is for a target.
func (e *export) at(n target) *api.MatchSet {
	name := "at " + n.at.String()
	e.sets[name] = &api.DefinedSet{DefinedType: api.DefinedType_NEIGHBOR, Name: name, List: []string{n.at.String()}}
	return &api.MatchSet{Type: api.MatchSet_ANY, Name: name}
}

// originated are the conditions of all that lets something out: this node originates
// it, and its tag is as told.
func originated(tag *api.MatchSet) *api.Conditions {
	return &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL, LargeCommunitySet: tag}
}

func rejected() *api.Actions { return &api.Actions{RouteAction: api.RouteAction_REJECT} }

// tagOf marks a path as one of a class.
func tagOf(c *class) bgp.PathAttributeInterface {
	return bgp.NewPathAttributeLargeCommunities([]*bgp.LargeCommunity{{ASN: tagASN, LocalData1: c.number}})
}

// actionsOf puts a path of a class into the words for a neighbor, in place of the
// tag.
func actionsOf(v variant, n target) *api.Actions {
	a := &api.Actions{
		RouteAction:    api.RouteAction_ACCEPT,
		LargeCommunity: &api.CommunityAction{Type: api.CommunityAction_REPLACE, Communities: written(v.large, 3)},
	}
	if v.communities != "" {
		a.Community = &api.CommunityAction{Type: api.CommunityAction_REPLACE, Communities: written(v.communities, 1)}
	}
	if v.preference > 0 { // pathOf does what GoBGP has no action for
		a.LocalPref = &api.LocalPrefAction{Value: uint32(v.preference)}
	}
	if v.med >= 0 {
		a.Med = &api.MedAction{Type: api.MedAction_REPLACE, Value: v.med}
	}
	if v.length > 1 {
		a.AsPrepend = &api.AsPrependAction{Asn: n.asn, Repeat: uint32(v.length - 1)}
	}
	if v.hop.IsValid() {
		a.Nexthop = &api.NexthopAction{Address: v.hop.String()}
	}
	return a
}

// written takes packed communities of some words each apart, as GoBGP reads them.
func written(packed string, words int) []string {
	var list []string
	for b := []byte(packed); len(b) > 0; b = b[4*words:] {
		if words == 1 {
			list = append(list, fmt.Sprintf("%d:%d", binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])))
			continue
		}
		var parts []string
		for i := range words {
			parts = append(parts, fmt.Sprint(binary.BigEndian.Uint32(b[4*i:])))
		}
		list = append(list, strings.Join(parts, ":"))
	}
	return list
}

// least says whether a neighbor is to be told local preference 0, for which GoBGP
// has no action.
func (c *class) least() bool {
	for _, v := range c.told {
		if v.preference == 0 {
			return true
		}
	}
	return false
}

// setAnnouncements tells of what is new or told otherwise, before it withdraws
// what is old. The policy knows old and new classes meanwhile: GoBGP asks it about
// a path as it was and as it is, and so withdraws it from those who are not told
// any more. peers and ranges are those to be told, also where they come later.
func (r *run) setAnnouncements(ctx context.Context, a announcements, peers map[netip.Addr]speaker.Peer, ranges map[string]speaker.Range) error {
	r.asked = a
	want := r.classify(a, peers, ranges)
	add, remove := r.ledger.diff(want)
	return r.tell(ctx, add, remove, want)
}

// changeAnnouncements is setAnnouncements of what c makes of those of before, with the peers
// and ranges of before.
func (r *run) changeAnnouncements(ctx context.Context, c speaker.Change) error {
	want, ok := r.classesOf(c)
	if !ok {
		return r.setAnnouncements(ctx, r.asked.with(c), r.peers, r.ranges)
	}
	add, remove := r.ledger.changes(want)
	err := r.tell(ctx, add, remove, want)
	r.asked.list = c.Apply(r.asked.list) // which the router need not wait for
	return err
}

// classesOf gives the class of each prefix of c, nil for what is withdrawn. It says no where
// nothing is in the terms of one yet.
func (r *run) classesOf(c speaker.Change) (want map[netip.Prefix]*class, ok bool) {
	want = make(map[netip.Prefix]*class, len(c.Announced)+len(c.Withdrawn))
	for _, p := range c.Withdrawn {
		want[p] = nil
	}
	for _, one := range c.Announced {
		family := familyOf(one.Prefix.Addr())
		if one.Terms == "" {
			want[one.Prefix] = r.ledger.everybody[family]
			continue
		}
		known := r.found[classKey{one.Terms, family}]
		if !slices.Contains(r.classes, known) { // tidy may have dropped it
			return nil, false
		}
		want[one.Prefix] = known
	}
	return want, true
}

// tell makes some prefixes what they are in want, at the routers and then in GoBGP.
func (r *run) tell(ctx context.Context, add, remove []netip.Prefix, want map[netip.Prefix]*class) error {
	add, err := r.sample(ctx, add, want)
	if err != nil {
		return err
	}
	told := r.tellAhead(add, remove, want)
	ctx = told.follow(ctx)
	if len(add)+len(remove) >= many {
		defer r.thrift.spend()()
	}
	return r.recall(told, errors.Join(r.publish(ctx), r.changeAll(ctx, add, want, told), r.changeAll(ctx, remove, want, told)))
}

// publish makes the export policy that of the classes.
func (r *run) publish(ctx context.Context) error {
	return r.export.use(ctx, r.bgp, exportOf(r.targets, r.classes))
}

// changeAll makes prefixes what they are in want, one after the other.
func (r *run) changeAll(ctx context.Context, list []netip.Prefix, want map[netip.Prefix]*class, told *ahead) error {
	var errs []error
	for _, p := range list {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, r.change(ctx, p, want[p], told))
	}
	return errors.Join(errs...)
}

// classify gives the class of each prefix.
func (r *run) classify(a announcements, peers map[netip.Addr]speaker.Peer, ranges map[string]speaker.Range) map[netip.Prefix]*class {
	k := &classifier{
		targets: targetsOf(r.local, peers, ranges), lasting: make(map[netip.Prefix]bool), known: r.classes,
		last: r.lastClass, taken: make(map[*class]speech), found: make(map[classKey]*class),
	}
	for address, p := range peers {
		old, had := r.peers[address]
		if had && sameSession(p, old) {
			k.lasting[whereabouts(address)] = true
		}
	}
	for name, rg := range ranges {
		old, had := r.ranges[name]
		if had && sameRange(rg, old) {
			k.lasting[rg.Network] = true
		}
	}
	want := make(map[netip.Prefix]*class, len(a.list))
	for _, one := range a.list {
		p, family := one.Prefix, familyOf(one.Prefix.Addr())
		if one.Terms == "" {
			want[p] = r.ledger.everybody[family]
			continue
		}
		want[p] = k.find(one.Terms, a.named[one.Terms], family)
	}
	r.targets, r.classes, r.found, r.lastClass = k.targets, k.known, k.found, k.last
	r.ledger.retell(k.taken)
	return want
}

// tidy forgets the classes that no path is of any more.
func (r *run) tidy(ctx context.Context) error {
	if len(r.classes) > 0 {
		used := r.ledger.classes()
		r.classes = slices.DeleteFunc(slices.Clone(r.classes), func(c *class) bool { return !used[c] })
	}
	return r.publish(ctx)
}
