package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// Pair is a key of etcd and its value, as the API server keeps its objects: custom
// resources as JSON under /registry/GROUP/RESOURCE/NAME.
type Pair struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// ErrNoKey: etcd has no such key.
var ErrNoKey = errors.New("no such key in etcd")

// Stored returns the value of a key of etcd.
func (c *Cluster) Stored(ctx context.Context, key string) ([]byte, error) {
	var answer struct{ KVs []Pair }
	if err := c.etcdCall(ctx, "range", map[string]any{"key": []byte(key)}, &answer); err != nil {
		return nil, err
	}
	if len(answer.KVs) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoKey, key)
	}
	return answer.KVs[0].Value, nil
}

// Store writes into etcd, past the API server and all its rules: a hundred
// thousand objects are there within seconds, instead of minutes. Watches show
// them.
func (c *Cluster) Store(ctx context.Context, pairs []Pair) error {
	const atOnce = 100 // etcd takes 128
	for len(pairs) > 0 {
		n := min(atOnce, len(pairs))
		puts := make([]map[string]any, n)
		for i, p := range pairs[:n] {
			puts[i] = map[string]any{"requestPut": p}
		}
		if err := c.etcdCall(ctx, "txn", map[string]any{"success": puts}, &struct{}{}); err != nil {
			return err
		}
		pairs = pairs[n:]
	}
	return nil
}

// etcdCall calls the gateway of etcd's KV service.
func (c *Cluster) etcdCall(ctx context.Context, method string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.etcdSocket())
	}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://etcd/v3/kv/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	if err == nil {
		err = json.Unmarshal(text, answer)
	}
	if err != nil {
		return fmt.Errorf("etcd %s: %w", method, err)
	}
	return nil
}
