package kube

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// authority issues the cluster's certificates. All of them are for one key:
// here certificates tell identities apart, they keep no secret.
type authority struct {
	cert    *x509.Certificate
	certPEM []byte
	key     *ecdsa.PrivateKey
	leaf    *ecdsa.PrivateKey
	leafPEM []byte
}

func newAuthority() (*authority, error) {
	a := &authority{}
	var err error
	if a.key, _, err = newKey(); err != nil {
		return nil, err
	}
	if a.leaf, a.leafPEM, err = newKey(); err != nil {
		return nil, err
	}
	template := certificate(pkix.Name{CommonName: "fairway-test-ca"})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	a.cert, err = x509.ParseCertificate(der)
	a.certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a, err
}

// newKey returns a new private key, and the same as PEM.
func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// newAccountKey returns a new private key for the tokens of service accounts as PEM, of
// the kind that kubeadm makes.
func newAccountKey() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make a key for tokens: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), nil
}

// certificate returns what all certificates of the cluster have.
func certificate(subject pkix.Name) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: subject,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(30 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func (a *authority) issue(template *x509.Certificate) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, a.leaf.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", template.Subject, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// serving returns a certificate for the API server.
func (a *authority) serving() ([]byte, error) {
	c := certificate(pkix.Name{CommonName: "kube-apiserver"})
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	c.IPAddresses = []net.IP{net.ParseIP(loopback), net.ParseIP("10.96.0.1")}
	c.DNSNames = []string{"localhost", "kubernetes.default.svc"}
	return a.issue(c)
}

// client returns a certificate that tells the API server who a client is.
func (a *authority) client(user string, groups ...string) ([]byte, error) {
	c := certificate(pkix.Name{CommonName: user, Organization: groups})
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(c)
}

// writeSecrets writes what the components and kubectl read.
func (c *Cluster) writeSecrets() error {
	serving, errS := c.authority.serving()
	accounts, errA := newAccountKey()
	admin, errK := c.kubeconfig("admin", "system:masters")
	controllers, errC := c.kubeconfig("system:kube-controller-manager")
	return errors.Join(errS, errA, errK, errC,
		c.home.write(caCert, c.authority.certPEM),
		c.home.write(servingCert, serving),
		c.home.write(leafKey, c.authority.leafPEM),
		c.home.write(accountKey, accounts),
		c.home.write(adminKubeconfig, admin),
		c.home.write(controllersKubeconfig, controllers),
	)
}
