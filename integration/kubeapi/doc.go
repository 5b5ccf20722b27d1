// Package kubeapi tests Fairway's objects, roles and admission policies as a
// real API server sees them.
package kubeapi
