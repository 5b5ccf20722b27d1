package storetest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

// request is one of node for any address of pool web.
func request(node string) exchange.Request {
	return requestFor(node, exchange.Lack{Pool: "web", Family: pools.IPv4})
}

func requestFor(node string, lack exchange.Lack) exchange.Request {
	return exchange.Request{
		Name: exchange.RequestName(node, lack), Node: node,
		Pool: lack.Pool, Family: lack.Family, Want: lack.Want, Count: 3, Holders: 7,
	}
}

// grant is r with one more grant, of a lender.
func grant(r exchange.Request, lender string) exchange.Request {
	last := netip.AddrFrom4([4]byte{10, 1, 0, byte(4 + len(r.Grants))})
	r.Grants = append(slices.Clip(r.Grants), exchange.Grant{
		Lender: lender, Prefix: netip.PrefixFrom(last, last.BitLen()),
		Outer: prefix("10.1.0.0/26"), OuterUID: "of-" + lender, OuterTenure: 2,
	})
	return r
}

func newRequest(t *testing.T, c Shared) {
	e := c.Node("n1")
	for _, lack := range []exchange.Lack{
		{Pool: "web", Family: pools.IPv4},
		{Pool: "web", Family: pools.IPv6},
		{Pool: "web", Family: pools.IPv4, Want: netip.MustParseAddr("10.1.0.9")},
		{Pool: "web", Family: pools.IPv6, Want: netip.MustParseAddr("fd00::9")},
	} {
		r := requestFor("n1", lack)
		made := ask(t, e, r)
		if made.UID == "" || made.Version == "" || !made.Open() {
			t.Errorf("made %+v", made)
		}
		r.UID, r.Version = made.UID, made.Version
		if !made.Equal(r) {
			t.Errorf("made %+v\n  of %+v", made, r)
		}
		read, err := c.Node("n2").Request(t.Context(), r.Name)
		if err != nil || !read.Equal(made) {
			t.Errorf("read %+v, %v\nmade %+v", read, err, made)
		}
	}
	if all, err := e.Requests(t.Context()); err != nil || len(all) != 4 {
		t.Errorf("all requests: %+v, %v", all, err)
	}
	if _, err := e.Ask(t.Context(), request("n2")); err == nil {
		t.Error("n1 asks in the name of n2")
	}
}

func oneOfAName(t *testing.T, c Shared) {
	made := ask(t, c.Node("n1"), request("n1"))
	again := request("n1")
	again.Count = 5
	_, err := c.Node("n1").Ask(t.Context(), again)
	wantErr(t, "a second request of a name", err, exchange.ErrExists)
	ask(t, c.Node("n2"), request("n2"))
	if read, err := c.Node("n2").Request(t.Context(), made.Name); err != nil || !read.Equal(made) {
		t.Errorf("read %+v, %v\nmade %+v", read, err, made)
	}
}

func retracted(t *testing.T, c Shared) {
	e := c.Node("n1")
	_, err := e.Request(t.Context(), request("n1").Name)
	wantErr(t, "a request that was never made", err, exchange.ErrGone)
	old, stays := ask(t, e, request("n1")), ask(t, c.Node("n2"), request("n2"))
	if err := e.Retract(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	_, err = e.Request(t.Context(), old.Name)
	wantErr(t, "a retracted request", err, exchange.ErrGone)
	wantErr(t, "retracting it again", e.Retract(t.Context(), old), exchange.ErrGone)
	made := ask(t, e, request("n1"))
	wantErr(t, "retracting by an old UID", e.Retract(t.Context(), old), exchange.ErrGone)
	all, err := e.Requests(t.Context())
	if err != nil || len(all) != 2 || !slices.ContainsFunc(all, made.Equal) || !slices.ContainsFunc(all, stays.Equal) {
		t.Errorf("there are %+v, %v", all, err)
	}
	granted, err := c.Node("n3").Grant(t.Context(), grant(made, "n3"))
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, "retracting at an old version", e.Retract(t.Context(), made), exchange.ErrConflict)
	made.Version = ""
	if err := e.Retract(t.Context(), made); err != nil {
		t.Errorf("retracting %+v: %v", granted, err)
	}
}

func grantOnce(t *testing.T, c Shared) {
	made := ask(t, c.Node("n1"), request("n1"))
	got, err := c.Node("n2").Grant(t.Context(), grant(made, "n2"))
	if err != nil {
		t.Fatal(err)
	}
	want := grant(made, "n2")
	want.Version = got.Version
	if !got.Equal(want) || got.Version == made.Version {
		t.Errorf("granted %+v\n    want %+v", got, want)
	}
	if read, err := c.Node("n1").Request(t.Context(), made.Name); err != nil || !read.Equal(got) {
		t.Errorf("read %+v, %v\n want %+v", read, err, got)
	}
	_, err = c.Node("n3").Grant(t.Context(), grant(made, "n3"))
	wantErr(t, "a second grant at the old version", err, exchange.ErrConflict)
	if read, err := c.Node("n1").Request(t.Context(), made.Name); err != nil || !read.Equal(got) {
		t.Errorf("after a second grant: %+v, %v\n want %+v", read, err, got)
	}
}

// grantsAdd has several nodes answer one request, each with some grants at once.
func grantsAdd(t *testing.T, c Shared) {
	made := ask(t, c.Node("n1"), request("n1"))
	first, err := c.Node("n2").Grant(t.Context(), grant(grant(made, "n2"), "n2"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Node("n3").Grant(t.Context(), grant(made, "n3"))
	wantErr(t, "a further grant at the version before", err, exchange.ErrConflict)
	second, err := c.Node("n3").Grant(t.Context(), grant(first, "n3"))
	if err != nil {
		t.Fatal(err)
	}
	want := grant(grant(grant(made, "n2"), "n2"), "n3")
	want.Version = second.Version
	if read, err := c.Node("n1").Request(t.Context(), made.Name); err != nil || !read.Equal(want) || read.Open() {
		t.Errorf("read %+v, %v\n want %+v", read, err, want)
	}
}

func grantGone(t *testing.T, c Shared) {
	e := c.Node("n1")
	old := ask(t, e, request("n1"))
	if err := e.Retract(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	_, err := c.Node("n2").Grant(t.Context(), grant(old, "n2"))
	wantErr(t, "granting what is gone", err, exchange.ErrGone)
	made := ask(t, e, request("n1"))
	_, err = c.Node("n2").Grant(t.Context(), grant(old, "n2"))
	wantErr(t, "granting what is gone while another one is there", err, exchange.ErrGone)
	if read, err := e.Request(t.Context(), made.Name); err != nil || !read.Equal(made) {
		t.Errorf("the other one is %+v, %v\n want %+v", read, err, made)
	}
}

func lendersRace(t *testing.T, c Shared) {
	made := ask(t, c.Node("asker"), request("asker"))
	won := winner(t, exchange.ErrConflict, func(node string) error {
		_, err := c.Node(node).Grant(t.Context(), grant(made, node))
		return err
	})
	read, err := c.Node("asker").Request(t.Context(), made.Name)
	if err != nil || !slices.Equal(read.Grants, grant(made, won).Grants) {
		t.Errorf("%s won, and the request is %+v, %v", won, read, err)
	}
}

// Who watches one pool is not shown what is asked for in others.
func selected(t *testing.T, c Shared) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sights := make(chan []exchange.Request)
	go func() {
		_ = c.Node("n9").Watch(ctx, []string{"db", "web"}, func(some []exchange.Request) {
			select {
			case sights <- slices.Clone(some):
			case <-ctx.Done():
			}
		})
	}()
	var made []exchange.Request
	for _, pool := range []string{"other", "web", "others", "db"} {
		made = append(made, ask(t, c.Node("n1"), requestFor("n1", exchange.Lack{Pool: pool, Family: pools.IPv4})))
	}
	for deadline := time.After(patience); ; {
		select {
		case seen := <-sights:
			if slices.ContainsFunc(seen, made[0].Equal) || slices.ContainsFunc(seen, made[2].Equal) {
				t.Fatalf("seen without being asked for: %+v", seen)
			}
			if slices.ContainsFunc(seen, made[1].Equal) && slices.ContainsFunc(seen, made[3].Equal) {
				return
			}
		case <-deadline:
			t.Fatal("waited in vain to see what is asked for in two pools")
		}
	}
}

func watched(t *testing.T, c Shared) {
	early := ask(t, c.Node("n1"), request("n1"))
	ctx, cancel := context.WithCancel(t.Context())
	sights, ended := make(chan []exchange.Request), make(chan error, 1)
	go func() {
		ended <- c.Node("n9").Watch(ctx, nil, func(all []exchange.Request) {
			select {
			case sights <- slices.Clone(all):
			case <-ctx.Done():
			}
		})
	}()
	// await waits until all and only want are seen.
	await := func(want ...exchange.Request) {
		t.Helper()
		var seen []exchange.Request
		for deadline := time.After(patience); ; {
			select {
			case seen = <-sights:
				if len(seen) == len(want) && !slices.ContainsFunc(want, func(r exchange.Request) bool { return !slices.ContainsFunc(seen, r.Equal) }) {
					return
				}
			case <-deadline:
				t.Fatalf("seen last: %+v\nwant: %+v", seen, want)
			}
		}
	}
	await(early)
	late := ask(t, c.Node("n2"), request("n2"))
	await(early, late)
	granted, err := c.Node("n3").Grant(t.Context(), grant(late, "n3"))
	if err != nil {
		t.Fatal(err)
	}
	await(early, granted)
	for _, r := range []exchange.Request{early, granted} {
		if err := c.Node(r.Node).Retract(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	again := ask(t, c.Node("n1"), request("n1"))
	await(again)
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the watch does not end with its context")
	}
}
