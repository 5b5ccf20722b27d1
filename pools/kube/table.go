package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
var errNoTable = errors.New("not a table of blocks that nodes hold")

// table is metav1.Table without the objects.
type table struct {
	Kind              string
	ColumnDefinitions []struct{ Name string }
	Rows              []struct{ Cells []any }
}

// tableOfBlocks lists blocks by the columns that kubectl prints: a row takes the API
// server a third of the time of an object, and has an eighth of its length, most of
// which are managed fields. A row has no UID, no version and no time. The error wraps
// errNoTable where whole blocks have to be listed: one is vacant, or the columns are
// not those of this version's definition.
func (s *Store) tableOfBlocks(ctx context.Context, what string, o metav1.ListOptions) ([]exchange.Stored, error) {
	r := s.own.Get().Resource(v1alpha1.AddressBlocks).VersionedParams(&o, metav1.ParameterCodec).
		Param("includeObject", string(metav1.IncludeNone)).SetHeader("Accept", asTable)
	text, err := readRaw(ctx, what, r)
	if err != nil {
		return nil, err
	}
	blocks, err := blocksOf(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
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

// blocksOf reads the blocks off a table.
func blocksOf(text []byte) ([]exchange.Stored, error) {
	var t table
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("the answer is no list: %w", err)
	}
	switch t.Kind {
	case "Table":
	case "AddressBlockList":
		return nil, errNoTable
	default:
		return nil, fmt.Errorf("the answer is of kind %q, not a list", t.Kind)
	}
	column := map[string]int{}
	for i, c := range t.ColumnDefinitions {
		column[strings.ToLower(c.Name)] = i
	}
	blocks := make([]exchange.Stored, 0, len(t.Rows))
	for _, row := range t.Rows {
		cell := func(name string) string {
			i, there := column[name]
			if !there || i >= len(row.Cells) {
				return ""
			}
			text, _ := row.Cells[i].(string)
			return text
		}
		p, err := parsePrefix(v1alpha1.Prefix(cell("prefix")))
		b := pools.Block{Prefix: p, Pool: cell("pool"), Node: cell("node"), Lender: cell("lender")}
		if err != nil || b.Node == "" || b.Pool == "" {
			return nil, fmt.Errorf("%w: row %v", errNoTable, row.Cells)
		}
		blocks = append(blocks, exchange.Stored{Block: b})
	}
	return blocks, nil
}
