package main

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// tellWithRelay is two Go processes that do nothing else: what a speaker in a process of its
// own costs before it does anything.
func (b *bench) tellWithRelay(ctx context.Context, node int, dir string) (telling, error) {
	cmd := enter(ctx, node, b.relay, strings.Fields(learnedAddrs)[0]+":179")
	log, err := os.Create(filepath.Join(dir, "relay.log"))
	if err != nil {
		return telling{}, err
	}
	defer log.Close()
	cmd.Stderr = log
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return telling{}, err
	}
	end, err := launch(cmd)
	if err != nil {
		return telling{}, err
	}
	return telling{
		one: func(_ context.Context, p netip.Prefix, announced bool) error {
			_, err := pipe.Write(updateOf(p, announced))
			return err
		},
		stop: func() { _ = pipe.Close(); end() },
	}, nil
}

// updateOf is the UPDATE of one IPv4 prefix of the node.
func updateOf(p netip.Prefix, announced bool) []byte {
	a := p.Addr().As4()
	prefix := append([]byte{byte(p.Bits())}, a[:(p.Bits()+7)/8]...)
	if !announced {
		return bgpMessage(bgpUpdate, append(append([]byte{0, byte(len(prefix))}, prefix...), 0, 0))
	}
	attributes := []byte{
		0x40, 1, 1, 0, // ORIGIN
		0x40, 2, 6, 2, 1, 0, 0, 64512 >> 8, 64512 & 0xff, // AS_PATH
		0x40, 3, 4, 192, 0, 2, 2, // NEXT_HOP
	}
	body := append([]byte{0, 0, 0, byte(len(attributes))}, attributes...)
	return bgpMessage(bgpUpdate, append(body, prefix...))
}
