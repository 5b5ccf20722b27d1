package kube

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// mute is a connection whose other end may vanish without a word.
type mute struct {
	net.Conn
	gone atomic.Bool
	over chan struct{}
}

func (m *mute) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if m.gone.Load() {
		<-m.over
		return 0, io.EOF
	}
	return n, err
}

func (m *mute) Write(b []byte) (int, error) {
	if m.gone.Load() {
		return len(b), nil
	}
	return m.Conn.Write(b)
}

// notice is when it is known at last that the other end has vanished.
func (m *mute) notice() {
	close(m.over)
	_ = m.Conn.Close()
}

// mutes are the connections of a client.
type mutes struct {
	mu   sync.Mutex
	made []*mute
}

func (m *mutes) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &mute{Conn: conn, over: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made = append(m.made, c)
	return c, nil
}

func (m *mutes) all() []*mute {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.made[:len(m.made):len(m.made)]
}

// frontDoor is an API server that has the pool "fleeting", until it is deleted, and
// grants every claim. It asks for another connection once when leave is set.
type frontDoor struct {
	deleted, leave         atomic.Bool
	reads, claims, watched atomic.Int32
}

func (f *frontDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	answer := func(code int, o any) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(o)
	}
	fail := func(code int32, reason metav1.StatusReason) {
		answer(int(code), metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: code, Reason: reason})
	}
	q := r.URL.Query()
	switch path := r.URL.Path; {
	case r.Method == http.MethodPost:
		f.claims.Add(1)
		var b v1alpha1.AddressBlock
		_ = json.NewDecoder(r.Body).Decode(&b)
		b.UID, b.ResourceVersion = types.UID("u-"+b.Name), "9"
		answer(http.StatusCreated, b)
	case !strings.HasSuffix(path, "/"+v1alpha1.AddressPools):
		if f.leave.CompareAndSwap(true, false) {
			w.Header().Set("Connection", "close") // GOAWAY, as the API server's own filter does it
		}
		fail(http.StatusNotFound, metav1.StatusReasonNotFound)
	case q.Has("sendInitialEvents"):
		fail(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid)
	case q.Has("watch"):
		w.(http.Flusher).Flush()
		f.watched.Add(1)
		<-r.Context().Done()
	default:
		if q.Has("fieldSelector") {
			f.reads.Add(1)
		}
		answer(http.StatusOK, f.pools())
	}
}

func (f *frontDoor) pools() v1alpha1.AddressPoolList {
	list := v1alpha1.AddressPoolList{ListMeta: metav1.ListMeta{ResourceVersion: "5"}}
	list.Kind, list.APIVersion = "AddressPoolList", v1alpha1.GroupVersion().String()
	if !f.deleted.Load() {
		list.Items = []v1alpha1.AddressPool{{ObjectMeta: metav1.ObjectMeta{Name: "fleeting", UID: "u-pool", ResourceVersion: "4"}}}
	}
	return list
}

// An API server asks for another connection: the watch of pools stays on the old one,
// and claims go over the new one. The machine behind the old one then vanishes, which
// HTTP/2 finds out later than a pool is gone that is deleted meanwhile.
func TestAWatchOverAnotherConnectionVouchesForNoPool(t *testing.T) {
	var f frontDoor
	server := httptest.NewUnstartedServer(&f)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	var conns mutes
	c := client(t, &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, Dial: conns.dial})
	// Of all that a Watcher watches the pools alone: no other request makes a connection.
	w := c.Watcher("n1")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = w.pools.follow(ctx, w.standing.heedful(every(w.own, v1alpha1.AddressPools)), &v1alpha1.AddressPool{}, func() { w.standing.listed(0) })
	}()
	t.Cleanup(func() { cancel(); <-ended })
	later := func() time.Time { return time.Now().Add(time.Hour) }
	await(t, "the pool is watched", func() bool { return w.standing.knows("fleeting", later()) })
	claim := func(when string, works bool, reads int32) {
		t.Helper()
		f.reads.Store(0)
		f.claims.Store(0)
		_, err := w.Store().Create(t.Context(), pools.Block{Prefix: netip.MustParsePrefix("10.0.0.0/26"), Pool: "fleeting", Node: "n1"})
		if (err == nil) != works || (f.claims.Load() == 1) != works || f.reads.Load() != reads {
			t.Errorf("%s: %d claims, %d reads of the pool, want %d: %v", when, f.claims.Load(), f.reads.Load(), reads, err)
		}
	}
	claim("over the connection of the watch", true, 0)

	f.leave.Store(true)
	await(t, "other requests go over another connection", func() bool {
		_, _ = c.Store("n1").Block(t.Context(), netip.MustParsePrefix("10.0.0.0/26"))
		return len(conns.all()) > 1
	})
	first := conns.all()[0]
	first.gone.Store(true)
	claim("beside the connection of the watch", true, 1)
	if at := w.standing.each["fleeting"].at; !w.standing.knows("fleeting", at.Add(blindTime-1)) || w.standing.knows("fleeting", at.Add(blindTime)) {
		t.Errorf("what was read beside the connection of the watch has to last for %s", blindTime)
	}
	f.deleted.Store(true)
	w.standing.note("fleeting", poolRead{w.losses.Load(), time.Now().Add(-blindTime)}) // as time passes
	claim("in a pool that is gone", false, 1)
	if w.losses.Load() != 0 {
		t.Error("the loss of the first connection was noticed: nothing was shown")
	}

	f.deleted.Store(false)
	f.watched.Store(0)
	first.notice()
	await(t, "the pool is watched again", func() bool { return f.watched.Load() > 0 && w.open.Load() == 1 })
	claim("after the loss", true, 1)
	await(t, "the watch vouches for the pool", func() bool { return w.standing.knows("fleeting", later()) })
	claim("over the one connection that there is", true, 0)
}
