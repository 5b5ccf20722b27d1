package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"

	"github.com/fairway-network/fairway/integration/kube"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
)

// typical objects of which nobody makes one here.
const typical = `
apiVersion: fairway.network/v1alpha1
kind: AddressPool
metadata: {name: web}
spec:
  addresses: [10.244.120.0/22, "fd00:7::/112"]
  namespaceSelector: {matchLabels: {team: shop}}
---
apiVersion: fairway.network/v1alpha1
kind: NodeSpeaker
metadata: {name: node-1}
spec: {}
`

// kubeSizes measures the objects as etcd keeps them.
func kubeSizes(ctx context.Context, _ *bench, out io.Writer) error {
	return ground(ctx, func(c *kube.Cluster) error {
		if err := c.Apply(ctx, typical); err != nil {
			return err
		}
		s, err := storeOf(ctx, c, "node-1")
		if err != nil {
			return err
		}
		block := pools.Block{Prefix: netip.MustParsePrefix("10.244.120.64/26"), Pool: "web", Node: "node-1", Machine: "01234567-89ab-cdef-0123-456789abcdef"}
		if _, err := s.Create(ctx, block); err != nil {
			return err
		}
		lack := exchange.Lack{Pool: "web", Family: pools.IPv4}
		request := exchange.Request{Name: exchange.RequestName("node-1", lack), Node: "node-1", Pool: "web", Family: pools.IPv4, Count: 3, Holders: 10}
		if _, err := s.Ask(ctx, request); err != nil {
			return err
		}
		fmt.Fprint(out, "\n### Sizes\n\nOne object in etcd, with the fields that Kubernetes adds; without them, what is Fairway's.\n\n| object | bytes | of them spec and status |\n| --- | --- | --- |\n")
		for _, o := range [][2]string{
			{"addressblocks", "10-244-120-64-26"}, {"addressrequests", request.Name}, {"nodespeakers", "node-1"}, {"addresspools", "web"},
		} {
			if err := size(ctx, c, o[0], o[1], out); err != nil {
				return err
			}
		}
		return nil
	})
}

func size(ctx context.Context, c *kube.Cluster, resource, name string, out io.Writer) error {
	text, err := c.Stored(ctx, "/registry/fairway.network/"+resource+"/"+name)
	if err != nil {
		return err
	}
	var parts struct{ Spec, Status json.RawMessage }
	if err := json.Unmarshal(text, &parts); err != nil {
		return err
	}
	fmt.Fprintf(out, "| %s | %d | %d |\n", resource, len(text), len(parts.Spec)+len(parts.Status))
	return nil
}
