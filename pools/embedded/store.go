// Package embedded keeps blocks in a local file: the store of a single host,
// where no cluster is.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/fairway-network/fairway/internal/lockfile"
	"github.com/fairway-network/fairway/pools"
	"go.etcd.io/bbolt"
)

// bucket maps a block's prefix, as text, to "POOL NODE CREATED", CREATED being
// a Unix time in nanoseconds: short to read, because an agent reads all of its
// blocks before it serves.
const bucket = "blocks"

// Store is the blocks of one node in one file. It is safe for concurrent use;
// of two claims of one cell one wins.
type Store struct {
	node string
	db   *bbolt.DB
	lock *lockfile.Lock
	now  func() time.Time
}

// Open opens the file at path, made if it is missing, for node. The error
// wraps lockfile.ErrHeld when another process holds it.
func Open(path, node string) (_ *Store, err error) {
	lock, err := lockfile.Acquire(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("block store: %w", err)
	}
	s := &Store{node: node, lock: lock, now: time.Now}
	if s.db, err = open(path); err != nil {
		return nil, errors.Join(fmt.Errorf("block store %s: %w", path, err), lock.Close())
	}
	return s, nil
}

func open(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return nil, fmt.Errorf("%w: if the file is damaged, remove it; blocks with leases are claimed anew from the lease journal", err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists([]byte(bucket))
		return err
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// Close closes the file.
func (s *Store) Close() error { return errors.Join(s.db.Close(), s.lock.Close()) }

// Blocks returns the blocks of this node.
func (s *Store) Blocks(context.Context) ([]pools.Block, error) {
	var out []pools.Block
	err := s.db.View(func(tx *bbolt.Tx) (err error) {
		out, err = blocks(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("block store %s: %w", s.db.Path(), err)
	}
	return out, nil
}

func blocks(tx *bbolt.Tx) ([]pools.Block, error) {
	var out []pools.Block
	err := tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error {
		b, err := decode(k, v)
		out = append(out, b)
		return err
	})
	return out, err
}

func decode(k, v []byte) (pools.Block, error) {
	prefix, err := pools.ParsePrefix(string(k))
	if err != nil {
		return pools.Block{}, fmt.Errorf("damaged block %q: %w", k, err)
	}
	fields := strings.Fields(string(v))
	if len(fields) != 3 {
		return pools.Block{}, fmt.Errorf("damaged block %s: %q", prefix, v)
	}
	created, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return pools.Block{}, fmt.Errorf("damaged block %s: %w", prefix, err)
	}
	return pools.Block{Prefix: prefix, Pool: fields[0], Node: fields[1], Created: time.Unix(0, created)}, nil
}

// Claim makes a block of pool for this node: the cell around want if that is
// valid, else a free cell of family f that pools.NextCell chooses. The error
// wraps pools.ErrExhausted when there is none, and pools.ErrBlockExists when
// the cell around want is held already.
func (s *Store) Claim(_ context.Context, pool *pools.Pool, f pools.Family, want netip.Addr) (pools.Block, error) {
	var b pools.Block
	err := s.db.Update(func(tx *bbolt.Tx) error {
		have, err := blocks(tx)
		if err != nil {
			return err
		}
		b = pools.Block{Pool: pool.Name(), Node: s.node, Created: s.now().UTC()}
		if want.IsValid() {
			b.Prefix, err = cell(pool, want, have)
		} else {
			b.Prefix, err = pool.NextCell(f, s.node, have)
		}
		if err != nil {
			return err
		}
		return put(tx, b)
	})
	if err != nil {
		return pools.Block{}, fmt.Errorf("claim a block of pool %q: %w", pool.Name(), err)
	}
	return b, nil
}

func cell(pool *pools.Pool, want netip.Addr, have []pools.Block) (netip.Prefix, error) {
	if !pool.Contains(want) {
		return netip.Prefix{}, fmt.Errorf("%s is %w", want, pools.ErrOutside)
	}
	c := pool.Cell(want)
	for _, b := range have {
		if b.Prefix.Overlaps(c) {
			return netip.Prefix{}, fmt.Errorf("%w: %s of pool %q on node %q", pools.ErrBlockExists, b.Prefix, b.Pool, b.Node)
		}
	}
	return c, nil
}

func put(tx *bbolt.Tx, b pools.Block) error {
	v := fmt.Appendf(nil, "%s %s %d", b.Pool, b.Node, b.Created.UnixNano())
	return tx.Bucket([]byte(bucket)).Put([]byte(b.Prefix.String()), v)
}

// Return gives a block of this node back. A block that is not there is
// returned already. The error wraps pools.ErrNotOwner for another node's.
func (s *Store) Return(_ context.Context, b pools.Block) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		k := []byte(b.Prefix.String())
		v := tx.Bucket([]byte(bucket)).Get(k)
		if v == nil {
			return nil
		}
		have, err := decode(k, v)
		if err != nil {
			return err
		}
		if have.Node != s.node || have.Pool != b.Pool {
			return fmt.Errorf("%w: pool %q on node %q", pools.ErrNotOwner, have.Pool, have.Node)
		}
		return tx.Bucket([]byte(bucket)).Delete(k)
	})
	if err != nil {
		return fmt.Errorf("return block %s: %w", b.Prefix, err)
	}
	return nil
}
