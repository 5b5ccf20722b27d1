//go:build requirements

// This file keeps in go.mod, at the versions of the control plane, the modules
// that packages will import next. A line goes when a package imports it.
package kube

import (
	_ "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	_ "k8s.io/utils/ptr"
	_ "sigs.k8s.io/controller-runtime"
)
