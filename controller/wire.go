package controller

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"unique"
)

// blockReader reads AddressBlocks out of the API server's JSON.
type blockReader struct {
	scanner
	names   map[string]unique.Handle[string] // those that were read before
	columns []string                         // of a table
}

func newBlockReader() *blockReader { return &blockReader{names: map[string]unique.Handle[string]{}} }

// table reads one page of a list in the form of a Table, whose columns are those
// that kubectl shows, and calls each for every block, and bad for each that can't
// be read. Neither UIDs nor versions of blocks stand in it.
func (r *blockReader) table(text []byte, each func(placed), bad func(error)) (version, next string, err error) {
	r.scanner = scanner{text: text}
	isTable := false
	r.object(func(key []byte) {
		switch string(key) {
		case "kind":
			isTable = string(r.string()) == "Table"
		case "metadata":
			version, next = r.listMeta()
		case "columnDefinitions":
			r.head()
		case "rows":
			r.array(func() { r.row(each, bad) })
		default:
			r.skip()
		}
	})
	switch {
	case r.err != nil:
		return "", "", r.err
	case !isTable || version == "":
		return "", "", errors.New("the answer is not a table of blocks")
	}
	return version, next, nil
}

// nextOf is the token of the page behind the one that text is, "" for none or if it
// can't be read. It stands before the rows.
func nextOf(text []byte) (next string) {
	r := blockReader{scanner: scanner{text: text}}
	r.object(func(key []byte) {
		if string(key) != "metadata" {
			r.skip()
			return
		}
		_, next = r.listMeta()
		r.err = errEnough
	})
	return next
}

// errEnough ends what reads a part of a text.
var errEnough = errors.New("nothing more is to be read")

// head reads which column is where.
func (r *blockReader) head() {
	r.columns = r.columns[:0]
	r.array(func() {
		name := ""
		r.object(func(key []byte) {
			if string(key) == "name" {
				name = string(r.string())
			} else {
				r.skip()
			}
		})
		r.columns = append(r.columns, name)
	})
	for _, needed := range []string{"Pool", "Prefix", "Node", "Lender", "Tenure", "Node-UID"} {
		if !slices.Contains(r.columns, needed) && r.err == nil {
			r.err = fmt.Errorf("the definition of AddressBlocks in the API server has no column %s: apply Fairway's (kubectl apply -f deploy/crds)", needed)
		}
	}
}

// row reads one block.
func (r *blockReader) row(each func(placed), bad func(error)) {
	b := r.nobody()
	var err error
	r.object(func(key []byte) {
		if string(key) == "cells" {
			err = r.cells(&b)
		} else {
			r.skip()
		}
	})
	switch {
	case r.err != nil:
	case err != nil:
		bad(err)
	case !b.IsValid():
		r.err = errors.New("a row of the table of blocks without a prefix")
	default:
		each(b)
	}
}

func (r *blockReader) cells(b *placed) (err error) {
	i := 0
	r.array(func() {
		column := ""
		if i < len(r.columns) {
			column = r.columns[i]
		}
		i++
		switch column {
		case "Prefix":
			b.Prefix, err = r.prefix()
		case "Pool":
			b.pool = r.name()
		case "Node":
			b.node = r.name()
		case "Lender":
			b.lender = r.name()
		case "Tenure":
			b.tenure = int32(r.number())
		case "Node-UID":
			b.machine = r.name()
		default:
			r.skip()
		}
	})
	return err
}

// nobody is a block of nobody.
func (r *blockReader) nobody() (b placed) {
	b.pool = unique.Make("")
	b.node, b.machine, b.lender = b.pool, b.pool, b.pool
	return b
}

func (r *blockReader) prefix() (netip.Prefix, error) {
	s := string(r.string())
	p, err := netip.ParsePrefix(s)
	if err == nil && p != p.Masked() {
		err = fmt.Errorf("spec.prefix %v has host bits", p)
	}
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("block of %q: %w", s, err)
	}
	return p, nil
}

// one reads one block.
func (r *blockReader) one(text []byte) (placed, error) {
	r.scanner = scanner{text: text}
	b, err := r.block()
	if r.err != nil {
		return placed{}, r.err
	}
	return b, err
}

func (r *blockReader) listMeta() (version, next string) {
	r.object(func(key []byte) {
		switch string(key) {
		case "resourceVersion":
			version = string(r.string())
		case "continue":
			next = string(r.string())
		default:
			r.skip()
		}
	})
	return version, next
}

// block reads the block at hand. The error is about what stands in it; that the
// text is no JSON is the scanner's.
func (r *blockReader) block() (b placed, err error) {
	b = r.nobody()
	name := ""
	note := func(e error) {
		if err == nil {
			err = e
		}
	}
	r.object(func(key []byte) {
		switch string(key) {
		case "metadata":
			name = r.blockMeta(&b, note)
		case "spec":
			r.blockSpec(&b, note)
		default:
			r.skip()
		}
	})
	if err == nil && (!b.IsValid() || b.version == 0) {
		err = errors.New("its prefix or its resourceVersion is missing")
	}
	if err != nil {
		err = fmt.Errorf("block %q: %w", name, err)
	}
	return b, err
}

func (r *blockReader) blockMeta(b *placed, note func(error)) (name string) {
	var err error
	r.object(func(key []byte) {
		switch string(key) {
		case "name":
			name = string(r.string())
		case "uid":
			if b.uid, err = parseUID(string(r.string())); err != nil {
				note(err)
			}
		case "resourceVersion":
			if b.version, err = strconv.ParseUint(string(r.string()), 10, 64); err != nil {
				note(fmt.Errorf("metadata.resourceVersion: %w", err))
			}
		default:
			r.skip()
		}
	})
	return name
}

func (r *blockReader) blockSpec(b *placed, note func(error)) {
	r.object(func(key []byte) {
		switch string(key) {
		case "prefix":
			var err error
			if b.Prefix, err = r.prefix(); err != nil {
				note(err)
			}
		case "pool":
			b.pool = r.name()
		case "node":
			b.node = r.name()
		case "nodeUID":
			b.machine = r.name()
		case "lender":
			b.lender = r.name()
		case "tenure":
			b.tenure = int32(r.number())
		default:
			r.skip()
		}
	})
}

// name is a string that many blocks have.
func (r *blockReader) name() unique.Handle[string] {
	s := r.string()
	if h, ok := r.names[string(s)]; ok {
		return h
	}
	h := unique.Make(string(s))
	r.names[h.Value()] = h
	return h
}
