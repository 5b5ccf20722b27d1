package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
)

// bbolt trusts its file: it maps it into memory and follows the offsets and
// page numbers in it, so that a damaged one ends the process by a signal, or
// is written on as if it were whole. The file is therefore read and checked
// here before bbolt gets it. These are the parts of its format, version 2,
// which is in the byte order of the machine:
//
//	page     id 8, flags 2, count 2, overflow 4 (further pages), then its elements
//	meta     (after the page's head) magic 4, version 4, page size 4, flags 4,
//	         root 16, free list's page 8, pages in use 8, transaction 8, FNV-1a sum 8
//	branch   element: offset 4 (from itself), key size 4, page 8
//	leaf     element: flags 4, offset 4 (from itself), key size 4, value size 4
//	bucket   a leaf's value: root page 8, sequence 8; with root 0 a page follows inline
const (
	headSize    = 16
	elementSize = 16
	metaSize    = 64
	magic       = 0xED0CDAED
	version     = 2

	branchPage = 0x01
	leafPage   = 0x02
	freePage   = 0x10
	bucketLeaf = 0x01
)

// errDamaged: the file is not what bbolt wrote.
var errDamaged = errors.New("the file is damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// verify reads the file at path and says whether it is whole. One that is
// missing or empty is: bbolt then begins it. The error wraps errDamaged if the
// file could be read.
func verify(path string) error {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(data) == 0:
		return nil
	}
	m, err := newestMeta(data)
	if err != nil {
		return err
	}
	if m.pages > uint64(len(data))/m.pageSize {
		return damaged("it has %d bytes, and %d pages of %d bytes are in use", len(data), m.pages, m.pageSize)
	}
	i := image{meta: m, data: data, used: make([]bool, m.pages)}
	i.used[0], i.used[1] = true, true
	if err := i.freeList(); err != nil {
		return err
	}
	return i.tree(m.root, &order{})
}

// meta is what counts of a meta page.
type meta struct {
	pageSize, root, free, pages, transaction uint64
}

// newestMeta is the one that bbolt goes by. A crash may have torn the other.
func newestMeta(data []byte) (newest meta, err error) {
	found := false
	consider := func(at uint64) (meta, bool) {
		m, ok := metaAt(data, at)
		if ok && (!found || m.transaction > newest.transaction) {
			newest, found = m, true
		}
		return m, ok
	}
	if first, ok := consider(0); ok {
		consider(first.pageSize)
	} else {
		for size := uint64(1 << 10); size <= 1<<24; size *= 2 {
			consider(size)
		}
	}
	if !found {
		return meta{}, damaged("it has no valid meta page")
	}
	return newest, nil
}

func metaAt(data []byte, page uint64) (meta, bool) {
	if page+headSize+metaSize > uint64(len(data)) {
		return meta{}, false
	}
	b := data[page+headSize:][:metaSize]
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	m := meta{pageSize: u32(b[8:]), root: u64(b[16:]), free: u64(b[32:]), pages: u64(b[40:]), transaction: u64(b[48:])}
	return m, u32(b) == magic && u32(b[4:]) == version && u64(b[metaSize-8:]) == sum.Sum64() &&
		m.pageSize >= 1<<10 && m.pageSize <= 1<<24 && m.pages > 2
}

// image is a file in memory.
type image struct {
	meta
	data []byte
	used []bool // by page: free, or found in the tree
}

// page returns a page with those that overflow it, and marks them as used.
func (i *image) page(id uint64) ([]byte, error) {
	if id < 2 || id >= i.pages {
		return nil, damaged("it names page %d of %d", id, i.pages)
	}
	b := i.data[id*i.pageSize:]
	n := u32(b[12:]) + 1
	if u64(b) != id || n > i.pages-id {
		return nil, damaged("page %d says that it is page %d, with %d more of %d", id, u64(b), n-1, i.pages)
	}
	for p := id; p < id+n; p++ {
		if err := i.use(p); err != nil {
			return nil, err
		}
	}
	return b[:n*i.pageSize], nil
}

func (i *image) use(id uint64) error {
	if id < 2 || id >= i.pages || i.used[id] {
		return damaged("page %d of %d is in use twice or none", id, i.pages)
	}
	i.used[id] = true
	return nil
}

// freeList marks the free pages as used, so that none of them may be in the
// tree.
func (i *image) freeList() error {
	b, err := i.page(i.free)
	if err != nil {
		return fmt.Errorf("list of free pages: %w", err)
	}
	n, list := u16(b[10:]), b[headSize:]
	if n == 0xFFFF { // then the first entry is the count
		n, list = u64(list), list[8:]
	}
	if u16(b[8:]) != freePage || n > uint64(len(list)/8) {
		return damaged("page %d is no list of free pages", i.free)
	}
	for entry := range n {
		if err := i.use(u64(list[8*entry:])); err != nil {
			return fmt.Errorf("list of free pages: %w", err)
		}
	}
	return nil
}

// order holds the keys of one bucket against each other as they are met.
type order struct {
	floor []byte // the newest branch's key: no later key is lower
	last  []byte // the newest leaf's key: all later keys are higher
	begun bool
}

func (o *order) branch(key []byte) bool {
	ok := bytes.Compare(key, o.floor) >= 0 && (!o.begun || bytes.Compare(key, o.last) > 0)
	o.floor = key
	return ok
}

func (o *order) leaf(key []byte) bool {
	ok := bytes.Compare(key, o.floor) >= 0 && (!o.begun || bytes.Compare(key, o.last) > 0)
	o.last, o.begun = key, true
	return ok
}

// tree checks the page and all that it leads to.
func (i *image) tree(id uint64, o *order) error {
	b, err := i.page(id)
	if err != nil {
		return err
	}
	return i.elements(b, id, o)
}

// elements checks a tree's page, which may stand inline in page id.
func (i *image) elements(b []byte, id uint64, o *order) error {
	if len(b) < headSize {
		return damaged("a bucket in page %d is cut off", id)
	}
	flags, count := u16(b[8:]), u16(b[10:])
	if flags != branchPage && flags != leafPage || headSize+elementSize*count > uint64(len(b)) {
		return damaged("page %d is no part of a tree: type %#x, %d elements", id, flags, count)
	}
	for n := range count {
		e := b[headSize+elementSize*n:]
		var err error
		if flags == branchPage {
			err = i.branch(e, id, o)
		} else {
			err = i.leaf(e, id, o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (i *image) branch(e []byte, id uint64, o *order) error {
	key, _, ok := cut(e, u32(e), u32(e[4:]), 0)
	if !ok || !o.branch(key) {
		return damaged("page %d has keys out of bounds or order", id)
	}
	return i.tree(u64(e[8:]), o)
}

func (i *image) leaf(e []byte, id uint64, o *order) error {
	key, value, ok := cut(e, u32(e[4:]), u32(e[8:]), u32(e[12:]))
	if !ok || !o.leaf(key) {
		return damaged("page %d has keys out of bounds or order", id)
	}
	if u32(e)&bucketLeaf == 0 {
		return nil
	}
	if len(value) < 16 {
		return damaged("bucket %q in page %d is cut off", key, id)
	}
	if root := u64(value); root != 0 {
		return i.tree(root, &order{})
	}
	return i.elements(value[16:], id, &order{})
}

// cut takes a key and the value after it out of what begins with their
// element. The sizes have 32 bits: their sum does not overflow.
func cut(e []byte, offset, keySize, valueSize uint64) (key, value []byte, ok bool) {
	if offset < elementSize || offset+keySize+valueSize > uint64(len(e)) {
		return nil, nil, false
	}
	return e[offset:][:keySize], e[offset+keySize:][:valueSize], true
}

func u16(b []byte) uint64 { return uint64(binary.NativeEndian.Uint16(b)) }
func u32(b []byte) uint64 { return uint64(binary.NativeEndian.Uint32(b)) }
func u64(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }
