package controller

import (
	"fmt"
	"net/netip"
	"strconv"
	"unique"
)

// blockReader reads AddressBlocks out of the API server's JSON.
type blockReader struct {
	scanner
	names map[string]unique.Handle[string] // those that were read before
}

func newBlockReader() *blockReader { return &blockReader{names: map[string]unique.Handle[string]{}} }

// list reads one page of a list and calls each for every block, and bad for each
// that can't be read.
func (r *blockReader) list(text []byte, each func(placed), bad func(error)) (version, next string, err error) {
	r.scanner = scanner{text: text}
	isList := false
	r.object(func(key []byte) {
		switch string(key) {
		case "kind":
			isList = string(r.string()) == "AddressBlockList"
		case "metadata":
			version, next = r.listMeta()
		case "items":
			r.array(func() {
				if b, err := r.block(); err != nil {
					bad(err)
				} else if r.err == nil {
					each(b)
				}
			})
		default:
			r.skip()
		}
	})
	if r.err == nil && (!isList || version == "") {
		return "", "", fmt.Errorf("the answer is not a list of blocks")
	}
	return version, next, r.err
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
	b.pool, b.node = unique.Make(""), unique.Make("")
	b.machine, b.lender = b.pool, b.pool
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
		err = fmt.Errorf("its prefix or its resourceVersion is missing")
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
			p, err := netip.ParsePrefix(string(r.string()))
			if err == nil && p != p.Masked() {
				err = fmt.Errorf("spec.prefix %v has host bits", p)
			}
			if err != nil {
				note(err)
			}
			b.Prefix = p
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
