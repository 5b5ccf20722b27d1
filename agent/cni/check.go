package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/pools"
)

// check compares the leases held with the addresses of the previous result:
// there must be some, and each must be there. What is there beside them is a
// later plugin's.
func (h *Handler) check(c call, n *network) error {
	if _, err := h.settings.of(n.ipam); err != nil {
		return err
	}
	listed, err := n.previousAddresses()
	if err != nil {
		return err
	}
	a := pools.Attachment{Network: n.name, ContainerID: c.containerID, IfName: c.ifName}
	held := h.Leases.Held(a)
	for _, l := range held {
		if !slices.Contains(listed, l.Addr) {
			return checkFault(fmt.Sprintf("%s of pool %s is leased to %s but is not in prevResult", l.Addr, l.Pool, a))
		}
	}
	if len(held) == 0 {
		return checkFault(fmt.Sprintf("no address is leased to %s", a))
	}
	return nil
}

func checkFault(msg string) *wire.Fault {
	return &wire.Fault{Code: wire.CheckFailed, Msg: msg, Details: "delete the sandbox, so that the runtime makes it anew"}
}

// previousAddresses are the ips of prevResult, which all versions since 0.3.0
// write alike as far as we read them.
func (n *network) previousAddresses() ([]netip.Addr, error) {
	if n.prevResult == nil || string(n.prevResult) == "null" {
		return nil, configFault("CHECK without prevResult in the network configuration", "the container runtime adds the result of ADD")
	}
	var result struct {
		IPs []struct {
			Address string `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(n.prevResult, &result); err != nil {
		return nil, jsonFault("prevResult", err)
	}
	addrs := make([]netip.Addr, 0, len(result.IPs))
	for i, ip := range result.IPs {
		p, err := netip.ParsePrefix(ip.Address)
		if err != nil {
			return nil, decodeFault(fmt.Sprintf("prevResult.ips[%d].address: %s is not a CIDR", i, quote(ip.Address)), "")
		}
		addrs = append(addrs, p.Addr().Unmap())
	}
	return addrs, nil
}

func (h *Handler) gc(ctx context.Context, n *network) error {
	valid, err := n.validAttachments()
	if err != nil {
		return err
	}
	return h.Leases.Retain(ctx, n.name, valid)
}
