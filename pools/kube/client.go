// Package kube is the store on the Kubernetes API server, and what else a node's
// agent reads there: its pods, their namespaces, the pools, its own node.
package kube

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// userAgent is how the API server's logs and metrics name the client, unless
// its configuration says something else.
const userAgent = "fairway-agent"

const (
	// dialTime bounds an attempt to reach the API server's machine.
	dialTime = 5 * time.Second
	// keepAlive is how often a connection is tried out on which nothing is sent.
	keepAlive = 30 * time.Second
)

// Options say what is not as usual. The zero value is the usual client.
type Options struct {
	// QPS bounds the requests of a second. Zero is no bound: the API server has
	// its own priorities and fairness.
	QPS float32
	// Log is slog.Default() if it is nil.
	Log *slog.Logger
}

// Client talks to one API server. It is safe for concurrent use, and all that
// is made of it shares its connections.
type Client struct {
	own  rest.Interface     // of fairway.network
	core rest.Interface     // of Kubernetes
	meta metadata.Interface // of both, without spec and status
	log  *slog.Logger
	told recounts
	// reached is whether a connection was there when one was needed last.
	reached atomic.Bool
	lines
}

// NewClient returns a client with the rights and the server of config, which it
// copies. It sends nothing yet.
func NewClient(config *rest.Config, o Options) (*Client, error) {
	config = rest.CopyConfig(config)
	if config.UserAgent == "" {
		config.UserAgent = userAgent
	}
	config.QPS = o.QPS
	if o.QPS == 0 {
		config.QPS = -1
	}
	// It would end watches, too. Each call has a bound of its own.
	config.Timeout = 0
	if config.Dial == nil {
		// A machine that is gone does not answer, and one that comes back hears of no
		// dialer that has been trying for long.
		config.Dial = (&net.Dialer{Timeout: dialTime, KeepAlive: keepAlive}).DialContext
	}
	c := &Client{log: o.Log}
	// Clients with dialers of their own share no connections, nor how these are made.
	config.Dial = c.counting(config.Dial)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return newDoor(next, &c.reached) })
	if c.log == nil {
		c.log = slog.Default()
	}
	if err := c.connect(config); err != nil {
		return nil, fmt.Errorf("client of the API server %s: %w", config.Host, err)
	}
	return c, nil
}

// Reached says whether the API server was there when it was called last: a connection
// was made, whatever was answered over it. It is not before the first call.
func (c *Client) Reached() bool { return c.reached.Load() }

// connect makes the parts of the client, over one pool of connections.
func (c *Client) connect(config *rest.Config) error {
	connections, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	resumeSessions(connections.Transport)
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	scheme.AddKnownTypes(core.SchemeGroupVersion, &core.Node{}, &core.NodeList{}, &core.Event{})
	metav1.AddToGroupVersion(scheme, core.SchemeGroupVersion)
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()

	part := func(path string, version schema.GroupVersion) (rest.Interface, error) {
		config := rest.CopyConfig(config)
		config.APIPath, config.GroupVersion = path, &version
		config.NegotiatedSerializer = codecs
		config.ContentType = runtime.ContentTypeJSON
		return rest.RESTClientForConfigAndClient(config, connections)
	}
	if c.own, err = part("/apis", v1alpha1.GroupVersion()); err != nil {
		return err
	}
	if c.core, err = part("/api", core.SchemeGroupVersion); err != nil {
		return err
	}
	c.meta, err = metadata.NewForConfigAndClient(config, connections)
	return err
}

// resumeSessions has a connection go on with what the one before it agreed upon (RFC
// 8446, section 2.2), which spares the API server a signature: 0.1 ms with ECDSA, more
// than 1 ms with RSA. A client with a certificate, which the session would keep, may
// get another one and is left alone.
func resumeSessions(connections http.RoundTripper) {
	config, err := utilnet.TLSClientConfig(connections)
	if err != nil || config == nil || len(config.Certificates) > 0 || config.GetClientCertificate != nil {
		return
	}
	// One server, which may have several names.
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
}
