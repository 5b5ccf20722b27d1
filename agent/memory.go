package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fairway-network/fairway/pools"
	"go4.org/netipx"
)

// memoryFile, in the run directory, is what memory keeps.
const memoryFile = "pools.json"

// memory has, for the next agent of this boot, what an agent must know before
// it can serve, and learns from the API server: which machine it runs on and by which
// addresses it is known, the pools, and the orders since which its blocks were read.
type memory struct {
	path, boot string
	last       string       // what the file holds, as far as known
	heeded     string       // the orders in it, as far as known
	addresses  []netip.Addr // of the Node object when it had some last
}

// recalled is what an earlier agent of this boot left.
type recalled struct {
	machine   string
	addresses []netip.Addr // of the Node object
	orders    string
	pools     []Pool
}

type memoryRecord struct {
	Boot      string       `json:"boot"`
	Machine   string       `json:"machine"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Orders    string       `json:"orders,omitempty"`
	Pools     []poolRecord `json:"pools"`
}

type poolRecord struct {
	Name       string           `json:"name"`
	Ranges     []netipx.IPRange `json:"ranges"`
	Exclude    []netipx.IPRange `json:"exclude,omitempty"`
	BlockSize  int              `json:"blockSize"`
	Gateways   []netip.Prefix   `json:"gateways,omitempty"`
	ReuseAfter time.Duration    `json:"reuseAfter"`
	IdleAfter  time.Duration    `json:"idleAfter"`
	Quiet      bool             `json:"quiet,omitempty"`
	Draining   bool             `json:"draining,omitempty"`
}

func newMemory(runDir, boot string) *memory {
	return &memory{path: filepath.Join(runDir, memoryFile), boot: boot}
}

// recall reads the file. That there is none of this boot is no error, and
// nothing is recalled.
func (m *memory) recall() (recalled, error) {
	data, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return recalled{}, nil
	}
	if err != nil {
		return recalled{}, err
	}
	var rec memoryRecord
	if err := json.Unmarshal(data, &rec); err != nil {
		return recalled{}, fmt.Errorf("%s: %w", m.path, err)
	}
	if rec.Boot != m.boot {
		return recalled{}, nil
	}
	out := recalled{machine: rec.Machine, addresses: rec.Addresses, orders: rec.Orders}
	for _, r := range rec.Pools {
		p, err := pools.New(pools.Definition{
			Name: r.Name, Ranges: r.Ranges, Exclude: r.Exclude, BlockSize: r.BlockSize, Gateways: r.Gateways, ReuseAfter: r.ReuseAfter,
		})
		if err != nil {
			return recalled{}, fmt.Errorf("%s: %w", m.path, err)
		}
		out.pools = append(out.pools, Pool{Pool: p, Quiet: r.Quiet, IdleAfter: r.IdleAfter, Draining: r.Draining})
	}
	return out, nil
}

// keep writes the file in one step, if that is another one.
func (m *memory) keep(machine string, ps []Pool, orders string) error {
	rec := memoryRecord{Boot: m.boot, Machine: machine, Addresses: m.addresses, Orders: orders}
	for _, p := range ps {
		d := p.Definition()
		rec.Pools = append(rec.Pools, poolRecord{
			Name: d.Name, Ranges: slices.Clone(d.Ranges), Exclude: d.Exclude, BlockSize: d.BlockSize, Gateways: d.Gateways,
			ReuseAfter: d.ReuseAfter, IdleAfter: p.IdleAfter, Quiet: p.Quiet, Draining: p.Draining,
		})
	}
	data, err := json.Marshal(rec)
	if err != nil || string(data) == m.last {
		return err
	}
	fresh := m.path + ".new"
	if err := os.WriteFile(fresh, data, 0o600); err != nil {
		return fmt.Errorf("remember the pools: %w", err)
	}
	if err := os.Rename(fresh, m.path); err != nil {
		return fmt.Errorf("remember the pools: %w", err)
	}
	m.last, m.heeded = string(data), orders
	return nil
}
