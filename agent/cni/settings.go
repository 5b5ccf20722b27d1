package cni

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	"github.com/fairway-network/fairway/agent/wire"
	"github.com/fairway-network/fairway/pools"
)

// settings is the ipam section of a network configuration, ready for use. It
// is shared and never changes.
type settings struct {
	pool string // "" if none is named
	// routes replace the default routes; nil leaves those.
	routes []route
}

// route is one that the pod is told, rendered.
type route struct {
	family pools.Family
	json   []byte
}

// settingsCache keeps parsed sections: all pods of a network send the same
// bytes. The zero value is ready.
type settingsCache struct {
	mu     sync.RWMutex
	parsed map[string]*settings
}

// The cache is emptied when it has more entries; larger sections stay out.
const (
	maxCached     = 64
	maxCachedSize = 4 << 10
)

func (c *settingsCache) of(section []byte) (*settings, error) {
	c.mu.RLock()
	s, ok := c.parsed[string(section)]
	c.mu.RUnlock()
	if ok {
		return s, nil
	}
	s, err := parseSettings(section)
	if err != nil || len(section) > maxCachedSize {
		return s, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parsed == nil || len(c.parsed) >= maxCached {
		c.parsed = make(map[string]*settings)
	}
	c.parsed[string(section)] = s
	return s, nil
}

// maxRoutes bounds what a pod is told.
const maxRoutes = 256

// routeConfig has the keys of a route in a CNI result.
type routeConfig struct {
	Dst      string  `json:"dst"`
	GW       string  `json:"gw"`
	MTU      uint32  `json:"mtu"`
	AdvMSS   uint32  `json:"advmss"`
	Priority uint32  `json:"priority"`
	Table    *uint32 `json:"table"`
	Scope    *uint32 `json:"scope"`
}

func parseSettings(section []byte) (*settings, error) {
	if section == nil || string(section) == "null" {
		return nil, configFault("the network configuration has no ipam section", `add "ipam": {"type": "fairway-ipam", "pool": "…"}`)
	}
	var c struct {
		Pool   string        `json:"pool"`
		Socket string        `json:"socket"` // the plugin uses it; here its type is checked
		Routes []routeConfig `json:"routes"`
	}
	if err := json.Unmarshal(section, &c); err != nil {
		return nil, jsonFault("ipam", err)
	}
	if len(c.Routes) > maxRoutes {
		return nil, configFault(fmt.Sprintf("ipam.routes: %d routes", len(c.Routes)), fmt.Sprintf("give a pod %d routes at most", maxRoutes))
	}
	s := &settings{pool: c.Pool}
	if c.Routes != nil {
		s.routes = make([]route, 0, len(c.Routes))
	}
	for i, rc := range c.Routes {
		r, err := rc.render()
		if err != nil {
			return nil, configFault(fmt.Sprintf("ipam.routes[%d]: %v", i, err), "write it as in a CNI result")
		}
		s.routes = append(s.routes, r)
	}
	return s, nil
}

func (c routeConfig) render() (route, error) {
	dst, err := pools.ParsePrefix(c.Dst)
	if err != nil {
		return route{}, fmt.Errorf("dst: %w", err)
	}
	b := wire.AppendString([]byte(`{"dst":`), dst.String())
	if c.GW != "" {
		gw, err := pools.ParseAddr(c.GW)
		if err != nil {
			return route{}, fmt.Errorf("gw: %w", err)
		}
		if gw.Is4() != dst.Addr().Is4() {
			return route{}, fmt.Errorf("gw: %s is not of the family of dst %s", gw, dst)
		}
		b = wire.AppendString(append(b, `,"gw":`...), gw.String())
	}
	number := func(key string, n *uint32, keepZero bool) {
		if n != nil && (*n != 0 || keepZero) {
			b = strconv.AppendUint(append(b, `,"`+key+`":`...), uint64(*n), 10)
		}
	}
	number("mtu", &c.MTU, false)
	number("advmss", &c.AdvMSS, false)
	number("priority", &c.Priority, false)
	number("table", c.Table, true)
	number("scope", c.Scope, true)
	return route{family: pools.FamilyOf(dst.Addr()), json: append(b, '}')}, nil
}
