package exchange_test

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairway-network/fairway/pools"
	. "github.com/fairway-network/fairway/pools/exchange"
	"go4.org/netipx"
)

// universe is all addresses of the simulation: 10.0.0.0/25 and fd00::/121.
const universe = 256

// index of an address in the universe.
func index(a netip.Addr) int {
	if a.Is4() {
		b := a.As4()
		return int(b[3])
	}
	b := a.As16()
	return 128 + int(b[15])
}

func address(i int) netip.Addr {
	if i < 128 {
		return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i - 128)})
}

// set of addresses of the universe.
type set [universe / 64]uint64

func (s *set) add(i int)     { s[i/64] |= 1 << (i % 64) }
func (s *set) remove(i int)  { s[i/64] &^= 1 << (i % 64) }
func (s set) has(i int) bool { return s[i/64]>>(i%64)&1 == 1 }

func (s *set) addRange(r netipx.IPRange) {
	for i := index(r.From()); i <= index(r.To()); i++ {
		s.add(i)
	}
}

func (s set) union(o set) set {
	for i := range s {
		s[i] |= o[i]
	}
	return s
}

func (s set) less(o set) set {
	for i := range s {
		s[i] &^= o[i]
	}
	return s
}

func (s set) both(o set) set {
	for i := range s {
		s[i] &= o[i]
	}
	return s
}

func (s set) String() string {
	var words []string
	for i := 0; i < universe; i++ {
		if !s.has(i) {
			continue
		}
		j := i
		for j+1 < universe && j+1 != 128 && s.has(j+1) {
			j++
		}
		word := address(i).String()
		if j > i {
			word += fmt.Sprintf("-%d", j&127)
		}
		words, i = append(words, word), j
	}
	return "{" + strings.Join(words, " ") + "}"
}

// count the addresses of a family.
func (s set) count(f pools.Family) int {
	if f == pools.IPv4 {
		return bits.OnesCount64(s[0]) + bits.OnesCount64(s[1])
	}
	return bits.OnesCount64(s[2]) + bits.OnesCount64(s[3])
}

// oracle is the dumb truth, each address on its own.
type oracle struct {
	sandbox   [universe]*pod // that holds it
	on        [universe]*machine
	confirmed map[string]bool // lent blocks, by UID, that their node has held
	revision  int
	owned     map[string]set // by node: whose the store says each address is
	covered   set            // by any block
}

func (o *oracle) leased(w *world, m *machine, p *pod) {
	for _, a := range p.addrs {
		i := index(a)
		other := o.sandbox[i]
		if other != nil && other != p && w.wronged(m) && !w.owns(m, i) {
			continue // it has yet to learn that the address is not its own
		}
		if other != nil && other != p && !w.wronged(o.on[i]) {
			w.fail("%v is leased to pod %d on %s and to pod %d on %s", a, other.id, o.on[i].name, p.id, m.name)
		}
		o.sandbox[i], o.on[i] = p, m
	}
}

// owns says whether the store says so now.
func (w *world) owns(m *machine, i int) bool {
	if w.store.revision != w.oracle.revision {
		w.paint()
		w.oracle.revision-- // what follows from it is still to be checked
	}
	return w.oracle.owned[m.name].has(i)
}

func (o *oracle) released(p *pod) {
	for _, a := range p.addrs {
		if i := index(a); o.sandbox[i] == p {
			o.sandbox[i], o.on[i] = nil, nil
		}
	}
}

// removed is told of each block that the store is about to forget.
func (w *world) removed(old Stored) {
	if old.Lender != "" {
		return // its lender looks for what stands in it
	}
	for _, b := range w.store.inside(old.Prefix) {
		if w.real(b) {
			w.fail("block %v#%s of %q is removed, and %v of %q stands in it", old.Prefix, old.UID, old.Node, b.Prefix, b.Node)
		}
	}
}

// real says whether a block counts. A lent one does once its node has used it:
// until then it may be there because its maker has yet to see that the loan
// does not stand, and nobody uses it.
func (w *world) real(b Stored) bool { return b.Lender == "" || w.oracle.confirmed[b.UID] }

// paint sets the longest match, address by address: blocks are in the order of
// their prefixes, so that inner ones come after outer ones.
func (w *world) paint() {
	o := &w.oracle
	o.revision = w.store.revision
	o.owned, o.covered = map[string]set{}, set{}
	var owner [universe]string
	for _, b := range w.store.blocks {
		if !w.real(b) {
			continue
		}
		r := netipx.RangeOfPrefix(b.Prefix)
		for i := index(r.From()); i <= index(r.To()); i++ {
			owner[i] = b.Node
			o.covered.add(i)
		}
	}
	for i, n := range owner {
		if n != "" {
			s := o.owned[n]
			s.add(i)
			o.owned[n] = s
		}
	}
}

// check holds the world against what must always be so.
func (w *world) check() {
	if w.verdict != nil {
		return
	}
	repaint := w.store.revision != w.oracle.revision
	for _, m := range w.machines {
		repaint = m.findWay() || repaint
		if a := m.agent; a != nil && a.dirty {
			repaint = w.noteHeld(a) || repaint
		}
	}
	if repaint {
		w.paint()
	}
	for _, m := range w.machines {
		if m.on {
			w.checkMachine(m, repaint)
		}
	}
}

// noteHeld notes the lent blocks that a node uses.
func (w *world) noteHeld(a *agent) (news bool) {
	for _, st := range a.node.Held() {
		if st.Lender != "" && !w.oracle.confirmed[st.UID] {
			w.oracle.confirmed[st.UID] = true
			news = true
		}
	}
	return news
}

func (w *world) checkMachine(m *machine, all bool) {
	owned := w.oracle.owned[m.name]
	if w.wronged(m) {
		m.residue = m.announced.less(owned.less(m.givenUp()))
		return
	}
	m.residue = m.residue.both(m.announced)
	owned = owned.union(m.residue)
	if wrong := m.announced.less(owned); wrong != (set{}) {
		w.fail("%s is led the addresses %v, of which the store says that they are not its own", m.name, wrong)
	}
	if a := m.agent; a != nil && (a.dirty || all) {
		a.dirty = false
		owned := w.oracle.owned[m.name]
		if wrong := a.believed().less(owned); wrong != (set{}) {
			w.fail("%s holds %v, of which the store says that they are not its own", m.name, wrong)
		}
	}
	for _, p := range m.pods {
		for _, x := range p.addrs {
			if !p.ended && !w.oracle.owned[m.name].has(index(x)) {
				w.fail("pod %d on %s has %v, of which the store says that it is not %s's", p.id, m.name, x, m.name)
			}
		}
	}
}

// givenUp are the addresses of the blocks that calls under way of the node, or late ones,
// remove. If it has lost the block around one, they are led to it by that.
func (m *machine) givenUp() (out set) {
	remove := func(node string, o *Op) {
		if node == m.name && o.Kind == Delete {
			out.addRange(netipx.RangeOfPrefix(o.Block.Prefix))
		}
	}
	for _, c := range m.w.calls {
		remove(c.node, c.op)
	}
	for _, l := range m.w.lates {
		remove(l.node, l.op)
	}
	return out
}

// believed is what a node takes for its own: its blocks less what is set aside.
func (a *agent) believed() (out set) {
	type part struct {
		netip.Prefix
		mine bool
	}
	var parts []part
	for _, st := range a.node.Held() {
		parts = append(parts, part{st.Prefix, true})
	}
	for _, b := range a.ledger.Asides() {
		parts = append(parts, part{b.Prefix, false})
	}
	slices.SortFunc(parts, func(x, y part) int { return netipx.ComparePrefix(x.Prefix, y.Prefix) })
	for _, p := range parts {
		r := netipx.RangeOfPrefix(p.Prefix)
		for i := index(r.From()); i <= index(r.To()); i++ {
			if p.mine {
				out.add(i)
			} else {
				out.remove(i)
			}
		}
	}
	return out
}

// usable are the addresses that pods can have of a pool.
func usable(d pools.Definition) (out set) {
	p, err := pools.New(d)
	if err != nil {
		panic(err)
	}
	for i := range universe {
		if a := address(i); p.Contains(a) && !p.Reserved(a) {
			out.add(i)
		}
	}
	return out
}

// stranded says what is not as it should be once all has come to rest; "" is
// nothing.
func (w *world) stranded() string {
	for _, r := range w.store.requests {
		if m := w.machine(r.Node); m == nil || m.agent == nil || m.agent.needs[Lack{Pool: r.Pool, Family: r.Family, Want: r.Want}] == 0 {
			return fmt.Sprintf("request %s of %s stays, for which nobody waits", r.Name, r.Node)
		}
	}
	for _, b := range w.store.blocks {
		if why := w.strandedBlock(b); why != "" {
			return fmt.Sprintf("block %v#%s of %q, lent by %q: %s", b.Prefix, b.UID, b.Node, b.Lender, why)
		}
	}
	for _, m := range w.machines {
		if s := speakerOf(w.store.speakers, m.name); s != nil && s.Stands && m.on {
			return fmt.Sprintf("%s is back, and its fence stands at generation %d; lifting: %v", m.name, s.Generation, s.Lifting)
		}
		if a := m.agent; a != nil {
			if lost := w.oracle.owned[m.name].less(a.believed()); lost != (set{}) {
				return fmt.Sprintf("%s has %v and does not know", m.name, lost)
			}
		}
	}
	return w.strandedPod()
}

func (w *world) strandedBlock(b Stored) string {
	if b.Vacant() {
		if !slices.ContainsFunc(w.store.inside(b.Prefix), w.real) {
			return "it is vacant, and nothing is in it"
		}
		return ""
	}
	m := w.machine(b.Node)
	if m == nil || m.agent == nil {
		return "its node is gone"
	}
	if !slices.ContainsFunc(m.agent.node.Held(), func(st Stored) bool { return st.UID == b.UID && st.Machine == b.Machine && b.Machine == m.uid }) {
		return "its node does not hold it"
	}
	return ""
}

// strandedPod finds a pod that waits while there is an address for it. Where a
// pool has both families and not enough for all pods, it is not promised that
// those who have one address each give way to each other.
func (w *world) strandedPod() string {
	for _, d := range w.pools {
		if w.rules[d.Name].Draining {
			continue
		}
		free, waiting := w.free(d), w.waiting(d.Name)
		short := len(waiting) > free.count(pools.IPv4) || len(waiting) > free.count(pools.IPv6)
		if short && hasBoth(d) {
			continue
		}
		for _, p := range waiting {
			if servable(p, d, free) {
				return fmt.Sprintf("pod %d waits for an address %v of pool %s, and %v are free", p.id, p.want, p.pool, free)
			}
		}
	}
	return ""
}

// free are the addresses of a pool that no sandbox has.
func (w *world) free(d pools.Definition) set {
	free := usable(d)
	for i := range universe {
		if w.oracle.sandbox[i] != nil {
			free.remove(i)
		}
	}
	return free
}

func (w *world) waiting(pool string) (out []*pod) {
	for _, m := range w.machines {
		for _, p := range m.pods {
			if p.pool == pool && p.addrs == nil && !p.ended {
				out = append(out, p)
			}
		}
	}
	return out
}

func hasBoth(d pools.Definition) bool {
	return slices.ContainsFunc(d.Ranges, func(r netipx.IPRange) bool { return r.From().Is4() }) &&
		slices.ContainsFunc(d.Ranges, func(r netipx.IPRange) bool { return r.From().Is6() })
}

func servable(p *pod, d pools.Definition, free set) bool {
	for _, f := range []pools.Family{pools.IPv4, pools.IPv6} {
		if !slices.ContainsFunc(d.Ranges, func(r netipx.IPRange) bool { return pools.FamilyOf(r.From()) == f }) {
			continue
		}
		var family set
		for i := range universe {
			if a := address(i); pools.FamilyOf(a) == f && free.has(i) && !slices.ContainsFunc(p.want, func(x netip.Addr) bool { return pools.FamilyOf(x) == f && x != a }) {
				family.add(i)
			}
		}
		if family == (set{}) {
			return false
		}
	}
	return true
}
