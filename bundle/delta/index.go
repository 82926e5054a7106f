// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"fmt"
	"io"
	"sync"
)

// An Index finds places in a source image that resemble a piece of a target.
// It is built once per source; any number of goroutines may call Patch.
type Index struct {
	image   *seeds
	pool    *pool     // what the source's deflate streams expand to
	runs    []stream  // of the target, as far as they are not in the source
	workers sync.Pool // of *worker
	unmap   func() error
}

// NewIndex indexes the first size bytes of src. A regular file is mapped and
// must not change or shrink until Close; anything else is read into memory.
// The index takes 0.75 to 1 times the source's size. target tells which deflate
// streams there are in the target, so that they can be compared with those of
// the source in expanded form; it may be nil.
func NewIndex(src io.ReaderAt, size int64, target *Streams) (*Index, error) {
	b, unmap, err := content(src, size)
	if err != nil {
		return nil, fmt.Errorf("index source: %w", err)
	}
	x := &Index{unmap: unmap}
	if target != nil && len(target.list) > 0 {
		var changed []stream
		x.runs, changed = newer(target.list, scan(b))
		if len(x.runs) > 0 {
			x.pool = newPool(b, changed)
		}
	}
	x.image = newSeeds(b)
	return x, nil
}

// Close frees the index. No Patch may be running or follow.
func (x *Index) Close() error {
	unmap := x.unmap
	*x = Index{}
	return unmap()
}

// content maps or reads the first size bytes of an image.
func content(r io.ReaderAt, size int64) (b []byte, unmap func() error, err error) {
	if size < 0 || size > maxSource || size != int64(int(size)) {
		return nil, nil, fmt.Errorf("size %d is out of range", size)
	}
	b, unmap, ok := mapFile(r, int(size))
	if ok {
		return b, unmap, nil
	}
	b = make([]byte, size)
	if err := readFull(r, b, 0); size > 0 && err != nil {
		return nil, nil, err
	}
	return b, func() error { return nil }, nil
}
