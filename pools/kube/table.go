package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-network/fairway/api/v1alpha1"
	"github.com/fairway-network/fairway/pools"
	"github.com/fairway-network/fairway/pools/exchange"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// asTable is how kubectl asks for what it prints; a server that has no tables may
// answer with the objects.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
const asTable = "application/json;as=Table;g=meta.k8s.io;v=v1,application/json"

// errNoTable: the answer does not say in short what is to be known.
var errNoTable = errors.New("not a table of blocks")

// table is metav1.Table without the objects.
type table struct {
	Kind              string
	ColumnDefinitions []column
	Rows              []row
}

type (
	column struct{ Name string }
	row    struct{ Cells []any }
)

// tableOfBlocks lists blocks by the columns that kubectl prints: a row takes the API
// server a third of the time of an object, and has an eighth of its length, most of
// which are managed fields. A row has no UID, no version and no time. The error wraps
// errNoTable where the columns are not those of this version's definition, or the API
// server has no tables.
func (s *Store) tableOfBlocks(ctx context.Context, what string, o metav1.ListOptions) ([]exchange.Stored, error) {
	r := s.own.Get().Resource(v1alpha1.AddressBlocks).VersionedParams(&o, metav1.ParameterCodec).
		Param("includeObject", string(metav1.IncludeNone)).SetHeader("Accept", asTable)
	text, err := readRaw(ctx, what, r)
	if err != nil {
		return nil, err
	}
	blocks, unread, err := blocksOf(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	s.leaveOut(what, unread)
	return blocks, nil
}

// readRaw is read without the decoding.
func readRaw(ctx context.Context, what string, r *rest.Request) (text []byte, err error) {
	err = readWith(ctx, what, func(ctx context.Context) error {
		answer := r.MaxRetries(0).Do(ctx)
		text, _ = answer.Raw()
		return answer.Error()
	})
	return text, err
}

// blocksOf reads the blocks off a table; unread says which of them can't be read.
func blocksOf(text []byte) (blocks []exchange.Stored, unread, err error) {
	var t table
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, nil, fmt.Errorf("the answer is no list: %w", err)
	}
	switch t.Kind {
	case "Table":
	case "AddressBlockList":
		return nil, nil, errNoTable
	default:
		return nil, nil, fmt.Errorf("the answer is of kind %q, not a list", t.Kind)
	}
	at := make([]int, 0, 4)
	for _, name := range []string{"Prefix", "Pool", "Node", "Lender"} {
		i := slices.IndexFunc(t.ColumnDefinitions, func(c column) bool { return strings.EqualFold(c.Name, name) })
		if i < 0 && len(t.Rows) > 0 {
			return nil, nil, fmt.Errorf("%w: it has no column %s", errNoTable, name)
		}
		at = append(at, i)
	}
	var errs []error
	for _, row := range t.Rows {
		b, err := row.block(at)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		blocks = append(blocks, exchange.Stored{Block: b})
	}
	return blocks, errors.Join(errs...), nil
}

// block is that of a row with these columns for prefix, pool, node and lender.
func (r row) block(at []int) (b pools.Block, err error) {
	var text [4]string
	for i, column := range at {
		if column >= len(r.Cells) {
			return b, fmt.Errorf("row %v is short", r.Cells)
		}
		text[i], _ = r.Cells[column].(string)
	}
	b = pools.Block{Pool: text[1], Node: text[2], Lender: text[3]}
	if b.Prefix, err = parsePrefix(v1alpha1.Prefix(text[0])); err != nil {
		return b, fmt.Errorf("row %v: %w; the block can only be deleted", r.Cells, err)
	}
	return b, nil
}
