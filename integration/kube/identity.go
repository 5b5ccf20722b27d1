package kube

import (
	"context"
	"fmt"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Account names a service account.
type Account struct{ Namespace, Name string }

// unlimited is the QPS of a client that does not limit itself.
const unlimited = -1

// As returns the configuration of a client with a certificate for that user and
// those groups, without a limit of its own on its requests. A kubelet is
// As("system:node:NAME", "system:nodes").
func (c *Cluster) As(user string, groups ...string) *rest.Config {
	config := c.anonymous()
	cert, err := c.authority.client(user, groups...)
	if err != nil {
		// Neither randomness nor signing with a key of ours can fail.
		panic(err)
	}
	config.CertData, config.KeyData = cert, c.authority.leafPEM
	return config
}

// anonymous returns the configuration of a client that nobody knows.
func (c *Cluster) anonymous() *rest.Config {
	return &rest.Config{
		Host:            c.url(),
		TLSClientConfig: rest.TLSClientConfig{CAData: c.authority.certPEM},
		QPS:             unlimited,
	}
}

// NodeAgentConfig returns what the pod of a DaemonSet on that node talks to the
// API server with: a token of the service account, bound to a pod on the node,
// in which the API server reads the node's name. The namespace, the account, the
// node and the pod (ACCOUNT-NODE) are made if they are not there; the account
// has no rights but those that the caller gives it. The token is good for a day,
// as long as node and pod are there.
func (c *Cluster) NodeAgentConfig(ctx context.Context, account Account, node string) (*rest.Config, error) {
	admin, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		return nil, err
	}
	token, err := boundToken(ctx, admin, account, node)
	if err != nil {
		return nil, fmt.Errorf("token of %s/%s on node %s: %w", account.Namespace, account.Name, node, err)
	}
	config := c.anonymous()
	config.BearerToken = token
	return config, nil
}

func boundToken(ctx context.Context, admin kubernetes.Interface, account Account, node string) (string, error) {
	pod, err := ensureAgentPod(ctx, admin, account, node)
	if err != nil {
		return "", err
	}
	day := int64(24 * 60 * 60)
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
		ExpirationSeconds: &day,
		BoundObjectRef:    &authentication.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	answer, err := admin.CoreV1().ServiceAccounts(account.Namespace).CreateToken(ctx, account.Name, request, meta.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.Token, nil
}

// ensureAgentPod returns the pod that stands for the account on the node.
func ensureAgentPod(ctx context.Context, admin kubernetes.Interface, account Account, node string) (*core.Pod, error) {
	v1 := admin.CoreV1()
	named := func(name string) meta.ObjectMeta { return meta.ObjectMeta{Name: name} }
	_, err := v1.Namespaces().Create(ctx, &core.Namespace{ObjectMeta: named(account.Namespace)}, meta.CreateOptions{})
	if err := unlessThere(err); err != nil {
		return nil, err
	}
	_, err = v1.ServiceAccounts(account.Namespace).Create(ctx, &core.ServiceAccount{ObjectMeta: named(account.Name)}, meta.CreateOptions{})
	if err := unlessThere(err); err != nil {
		return nil, err
	}
	_, err = v1.Nodes().Create(ctx, &core.Node{ObjectMeta: named(node)}, meta.CreateOptions{})
	if err := unlessThere(err); err != nil {
		return nil, err
	}
	pod := &core.Pod{ObjectMeta: named(account.Name + "-" + node), Spec: core.PodSpec{
		ServiceAccountName: account.Name, NodeName: node, HostNetwork: true,
		Containers: []core.Container{{Name: "agent", Image: "agent"}},
	}}
	made, err := v1.Pods(account.Namespace).Create(ctx, pod, meta.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return v1.Pods(account.Namespace).Get(ctx, pod.Name, meta.GetOptions{})
	}
	return made, err
}

func unlessThere(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// Kubeconfig returns a file for kubectl and its like, with the rights of Config.
func (c *Cluster) Kubeconfig() string { return c.home.path(adminKubeconfig) }

// kubeconfig returns a configuration file for a user.
func (c *Cluster) kubeconfig(user string, groups ...string) ([]byte, error) {
	cert, err := c.authority.client(user, groups...)
	if err != nil {
		return nil, err
	}
	const name = "fairway-test"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: c.url(), CertificateAuthorityData: c.authority.certPEM}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: c.authority.leafPEM}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	return clientcmd.Write(*config)
}
