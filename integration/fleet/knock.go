package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/fairway-network/fairway/integration/kube"
)

// Knock makes so many connections, each for one request for the API server's
// version: what it costs to be there at all.
func Knock(ctx context.Context, c *kube.Cluster, connections int) error {
	const knockers = 32
	server := c.Config()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(server.CAData)
	errs := make([]error, knockers)
	var all sync.WaitGroup
	for k := range knockers {
		all.Go(func() {
			for n := k; n < connections && errs[k] == nil; n += knockers {
				errs[k] = knock(ctx, server.Host+"/version", roots)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func knock(ctx context.Context, url string, roots *x509.CertPool) error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, answer.Status)
	}
	return errors.Join(err, answer.Body.Close())
}
