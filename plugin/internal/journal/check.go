package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
)

// A damaged page can make bbolt panic in a goroutine where nobody can recover, go round in a circle, or read
// past the end of the file. So the file is checked before bbolt sees it, by its layout (native byte order):
//
//	page     id 8, flags 2, count 2, overflow 4, then count elements, then what they point to
//	meta     page header, magic 4, version 4, page size 4, flags 4, root page 8, root sequence 8,
//	         free list 8, number of pages 8, transaction 8, FNV-1a of all that 8; pages 0 and 1 in turn
//	branch   position 4 (from the element's start), key size 4, page 8
//	leaf     flags 4, position 4, key size 4, value size 4; the value follows the key
//	bucket   a leaf's value: root page 8, sequence 8; root 0: a leaf page follows in the value itself
//
// The tree may have no flaw and yet not be ours, if a page is an old one: that is what the sum is for.
const (
	headerSize  = 16
	elementSize = 16
	bucketSize  = 16
	metaSize    = 64 // after the header, checksum included
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	flagBranch  = 0x01
	flagLeaf    = 0x02
	flagBucket  = 0x01 // of a leaf's element
	noFreelist  = math.MaxUint64
	minPageSize = 1024
	maxPageSize = 1 << 24
)

// image is a file as it was read.
type image struct {
	data     []byte
	pageSize uint64
	pages    uint64
	seen     map[uint64]bool
}

// meta is what is needed of a meta page.
type meta struct {
	pageSize, root, freelist, pages, tx uint64
}

// checkFile returns an error that wraps ErrCorrupt if bbolt could stumble over the file.
func checkFile(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := checkImage(data); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

func checkImage(data []byte) error {
	first, err := readMeta(data, 0)
	if err != nil {
		return fmt.Errorf("meta page 0: %w", err)
	}
	second, err := readMeta(data, first.pageSize)
	if err != nil {
		return fmt.Errorf("meta page 1: %w", err)
	}
	// bbolt would do with one valid page, and silently be a transaction behind if the newer one is damaged.
	// A crash leaves both valid: their content is within one sector of the disk.
	current := first
	if second.tx > first.tx {
		current = second
	}
	if first.tx%2 != 0 || second.tx%2 != 1 || first.tx+second.tx != 2*current.tx-1 || first.pageSize != second.pageSize {
		return fmt.Errorf("the meta pages do not follow each other: transactions %d and %d", first.tx, second.tx)
	}
	if current.freelist != noFreelist {
		return fmt.Errorf("there is a free list, at page %d", current.freelist)
	}
	if size := uint64(len(data)); current.pages > size/current.pageSize {
		return fmt.Errorf("it has %d bytes and should have %d pages of %d", size, current.pages, current.pageSize)
	}
	im := &image{data: data, pageSize: current.pageSize, pages: current.pages, seen: make(map[uint64]bool)}
	return im.checkPage(current.root, span{}, true)
}

// readMeta reads and checks the meta page at an offset.
func readMeta(data []byte, offset uint64) (meta, error) {
	if uint64(len(data)) < offset+headerSize+metaSize {
		return meta{}, fmt.Errorf("the file ends before it, at %d bytes", len(data))
	}
	b := data[offset+headerSize:][:metaSize]
	body := b[:metaSize-8]
	h := fnv.New64a()
	_, _ = h.Write(body) // never fails (hash.Hash)
	order := binary.NativeEndian
	m := meta{
		pageSize: uint64(order.Uint32(b[8:])),
		root:     order.Uint64(b[16:]),
		freelist: order.Uint64(b[32:]),
		pages:    order.Uint64(b[40:]),
		tx:       order.Uint64(b[48:]),
	}
	switch {
	case order.Uint32(b) != metaMagic || order.Uint32(b[4:]) != metaVersion:
		return meta{}, fmt.Errorf("no bbolt file of version %d", metaVersion)
	case order.Uint64(b[metaSize-8:]) != h.Sum64():
		return meta{}, errors.New("wrong checksum")
	case m.pageSize < minPageSize || m.pageSize > maxPageSize:
		return meta{}, fmt.Errorf("page size %d", m.pageSize)
	}
	return m, nil
}

// span is the keys that a page may have: from is the first one, and all come before to. Nil is no bound.
type span struct{ from, to []byte }

// holds reports whether a key may follow another on a page; before is nil for the page's first one. The
// branch above has exactly the first key of each page below: bbolt finds the branch's element by it when it
// writes, and would make a second one.
func (s span) holds(key, before []byte) bool {
	switch {
	case s.to != nil && bytes.Compare(key, s.to) >= 0:
		return false
	case before != nil:
		return bytes.Compare(key, before) > 0
	}
	return s.from == nil || bytes.Equal(key, s.from)
}

// checkPage checks a page and all below it. In the root of the file every leaf's element is a bucket, and in
// a bucket none is.
func (im *image) checkPage(id uint64, keys span, root bool) error {
	if id < 2 || id >= im.pages {
		return fmt.Errorf("page %d is not one of %d", id, im.pages)
	}
	data := im.data[id*im.pageSize:]
	overflow := uint64(binary.NativeEndian.Uint32(data[12:]))
	if id+overflow >= im.pages {
		return fmt.Errorf("page %d ends at %d of %d", id, id+overflow, im.pages)
	}
	for i := id; i <= id+overflow; i++ {
		if im.seen[i] {
			return fmt.Errorf("page %d is used twice", i)
		}
		im.seen[i] = true
	}
	if got := binary.NativeEndian.Uint64(data); got != id {
		return fmt.Errorf("page %d says it is %d", id, got)
	}
	if err := im.checkNode(data[:(overflow+1)*im.pageSize], keys, root); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// checkNode checks the elements of a page's bytes, and what is below them.
func (im *image) checkNode(data []byte, keys span, root bool) error {
	n, err := readNode(data)
	if err != nil {
		return err
	}
	var before []byte
	for i, e := range n.elements {
		if !keys.holds(e.key, before) {
			return fmt.Errorf("element %d: key %q is out of order", i, e.key)
		}
		before = e.key
		switch {
		case !n.leaf:
			below := span{from: e.key, to: keys.to}
			if i+1 < len(n.elements) {
				below.to = n.elements[i+1].key
			}
			err = im.checkPage(e.child, below, root)
		case root && e.flags == flagBucket:
			err = im.checkBucket(e.value)
		case root || e.flags != 0:
			err = fmt.Errorf("flags %#x", e.flags)
		}
		if err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	return nil
}

// checkBucket checks the bucket that a leaf's value describes.
func (im *image) checkBucket(value []byte) error {
	if len(value) < bucketSize {
		return fmt.Errorf("a bucket of %d bytes", len(value))
	}
	if id := binary.NativeEndian.Uint64(value); id != 0 {
		return im.checkPage(id, span{}, false)
	}
	inline := value[bucketSize:]
	if len(inline) < headerSize || binary.NativeEndian.Uint16(inline[8:]) != flagLeaf {
		return errors.New("an inline bucket that is no leaf")
	}
	return im.checkNode(inline, span{}, false)
}

// node is a page of the tree; its elements point into the page.
type node struct {
	leaf     bool
	elements []element
}

type element struct {
	flags      uint32
	child      uint64 // a branch's
	key, value []byte
}

func readNode(data []byte) (node, error) {
	flags, count := binary.NativeEndian.Uint16(data[8:]), int(binary.NativeEndian.Uint16(data[10:]))
	n := node{leaf: flags == flagLeaf, elements: make([]element, count)}
	switch {
	case !n.leaf && flags != flagBranch:
		return node{}, fmt.Errorf("neither branch nor leaf: flags %#x", flags)
	case !n.leaf && count == 0:
		return node{}, errors.New("a branch without elements")
	case headerSize+count*elementSize > len(data):
		return node{}, fmt.Errorf("%d elements in %d bytes", count, len(data))
	}
	for i := range n.elements {
		e, err := readElement(data[headerSize+i*elementSize:], n.leaf)
		if err != nil {
			return node{}, fmt.Errorf("element %d: %w", i, err)
		}
		n.elements[i] = e
	}
	return n, nil
}

// readElement reads the element at the start of the bytes, which go on to the end of its page.
func readElement(data []byte, leaf bool) (element, error) {
	var e element
	var position, keySize, valueSize uint32
	order := binary.NativeEndian
	if leaf {
		e.flags, position = order.Uint32(data), order.Uint32(data[4:])
		keySize, valueSize = order.Uint32(data[8:]), order.Uint32(data[12:])
	} else {
		position, keySize, e.child = order.Uint32(data), order.Uint32(data[4:]), order.Uint64(data[8:])
	}
	keyEnd := uint64(position) + uint64(keySize)
	end := keyEnd + uint64(valueSize)
	if keySize == 0 || position < elementSize || end > uint64(len(data)) {
		return element{}, fmt.Errorf("%d+%d bytes at %d of %d", keySize, valueSize, position, len(data))
	}
	e.key, e.value = data[position:keyEnd], data[keyEnd:end]
	return e, nil
}
