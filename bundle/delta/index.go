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
	source  source
}

// NewIndex indexes the first size bytes of src. A regular file is mapped and
// must not change or shrink until Close; anything else is read into memory.
// The index takes 0.75 to 1 times the source's size. target tells which deflate
// streams there are in the target, so that they can be compared with those of
// the source in expanded form; it may be nil.
func NewIndex(src io.ReaderAt, size int64, target *Streams) (*Index, error) {
	s, err := openSource(src, size)
	if err != nil {
		return nil, fmt.Errorf("index source: %w", err)
	}
	x := &Index{source: s}
	if target != nil && len(target.list) > 0 {
		var changed []stream
		x.runs, changed = newer(target.list, scan(s.b))
		if len(x.runs) > 0 {
			x.pool = newPool(s.b, changed)
		}
	}
	x.image = newSeeds(s.b)
	if err := s.forget(); err != nil {
		s.close()
		return nil, fmt.Errorf("index source: %w", err)
	}
	return x, nil
}

// Close frees the index. No Patch may be running or follow.
func (x *Index) Close() error {
	s := x.source
	*x = Index{}
	return s.close()
}
