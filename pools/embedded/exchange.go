package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	"go.etcd.io/bbolt"
)

var _ exchange.Store = (*Store)(nil)

// List implements exchange.Store.
func (s *Store) List(_ context.Context, pool string) ([]exchange.Stored, error) {
	return s.those(func(b pools.Block) bool { return b.Pool == pool })
}

// Own implements exchange.Store: all blocks are this node's.
func (s *Store) Own(context.Context) ([]exchange.Stored, error) {
	return s.those(func(pools.Block) bool { return true })
}

// Inside implements exchange.Store.
func (s *Store) Inside(_ context.Context, p netip.Prefix) ([]exchange.Stored, error) {
	return s.those(func(b pools.Block) bool { return b.Prefix.Bits() > p.Bits() && p.Contains(b.Prefix.Addr()) })
}

// Block implements exchange.Store.
func (s *Store) Block(_ context.Context, p netip.Prefix) (exchange.Stored, error) {
	some, err := s.those(func(b pools.Block) bool { return b.Prefix == p })
	switch {
	case err != nil:
		return exchange.Stored{}, err
	case len(some) == 0:
		return exchange.Stored{}, fmt.Errorf("block %s: %w", p, exchange.ErrGone)
	}
	return some[0], nil
}

// those are the blocks that keep says yes to, by the text of their prefixes.
func (s *Store) those(keep func(pools.Block) bool) (out []exchange.Stored, err error) {
	all, err := s.all()
	out = make([]exchange.Stored, 0, len(all))
	for _, b := range all {
		if keep(b) {
			out = append(out, stored(b))
		}
	}
	return out, err
}

func (s *Store) all() (all []pools.Block, err error) {
	err = s.guarded(func() error {
		return s.db.View(func(tx *bbolt.Tx) (err error) {
			all, err = blocks(tx)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// stored tells a block from others of its prefix by the time it was made.
func stored(b pools.Block) exchange.Stored {
	b.UID = strconv.FormatInt(b.Created.UnixNano(), 10)
	return exchange.Stored{Block: b}
}

// Create implements exchange.Store.
func (s *Store) Create(_ context.Context, b pools.Block) (exchange.Stored, error) {
	b.Node = s.node
	b.Created = s.now().UTC()
	err := s.update(func(tx *bbolt.Tx) error {
		if tx.Bucket([]byte(bucket)).Get([]byte(b.Prefix.String())) != nil {
			return exchange.ErrExists
		}
		return put(tx, b)
	})
	if err != nil {
		return exchange.Stored{}, fmt.Errorf("claim block %s of pool %q: %w", b.Prefix, b.Pool, err)
	}
	return stored(b), nil
}

// Take implements exchange.Store. No block is ever vacant here, or another
// machine's.
func (s *Store) Take(_ context.Context, b exchange.Stored) (exchange.Stored, error) {
	return exchange.Stored{}, fmt.Errorf("take block %s: %w", b.Prefix, exchange.ErrConflict)
}

// Delete implements exchange.Store. A block never changes here and has no
// version: its UID suffices.
func (s *Store) Delete(_ context.Context, b exchange.Stored) error {
	err := s.update(func(tx *bbolt.Tx) error {
		k := []byte(b.Prefix.String())
		v := tx.Bucket([]byte(bucket)).Get(k)
		if v == nil {
			return exchange.ErrGone
		}
		have, err := decode(k, v)
		if err != nil {
			return err
		}
		if stored(have).UID != b.UID {
			return fmt.Errorf("%w: it was made anew", exchange.ErrGone)
		}
		return tx.Bucket([]byte(bucket)).Delete(k)
	})
	if err != nil && !errors.Is(err, exchange.ErrGone) {
		return fmt.Errorf("return block %s: %w", b.Prefix, err)
	}
	return err
}
