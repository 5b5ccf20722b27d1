// Package kube runs a real Kubernetes control plane, etcd and kube-apiserver,
// for tests, benchmarks and people who want to try something. The programs are
// built by "make kube" from the module in the folder controlplane.
//
// The API server listens on a loopback port that is held for the cluster, as
// long as it lives; etcd on a unix socket. Authorization is RBAC and Node;
// NodeRestriction, ValidatingAdmissionPolicy and all else that is on by default
// admit. There is no kubelet and no scheduler, and unless Options.Controllers
// names some, no controller: namespaces that are deleted stay Terminating, and
// garbage stays.
//
// Three things that a test may trip over: the first create of a custom resource
// less than two seconds after its definition is answered two seconds later; an
// admission policy acts a moment after it was created, not at once; and kubectl
// explain knows a kind a moment after it is served.
package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// startTime bounds how long one component may take until it is ready.
const startTime = 60 * time.Second

// Options say what is not as usual. The zero value is the usual cluster.
type Options struct {
	// APIServer are flags for kube-apiserver beside the usual ones; the last
	// one of a name counts.
	APIServer []string
	// Controllers are those that kube-controller-manager shall run, in the
	// words of its flag --controllers; none of them, no controller manager. With
	// controllers the admission plugin ServiceAccount is on, so a pod needs
	// its service account: have "serviceaccount-controller" among them.
	Controllers []string
}

// Cluster is a control plane that runs. Its methods may be called from many
// goroutines, but those that stop or start a component from one at a time.
type Cluster struct {
	options     Options
	home        *home
	port        *heldPort
	authority   *authority
	etcd        *process
	apiserver   *process
	controllers *process // nil without Options.Controllers
}

// Start brings a cluster up for a test and takes it down when the test ends. It
// skips the test when the programs are not built. A test that failed shows the
// ends of the components' logs.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c, err := Up(t.Context(), o)
	if errors.Is(err, ErrNotBuilt) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs())
		}
		if err := c.Down(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Up brings a cluster up and returns when the API server is ready. The cluster
// lives until Down or until this process ends, whichever is first; ctx bounds
// the start only. The error is ErrNotBuilt when the programs are not there.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	c := &Cluster{options: o}
	if err := c.up(ctx, bin); err != nil {
		return nil, errors.Join(fmt.Errorf("control plane: %w", err), c.Down())
	}
	return c, nil
}

func (c *Cluster) up(ctx context.Context, bin string) (err error) {
	if c.home, err = newHome(); err != nil {
		return err
	}
	if c.port, err = holdPort(); err != nil {
		return err
	}
	c.etcd = newProcess(c.home.path("etcd.log"), c.etcdCommand(bin))
	if err := c.etcd.start(); err != nil {
		return err
	}
	// etcd starts meanwhile.
	if c.authority, err = newAuthority(); err != nil {
		return err
	}
	if err := c.writeSecrets(); err != nil {
		return err
	}
	if err := c.etcd.await(ctx, c.etcdHealthy); err != nil {
		return err
	}
	c.apiserver = newProcess(c.home.path("kube-apiserver.log"), c.apiserverCommand(bin))
	if err := c.StartAPIServer(ctx); err != nil {
		return err
	}
	if len(c.options.Controllers) == 0 {
		return nil
	}
	c.controllers = newProcess(c.home.path("kube-controller-manager.log"), c.controllersCommand(bin))
	return c.controllers.start()
}

// Down kills the components and removes all that the cluster has written.
func (c *Cluster) Down() error {
	// The API server before etcd, without which it would wait and complain.
	err := errors.Join(c.controllers.kill(), c.apiserver.kill(), c.etcd.kill())
	return errors.Join(err, c.port.close(), c.home.remove())
}

// StopAPIServer kills the API server, as a crash does: from then on connections
// to it are refused.
func (c *Cluster) StopAPIServer() error { return c.apiserver.kill() }

// StartAPIServer starts an API server that was stopped, at the same address and
// with the same data, and returns when it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	if err := c.apiserver.start(); err != nil {
		return err
	}
	return c.apiserver.await(ctx, c.apiserverReady)
}

// PauseAPIServer halts the API server until ResumeAPIServer: connections to it
// are accepted by the kernel, stay open, and nothing is answered.
func (c *Cluster) PauseAPIServer() error { return c.apiserver.pause() }

// ResumeAPIServer ends PauseAPIServer.
func (c *Cluster) ResumeAPIServer() error { return c.apiserver.resume() }

// CPUTime is the processor time, in all threads and in user and system mode,
// that a component has used since it was started last.
type CPUTime struct{ APIServer, Etcd time.Duration }

// CPUTime returns what the components have used. Benchmarks take differences.
func (c *Cluster) CPUTime() (CPUTime, error) {
	apiserver, errA := c.apiserver.cpuTime()
	etcd, errE := c.etcd.cpuTime()
	return CPUTime{apiserver, etcd}, errors.Join(errA, errE)
}

// APIServerPID is the process of the API server, 0 if it does not run.
func (c *Cluster) APIServerPID() int {
	if !c.apiserver.runs() {
		return 0
	}
	return c.apiserver.run.process.Pid
}

// Programs returns the folder that holds kubectl and the components' programs.
func (c *Cluster) Programs() string { return filepath.Dir(c.etcd.argv[0]) }

// Logs returns the ends of the components' logs.
func (c *Cluster) Logs() string {
	var b strings.Builder
	for _, p := range []*process{c.etcd, c.apiserver, c.controllers} {
		if p != nil {
			fmt.Fprintf(&b, "the end of %s:\n%s\n", filepath.Base(p.log), p.tail())
		}
	}
	return b.String()
}

func (c *Cluster) etcdSocket() string { return c.home.path("etcd.sock") }

func (c *Cluster) etcdCommand(bin string) []string {
	client, peer := "unix://"+c.etcdSocket(), "unix://"+c.home.path("peer.sock")
	return []string{
		filepath.Join(bin, "etcd"),
		"--data-dir", c.home.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "default=" + peer,
		// Alone it has nobody to lose an election to, so it need not wait long
		// (milliseconds) before it stands for one.
		"--heartbeat-interval", "10", "--election-timeout", "100",
		"--quota-backend-bytes", "8589934592", "--log-level", "warn",
	}
}

func (c *Cluster) apiserverCommand(bin string) []string {
	argv := []string{
		filepath.Join(bin, "kube-apiserver"),
		"--etcd-servers", "unix://" + c.etcdSocket(),
		"--bind-address", loopback, "--secure-port", fmt.Sprint(c.port.number), "--permit-port-sharing",
		// Without an address of its own it has no endpoint to publish.
		"--advertise-address", loopback, "--endpoint-reconciler-type", "none",
		"--tls-cert-file", c.home.path(servingCert), "--tls-private-key-file", c.home.path(leafKey),
		"--client-ca-file", c.home.path(caCert), "--cert-dir", c.home.path("certs"),
		"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-signing-key-file", c.home.path(accountKey),
		"--service-account-key-file", c.home.path(accountKey),
		"--service-cluster-ip-range", "10.96.0.0/16", "--allow-privileged",
	}
	if len(c.options.Controllers) == 0 {
		// It wants an account in each namespace, which a controller makes.
		argv = append(argv, "--disable-admission-plugins", "ServiceAccount")
	}
	return append(argv, c.options.APIServer...)
}

func (c *Cluster) controllersCommand(bin string) []string {
	config := c.home.path(controllersKubeconfig)
	return []string{
		filepath.Join(bin, "kube-controller-manager"),
		"--kubeconfig", config, "--authentication-kubeconfig", config, "--authorization-kubeconfig", config,
		"--controllers", strings.Join(c.options.Controllers, ","),
		"--service-account-private-key-file", c.home.path(accountKey), "--root-ca-file", c.home.path(caCert),
		"--use-service-account-credentials", "--leader-elect=false", "--secure-port", "0",
		"--kube-api-qps", "1000", "--kube-api-burst", "2000",
	}
}

// etcdHealthy asks etcd whether it serves.
func (c *Cluster) etcdHealthy(ctx context.Context) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.etcdSocket())
	}}
	return answersOK(ctx, transport, "http://etcd/readyz")
}

// apiserverReady asks the API server whether it serves and has its own objects.
func (c *Cluster) apiserverReady(ctx context.Context) error {
	roots := x509.NewCertPool()
	roots.AddCert(c.authority.cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	return answersOK(ctx, transport, c.url()+"/readyz")
}

func answersOK(ctx context.Context, transport *http.Transport, url string) error {
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}

func (c *Cluster) url() string { return fmt.Sprintf("https://%s:%d", loopback, c.port.number) }

// Config returns the configuration of a client that may do all (it is of the
// group system:masters), without a limit of its own on its requests.
func (c *Cluster) Config() *rest.Config { return c.As("admin", "system:masters") }

// ErrNotBuilt: the control plane's programs are not there.
var ErrNotBuilt = errors.New("the control plane is not built; run: make kube")

// programs returns the folder of the control plane's programs, bin/kube of the
// checkout.
func programs() (string, error) {
	root, err := checkout()
	if err != nil {
		return "", fmt.Errorf("control plane: %w", err)
	}
	bin := filepath.Join(root, "bin", "kube")
	if _, err := os.Stat(filepath.Join(bin, "kube-apiserver")); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotBuilt, err)
	}
	return bin, nil
}
