package controller

import (
	"fmt"
	"log/slog"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools/kube"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
)

// userAgent is how the API server's logs and metrics name the controller.
const userAgent = "fairway-controller"

// clients talk to one API server.
type clients struct {
	own, core rest.Interface // to list and to watch
	leases    coordination.LeasesGetter
	custodian *kube.Custodian
}

func newClients(config *rest.Config, log *slog.Logger) (*clients, error) {
	config = rest.CopyConfig(config)
	config.UserAgent, config.QPS, config.Timeout = userAgent, -1, 0
	// To pack a long list costs the API server more than to send it.
	config.DisableCompression = true
	c := new(clients)
	if err := c.connect(config, log); err != nil {
		return nil, fmt.Errorf("client of the API server %s: %w", config.Host, err)
	}
	return c, nil
}

func (c *clients) connect(config *rest.Config, log *slog.Logger) error {
	connections, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	scheme.AddKnownTypes(core.SchemeGroupVersion, &core.Node{}, &core.NodeList{}, &core.Pod{}, &core.PodList{})
	metav1.AddToGroupVersion(scheme, core.SchemeGroupVersion)
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	part := func(path string, version schema.GroupVersion, content string) (rest.Interface, error) {
		config := rest.CopyConfig(config)
		config.APIPath, config.GroupVersion, config.NegotiatedSerializer = path, &version, codecs
		config.ContentType = content
		return rest.RESTClientForConfigAndClient(config, connections)
	}
	if c.own, err = part("/apis", v1alpha1.GroupVersion(), runtime.ContentTypeJSON); err != nil {
		return err
	}
	if c.core, err = part("/api", core.SchemeGroupVersion, runtime.ContentTypeProtobuf); err != nil {
		return err
	}
	if c.leases, err = coordination.NewForConfigAndClient(config, connections); err != nil {
		return err
	}
	store, err := kube.NewClient(config, kube.Options{Log: log})
	if err != nil {
		return err
	}
	c.custodian = store.Custodian()
	return nil
}
