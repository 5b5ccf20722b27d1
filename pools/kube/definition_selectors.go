package kube

import (
	"errors"
	"fmt"

	"github.com/fairway-network/fairway/api/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Selectors are those of a pool, nil where it has none.
type Selectors struct {
	Namespaces, Pods, Nodes labels.Selector
}

// SelectorsOf reads the selectors of a pool. The error names each field that is
// wrong: the schema leaves the syntax of keys and values to whoever reads them.
func SelectorsOf(o *v1alpha1.AddressPool) (s Selectors, err error) {
	var errs [3]error
	s.Namespaces, errs[0] = selector("namespaceSelector", o.Spec.NamespaceSelector)
	s.Pods, errs[1] = selector("podSelector", o.Spec.PodSelector)
	s.Nodes, errs[2] = selector("nodeSelector", o.Spec.NodeSelector)
	return s, errors.Join(errs[:]...)
}

// selector makes nil of one that is not there, which the apimachinery would make
// match nothing.
func selector(field string, s *metav1.LabelSelector) (labels.Selector, error) {
	if s == nil {
		return nil, nil
	}
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, fmt.Errorf("spec.%s: %w", field, err)
	}
	return out, nil
}
