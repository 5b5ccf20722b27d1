package kube

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"k8s.io/client-go/rest"
)

// A second connection resumes the session of the first, of a client that says who it
// is by its token.
func TestSessionsAreResumed(t *testing.T) {
	var resumed []bool
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resumed = append(resumed, r.TLS.DidResume)
		w.WriteHeader(http.StatusOK)
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	der, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	// One request after the other: nobody else touches resumed.
	for _, certified := range []bool{false, true} {
		config := &rest.Config{Host: server.URL, BearerToken: "secret", TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
		if certified {
			config.CertData, config.KeyData = ca, key // any will do
		}
		c := client(t, config)
		resumed = nil
		for range 2 {
			if _, err := c.own.Get().Resource(v1alpha1.AddressPools).DoRaw(t.Context()); err != nil {
				t.Fatal(err)
			}
			server.CloseClientConnections()
		}
		if len(resumed) != 2 || resumed[0] || resumed[1] == certified {
			t.Errorf("with a certificate %t: resumed %v, want the second one only, and none with a certificate", certified, resumed)
		}
	}
}
