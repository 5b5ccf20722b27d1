package speaker

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// awaitDeath returns when a process has died, or with ctx.
func (c *Child) awaitDeath(ctx context.Context) {
	for {
		c.mu.Lock()
		reason, changed := c.reason, c.changed
		c.mu.Unlock()
		if reason != "" {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func TestChildThatIsNone(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	c := NewChild(Spawn{Path: "/bin/sh", Args: []string{"-c", "echo no such command >&2; exit 3"}, Log: log})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() { c.awaitDeath(ctx); cancel() }()
	d := Desired{Peers: []Peer{{Name: "tor"}}}
	err := c.Set(ctx, d)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such command") {
		t.Errorf("Set of a program that is no speaker: %v", err)
	}
	st, err := c.State(t.Context())
	if err != nil || !strings.Contains(st.Silent, "exit status 3") || len(st.Peers) != 1 || st.Peers[0].LastError != st.Silent {
		t.Errorf("the state is %+v, %v", st, err)
	}
	if err := c.Close(context.Background(), Forward); err != nil {
		t.Error(err)
	}
}

// A process whose answers can't be read is ended with words about that, rather than with those
// of its end alone.
func TestChildOfAnotherVersion(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	c := NewChild(Spawn{Path: "/bin/sh", Args: []string{"-c", `echo '{"ID":1}' >&4; exec sleep 60`}, Log: log})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() { c.awaitDeath(ctx); cancel() }()
	if err := c.Set(ctx, Desired{}); err == nil || !strings.Contains(err.Error(), "install both from one release") {
		t.Errorf("Set of a speaker of another version: %v", err)
	}
	if err := c.Close(context.Background(), Forward); err != nil {
		t.Error(err)
	}
}

// Routers of a range may hold routes like peers: a Withdraw that no process could carry
// out says so.
func TestWithdrawWithoutProcess(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	c := NewChild(Spawn{Path: "/bin/false", Log: log})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() { c.awaitDeath(ctx); cancel() }()
	d := Desired{Ranges: []Range{{Name: "rack", Network: netip.MustParsePrefix("192.0.2.0/24")}}}
	d.Local.Restarting = true
	if err := c.Set(ctx, d); err == nil {
		t.Error("Set of a program that is no speaker succeeds")
	}
	if err := c.Close(ctx, Withdraw); err == nil || !strings.Contains(err.Error(), "peer rack (192.0.2.0/24): not told") {
		t.Errorf("Close: %v", err)
	}
}

// What a Set hands over as news makes of the Desired before what it was asked for, and is
// nothing else than announcements.
func TestChangeFrom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	settings := Desired{Local: Local{ASN: 64512}, Peers: []Peer{{Name: "tor", Session: Session{Families: []Family{IPv4}}}}, Terms: map[string]Terms{"a": {}, "b": {}}}
	some := func() Desired {
		d := settings.clone()
		for i := range 10 {
			if random.IntN(2) == 0 {
				d.Announcements = append(d.Announcements, Announcement{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16), []string{"", "a", "b"}[random.IntN(3)]})
			}
		}
		random.Shuffle(len(d.Announcements), func(i, j int) {
			d.Announcements[i], d.Announcements[j] = d.Announcements[j], d.Announcements[i]
		})
		return d
	}
	set := func(d Desired) map[Announcement]bool {
		m := make(map[Announcement]bool)
		for _, a := range d.Announcements {
			m[a] = true
		}
		return m
	}
	for range 500 {
		before, after := some(), some()
		c, ok := changeFrom(&before, &after)
		got := Desired{Announcements: c.Apply(slices.Clone(before.Announcements))}
		if !ok || !maps.Equal(set(got), set(after)) || len(got.Announcements) != len(after.Announcements) {
			t.Fatalf("%v became %v by %+v (%v), want %v", before.Announcements, got.Announcements, c, ok, after.Announcements)
		}
		if len(c.Announced)+len(c.Withdrawn) > len(before.Announcements)+len(after.Announcements) {
			t.Fatalf("%+v makes %v of %v", c, after.Announcements, before.Announcements)
		}
	}
	twice := Desired{Announcements: Plainly(netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.2.0/24"))}
	if c, ok := changeFrom(&twice, &Desired{Announcements: twice.Announcements[:1]}); ok {
		t.Errorf("a prefix is no more announced twice, and that was taken for %+v", c)
	}
	before := some()
	before.Announcements = append(before.Announcements, Announcement{Prefix: netip.MustParsePrefix("192.0.2.0/24")})
	for what, change := range map[string]func(*Desired){
		"this node":         func(d *Desired) { d.Local.ASN++ },
		"a peer's password": func(d *Desired) { d.Peers[0].Password = "other" },
		"a family":          func(d *Desired) { d.Peers[0].Families[0] = IPv6 },
		"terms":             func(d *Desired) { d.Terms["a"] = Terms{"tor": {}} },
		"a prefix twice": func(d *Desired) {
			d.Announcements = append(d.Announcements, Announcement{d.Announcements[0].Prefix, "other"})
		},
		"a prefix twice at a time": func(d *Desired) {
			p := netip.MustParsePrefix("198.51.100.0/24")
			d.Announcements = append([]Announcement{{p, "a"}}, append(d.Announcements, Announcement{p, "b"})...)
		},
		"too much": func(d *Desired) {
			for i := range mostChanged + 1 {
				d.Announcements = append(d.Announcements, Announcement{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i)}), 16)})
			}
		},
	} {
		after := before.clone()
		change(&after)
		if c, ok := changeFrom(&before, &after); ok {
			t.Errorf("%s changed, and that was taken for %+v", what, c)
		}
	}
}
